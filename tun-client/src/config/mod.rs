//! The configuration file, YAML. An unknown key is refused with its name and line.
//!
//! The values stand here, how they are written in `text`, what they have to be in `check`, and what a
//! client that runs does with other ones in `reload`.

mod check;
mod reload;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mixline_daemon::logging::Filter;
use mixline_daemon::network::{Network, OneDirectory, network_id};
use mixline_endpoint::{EngineConfig, PolicyRule};
use mixline_protocol::identity::NetworkId;
use mixline_protocol::name::Label;
use serde::{Deserialize, Serialize};

use crate::control::{self, Sockets};
use text::{names, upstreams};

pub use check::{ConfigError, ConfigProblem};
pub use reload::{Change, ReloadError};
pub use text::{NotALabel, parse_label};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/mixline/client.yaml";
/// The most names that one client publishes.
pub const MAX_NAMES: usize = 16;
/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// The settings of a client. Everything but the network has a default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where identity, guards, lease and names are kept; for this client alone.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// The name of the network interface.
    #[serde(default = "default_interface")]
    pub interface: String,
    /// The interface's MTU, bytes. It does not depend on the size of a cell.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Which network to join, as the keys `network` and `directories` say, or `directory`.
    #[serde(skip, default = "no_network")]
    pub network: Network,
    #[serde(default, rename = "network", deserialize_with = "network_id")]
    network_id: Option<NetworkId>,
    #[serde(default)]
    directories: Vec<String>,
    #[serde(default)]
    directory: Option<OneDirectory>,
    /// Where commands reach the running client. If it is not given: `client.sock` in the directory
    /// that the service manager makes, or `control.sock` in the state directory.
    #[serde(default)]
    pub control_socket: Option<PathBuf>,
    /// Names to claim and serve: `freespeech` or `freespeech.anon`.
    #[serde(default, deserialize_with = "names")]
    pub publish: Vec<Label>,
    /// When others may open sessions.
    #[serde(default)]
    pub accept: Accept,
    /// How the host's programs find `.anon`.
    #[serde(default)]
    pub dns: Dns,
    /// How long the host stays closed to virtual addresses.
    #[serde(default)]
    pub lock: Lock,
    /// What is logged, if `MIXLINE_LOG` says nothing.
    #[serde(default)]
    pub log: Option<Filter>,
    /// How packets are spread over paths.
    #[serde(default)]
    pub policies: Vec<PolicyRule>,
    /// How many guards are used, 1 to 5.
    #[serde(default = "guards")]
    pub guards: usize,
    /// Relays in a head, the guard included, 1 to 4.
    #[serde(default = "head_length")]
    pub head_length: usize,
    /// Relays in a tail, the guard included, 1 to 4.
    #[serde(default = "tail_length")]
    pub tail_length: usize,
    /// Tails in the own descriptor, 1 to 8.
    #[serde(default = "public_tails")]
    pub public_tails: usize,
    /// Tails that each peer gets for itself, 2 to 4.
    #[serde(default = "private_tails")]
    pub private_tails: usize,
}

/// When others may open sessions to the own ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// Only while a name is published.
    #[default]
    Published,
    /// Also without a name: who knows the ID can reach this host.
    Always,
    /// Never, whatever is published.
    Never,
}

/// How long the host stays closed to packets that would carry virtual addresses past the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lock {
    /// From `up` on until `down`, also when the client was killed in between.
    #[default]
    UntilDown,
    /// Always: from boot on, and after `down` too.
    Always,
}

/// How the host's programs find `.anon`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// How the host's resolver is pointed at the responder.
    #[serde(default)]
    pub mode: DnsMode,
    /// Where other domains are asked; the host's earlier name servers if empty.
    #[serde(default, deserialize_with = "upstreams")]
    pub upstream: Vec<SocketAddr>,
    /// Whether other domains are forwarded at all; refused otherwise.
    #[serde(default = "yes")]
    pub forward: bool,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            mode: DnsMode::Auto,
            upstream: Vec::new(),
            forward: true,
        }
    }
}

/// How the host's resolver is pointed at the responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsMode {
    /// systemd-resolved where it runs, `/etc/resolv.conf` elsewhere.
    #[default]
    Auto,
    /// systemd-resolved: `.anon` goes to the responder, everything else stays.
    Resolved,
    /// `/etc/resolv.conf` names the responder while the client is up.
    ResolvConf,
    /// Nothing is changed; the responder can still be asked.
    Off,
}

impl fmt::Display for DnsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Resolved => "resolved",
            Self::ResolvConf => "resolv-conf",
            Self::Off => "off",
        })
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file, the key, its line, and what it may be.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        std::fs::read_to_string(path)
            .map_err(ConfigProblem::Read)
            .and_then(|text| Self::parse(&text))
            .map_err(|problem| ConfigError {
                path: path.to_owned(),
                problem,
            })
    }

    /// Reads and checks the text of a configuration.
    ///
    /// # Errors
    /// Any [`ConfigProblem`] but [`ConfigProblem::Read`].
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigProblem> {
        let mut config: Self = serde_yaml::from_str(text).map_err(ConfigProblem::Yaml)?;
        let (directory, id) = (config.directory.as_ref(), config.network_id);
        let network = Network::of_keys(directory, id, &config.directories);
        config.network = network.map_err(ConfigProblem::Network)?;
        config.check()?;
        Ok(config)
    }

    /// What it says of the endpoint. Whether that accepts sessions also depends on the names that are
    /// published: here it does not.
    #[must_use]
    pub fn engine(&self) -> EngineConfig {
        EngineConfig {
            guards: self.guards,
            head_length: self.head_length,
            tail_length: self.tail_length,
            public_tails: self.public_tails,
            private_tails: self.private_tails,
            policies: self.policies.clone(),
            mtu: self.mtu,
            ..EngineConfig::default()
        }
    }

    /// Where this process, as the running client, is reached by commands.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        match &self.control_socket {
            Some(path) => path.clone(),
            None if self.is_the_hosts() && control::has_runtime_directory() => {
                control::RUNTIME_SOCKET.into()
            }
            None => self.state_dir.join(control::STATE_SOCKET),
        }
    }

    /// Where the addresses that programs were told outlive the process: in memory of the machine, so
    /// nowhere without a directory of the service manager's.
    #[must_use]
    pub fn told_file(&self) -> Option<PathBuf> {
        let directory = Path::new(control::RUNTIME_DIRECTORY);
        (self.is_the_hosts() && directory.is_dir()).then(|| directory.join("told"))
    }

    /// Where commands look for the running client.
    #[must_use]
    pub fn control_sockets(&self) -> Sockets {
        let mut places = match &self.control_socket {
            Some(path) => return Sockets(vec![path.clone()]),
            None => vec![self.state_dir.join(control::STATE_SOCKET)],
        };
        if self.is_the_hosts() {
            places.push(control::RUNTIME_SOCKET.into());
        }
        Sockets(places)
    }

    /// Whether this is the client of the host, and none of several with state directories of
    /// their own: the socket of the host's is no other's.
    fn is_the_hosts(&self) -> bool {
        self.state_dir == default_state_dir()
    }
}

/// The state directory unless the configuration names another one.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    "/var/lib/mixline".into()
}

/// What stands for the network until all keys are read.
fn no_network() -> Network {
    Network {
        id: NetworkId([0; 32]),
        urls: Vec::new(),
    }
}

fn default_interface() -> String {
    "mixline0".to_owned()
}

fn default_mtu() -> u16 {
    1500
}

fn guards() -> usize {
    EngineConfig::default().guards
}

fn head_length() -> usize {
    EngineConfig::default().head_length
}

fn tail_length() -> usize {
    EngineConfig::default().tail_length
}

fn public_tails() -> usize {
    EngineConfig::default().public_tails
}

fn private_tails() -> usize {
    EngineConfig::default().private_tails
}

fn yes() -> bool {
    true
}
