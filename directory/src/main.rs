//! The directory daemon.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use clap::{CommandFactory, Parser};
use mixline_daemon::logging::{self, Modules};
use mixline_daemon::network::Network;
use mixline_daemon::reload::Origin;
use mixline_daemon::terminal::{print, say};
use mixline_daemon::{hangup, manual, panic, processor};
use mixline_directory::cli::{Cli, Command, RosterCommand};
use mixline_directory::control::{self, AskError};
use mixline_directory::link::Place;
use mixline_directory::{Config, Membership, daemon, keys, migrate, roster_file};
use mixline_protocol::identity::{AnonymousId, IdentityKey, NetworkId};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{CLOCK_SKEW, OnlineKey, Roster};
use mixline_protocol::time::UnixTime;
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
    match &arguments.command {
        Some(Command::Identity { file }) => {
            println!("{}", keys::create_identity(file)?.anonymous_id());
            return Ok(());
        }
        Some(Command::Roster(command)) => return roster(command),
        _ => {}
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
        Command::Manual { .. } | Command::Identity { .. } | Command::Roster(_) => {}
        Command::OnlineKey { identity, days } => online_key(&config, &identity, days)?,
        Command::Init => println!(
            "{}",
            keys::create(&config.state_dir)?.identity.anonymous_id()
        ),
        Command::Id => println!("{}", network_id(&config)?),
        Command::Link { url } => {
            let id = AnonymousId(network_id(&config)?.0);
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

/// Which network it is.
fn network_id(config: &Config) -> Result<NetworkId> {
    if let Some(roster) = &config.roster {
        let rosters = roster_file::read(roster)?;
        return rosters
            .last()
            .map(Roster::network)
            .context("the roster is empty");
    }
    Ok(keys::load(&config.state_dir)?
        .identity
        .anonymous_id()
        .into())
}

fn roster(command: &RosterCommand) -> Result<()> {
    let (file, said) = match command {
        RosterCommand::New(of) => {
            let made = roster_file::create(
                &of.file,
                of.members.clone(),
                of.round_seconds,
                of.validity_seconds,
            )?;
            (&of.file, format!("{}\n", made.network()))
        }
        RosterCommand::Next(of) => {
            roster_file::next(
                &of.file,
                of.members.clone(),
                of.round_seconds,
                of.validity_seconds,
            )?;
            (&of.file, String::new())
        }
        RosterCommand::Sign { file, identity } => {
            roster_file::sign(file, &keys::load_identity(identity)?)?;
            (file, String::new())
        }
        RosterCommand::Merge { file, copies } => {
            roster_file::merge(file, copies)?;
            (file, String::new())
        }
        RosterCommand::Show { file } => (file, String::new()),
    };
    if said.is_empty() {
        print(&roster_file::describe(&roster_file::read(file)?));
    } else {
        print(&said);
    }
    Ok(())
}

/// Makes and certifies the key that signs from day to day.
fn online_key(config: &Config, identity: &Path, days: u64) -> Result<()> {
    let roster = config.roster.as_deref().context(
        "`roster` is missing in the configuration: a directory that is alone signs with its identity",
    )?;
    let rosters = roster_file::read(roster)?;
    let network = rosters.last().context("the roster is empty")?.network();
    let identity = keys::load_identity(identity)?;
    let key = IdentityKey::generate(&mut OsRandom::new());
    let now: UnixTime = SystemTime::now().into();
    // Clocks are not quite the same; and a key is used from the moment on that it is there.
    let from = now.minus(CLOCK_SKEW);
    let life = (from, from.plus(days * 86_400));
    let certificate = OnlineKey::certify(network, key.public(), life, &identity)?;
    keys::prepare_online(&config.state_dir)?;
    Membership::install(&config.state_dir, &key, &certificate)?;
    print(&format!(
        "an online key of {} for {days} days\n",
        identity.anonymous_id()
    ));
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
