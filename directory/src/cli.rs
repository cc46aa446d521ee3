//! The command line.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use mixline_protocol::records::Member;

use crate::migrate::Kind;

/// The Mixline service directory.
#[derive(Debug, Parser)]
#[command(
    name = "mixline-directory",
    version,
    about = "The Mixline service directory: knows the relays, signs snapshots of the network, \
             and holds services, names and virtual addresses",
    after_long_help = AFTER,
    override_usage = "mixline-directory [run|init|id|link|reload|migrate|identity|roster|online-key] --config <FILE>"
)]
pub struct Cli {
    /// What to do; without one: run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The configuration file (YAML, see below). Required.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the directory in the foreground (what happens without a subcommand).
    Run,
    /// Make the state directory and its keys, and print the directory's ID.
    ///
    /// The ID is what relays and clients put into their configurations. Keys that are there
    /// already are left alone, and that is an error.
    Init,
    /// Print the directory's ID.
    Id,
    /// Print the one line by which relays and clients join: mixline:ID@http://HOST:PORT.
    ///
    /// `mixline-relay init` and `mixline-client join` take it.
    Link {
        /// Where others reach the directory, such as http://198.51.100.7:8080; by default the address
        /// that it listens at, or, where that is all of them, the one that its own requests leave
        /// from.
        url: Option<String>,
    },
    /// Let a running directory read its configuration again, as SIGHUP does, and say what changed and
    /// what counts after a restart only.
    Reload,
    /// Move the records of a stopped directory to another store, and compare them.
    ///
    /// `store.etcd` in the configuration says where etcd is, whichever way the records go. A store is moved
    /// only into one that is empty, and is not used any more afterwards. If it is interrupted, the same command
    /// begins anew.
    Migrate {
        /// Where the records are.
        #[arg(long, value_enum)]
        from: Kind,
        /// Where they go.
        #[arg(long, value_enum)]
        to: Kind,
        /// Give up a move that was interrupted: the first store is in use again.
        #[arg(long)]
        cancel: bool,
    },
    /// Make the identity of one of several directories, which is kept offline, and print its ID.
    ///
    /// It is needed to sign rosters and to certify online keys, and nowhere else: keep it where no network
    /// leads, and a copy of it. A file that is there already is left alone, and that is an error.
    Identity {
        /// The file to write.
        file: PathBuf,
    },
    /// Make and sign the roster of a network of several directories.
    #[command(subcommand)]
    Roster(RosterCommand),
    /// Make the key that signs from day to day, certified by the directory's identity.
    ///
    /// `roster` in the configuration says in which network. A running directory takes it with its next start.
    OnlineKey {
        /// The file of the identity.
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// For how many days, from now on: at most 90.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=90))]
        days: u64,
    },
    /// Write man pages and completions, for packages.
    #[command(hide = true)]
    Manual {
        /// Where to.
        directory: PathBuf,
    },
}

/// What to do with a roster.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum RosterCommand {
    /// Make the first roster of a new network, and print the network's ID.
    New(Contents),
    /// Add the next version to a roster: other directories, other addresses, another length of rounds.
    Next(Contents),
    /// Sign the last version of a roster.
    Sign {
        /// The roster.
        file: PathBuf,
        /// The file of the identity.
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
    },
    /// Take over what others have signed in their copies.
    Merge {
        /// The roster.
        file: PathBuf,
        /// Copies of it.
        #[arg(required = true)]
        copies: Vec<PathBuf>,
    },
    /// Show the last version of a roster, and who has signed it.
    Show {
        /// The roster.
        file: PathBuf,
    },
}

/// What is in a roster.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Contents {
    /// The roster.
    pub file: PathBuf,
    /// A directory, NAME=ID@URL; 1, 4, 7 or 10 of them.
    #[arg(long = "member", value_name = "NAME=ID@URL", required = true, value_parser = crate::roster_file::member)]
    pub members: Vec<Member>,
    /// How long a round is.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub round_seconds: u32,
    /// For how long a snapshot is valid.
    #[arg(long, default_value_t = 10_800, value_name = "SECONDS")]
    pub validity_seconds: u32,
}

const AFTER: &str = "\
Quick start:
  mixline-directory init --config directory.yaml     prints the ID, once
  mixline-directory --config directory.yaml          runs it
  mixline-directory link --config directory.yaml     prints the line by which others join

Configuration (only state_dir and listen are required; the other values are the defaults):
  state_dir: /var/lib/mixline-directory
                                   keys (mode 0600) and records; back up *.key
  listen: 203.0.113.5:8080         HTTP: snapshot, relay registration, status page
  epoch_seconds: 3600              life of onion keys
  grace_seconds: 300               for how long those of a past epoch are honoured
  network: 10.0.0.0/8              virtual IPv4 addresses
  relay_timeout_s: 60              a relay silent for longer leaves the snapshot
  snapshot_validity_s: 600         clients refuse an older snapshot
  allow_private_addresses: false   take relays at 192.168.x.x, 127.0.0.1 and the like
  check_source: true               take a relay only from an address that it advertises
  roster: /etc/mixline/roster      several directories: who they are (not there: this one alone)
  log: info                        what is logged, if MIXLINE_LOG says nothing
  store:                           records are in a file of state_dir, unless
    etcd:                          this is there: several front ends of one directory share it
      endpoints: [http://10.1.0.1:2379, http://10.1.0.2:2379, http://10.1.0.3:2379]
      prefix: mixline/             what all its keys begin with
  endpoint:                        the private part, reached through the relays
    enabled: true
    guards: 3
    head_length: 3
    tail_length: 3
    public_tails: 4
    max_sessions: 1000

Several directories of different owners, of whom m of n = 1, 4, 7 or 10 decide:
  mixline-directory identity identity.key            each owner, offline; prints the ID
  mixline-directory roster new roster --member a=ID@http://a:8080 --member ...
  mixline-directory roster sign roster --identity identity.key
  mixline-directory roster merge roster THEIRS...    until `roster show roster` says that it counts
  mixline-directory online-key --identity identity.key --config directory.yaml

HTTP:
  GET  /              status page        GET /v2/snapshot   the signed snapshot
  GET  /metrics       Prometheus         GET /healthz       200 if it works
  GET  /v2/roster     the rosters        GET /v2/log/N      the log of rounds from N on
  POST /v2/relays, /v2/heartbeats        registration, by relays

Environment:
  MIXLINE_LOG         what is logged, to stderr: error, warn, info (default), debug, or a
                      filter such as info,mixline_directory=debug; goes before `log` in the
                      configuration
  MIXLINE_LOG_FORMAT  text (default), or json for one JSON object on each line
  MIXLINE_CPU         scalar, aesni, vaes256 or vaes512: other instructions than the widest that the
                      processor has

SIGHUP reads the configuration again, as `reload` does: all but state_dir, network, epoch_seconds,
grace_seconds and store changes at once, the log says what counts after a restart. SIGTERM and SIGINT stop it cleanly; nothing that was acknowledged is lost by any kind of stop.";

impl Cli {
    /// The command, and the configuration that it is for.
    ///
    /// # Errors
    /// A usage error if there is no configuration.
    pub fn parts(self) -> Result<(Command, PathBuf), clap::Error> {
        let missing = || {
            let text = "--config FILE is missing: where is the configuration?";
            Self::command().error(ErrorKind::MissingRequiredArgument, text)
        };
        Ok((
            self.command.unwrap_or(Command::Run),
            self.config.ok_or_else(missing)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        Cli::command().debug_assert();
        let parse = |args: &[&str]| {
            let args = std::iter::once("mixline-directory").chain(args.iter().copied());
            Cli::try_parse_from(args).and_then(Cli::parts)
        };
        let file = PathBuf::from("f");
        assert_eq!(
            parse(&["--config", "f"]).unwrap(),
            (Command::Run, file.clone())
        );
        assert_eq!(
            parse(&["run", "--config", "f"]).unwrap(),
            (Command::Run, file.clone())
        );
        assert_eq!(
            parse(&["init", "--config", "f"]).unwrap(),
            (Command::Init, file.clone())
        );
        assert_eq!(
            parse(&["--config", "f", "init"]).unwrap(),
            (Command::Init, file.clone())
        );
        assert_eq!(
            parse(&["id", "--config", "f"]).unwrap(),
            (Command::Id, file.clone())
        );
        let url = "http://host:8080".to_owned();
        assert_eq!(
            parse(&["link", &url, "--config", "f"]).unwrap(),
            (Command::Link { url: Some(url) }, file)
        );
        let migrate = ["migrate", "--from", "redb", "--to", "etcd", "--config", "f"];
        let expected = Command::Migrate {
            from: Kind::Redb,
            to: Kind::Etcd,
            cancel: false,
        };
        assert_eq!(parse(&migrate).unwrap(), (expected, PathBuf::from("f")));
        assert!(parse(&migrate[..5]).is_err() && parse(&["migrate", "--config", "f"]).is_err());
        assert!(parse(&[]).is_err() && parse(&["id"]).is_err());
    }
}
