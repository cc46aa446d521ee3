//! The directory daemon.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use mixline_daemon::logging::{self, Modules};
use mixline_daemon::manual;
use mixline_daemon::network::Network;
use mixline_daemon::reload::{self, Origin};
use mixline_directory::cli::{Cli, Command};
use mixline_directory::link::Place;
use mixline_directory::{Config, daemon, keys};
use mixline_protocol::identity::AnonymousId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mixline-directory: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Cli::parse();
    if let Some(Command::Manual { directory }) = &arguments.command {
        return Ok(manual::write(Cli::command(), directory)?);
    }
    let (action, path) = arguments.parts().unwrap_or_else(|error| error.exit());
    let asked = logging::asked()?;
    let config = Config::load(&path)?;
    match action {
        Command::Manual { .. } => {}
        Command::Init => println!(
            "{}",
            keys::create(&config.state_dir)?.identity.anonymous_id()
        ),
        Command::Id => println!("{}", keys::load(&config.state_dir)?.identity.anonymous_id()),
        Command::Link { url } => {
            let id = keys::load(&config.state_dir)?.identity.anonymous_id();
            println!("{}", link(&config, id, url.as_deref())?);
        }
        Command::Run => {
            let origin = Origin {
                file: path,
                logging: asked.start(Modules::Hidden, config.log.as_ref()),
            };
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("starting threads")?
                .block_on(serve(config, origin))?;
        }
    }
    Ok(())
}

/// The line by which others join.
fn link(config: &Config, id: AnonymousId, url: Option<&str>) -> Result<Network> {
    if let Some(url) = url {
        return Ok(Network::new(id, url)?);
    }
    let place = Place::of(config.listen).context(
        "`listen` takes all addresses of this machine; say where others reach it: \
         mixline-directory link http://HOST:PORT",
    )?;
    if !place.configured {
        eprintln!(
            "mixline-directory: `listen` takes all addresses; if others reach another one: \
             mixline-directory link http://HOST:{}",
            config.listen.port()
        );
    }
    Ok(place.network(id)?)
}

async fn serve(config: Config, origin: Origin) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let mut running = config.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // What comes out is in the log.
            let _ = reload::announced(|| running.reload(&origin));
        }
    });
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        // A second signal does not wait for anybody.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    daemon::run(config, stopping).await?;
    Ok(())
}
