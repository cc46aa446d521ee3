//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The Mixline service directory.
#[derive(Debug, Parser)]
#[command(
    name = "mixline-directory",
    version,
    about = "The Mixline service directory: knows the relays, signs snapshots of the network, \
             and holds services, names and virtual addresses",
    after_long_help = AFTER,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do; without one: run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The configuration, for running.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file (YAML, see below).
    #[arg(long, value_name = "FILE", required = true)]
    pub config: Option<PathBuf>,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the directory in the foreground (what happens without a subcommand).
    Run(ConfigArgs),
    /// Make the state directory and its keys, and print the directory's ID.
    ///
    /// The ID is what relays and clients put into their configurations. Keys that are there
    /// already are left alone, and that is an error.
    Init(ConfigArgs),
    /// Print the directory's ID.
    Id(ConfigArgs),
}

const AFTER: &str = "\
Quick start:
  mixline-directory init --config directory.yaml     prints the ID, once
  mixline-directory --config directory.yaml          runs it

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
  endpoint:                        the private part, reached through the relays
    enabled: true
    guards: 3
    head_length: 3
    tail_length: 3
    public_tails: 4
    max_sessions: 1000

HTTP:
  GET  /              status page        GET /v1/snapshot   the signed snapshot
  GET  /metrics       Prometheus         GET /healthz       200 if it works
  POST /v1/relays     registration, by relays

Environment:
  MIXLINE_LOG         what is logged, to stderr: error, warn, info (default), debug, or a
                      filter such as info,mixline_directory=debug

SIGTERM and SIGINT stop it cleanly; nothing that was acknowledged is lost by any kind of stop.";

impl Cli {
    /// The command, and the configuration that it is for.
    #[must_use]
    pub fn parts(self) -> (Action, PathBuf) {
        let (action, args) = match self.command {
            None => (Action::Run, self.config),
            Some(Command::Run(args)) => (Action::Run, args),
            Some(Command::Init(args)) => (Action::Init, args),
            Some(Command::Id(args)) => (Action::Id, args),
        };
        // Required where it is used: the parser sees to it.
        (action, args.config.unwrap_or_default())
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run the daemon.
    Run,
    /// Make keys.
    Init,
    /// Print the ID.
    Id,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        let parse = |args: &[&str]| {
            let args = std::iter::once("mixline-directory").chain(args.iter().copied());
            Cli::try_parse_from(args).map(Cli::parts)
        };
        let file = PathBuf::from("f");
        assert_eq!(
            parse(&["--config", "f"]).unwrap(),
            (Action::Run, file.clone())
        );
        assert_eq!(
            parse(&["run", "--config", "f"]).unwrap(),
            (Action::Run, file.clone())
        );
        assert_eq!(
            parse(&["init", "--config", "f"]).unwrap(),
            (Action::Init, file.clone())
        );
        assert_eq!(parse(&["id", "--config", "f"]).unwrap(), (Action::Id, file));
        assert!(parse(&[]).is_err() && parse(&["id"]).is_err());
    }
}
