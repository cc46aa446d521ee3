//! `mixline-relay`: a relay of a Mixline network.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use mixline_daemon::hangup;
use mixline_daemon::logging::{self, Asked, Modules};
use mixline_daemon::manual;
use mixline_daemon::panic;
use mixline_daemon::processor;
use mixline_daemon::reload::Origin;
use mixline_daemon::terminal::{print, say};
use mixline_relay::init::{self, Enabled, FirstBoot, Network, Wishes};
use mixline_relay::observe::AskError;
use mixline_relay::{Config, PortKind, doctor, observe, run, top};
use mixline_relay_engine::pipeline::Honest;

/// A relay of a Mixline network: it forwards datagrams of one length through encryption
/// in layers, and knows neither who sends nor who receives.
///
/// It logs to standard error. MIXLINE_LOG says what (error, warn, info, debug, or a filter such
/// as info,mixline_relay=debug) and goes before `log` in the configuration;
/// MIXLINE_LOG_FORMAT=json asks for one JSON object on each line. MIXLINE_CPU=scalar, aesni, vaes256 or vaes512
/// asks for other instructions than the widest that the processor has.
#[derive(Parser)]
#[command(version, about, long_about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration, a YAML file
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Write man pages and completions, for packages
    #[command(hide = true)]
    Manual {
        /// Where to
        directory: PathBuf,
    },
    /// Make configuration and keys of a new relay from the line that names its network, let the
    /// doctor look at the machine, and enable the unit where systemd runs
    ///
    /// At a terminal it asks for what is missing and before it writes. Elsewhere, or with --yes, it
    /// fails with the flags that are missing. Nothing that is there is overwritten.
    Init(Init),
    /// On the disk image: make a relay of what the operator left for the first boot
    #[command(hide = true)]
    FirstBoot {
        /// A YAML file, or user data of cloud-init
        file: PathBuf,
    },
    /// Show how a running relay is doing
    Status {
        /// The configuration that it runs with
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show a running relay, live in the terminal: rates, outcomes, how long datagrams are inside
    Top {
        /// The configuration that it runs with
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How often to ask it
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
        interval: Duration,
    },
    /// Let a running relay read its configuration again, as SIGHUP does, and say what changed and
    /// what counts after a restart only
    Reload {
        /// The configuration that it runs with
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Let a running relay leave the network: it takes no new paths, goes on with those in use,
    /// and stops when none is left or the time is up
    Drain {
        /// The configuration that it runs with
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How long to wait at most
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        timeout: u32,
    },
    /// Look at this machine, and say what to change for the relay to run well; exit code 1
    /// if it would not run as configured
    Doctor {
        /// The configuration; without one, what `port: auto` needs is looked at
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The interface; by default, that of the configuration, or of the default route
        #[arg(long, value_name = "NAME")]
        interface: Option<String>,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

/// A new relay.
#[derive(Args)]
struct Init {
    /// The network: mixline:ID@http://HOST:PORT, with the ID that `mixline-directory id` prints
    #[arg(value_name = "NETWORK")]
    network: Network,
    /// What people call the relay
    #[arg(long)]
    name: Option<String>,
    /// The configuration to write
    #[arg(long, value_name = "FILE", default_value = init::CONFIG)]
    config: PathBuf,
    /// Where keys and replay memory are kept
    #[arg(long, value_name = "DIR", default_value = init::STATE_DIR)]
    state_dir: PathBuf,
    /// Where to listen; by default on all addresses of the families that are advertised
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Where others reach the relay; by default the public addresses of the interface
    #[arg(long, value_name = "ADDRESS:PORT")]
    advertise: Vec<SocketAddr>,
    /// Whose addresses to take; by default that of the default route
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// How datagrams get in and out: udp, xdp, xdp-filter; auto is written as udp where XDP
    /// cannot work
    #[arg(long, value_name = "KIND", default_value = "auto", value_parser = port_kind)]
    port: PortKind,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
}

fn port_kind(text: &str) -> Result<PortKind, String> {
    use PortKind::{Auto, Udp, Xdp, XdpFilter};
    let kinds = [Auto, Udp, Xdp, XdpFilter];
    let kind = kinds.into_iter().find(|kind| kind.name() == text);
    kind.ok_or_else(|| "one of auto, udp, xdp, xdp-filter".into())
}

fn main() -> ExitCode {
    hangup::hold();
    let arguments = Arguments::parse();
    if arguments.command.is_some() {
        hangup::release();
    }
    match run_command(arguments) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("mixline-relay: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run_command(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let asked = logging::asked()?;
    processor::asked()?;
    match arguments {
        Arguments {
            command: Some(Command::Manual { directory }),
            ..
        } => manual::write(Arguments::command(), &directory)
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        Arguments {
            command: Some(Command::Status { config, json }),
            ..
        } => show_status(&config, json).map(|()| ExitCode::SUCCESS),
        Arguments {
            command: Some(Command::Top { config, interval }),
            ..
        } => show_live(&config, interval).map(|()| ExitCode::SUCCESS),
        Arguments {
            command: Some(Command::Init(options)),
            ..
        } => make(options),
        Arguments {
            command: Some(Command::FirstBoot { file }),
            ..
        } => first_boot(&file),
        Arguments {
            command: Some(Command::Reload { config }),
            ..
        } => reload(&config).map(|()| ExitCode::SUCCESS),
        Arguments {
            command: Some(Command::Drain { config, timeout }),
            ..
        } => drain(&config, timeout).map(|()| ExitCode::SUCCESS),
        Arguments {
            command:
                Some(Command::Doctor {
                    config,
                    interface,
                    json,
                }),
            ..
        } => examine(config.as_deref(), interface.as_deref(), json),
        Arguments {
            config: Some(config),
            ..
        } => relay(&config, asked).map(|()| ExitCode::SUCCESS),
        Arguments { config: None, .. } => Err(anyhow::anyhow!("--config FILE is missing")),
    }
}

fn relay(file: &Path, asked: Asked) -> anyhow::Result<()> {
    panic::end_the_process();
    let config = Config::load(file)?;
    let origin = Origin {
        file: file.to_owned(),
        logging: asked.start(Modules::Hidden, config.log.as_ref()),
    };
    Ok(run(config, Some(origin), |_| Honest)?)
}

fn reload(config: &Path) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    let done = observe::reload(&config.state_dir).map_err(|error| match error {
        AskError::Io(error) => nobody(&config, error),
        AskError::Refused(text) => anyhow::anyhow!("the configuration stays as it was: {text}"),
    })?;
    print(&done.text());
    Ok(())
}

fn drain(config: &Path, timeout: u32) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    let within = Duration::from_secs(timeout.into());
    let show = |progress: &observe::Progress| print(&format!("{}\n", progress.line()));
    observe::drain(&config.state_dir, within, show).map_err(|error| match error {
        AskError::Io(error) => nobody(&config, error),
        AskError::Refused(text) => anyhow::anyhow!(text),
    })?;
    print("stopped\n");
    Ok(())
}

fn make(options: Init) -> anyhow::Result<ExitCode> {
    let wishes = Wishes {
        network: options.network,
        name: options.name,
        state_dir: options.state_dir,
        listen: options.listen,
        advertise: options.advertise,
        port: options.port,
    };
    let file = &options.config;
    let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
    let asks = !options.yes && stdin.is_terminal() && stderr.is_terminal();
    let (mut answers, mut questions) = (stdin.lock(), stderr.lock());
    let terminal: init::Terminal<'_> = asks.then_some((&mut answers, &mut questions));
    let config = init::create(file, wishes, options.interface.as_deref(), terminal)?;
    drop((answers, questions));
    print(&format!(
        "{} and the keys in {} are made\n\n",
        file.display(),
        config.state_dir.display()
    ));
    let code = examine(Some(file), None, false)?;
    let by_hand = format!("mixline-relay --config {}", file.display());
    if code != ExitCode::SUCCESS {
        print(&format!(
            "\nThe relay would not run as configured: see above. Then start it: {by_hand}\n"
        ));
        return Ok(code);
    }
    match init::enable(file) {
        Enabled::Yes => print("\nThe relay runs, and does so after each start of the machine.\n"),
        Enabled::No(why) => print(&format!("\n{why}; to start the relay: {by_hand}\n")),
        Enabled::Failed(why) => anyhow::bail!("the relay does not run: {why}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit code 2 if a person has to change the file, 1 if a later try may do.
fn first_boot(file: &Path) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let made = || {
        let left = FirstBoot::read(file)?;
        left.host().apply()?;
        runtime.block_on(left.make())
    };
    Ok(match made() {
        Ok(()) => {
            print("the relay is made, and runs\n");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if error.is_final() { 2 } else { 1 })
        }
    })
}

fn nobody(config: &Config, error: std::io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!(
        "no relay answers on state directory {}",
        config.state_dir.display()
    ))
}

fn show_status(config: &Path, json: bool) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    let report = observe::ask(&config.state_dir).map_err(|error| nobody(&config, error))?;
    let text = if json {
        format!("{}\n", serde_json::to_string_pretty(&report)?)
    } else {
        report.text()
    };
    print(&text);
    Ok(())
}

fn show_live(config: &Path, interval: Duration) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    Ok(top::run(&config.state_dir, interval)?)
}

/// Seconds, as they are given to `--interval`.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let interval = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if (top::SHORTEST_INTERVAL..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("from 0.1 to 3600 seconds".into())
    }
}

fn examine(config: Option<&Path>, interface: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let config = config.map(Config::load).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let diagnosis = runtime.block_on(doctor::examine(config.as_ref(), interface));
    let text = if json {
        format!("{}\n", serde_json::to_string_pretty(&diagnosis)?)
    } else {
        diagnosis.text()
    };
    print(&text);
    Ok(if diagnosis.runs {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
