//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use mixline_daemon::network::Network;
use mixline_endpoint::PING_INTERVAL;

use crate::config::DEFAULT_PATH;

/// Reach anonymous services, and be one: a network interface whose packets go through
/// Mixline's relays, and `.anon` names for it.
///
/// `mixline-client join LINK` writes the configuration; `mixline-client up` joins the network that it
/// names. From then on ordinary programs use ordinary addresses: `curl http://freespeech.anon/`. The
/// other commands talk to the running client. Root may use all of them, and members of the group
/// mixline may use status, id, publish, unpublish, allow, deny, clients, key, resolve, ping, link and
/// doctor.
///
/// Logs go to standard error; MIXLINE_LOG chooses what (error, warn, info, debug, or
/// filters such as info,mixline_client=debug) and goes before `log` in the configuration;
/// MIXLINE_LOG_FORMAT=json asks for one JSON object on each line. MIXLINE_CPU=scalar, aesni, vaes256 or
/// vaes512 asks for other instructions than the widest that the processor has.
#[derive(Debug, Parser)]
#[command(
    name = "mixline-client",
    version,
    about,
    long_about,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The configuration file (YAML).
    #[arg(long, short, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join the network and stay until stopped.
    ///
    /// Needs CAP_NET_ADMIN (for the interface) and CAP_NET_BIND_SERVICE (for DNS): run it as
    /// root. It stays in the foreground, as a service manager wants it; SIGTERM, SIGINT and
    /// `mixline-client down` end it cleanly: sessions are closed, the interface goes, the
    /// host's resolver is put back.
    Up(Up),
    /// Stop the running client.
    ///
    /// If none runs, but one stopped uncleanly, its packet filter and rules are removed, and the
    /// host's resolver is put back.
    Down,
    /// Close the host to virtual addresses, as it is while the client is up.
    ///
    /// Packets that would carry virtual addresses past the client are refused from then on, until
    /// `up` takes over, or `unlock`. With `lock: always` in the configuration it is done at boot,
    /// before the network.
    Lock(Lock),
    /// Open the host again after `lock`, or after a client that was killed.
    Unlock {
        /// Also if the configuration says `lock: always`; until the next boot, `lock` or `up`. What
        /// runs `lock --watch` closes it again: stop that first.
        #[arg(long)]
        anyway: bool,
    },
    /// Show what the running client does: addresses, guards, sessions, paths, names, problems.
    Status {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Print this client's anonymous ID, and make one if there is none yet.
    Id,
    /// Claim a name and be reached under it; remembered until `unpublish`.
    ///
    /// It fails if somebody else has the name. With the first name others can find this client;
    /// sessions and transfers go on.
    Publish {
        /// The name, such as freespeech.anon.
        name: String,
    },
    /// Stop serving a name.
    ///
    /// The name stays this ID's until its claim ends, seven days after it was renewed last. With the
    /// last name others find this client no longer; sessions that there are go on.
    Unpublish {
        /// The name.
        name: String,
    },
    /// Let a client in, and from the first one on nobody who is not on the list.
    ///
    /// Who is not on it can neither open a session nor learn whether this service is up; sessions that
    /// others have opened end. That the name is taken everybody still hears. The list is remembered.
    Allow {
        /// The client's key for this service, as `mixline-client key` prints it there.
        #[arg(required_unless_present = "everybody", conflicts_with = "everybody")]
        key: Option<String>,
        /// What to call it here: letters, digits, dots, `_` and `-`.
        #[arg(required_unless_present = "everybody")]
        name: Option<String>,
        /// Have no list any more: everybody may open sessions.
        #[arg(long)]
        everybody: bool,
    },
    /// Take a client off the list; its session ends. An empty list lets nobody in.
    Deny {
        /// What it is called here.
        name: String,
    },
    /// Show the list of clients, and the services of which this host is one.
    Clients {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Print this host's key as a client of a service that has a list, and be its client from now on.
    ///
    /// Whoever runs the service takes the key with `mixline-client allow KEY NAME`. It is no secret, but
    /// has to come to them unchanged. Each service gets another key.
    Key {
        /// Its name or ID.
        service: String,
        /// Be its client no longer.
        #[arg(long)]
        forget: bool,
    },
    /// Let the running client read its configuration again, as SIGHUP does, and say what changed
    /// and what counts after a restart only. Sessions and transfers go on.
    Reload,
    /// Look up a name, an ID or a virtual address in the directory.
    Resolve {
        /// label.anon, ID.anon, an ID, or an IPv4 or IPv6 address.
        #[arg(value_name = "NAME")]
        what: String,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Measure round trip and loss over each path to a peer.
    ///
    /// Each round asks once over each path of the session with it; a session is opened if there is
    /// none. A lost question is the path's loss; the answer comes over the fastest way back. Exit
    /// code 1 if nothing came back.
    Ping(Ping),
    /// Look at this host and the way to the network, and say what to change.
    ///
    /// Kernel, capabilities, packet filter, routes, how programs find names, clock, directory; and, by
    /// asking the guards, whether UDP passes, what MTU the way has, loss, round trip and NAT. With and
    /// without a running client; without root, what can be seen without. Nothing is changed. Exit code
    /// 1 if something keeps the client from working.
    Doctor {
        /// Take two minutes, to see for how long a NAT or a firewall remembers.
        #[arg(long)]
        long: bool,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Write the configuration for a network, given the one line that names it.
    ///
    /// The directory is asked once whether it is that network's. Of a configuration that is there,
    /// only the section `directory` changes.
    Join {
        /// mixline:ID@http://HOST:PORT, as `mixline-client link` and `mixline-directory link` print
        /// it.
        #[arg(value_name = "LINK")]
        network: Network,
        /// Replace another network without asking.
        #[arg(long)]
        force: bool,
        /// Do not ask the directory.
        #[arg(long)]
        no_check: bool,
    },
    /// Print the one line that names this client's network, for others to join.
    ///
    /// At a terminal, the line is also drawn as a QR code. It says nothing about this client.
    Link {
        /// Draw the QR code in any case.
        #[arg(long)]
        qr: bool,
    },
    /// Write man pages and completions, for packages.
    #[command(hide = true)]
    Manual {
        /// Where to.
        directory: PathBuf,
    },
}

/// How to close the host.
#[derive(Debug, Args)]
pub struct Lock {
    /// Stay, and follow the host: a neighbourhood with virtual addresses goes on.
    #[arg(long)]
    pub watch: bool,
    /// Do nothing unless the configuration says `lock: always`.
    #[arg(long)]
    pub if_always: bool,
    /// Close nothing, and write down for systemd-resolved, before it starts, that names are asked of nobody
    /// else. Only if the configuration says `lock: always`.
    #[arg(long, conflicts_with_all = ["watch", "if_always"])]
    pub before_resolved: bool,
}

/// How to come up.
#[derive(Debug, Args)]
pub struct Up {
    /// Go to the background, and return when everything works. Logs go to client.log in the
    /// state directory.
    #[arg(long, short)]
    pub detach: bool,
    /// With --detach: give up after this many seconds.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        requires = "detach"
    )]
    pub wait: u64,
    /// This is the process in the background.
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// How to measure.
#[derive(Debug, Args)]
pub struct Ping {
    /// label.anon, ID.anon, an ID, or an IPv4 or IPv6 address.
    #[arg(value_name = "NAME")]
    pub what: String,
    /// Rounds, 1 to 100000; Ctrl-C ends them early.
    #[arg(long, short, value_name = "COUNT", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// Time from one round to the next, 0.2 to 3600 seconds.
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: Duration,
    /// As JSON, for programs: once, at the end.
    #[arg(long)]
    pub json: bool,
    // Beside `-c COUNT`, as ping(8) has it.
    /// The configuration file (YAML).
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Seconds between two rounds.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let interval = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if (PING_INTERVAL..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("from 0.2 to 3600 seconds".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_stands_before_or_behind() {
        for arguments in [
            ["x", "--config", "/c", "status"],
            ["x", "status", "--config", "/c"],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.config, PathBuf::from("/c"));
        }
        let cli = Cli::try_parse_from(["x", "up"]).unwrap();
        assert_eq!(cli.config, PathBuf::from(DEFAULT_PATH));
        assert!(Cli::try_parse_from(["x", "up", "--wait", "3"]).is_err());
        assert!(Cli::try_parse_from(["x", "publish"]).is_err());
        for arguments in [
            &["x", "ping", "a.anon", "--config", "/c", "-c", "3"][..],
            &["x", "--config", "/c", "ping", "-c", "3", "a.anon"],
            &["x", "-c", "/c", "ping", "-c", "3", "a.anon"],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.config, PathBuf::from("/c"), "{arguments:?}");
            let Command::Ping(ping) = cli.command else {
                panic!("{arguments:?}");
            };
            assert_eq!((ping.count, ping.interval), (3, Duration::from_secs(1)));
        }
        for wrong in [["-c", "0"], ["-i", "0.1"], ["-i", "x"], ["-i", "-1"]] {
            let ping = ["x", "ping", "a.anon"].into_iter().chain(wrong);
            assert!(Cli::try_parse_from(ping).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn help_names_every_command() {
        let help = Cli::command().render_long_help().to_string();
        for command in [
            "up",
            "down",
            "lock",
            "unlock",
            "status",
            "id",
            "publish",
            "unpublish",
            "reload",
            "resolve",
            "ping",
            "doctor",
            "join",
            "link",
        ] {
            assert!(help.contains(&format!("  {command}")), "{command}: {help}");
        }
    }
}
