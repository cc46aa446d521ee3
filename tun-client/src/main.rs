//! `mixline-client`: the command line of the Mixline client.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use mixline_client::cli::{Cli, Command, Up};
use mixline_client::control::{Request, ask};
use mixline_client::daemon;
use mixline_client::host_dns::{self, Host};
use mixline_client::progress::Progress;
use mixline_client::state::State;
use mixline_client::{Config, Error, Lock, detach, show};
use mixline_daemon::hangup;
use mixline_daemon::logging::{self, Modules};
use mixline_daemon::manual;
use mixline_daemon::reload::{Origin, Reloaded};
use mixline_daemon::terminal::say;
use serde_json::Value;

/// How long `down` waits for the client's clean stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two checks of something that is waited for.
const POLL: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    hangup::hold();
    let cli = Cli::parse();
    let stays = match &cli.command {
        Command::Up(up) => !up.detach,
        Command::Lock(lock) => lock.watch,
        _ => false,
    };
    if !stays {
        hangup::release();
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever it is made of.
            let text = format!("{error:#}").replace('\n', " ");
            say(&format!("mixline-client: {text}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    if let Command::Manual { directory } = &cli.command {
        return Ok(manual::write(Cli::command(), directory)?);
    }
    let asked = logging::asked()?;
    let config = Config::load(&cli.config)?;
    let origin = Origin {
        file: cli.config.clone(),
        logging: asked.start(Modules::Shown, config.log.as_ref()),
    };
    let socket = config.control_socket();
    match &cli.command {
        Command::Up(options) => up(origin, config, options),
        Command::Down => down(&config),
        Command::Lock(options) => Ok(daemon::lock::lock(
            config,
            &cli.config,
            options.watch,
            options.if_always,
        )?),
        Command::Unlock { anyway } => Ok(daemon::lock::unlock(&config, *anyway)?),
        Command::Status { json } => {
            let status = ask(&socket, &Request::Status)?;
            print(&status, *json, show::status)
        }
        Command::Id => id(&config),
        Command::Publish { name } => publish(&config, name),
        Command::Unpublish { name } => {
            let done = ask(&socket, &Request::Unpublish { name: name.clone() })?;
            let host = done["name"].as_str().unwrap_or(name);
            if done["configured"] == true {
                println!(
                    "{host} is served no longer, until the configuration, which lists it, is read \
                     again"
                );
            } else {
                println!("{host} is served no longer");
            }
            Ok(())
        }
        Command::Reload => {
            let done = ask(&socket, &Request::Reload)?;
            let done: Reloaded = serde_json::from_value(done).context("the client's answer")?;
            print!("{}", done.text());
            Ok(())
        }
        Command::Resolve { what, json } => {
            let found = ask(&socket, &Request::Resolve { what: what.clone() })?;
            print(&found, *json, show::resolved)?;
            show::not_found(&found).map_or(Ok(()), |why| bail!(why))
        }
        Command::Manual { .. } => Ok(()),
    }
}

fn up(origin: Origin, config: Config, options: &Up) -> anyhow::Result<()> {
    if options.detach {
        // If the identity is in use, this process says so, and not a child.
        if State::is_held(&config.state_dir) {
            State::open(&config.state_dir)?;
        }
        return Ok(detach::start(
            &origin.file,
            &config.state_dir,
            Duration::from_secs(options.wait),
        )?);
    }
    let progress = if options.detached {
        // The terminal's end must not end this process.
        nix::unistd::setsid().context("cannot leave the terminal")?;
        Progress::to_parent()
    } else {
        Progress::Person
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let result = runtime.block_on(daemon::run(config, origin, Host::default(), &progress));
    if let Err(error) = &result {
        progress.failed(&error.to_string());
    }
    Ok(result?)
}

fn down(config: &Config) -> anyhow::Result<()> {
    match ask(&config.control_socket(), &Request::Down) {
        Ok(_) => {}
        Err(error @ Error::NotRunning { .. }) => {
            if State::is_held(&config.state_dir) {
                bail!(
                    "{error}, although a process holds {}",
                    config.state_dir.display()
                );
            }
            // What an unclean stop left behind.
            let resolver = host_dns::recover(&Host::default(), &config.state_dir);
            let network = State::open(&config.state_dir)?.network();
            daemon::host::recover(config, network.unwrap_or_default())?;
            resolver?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    }
    let until = Instant::now() + STOP_TIMEOUT;
    while State::is_held(&config.state_dir) {
        if Instant::now() > until {
            bail!(
                "the client has not stopped after {} s",
                STOP_TIMEOUT.as_secs()
            );
        }
        std::thread::sleep(POLL);
    }
    if config.lock == Lock::Always {
        println!("the host stays closed to virtual addresses: `lock: always`");
    }
    Ok(())
}

fn id(config: &Config) -> anyhow::Result<()> {
    let id = match ask(&config.control_socket(), &Request::Status) {
        Ok(status) => status["id"]
            .as_str()
            .context("the client's answer has no ID")?
            .to_owned(),
        Err(Error::NotRunning { .. }) => State::open(&config.state_dir)?
            .identity()?
            .key
            .anonymous_id()
            .to_string(),
        Err(error) => return Err(error.into()),
    };
    println!("{id}");
    Ok(())
}

fn publish(config: &Config, name: &str) -> anyhow::Result<()> {
    let socket = config.control_socket();
    let done = ask(
        &socket,
        &Request::Publish {
            name: name.to_owned(),
        },
    )?;
    let host = done["name"].as_str().unwrap_or(name).to_owned();
    println!(
        "{host} is published as {}.anon",
        done["id"].as_str().unwrap_or_default()
    );
    Ok(())
}

fn print(value: &Value, json: bool, show: impl Fn(&Value) -> String) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        print!("{}", show(value));
    }
    Ok(())
}
