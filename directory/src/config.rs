//! The configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mixline_daemon::logging::Filter;
use mixline_daemon::reload::{LogChange, Reloaded};
use mixline_daemon::{keep, replace};
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::records::{Parameters, Snapshot};
use serde::Deserialize;

use crate::error::ConfigProblem;
use crate::registry::AdmissionPolicy;
use crate::store::EtcdConfig;
use crate::{Error, Result};

/// A directory's configuration, in YAML. Unknown keys are refused by name and line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where keys and records are.
    pub state_dir: PathBuf,
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// How long an epoch of onion keys is, in seconds: 60 to 86400.
    #[serde(default = "epoch_seconds")]
    pub epoch_seconds: u32,
    /// How long the keys of a past epoch are honoured, in seconds: at most an epoch.
    #[serde(default = "grace_seconds")]
    pub grace_seconds: u32,
    /// The network of virtual IPv4 addresses.
    #[serde(default = "network")]
    pub network: String,
    /// After how many seconds of silence a relay leaves the snapshot: 5 to 3600.
    #[serde(default = "relay_timeout")]
    pub relay_timeout_s: u32,
    /// For how long services and relays have one place on the ring, in seconds: 60 to 604800.
    #[serde(default = "period_seconds")]
    pub period_seconds: u32,
    /// How long a snapshot is valid, in seconds: 60 to 86400.
    #[serde(default = "snapshot_validity")]
    pub snapshot_validity_s: u64,
    /// Takes relays at addresses that are not public, as within one site or one machine.
    #[serde(default)]
    pub allow_private_addresses: bool,
    /// Takes a relay only if it registers from one of the addresses that it advertises.
    #[serde(default = "yes")]
    pub check_source: bool,
    /// The roster of the directories of which this is one. Without it the directory is alone.
    #[serde(default)]
    pub roster: Option<PathBuf>,
    /// What is logged, if `MIXLINE_LOG` says nothing.
    #[serde(default)]
    pub log: Option<Filter>,
    /// Where records are kept.
    #[serde(default)]
    pub store: StoreConfig,
    /// The directory as an endpoint of the network.
    #[serde(default)]
    pub endpoint: EndpointConfig,
}

/// Where records are kept: in etcd, or, without it, in a file of the state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// An etcd that several front ends of one directory share.
    pub etcd: Option<EtcdConfig>,
}

/// How the directory is reached through the relays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointConfig {
    /// Whether it is. Without it nobody can publish or look anything up.
    pub enabled: bool,
    /// How many guards it uses.
    pub guards: usize,
    /// Relays in a head.
    pub head_length: usize,
    /// Relays in a tail.
    pub tail_length: usize,
    /// Tails in the snapshot.
    pub public_tails: usize,
    /// At most this many sessions, each with one asker, at one time.
    pub max_sessions: usize,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            guards: 3,
            head_length: 3,
            tail_length: 3,
            public_tails: 4,
            max_sessions: 1000,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::read(path).map_err(|problem| Error::Config {
            path: path.to_owned(),
            problem,
        })
    }

    /// Takes over from a configuration that was read again what can change in place; the rest is named
    /// and stays.
    #[must_use]
    pub fn take_over(&mut self, new: Self, log_change: LogChange) -> Reloaded {
        // Whoever adds a key decides here what a reload does with it.
        let Self {
            state_dir,
            listen,
            epoch_seconds,
            grace_seconds,
            network,
            relay_timeout_s,
            period_seconds,
            snapshot_validity_s,
            allow_private_addresses,
            check_source,
            roster,
            log,
            store,
            endpoint,
        } = new;
        let mut done = Reloaded::default();
        done.replace_log(log_change, &mut self.log, log);
        replace!(
            done,
            self,
            listen,
            relay_timeout_s,
            snapshot_validity_s,
            allow_private_addresses,
            check_source,
            endpoint,
        );
        // What all records rest on.
        keep!(
            done,
            self,
            roster,
            state_dir,
            period_seconds,
            epoch_seconds,
            grace_seconds,
            network,
            store
        );
        done
    }

    fn read(path: &Path) -> std::result::Result<Self, ConfigProblem> {
        let text = std::fs::read_to_string(path).map_err(ConfigProblem::Unreadable)?;
        let config: Self = serde_yaml::from_str(&text)
            .map_err(|error| ConfigProblem::Form(one_line(&error.to_string())))?;
        config.check()?;
        Ok(config)
    }

    /// What everybody in the network must agree on.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        Parameters {
            epoch_seconds: self.epoch_seconds,
            grace_seconds: self.grace_seconds,
            network: self.network.parse().unwrap_or_default(),
            relay_timeout_s: self.relay_timeout_s,
            period_seconds: self.period_seconds,
        }
    }

    /// Which relays are admitted.
    #[must_use]
    pub fn admission_policy(&self) -> AdmissionPolicy {
        AdmissionPolicy {
            private_addresses: self.allow_private_addresses,
            check_source: self.check_source,
        }
    }

    fn check(&self) -> std::result::Result<(), ConfigProblem> {
        within("epoch_seconds", self.epoch_seconds.into(), 60, 86_400)?;
        within(
            "grace_seconds",
            self.grace_seconds.into(),
            0,
            self.epoch_seconds.into(),
        )?;
        within("period_seconds", self.period_seconds.into(), 60, 604_800)?;
        within("relay_timeout_s", self.relay_timeout_s.into(), 5, 3600)?;
        within(
            "snapshot_validity_s",
            self.snapshot_validity_s,
            60,
            Snapshot::MAX_LIFETIME,
        )?;
        self.network
            .parse::<VirtualNetwork>()
            .map_err(|error| ConfigProblem::Network {
                network: self.network.clone(),
                error,
            })?;
        if let Some(etcd) = &self.store.etcd {
            etcd.check().map_err(ConfigProblem::Etcd)?;
        }
        mixline_endpoint::Config::from(self)
            .engine
            .check()
            .map_err(|error| ConfigProblem::Endpoint(error.to_string()))
    }
}

fn within(
    key: &'static str,
    value: u64,
    low: u64,
    high: u64,
) -> std::result::Result<(), ConfigProblem> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ConfigProblem::Range {
        key,
        value,
        low,
        high,
    })
}

impl From<&Config> for mixline_endpoint::Config {
    fn from(config: &Config) -> Self {
        let ours = &config.endpoint;
        let mut settings = Self::new(crate::keys::endpoint_dir(&config.state_dir));
        let engine = &mut settings.engine;
        engine.guards = ours.guards;
        engine.head_length = ours.head_length;
        engine.tail_length = ours.tail_length;
        engine.public_tails = ours.public_tails;
        engine.max_sessions = ours.max_sessions;
        engine.accept_sessions = true;
        settings
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn epoch_seconds() -> u32 {
    Parameters::default().epoch_seconds
}

fn grace_seconds() -> u32 {
    Parameters::default().grace_seconds
}

fn network() -> String {
    VirtualNetwork::default().to_string()
}

fn period_seconds() -> u32 {
    Parameters::default().period_seconds
}

fn relay_timeout() -> u32 {
    Parameters::default().relay_timeout_s
}

fn snapshot_validity() -> u64 {
    600
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory.yaml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    const LEAST: &str = "state_dir: /tmp/x\nlisten: 127.0.0.1:8080\n";

    #[test]
    fn defaults() {
        let config = load(LEAST).unwrap();
        assert_eq!(config.parameters(), Parameters::default());
        assert!(config.check_source && !config.allow_private_addresses);
        assert!(config.endpoint.enabled);
        let endpoint = load(&format!("{LEAST}endpoint: {{guards: 2}}\n"))
            .unwrap()
            .endpoint;
        assert_eq!((endpoint.guards, endpoint.tail_length), (2, 3));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let message = load(&format!("{LEAST}epoch_secnods: 60\n"))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("epoch_secnods") && message.contains("line 3"),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1);
        let nested = load(&format!("{LEAST}endpoint:\n  guard: 3\n"))
            .unwrap_err()
            .to_string();
        assert!(
            nested.contains("guard") && nested.contains("line 4"),
            "{nested}"
        );
        let missing = load("state_dir: /tmp/x\n").unwrap_err().to_string();
        assert!(missing.contains("listen"), "{missing}");
    }

    #[test]
    fn values_are_checked() {
        for (line, word) in [
            ("epoch_seconds: 1", "epoch_seconds"),
            ("grace_seconds: 4000", "grace_seconds"),
            ("relay_timeout_s: 0", "relay_timeout_s"),
            ("snapshot_validity_s: 10", "snapshot_validity_s"),
            ("network: 10.0.0.0/7", "network"),
            ("endpoint: {guards: 0}", "guards"),
            ("store: {etcd: {endpoints: []}}", "store.etcd"),
            (
                "store: {etcd: {endpoints: ['http://127.0.0.1:1'], prefx: x}}",
                "prefx",
            ),
            ("store: {redb: {}}", "redb"),
        ] {
            let message = load(&format!("{LEAST}{line}\n")).unwrap_err().to_string();
            assert!(message.contains(word), "{line}: {message}");
        }
    }
}
