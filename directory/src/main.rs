//! The directory daemon.

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{CommandFactory, Parser};
use mixline_daemon::logging::{self, Modules};
use mixline_daemon::network::Network;
use mixline_daemon::reload::Origin;
use mixline_daemon::terminal::{print, say};
use mixline_daemon::{hangup, manual, panic, processor};
use mixline_directory::cli::{Cli, Command};
use mixline_directory::control::{self, AskError};
use mixline_directory::link::Place;
use mixline_directory::{Config, daemon, keys, migrate};
use mixline_protocol::identity::AnonymousId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

fn main() -> ExitCode {
    hangup::hold();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("mixline-directory: {error:#}"));
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
    if action == Command::Run {
        panic::end_the_process();
    } else {
        hangup::release();
    }
    let asked = logging::asked()?;
    processor::asked()?;
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
        Command::Reload => {
            let done = control::reload(&config.state_dir).map_err(|error| match error {
                AskError::Io(error) => anyhow::Error::new(error).context(format!(
                    "no directory answers on state directory {}",
                    config.state_dir.display()
                )),
                AskError::Refused(text) => anyhow!("the configuration stays as it was: {text}"),
            })?;
            print(&done.text());
        }
        Command::Migrate { from, to, cancel } => migrate::run(&config, from, to, cancel)?,
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
    let hangups = hangup::listen().context("SIGHUP")?;
    let (stop, stopping) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
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
    daemon::run(config, Some((origin, hangups)), stopping).await?;
    Ok(())
}
