//! The attacks, and what each is called, sent and given time for.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use mixline_testnet::guests::{NEWCOMERS, SITE};
use mixline_testnet::topology::{DIRECTORY_PORT, Node};

use crate::cli::Attack;

/// Below this number a second, relays ask nobody for cookies (docs/protocol.md, section 4.3).
const BELOW_COOKIES: u32 = 150;
/// How many initiations and new paths are made before they are sent over and over.
const MADE: usize = 20_000;
/// Addresses that return cookies. Under load a source has 10 initiations a second processed, a relay has 1000: these are
/// enough for more than three relays process.
const SOURCES: u16 = 4096;
/// Path probes are small.
const PROBES: usize = 60_000;
/// What an endpoint suggests at the least, if anything.
const LEAST_EFFORT: u32 = 4096;
/// The directory's sessions in a network under attack: its default is 1000, which would take a thousand
/// clients on this machine.
pub const SESSIONS: usize = 60;
/// Throw-away IDs, each of which keeps a session with the directory: twice as many as it has.
const IDENTITIES: usize = 2 * SESSIONS;
/// Connections: all that the directory has.
const CONNECTIONS: usize = 2048;
/// Link keys at each guard, and messages of 100 mailboxes for each: as many as a key may have, and all that a
/// relay has.
const KEYS: usize = 64;
const MESSAGES: u64 = 41;

/// What an attacker has to be told.
pub struct Targets {
    /// The guards of the client, by name.
    pub guards: Vec<String>,
    /// The service's ID.
    pub service: String,
}

impl Attack {
    /// Its name in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Initiations => "initiations",
            Self::InitiationsNear => "initiations_near",
            Self::InitiationsSlow => "initiations_slow",
            Self::InitiationsWithCookies => "initiations_with_cookies",
            Self::InitiationsWithEffort => "initiations_with_effort",
            Self::Probes => "probes",
            Self::GarbageToService => "garbage_to_service",
            Self::IdentitiesToService => "identities_to_service",
            Self::IdentitiesWithLeastEffort => "identities_with_least_effort",
            Self::IdentitiesWithEffort => "identities_with_effort",
            Self::IdentitiesToDirectory => "identities_to_directory",
            Self::DirectorySessions => "directory_sessions",
            Self::Connections => "connections",
            Self::Paths => "paths",
            Self::Mailboxes => "mailboxes",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Sending => "no attack: datagrams to a closed port",
            Self::Initiations => "forged link initiations from everywhere at guards",
            Self::InitiationsNear => "forged link initiations from the newcomers' /24",
            Self::InitiationsSlow => "forged link initiations below the limit for cookies",
            Self::InitiationsWithCookies => "link initiations with cookies from 4096 networks",
            Self::InitiationsWithEffort => "the same with the effort that guards suggest",
            Self::Probes => "path probes from everywhere at guards",
            Self::GarbageToService => "garbage through the service's public tails",
            Self::IdentitiesToService => "initiations of throw-away IDs to the service",
            Self::IdentitiesWithLeastEffort => "the same, 4096 hashes spent on each",
            Self::IdentitiesWithEffort => "the same, with what the service suggests",
            Self::IdentitiesToDirectory => "initiations of throw-away IDs to the directory",
            Self::DirectorySessions => "throw-away IDs that hold the directory's sessions",
            Self::Connections => "HTTP connections of one /60 that read nothing",
            Self::Paths => "new paths that lead nowhere, from one neighbour",
            Self::Mailboxes => "mailboxes of one address' link keys at guards",
        }
    }

    /// Whether anything is to be kept under it.
    #[must_use]
    pub fn has_goals(self) -> bool {
        self != Self::Sending
    }

    /// Whether its tool is told of the network.
    #[must_use]
    pub fn knows_network(self) -> bool {
        self != Self::Connections
    }

    /// How long it takes until it is what it is, before anything is measured.
    #[must_use]
    pub fn grows_for(self) -> Duration {
        Duration::from_secs(match self {
            // Effort is suggested once a second; sources have their cookies before that.
            Self::InitiationsWithCookies | Self::InitiationsWithEffort => 4,
            Self::IdentitiesWithLeastEffort => 4,
            // It doubles once a second at most, and attackers ask as often.
            Self::IdentitiesWithEffort => 10,
            // 50 sessions a second; and links, one after the other.
            Self::DirectorySessions => 4,
            Self::Mailboxes => 3,
            _ => 1,
        })
    }

    /// How long what it leaves behind stays.
    #[must_use]
    pub fn fades_for(self) -> Duration {
        Duration::from_secs(match self {
            // Neighbours and sessions that say nothing are forgotten after 10 s.
            Self::Initiations | Self::InitiationsNear | Self::InitiationsSlow => 11,
            Self::InitiationsWithCookies | Self::InitiationsWithEffort => 11,
            Self::IdentitiesToService | Self::IdentitiesToDirectory => 11,
            // What was suggested falls by half every 15 s.
            Self::IdentitiesWithLeastEffort | Self::IdentitiesWithEffort => 30,
            Self::DirectorySessions => 5,
            _ => 1,
        })
    }

    /// The subcommand of its tool, and what that is told.
    #[must_use]
    pub fn arguments(self, targets: &Targets) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut say =
            |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        match self {
            Self::Sending | Self::Initiations | Self::InitiationsNear | Self::InitiationsSlow => {
                say(&["attack-by-initiations", "--count", &MADE.to_string()]);
            }
            Self::GarbageToService => say(&["attack-by-cells", "--kind", "garbage"]),
            Self::InitiationsWithCookies | Self::InitiationsWithEffort => {
                say(&["attack-by-links", "--count", &MADE.to_string()]);
                say(&["--sources", &SOURCES.to_string()]);
            }
            Self::Probes => say(&["attack-by-probes", "--count", &PROBES.to_string()]),
            Self::IdentitiesToService
            | Self::IdentitiesWithLeastEffort
            | Self::IdentitiesWithEffort
            | Self::IdentitiesToDirectory => say(&["attack-by-cells", "--kind", "initiations"]),
            Self::Paths => {
                say(&["attack-by-cells", "--kind", "paths"]);
                say(&["--count", &MADE.to_string()]);
            }
            Self::DirectorySessions => {
                say(&["attack-by-identities", "--count", &IDENTITIES.to_string()]);
                say(&["--every", "10"]);
            }
            Self::Connections => {
                let server = (Node::Directory.ipv6(), DIRECTORY_PORT);
                let server = std::net::SocketAddr::from(server).to_string();
                say(&["attack-by-connections", "--server", &server]);
                say(&["--site", &SITE.0.to_string()]);
                say(&["--count", &CONNECTIONS.to_string()]);
            }
            Self::Mailboxes => {
                say(&["attack-by-mailboxes", "--keys", &KEYS.to_string()]);
                say(&["--messages", &MESSAGES.to_string()]);
            }
        }
        match self {
            Self::Sending => say(&["--instead", &closed_port().to_string()]),
            Self::InitiationsNear => say(&["--within", &network_of_newcomers().to_string()]),
            Self::InitiationsSlow => say(&["--rate", &BELOW_COOKIES.to_string()]),
            Self::InitiationsWithEffort => say(&["--effort"]),
            Self::IdentitiesWithLeastEffort | Self::IdentitiesWithEffort => {
                say(&["--effort", &LEAST_EFFORT.to_string()]);
            }
            _ => {}
        }
        match self {
            Self::GarbageToService
            | Self::IdentitiesToService
            | Self::IdentitiesWithLeastEffort
            | Self::IdentitiesWithEffort => say(&["--to", &targets.service]),
            _ => {}
        }
        if self == Self::IdentitiesWithEffort {
            say(&["--suggested"]);
        }
        let relays = match self {
            // From one neighbour, at one relay.
            Self::Paths => &targets.guards[..targets.guards.len().min(1)],
            Self::Sending
            | Self::Initiations
            | Self::InitiationsNear
            | Self::InitiationsSlow
            | Self::InitiationsWithCookies
            | Self::InitiationsWithEffort
            | Self::Probes
            | Self::Mailboxes => &targets.guards[..],
            _ => &[],
        };
        for relay in relays {
            say(&["--relay", relay]);
        }
        arguments
    }
}

/// Where nobody listens.
fn closed_port() -> SocketAddrV4 {
    SocketAddrV4::new(Node::Service.ipv4(), 9)
}

fn network_of_newcomers() -> Ipv4Addr {
    NEWCOMERS.ipv4
}

#[cfg(test)]
mod tests {
    use super::super::tools::Tool;
    use super::*;
    use clap::{Parser, ValueEnum as _};
    use std::collections::HashSet;

    #[derive(Parser)]
    struct Alone {
        #[command(subcommand)]
        tool: Tool,
    }

    #[test]
    fn every_tool_understands_what_it_is_told() {
        let id = mixline_protocol::identity::AnonymousId([0; 32]).to_string();
        let targets = Targets {
            guards: vec!["relay1".into(), "relay2".into()],
            service: id.clone(),
        };
        for attack in Attack::value_variants() {
            let mut words = vec!["mixline-bench".to_owned()];
            words.extend(attack.arguments(&targets));
            words.extend(["--seconds".into(), "20".into()]);
            if attack.knows_network() {
                words.extend(["--directory".into(), id.clone()]);
                words.extend(["--snapshot".into(), "file".into()]);
            }
            let tool = Alone::try_parse_from(&words).map(|alone| alone.tool);
            assert!(tool.is_ok(), "{words:?}: {}", tool.unwrap_err());
        }
    }

    #[test]
    fn names_and_labels_differ() {
        let all = Attack::value_variants();
        let names: HashSet<_> = all.iter().map(|attack| attack.name()).collect();
        let labels: HashSet<_> = all.iter().map(|attack| attack.label()).collect();
        assert_eq!((names.len(), labels.len()), (all.len(), all.len()));
    }
}
