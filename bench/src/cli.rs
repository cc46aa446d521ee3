//! The benchmarks' options and names. `cargo xtask bench` has the same: it includes this file, so
//! that nothing here may need more than `clap` and `mixline_testnet`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;
use mixline_testnet::Port;

/// One benchmark. Its name on the command line is also that of its object in the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// One datagram of a known path on one core, from sealed to sealed, beside its bare primitives,
    /// Nym's sphinx-packet and Tor's relay crypto.
    Hop,
    /// The same with many known paths and link sessions, and their memory.
    Scale,
    /// The same as `hop` on 1, 2 and 4 workers at a time: what workers share costs.
    Cores,
    /// One cell of a client and of a service on one core, from IP packet to sealed datagram and back, beside its bare
    /// primitives.
    Endpoint,
    /// The ring in memory: how records spread over relays, and what is lost when relays are down, come, go or are an
    /// adversary's.
    Ring,
    /// Three and three relays end to end: TCP, UDP, round trips, processor time.
    Path,
    /// Datagrams a second through a relay on a wire: AF_XDP, UDP, and a bare AF_XDP echo.
    Forward,
    /// How long datagrams are inside a relay at 10, 50 and 90 % of what each port forwards, from when the
    /// kernel received them.
    Latency,
    /// What honest neighbours get through a relay while garbage comes (AF_XDP and UDP), and what
    /// honest clients and relays get of a network while strangers attack it.
    Flood,
}

impl Name {
    /// All benchmarks, in the order in which they are run.
    pub const ALL: [Self; 9] = [
        Self::Hop,
        Self::Scale,
        Self::Cores,
        Self::Endpoint,
        Self::Ring,
        Self::Path,
        Self::Forward,
        Self::Latency,
        Self::Flood,
    ];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hop => "hop",
            Self::Scale => "scale",
            Self::Cores => "cores",
            Self::Endpoint => "endpoint",
            Self::Ring => "ring",
            Self::Path => "path",
            Self::Forward => "forward",
            Self::Latency => "latency",
            Self::Flood => "flood",
        }
    }

    /// Whether it makes namespaces, which only root may.
    #[must_use]
    pub fn needs_root(self) -> bool {
        matches!(
            self,
            Self::Path | Self::Forward | Self::Latency | Self::Flood
        )
    }
}

/// An attack of `flood` on a network. They are run in this order: those that leave something behind come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// No attack: as many datagrams to a port where nobody listens.
    Sending,
    /// Forged link initiations at the guards, from everywhere.
    Initiations,
    /// The same, from the newcomers' own /24.
    InitiationsNear,
    /// The same from everywhere, so few that no relay asks for a cookie.
    InitiationsSlow,
    /// Link initiations with cookies at the guards, from addresses in 4096 networks.
    InitiationsWithCookies,
    /// The same with the effort that the guards suggest.
    InitiationsWithEffort,
    /// Path probes at the guards, from everywhere.
    Probes,
    /// Random cells through the service's public tails.
    GarbageToService,
    /// Session initiations of throw-away IDs through them.
    IdentitiesToService,
    /// The same, each with the least effort that is ever suggested.
    IdentitiesWithLeastEffort,
    /// The same, each with the effort that the service suggests at the time.
    IdentitiesWithEffort,
    /// Session initiations of throw-away IDs through the directory's public tails.
    IdentitiesToDirectory,
    /// New paths that lead nowhere, from one neighbour of a guard.
    Paths,
    /// HTTP connections of one /60 that read nothing.
    Connections,
    /// Throw-away IDs that hold sessions with the directory.
    DirectorySessions,
    /// Mailboxes at the guards for many link keys of one address.
    Mailboxes,
}

/// What all benchmarks are told.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Fewer and shorter rounds: all of it in 10 minutes on 2 cores, once it is built.
    #[arg(long)]
    pub quick: bool,
    /// What the relays of networks (`path`, `flood`'s attacks) receive and send with.
    #[arg(long, value_enum, default_value_t = Port::Auto)]
    pub port: Port,
    /// Only this attack of `flood`, and nothing else of it.
    #[arg(long, value_enum)]
    pub attack: Option<Attack>,
}

/// Which benchmarks to run, how, and where the figures go.
#[derive(Debug, Clone, clap::Args)]
pub struct Selection {
    /// Which benchmarks to run; all, if none is named.
    #[arg(value_name = "BENCHMARK", value_enum)]
    pub which: Vec<Name>,
    /// How to run them.
    #[command(flatten)]
    pub options: Options,
    /// Succeed although a goal is missed.
    #[arg(long)]
    pub no_goals: bool,
    /// Write all figures to this file, with a description of the machine.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a report with plots into this directory: report.html.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

impl Selection {
    /// Whether this benchmark is to be run.
    #[must_use]
    pub fn wants(&self, name: Name) -> bool {
        self.which.is_empty() || self.which.contains(&name)
    }

    /// The arguments that say the same.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = self.which.iter().map(|w| w.as_str().into()).collect();
        arguments.extend(["--port".into(), self.options.port.name().into()]);
        let attack = self
            .options
            .attack
            .and_then(|attack| attack.to_possible_value());
        if let Some(attack) = attack {
            arguments.extend(["--attack".into(), attack.get_name().into()]);
        }
        if self.options.quick {
            arguments.push("--quick".into());
        }
        if self.no_goals {
            arguments.push("--no-goals".into());
        }
        if let Some(file) = &self.json {
            arguments.extend(["--json".into(), file.into()]);
        }
        if let Some(directory) = &self.report {
            arguments.extend(["--report".into(), directory.into()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        selection: Selection,
    }

    #[test]
    fn arguments_say_the_same() {
        let given = [
            "",
            "hop",
            "latency",
            "flood",
            "--port",
            "udp",
            "--attack",
            "initiations-near",
            "--quick",
            "--no-goals",
            "--json",
            "f",
            "--report",
            "d",
        ];
        let selection = Alone::parse_from(given).selection;
        assert_eq!(selection.arguments(), given[1..]);
        assert!(selection.wants(Name::Flood) && !selection.wants(Name::Path));
        let all = Alone::parse_from([""]).selection;
        assert!(Name::ALL.into_iter().all(|name| all.wants(name)));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        assert_eq!(Name::value_variants(), Name::ALL);
        for name in Name::ALL {
            assert_eq!(Name::from_str(name.as_str(), false), Ok(name));
        }
    }
}
