//! `mixline-client`: the command line of the Mixline client.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use mixline_client::cli::{Cli, Command, Ping, Up};
use mixline_client::control::{Request, Sockets};
use mixline_client::daemon;
use mixline_client::doctor;
use mixline_client::host_dns::{self, Host};
use mixline_client::join::{self, Before, Joined};
use mixline_client::ping::Measured;
use mixline_client::progress::Progress;
use mixline_client::state::State;
use mixline_client::{Config, DEFAULT_PATH, Error, Lock, detach, qr, show};
use mixline_daemon::hangup;
use mixline_daemon::logging::{self, Modules};
use mixline_daemon::network::Network;
use mixline_daemon::reload::{Origin, Reloaded};
use mixline_daemon::terminal::say;
use mixline_daemon::{manual, panic, processor};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::AnonName;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

/// How long `down` waits for the client's clean stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// The unit, and where it may be (systemd.unit(5)).
const UNIT: &str = "mixline-client.service";
const UNIT_DIRECTORIES: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
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
    if stays {
        panic::end_the_process();
    } else {
        hangup::release();
    }
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            // One line, whatever it is made of.
            let text = format!("{error:#}").replace('\n', " ");
            say(&format!("mixline-client: {text}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    if let Command::Manual { directory } = &cli.command {
        manual::write(Cli::command(), directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    let asked = logging::asked()?;
    processor::asked()?;
    if let Command::Join {
        network,
        force,
        no_check,
    } = &cli.command
    {
        join(&cli.config, network, *force, *no_check)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Doctor { long, json } = &cli.command {
        return examine(&cli.config, *long, *json);
    }
    let mut is_remembered = false;
    let config = match Config::load(&cli.config) {
        // Who may not read it may still be a member of the group.
        Err(error) if error.is_forbidden() && cli.config == Path::new(DEFAULT_PATH) => {
            return ask_only(&Sockets::of_the_host(), &cli.command)
                .unwrap_or_else(|| Err(error.into()));
        }
        Err(error) if matches!(&cli.command, Command::Lock(lock) if lock.if_always || lock.before_resolved) =>
        {
            let config = daemon::lock::remembered().map_err(|_| error)?;
            is_remembered = true;
            say("the configuration cannot be read; the host is closed as an earlier one says");
            config
        }
        config => config?,
    };
    let origin = Origin {
        file: cli.config.clone(),
        logging: asked.start(Modules::Shown, config.log.as_ref()),
    };
    let socket = config.control_sockets();
    if let Some(done) = ask_only(&socket, &cli.command) {
        return done;
    }
    match &cli.command {
        Command::Up(options) => up(origin, config, options)?,
        Command::Down => down(&config)?,
        Command::Lock(options) if options.before_resolved => daemon::lock::tell_resolved(&config),
        Command::Lock(options) => {
            if options.if_always && !is_remembered {
                daemon::lock::remember(&config, &cli.config);
            }
            daemon::lock::lock(config, &cli.config, options.watch, options.if_always)?;
        }
        Command::Unlock { anyway } => daemon::lock::unlock(&config, *anyway)?,
        Command::Id => id(&config)?,
        Command::Link { qr } => link(&config, *qr)?,
        // All of these were carried out above.
        Command::Status { .. }
        | Command::Publish { .. }
        | Command::Unpublish { .. }
        | Command::Allow { .. }
        | Command::Deny { .. }
        | Command::Clients { .. }
        | Command::Key { .. }
        | Command::Resolve { .. }
        | Command::Reload
        | Command::Ping(_)
        | Command::Doctor { .. }
        | Command::Join { .. }
        | Command::Manual { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Carries out a command that takes a running client and nothing else; none for the other ones.
fn ask_only(socket: &Sockets, command: &Command) -> Option<anyhow::Result<ExitCode>> {
    let done = match command {
        Command::Status { json } => socket
            .ask(&Request::Status)
            .map_err(anyhow::Error::from)
            .and_then(|status| print(&status, *json, show::status)),
        Command::Publish { name } => publish(socket, name),
        Command::Unpublish { name } => unpublish(socket, name),
        Command::Allow {
            key,
            name,
            everybody,
        } => allow(socket, key.as_deref(), name.as_deref(), *everybody),
        Command::Deny { name } => clients(socket, &Request::Deny { name: name.clone() }, false),
        Command::Clients { json } => clients(socket, &Request::Clients, *json),
        Command::Key { service, forget } => key(socket, service, *forget),
        Command::Resolve { what, json } => socket
            .ask(&Request::Resolve { what: what.clone() })
            .map_err(anyhow::Error::from)
            .and_then(|found| {
                print(&found, *json, show::resolved)?;
                show::not_found(&found).map_or(Ok(()), |why| bail!(why))
            }),
        Command::Reload => reload(socket),
        Command::Ping(options) => return Some(ping(socket, options)),
        _ => return None,
    };
    Some(done.map(|()| ExitCode::SUCCESS))
}

fn reload(socket: &Sockets) -> anyhow::Result<()> {
    let done = socket.ask(&Request::Reload)?;
    let done: Reloaded = serde_json::from_value(done).context("the client's answer")?;
    print_text(&done.text());
    Ok(())
}

fn unpublish(socket: &Sockets, name: &str) -> anyhow::Result<()> {
    let name = name.to_owned();
    let done = socket.ask(&Request::Unpublish { name: name.clone() })?;
    let host = done["name"].as_str().unwrap_or(&name);
    if done["configured"] == true {
        println!(
            "{host} is served no longer, until the configuration, which lists it, is read again"
        );
    } else {
        println!("{host} is served no longer");
    }
    Ok(())
}

/// Exit code 1 if nothing came back.
fn ping(socket: &Sockets, options: &Ping) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let measured = runtime.block_on(measure(socket, options));
    // A question may be under way.
    runtime.shutdown_background();
    let measured = measured?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        print_text(&measured.summary());
    }
    Ok(if measured.is_answered() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One round after the other, until all are done or a person has seen enough.
async fn measure(socket: &Sockets, options: &Ping) -> anyhow::Result<Measured> {
    let mut interrupted = signal(SignalKind::interrupt()).context("SIGINT")?;
    let ask = |request: Request| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || socket.ask(&request))
    };
    let what = options.what.clone();
    let id = match what.parse() {
        Ok(AnonName::Id(id)) => id.to_string(),
        _ => match what.parse::<AnonymousId>() {
            Ok(id) => id.to_string(),
            Err(_) => {
                let found = ask(Request::Resolve { what: what.clone() }).await??;
                if let Some(why) = show::not_found(&found) {
                    bail!(why);
                }
                let id = found["id"].as_str();
                id.context("the client's answer has no ID")?.to_owned()
            }
        },
    };
    let mut measured = Measured::new(&what, &id);
    let mut rounds = tokio::time::interval(options.interval);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..options.count {
        let round = async {
            rounds.tick().await;
            ask(Request::Ping { id: id.clone() }).await
        };
        let report = tokio::select! {
            report = round => report?,
            _ = interrupted.recv() => break,
        };
        let said = match report {
            Ok(report) => measured.add(&report),
            // It was reached before, and may be again.
            Err(error @ Error::RequestFailed(_)) if measured.rounds > 0 => {
                measured.fail(&error.to_string())
            }
            Err(error) => return Err(error.into()),
        };
        if !options.json {
            print_text(&said);
        }
    }
    Ok(measured)
}

/// Exit code 1 if something keeps a client from working.
fn examine(file: &Path, long: bool, json: bool) -> anyhow::Result<ExitCode> {
    if std::io::stderr().is_terminal() {
        let seconds = doctor::silences(long).iter().max().unwrap_or(&0);
        eprintln!("mixline-client: looking at this host and its guards, for up to {seconds} s");
    }
    let runtime = runtime()?;
    let diagnosis = runtime.block_on(doctor::examine(file, long));
    // A lookup may be under way.
    runtime.shutdown_background();
    if json {
        println!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        print_text(&diagnosis.text());
    }
    Ok(if diagnosis.works {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn join(file: &Path, network: &Network, force: bool, no_check: bool) -> anyhow::Result<()> {
    let checked = if no_check {
        "its directory was not asked".to_owned()
    } else {
        runtime()?.block_on(join::check(network))?.to_string()
    };
    let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
    let asks = stdin.is_terminal() && stderr.is_terminal();
    let (mut answers, mut questions) = (stdin.lock(), stderr.lock());
    let terminal: join::Terminal<'_> = asks.then_some((&mut answers, &mut questions));
    let Joined { config, before } = join::write(file, network, force, terminal)?;
    drop((answers, questions));
    let mut lines = vec![format!(
        "{} names the network {}: {checked}",
        file.display(),
        network.id
    )];
    if matches!(before, Before::Other(_)) && State::has_identity(&config.state_dir) {
        lines.push(format!(
            "this client keeps its anonymous ID, by which both networks know it; remove {} for \
             another",
            config.state_dir.display()
        ));
    }
    lines.push(next(file, &config));
    print_text(&(lines.join("\n") + "\n"));
    Ok(())
}

/// What to do after a configuration was written.
fn next(file: &Path, config: &Config) -> String {
    let unit = file == Path::new(DEFAULT_PATH)
        && Path::new("/run/systemd/system").is_dir()
        && UNIT_DIRECTORIES
            .iter()
            .any(|directory| Path::new(directory).join(UNIT).exists());
    let runs = !matches!(
        config.control_sockets().ask(&Request::Status),
        Err(Error::NotRunning { .. } | Error::OutOfReach { .. })
    );
    let place = match file == Path::new(DEFAULT_PATH) {
        true => String::new(),
        false => format!(" --config {}", file.display()),
    };
    match (unit, runs) {
        (true, false) => "next: sudo systemctl enable --now mixline-client".to_owned(),
        (true, true) => "next: sudo systemctl restart mixline-client".to_owned(),
        (false, false) => format!("next: sudo mixline-client up --detach{place}"),
        (false, true) => format!(
            "next: sudo mixline-client down{place} && sudo mixline-client up --detach{place}"
        ),
    }
}

fn link(config: &Config, qr: bool) -> anyhow::Result<()> {
    // Written as it is read, so that it can be.
    let network: Network = config.network.to_string().parse()?;
    let line = network.to_string();
    let terminal = std::io::stdout().is_terminal();
    let mut out = format!("{line}\n");
    if qr || terminal {
        out += &qr::render(&line, terminal)?;
    }
    print_text(&out);
    Ok(())
}

/// Prints what is for people. The reader may have had enough.
fn print_text(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
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
    let result = runtime()?.block_on(daemon::run(config, origin, Host::default(), &progress));
    if let Err(error) = &result {
        progress.failed(&error.to_string());
    }
    Ok(result?)
}

fn down(config: &Config) -> anyhow::Result<()> {
    match config.control_sockets().ask(&Request::Down) {
        Ok(_) => {}
        Err(error @ Error::NotRunning { .. }) => {
            if State::is_held(&config.state_dir) {
                bail!(
                    "{error}, although a process holds {}",
                    config.state_dir.display()
                );
            }
            if let Err(left) = recover(config) {
                bail!("{error}; what one may have left behind stays: {left:#}");
            }
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

/// Puts back what an unclean stop left behind.
fn recover(config: &Config) -> anyhow::Result<()> {
    let resolver = host_dns::recover(&Host::default(), &config.state_dir);
    let _held = State::open(&config.state_dir)?;
    daemon::host::recover(config)?;
    resolver?;
    Ok(())
}

fn id(config: &Config) -> anyhow::Result<()> {
    let id = match config.control_sockets().ask(&Request::Status) {
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

fn publish(socket: &Sockets, name: &str) -> anyhow::Result<()> {
    let done = socket.ask(&Request::Publish {
        name: name.to_owned(),
    })?;
    let host = done["name"].as_str().unwrap_or(name).to_owned();
    println!(
        "{host} is published as {}.anon",
        done["id"].as_str().unwrap_or_default()
    );
    Ok(())
}

fn allow(
    socket: &Sockets,
    key: Option<&str>,
    name: Option<&str>,
    everybody: bool,
) -> anyhow::Result<()> {
    let request = match (key, name) {
        (Some(key), Some(name)) if !everybody => Request::Allow {
            key: key.to_owned(),
            name: name.to_owned(),
        },
        _ => Request::AllowEverybody,
    };
    clients(socket, &request, false)
}

/// Asks for something after which the lists are shown.
fn clients(socket: &Sockets, request: &Request, json: bool) -> anyhow::Result<()> {
    print(&socket.ask(request)?, json, show::clients)
}

fn key(socket: &Sockets, service: &str, forget: bool) -> anyhow::Result<()> {
    let service = service.to_owned();
    if forget {
        let done = socket.ask(&Request::Forget { service })?;
        let id = done["id"].as_str().unwrap_or_default();
        println!("this host is no client of {id} any more");
        return Ok(());
    }
    let done = socket.ask(&Request::Key { service })?;
    println!(
        "{}",
        done["key"]
            .as_str()
            .context("the client's answer has no key")?
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
