//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::DEFAULT_PATH;

/// Reach anonymous services, and be one: a network interface whose packets go through
/// Mixline's relays, and `.anon` names for it.
///
/// `mixline-client up` joins the network that the configuration names. From then on
/// ordinary programs use ordinary addresses: `curl http://freespeech.anon/`. The other
/// commands talk to the running client.
///
/// Logs go to standard error; MIXLINE_LOG chooses what (error, warn, info, debug, or
/// filters such as info,mixline_client=debug) and goes before `log` in the configuration;
/// MIXLINE_LOG_FORMAT=json asks for one JSON object on each line.
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
        ] {
            assert!(help.contains(&format!("  {command}")), "{command}: {help}");
        }
    }
}
