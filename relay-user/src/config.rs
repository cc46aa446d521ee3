//! The configuration file.
//!
//! A key that is not known is refused, with its name and line: a setting that is
//! silently ignored is worse than none.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mixline_daemon::logging::Filter;
use mixline_daemon::network::{Network, OneDirectory, network_id};
use mixline_protocol::identity::NetworkId;
use mixline_protocol::records::{MAX_ADDRESSES, MAX_TEXT};
use mixline_relay_engine::allowance::SENT_BYTES;
use mixline_relay_engine::link_sessions::MAX_WORKERS;
use mixline_xdp::FrameBytes;
use serde::{Deserialize, Serialize};

pub use mixline_relay_engine::port_kind::PortKind;

use crate::bytes::Bytes;

/// Datagrams a second that a worker is taken to be good for, if the operator says nothing.
const CAPACITY_PER_WORKER: u32 = 100_000;
/// The longest mean delay: with it, cells wait for at most some seconds.
const MAX_MEAN_DELAY_MS: u32 = 1000;
/// The range of `max_paths`. A path takes some 1.5 KB.
const PATHS: std::ops::RangeInclusive<usize> = 1024..=16_000_000;
/// The range of `replay_memory_mib`.
const REPLAY_MIB: std::ops::RangeInclusive<usize> = 2..=16_384;

/// The least `bandwidth`, a second: some dozens of datagrams.
const LEAST_BANDWIDTH: Bytes = Bytes(100_000);
/// The longest `contact`, bytes.
const MAX_CONTACT: usize = 200;

/// Why a configuration was refused: one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is not as documented.
    #[error("{path}: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// A value cannot be.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
}

/// A relay's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What people call the relay: 1 to 32 of `a-z A-Z 0-9 -`.
    pub name: String,
    /// Where identity, keys and replay memory are kept.
    pub state_dir: PathBuf,
    /// Where to listen: at most one IPv4 and one IPv6 address.
    pub listen: Vec<SocketAddr>,
    /// Where others reach the relay; by default, `listen`.
    #[serde(default)]
    pub advertise: Vec<SocketAddr>,
    /// Which network to join, as the keys `network` and `directories` say, or `directory`.
    #[serde(skip, default = "no_network")]
    pub network: Network,
    /// What the key `network` says.
    #[serde(default, rename = "network", deserialize_with = "network_id")]
    pub(crate) network_id: Option<NetworkId>,
    /// What the key `directories` says.
    #[serde(default)]
    pub(crate) directories: Vec<String>,
    /// What the key `directory` says.
    #[serde(default)]
    pub(crate) directory: Option<OneDirectory>,
    /// How many threads forward datagrams.
    #[serde(default)]
    pub workers: Workers,
    /// Relays of one operator name one family, and are not used together.
    #[serde(default)]
    pub family: Option<String>,
    /// Datagrams a second that the relay is willing to forward.
    #[serde(default)]
    pub capacity: Option<u32>,
    /// Bytes a second that the relay sends at most, headers included.
    #[serde(default)]
    pub bandwidth: Option<Bytes>,
    /// Bytes that the relay sends in a month of UTC at most, headers included.
    #[serde(default)]
    pub monthly: Option<Bytes>,
    /// How people reach the operator.
    #[serde(default)]
    pub contact: Option<String>,
    /// The mean of a random delay of each cell, in milliseconds; 0: none.
    #[serde(default)]
    pub mean_delay_ms: u32,
    /// What is logged, if `MIXLINE_LOG` says nothing.
    #[serde(default)]
    pub log: Option<Filter>,
    /// Where metrics are served over HTTP; nowhere, if not given.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// How datagrams get in and out.
    #[serde(default)]
    pub port: PortKind,
    /// The interface that XDP attaches to; by default, the one that has the address where
    /// others reach the relay.
    #[serde(default)]
    pub interface: Option<String>,
    /// How frames leave with `port: xdp`.
    #[serde(default)]
    pub xdp_send: XdpSend,
    /// Bytes of each frame with `port: xdp`: 4096, or 2048 for half the memory where the card's
    /// buffers do not come in steps of 1024 bytes.
    #[serde(default)]
    pub xdp_frame_bytes: XdpFrameBytes,
    /// The most paths to know at a time; some 1.7 KB each.
    #[serde(default = "default_max_paths")]
    pub max_paths: usize,
    /// Memory for what has been relayed, in MiB.
    #[serde(default = "default_replay_memory")]
    pub replay_memory_mib: usize,
    /// From when on the time inside counts.
    #[serde(default)]
    pub time_inside: InsideFrom,
}

/// How many threads forward datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Workers {
    /// One for each core.
    #[default]
    Auto,
    /// So many.
    Count(usize),
}

/// How frames leave with `port: xdp`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpSend {
    /// Through the TX ring with zero-copy, with GSO without.
    #[default]
    Auto,
    /// Through the TX ring.
    Ring,
    /// Through UDP with GSO.
    Gso,
}

/// From when on the time inside counts that a relay shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InsideFrom {
    /// From when the worker read the datagram.
    #[default]
    Worker,
    /// From when the kernel received it. For diagnosis.
    Kernel,
}

/// Bytes of each frame with `port: xdp`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XdpFrameBytes(FrameBytes);

impl From<XdpFrameBytes> for FrameBytes {
    fn from(size: XdpFrameBytes) -> Self {
        size.0
    }
}

impl<'de> Deserialize<'de> for XdpFrameBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            2048 => Ok(Self(FrameBytes::TwoKiB)),
            4096 => Ok(Self(FrameBytes::FourKiB)),
            _ => Err(serde::de::Error::custom("xdp_frame_bytes: 4096 or 2048")),
        }
    }
}

fn default_max_paths() -> usize {
    131_072
}

fn default_replay_memory() -> usize {
    32
}

/// What stands for the network until all keys are read.
fn no_network() -> Network {
    Network {
        id: NetworkId([0; 32]),
        urls: Vec::new(),
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Count(usize),
            Word(String),
        }
        match Form::deserialize(deserializer) {
            Ok(Form::Count(count)) => Ok(Self::Count(count)),
            Ok(Form::Word(word)) if word == "auto" => Ok(Self::Auto),
            _ => Err(serde::de::Error::custom(
                "workers: `auto` or a number of threads",
            )),
        }
    }
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`], one line that says what to change.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.into(),
            error,
        })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a configuration file.
    ///
    /// # Errors
    /// [`ConfigError::Form`], [`ConfigError::Value`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let form = |reason| ConfigError::Form {
            path: path.into(),
            reason,
        };
        let mut config: Self =
            serde_yaml::from_str(text).map_err(|error| form(error.to_string()))?;
        let (directory, id) = (config.directory.as_ref(), config.network_id);
        let network = Network::of_keys(directory, id, &config.directories);
        config.network = network.map_err(|error| form(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the form does not say.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first value that cannot be.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_label("name", &self.name)?;
        if let Some(family) = &self.family {
            check_label("family", family)?;
        }
        self.check_addresses()?;
        if let Workers::Count(count) = self.workers {
            within("workers", count, &(1..=MAX_WORKERS))?;
        }
        if self.capacity == Some(0) {
            return Err(wrong(
                "capacity",
                "a relay without capacity is not used; at least 1",
            ));
        }
        if self.bandwidth.is_some_and(|rate| rate < LEAST_BANDWIDTH) {
            return Err(wrong(
                "bandwidth",
                format!(
                    "a relay that sends less is of no use; at least {LEAST_BANDWIDTH} a second"
                ),
            ));
        }
        let contact = self.contact.as_deref().unwrap_or("?");
        if contact.is_empty() || contact.len() > MAX_CONTACT || contact.contains(char::is_control) {
            return Err(wrong(
                "contact",
                format!("one line of 1 to {MAX_CONTACT} bytes"),
            ));
        }
        within(
            "mean_delay_ms",
            self.mean_delay_ms,
            &(0..=MAX_MEAN_DELAY_MS),
        )?;
        within("max_paths", self.max_paths, &PATHS)?;
        within("replay_memory_mib", self.replay_memory_mib, &REPLAY_MIB)
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let of_family = |v4: bool| self.listen.iter().filter(|a| a.is_ipv4() == v4).count();
        if self.listen.is_empty() || of_family(true) > 1 || of_family(false) > 1 {
            return Err(wrong(
                "listen",
                "one IPv4 address, one IPv6 address, or one of each",
            ));
        }
        if self.advertise.len() > MAX_ADDRESSES {
            return Err(wrong(
                "advertise",
                format!("at most {MAX_ADDRESSES} addresses"),
            ));
        }
        if self.advertise.is_empty() && self.listen.iter().any(|a| a.ip().is_unspecified()) {
            return Err(wrong(
                "advertise",
                "`listen` takes all addresses of this machine; say which of them others reach",
            ));
        }
        for address in self.advertised() {
            if address.ip().is_unspecified() || is_multicast(address.ip()) || address.port() == 0 {
                return Err(wrong("advertise", format!("nobody reaches {address}")));
            }
            if of_family(address.is_ipv4()) == 0 {
                return Err(wrong(
                    "advertise",
                    format!("{address}: `listen` has no address of this family"),
                ));
            }
        }
        Ok(())
    }

    /// Where others reach the relay.
    #[must_use]
    pub fn advertised(&self) -> &[SocketAddr] {
        if self.advertise.is_empty() {
            &self.listen
        } else {
            &self.advertise
        }
    }

    /// How many workers there are on a machine with so many cores.
    #[must_use]
    pub fn worker_count(&self, cores: usize) -> usize {
        match self.workers {
            Workers::Auto => cores.clamp(1, MAX_WORKERS),
            Workers::Count(count) => count,
        }
    }

    /// What the relay says of its capacity, with so many workers.
    #[must_use]
    pub fn stated_capacity(&self, workers: usize) -> u32 {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        let capacity = self
            .capacity
            .unwrap_or_else(|| CAPACITY_PER_WORKER.saturating_mul(workers));
        // What it may not send, it does not offer.
        self.bandwidth.map_or(capacity, |rate| {
            capacity.min(u32::try_from(rate.0 / SENT_BYTES).unwrap_or(u32::MAX))
        })
    }

    /// The mean delay of each cell.
    #[must_use]
    pub fn mean_delay(&self) -> Option<Duration> {
        (self.mean_delay_ms > 0).then(|| Duration::from_millis(self.mean_delay_ms.into()))
    }
}

fn is_multicast(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::from([255; 4])
}

fn check_label(key: &'static str, text: &str) -> Result<(), ConfigError> {
    let fits = (1..=MAX_TEXT).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits {
        Ok(())
    } else {
        Err(wrong(
            key,
            format!("`{text}`: 1 to {MAX_TEXT} of a-z A-Z 0-9 -"),
        ))
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    range: &std::ops::RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(wrong(
            key,
            format!("{value}: between {} and {}", range.start(), range.end()),
        ))
    }
}

fn wrong(key: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        key,
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name: relay1\nstate_dir: /var/lib/mixline\n\
        listen: [\"0.0.0.0:7000\", \"[::]:7000\"]\nadvertise: [\"192.0.2.1:7000\"]\n\
        directory:\n  url: http://192.0.2.9:8080\n  \
        id: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n";

    fn load(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults() {
        let config = load(GOOD).unwrap();
        assert_eq!(config.worker_count(4), 4);
        assert_eq!(config.stated_capacity(4), 400_000);
        assert_eq!(config.port, PortKind::Auto);
        assert_eq!(config.max_paths, 131_072);
        assert_eq!(config.time_inside, InsideFrom::Worker);
        let kernel = load(&format!("{GOOD}time_inside: kernel\n")).unwrap();
        assert_eq!(kernel.time_inside, InsideFrom::Kernel);
        assert_eq!(config.mean_delay(), None);
        // What the bandwidth does not carry is not offered.
        let limited = load(&format!("{GOOD}bandwidth: 1456 kB\n")).unwrap();
        assert_eq!(limited.stated_capacity(4), 1000);
        let config = load(&format!("{GOOD}workers: 3\nport: xdp-filter\n")).unwrap();
        assert_eq!(config.worker_count(4), 3);
        assert_eq!(config.port, PortKind::XdpFilter);
        assert_eq!(
            load(&format!("{GOOD}workers: auto\n")).unwrap().workers,
            Workers::Auto
        );
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let error = load(&format!("{GOOD}worker: 2\n")).unwrap_err();
        assert!(
            error.contains("`worker`") && error.contains("line 8"),
            "{error}"
        );
        let nested = GOOD.replace("  url:", "  uri:");
        let error = load(&nested).unwrap_err();
        assert!(
            error.contains("`uri`") && error.contains("line 6"),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }

    #[test]
    fn values_that_cannot_be() {
        for (line, key) in [
            ("workers: 0", "workers"),
            ("workers: 65", "workers"),
            ("workers: some", "workers"),
            ("capacity: 0", "capacity"),
            ("bandwidth: 20 Mbit", "bandwidth"),
            ("bandwidth: 99 kB", "bandwidth"),
            ("contact: \"\"", "contact"),
            ("family: \"a b\"", "family"),
            ("mean_delay_ms: 1001", "mean_delay_ms"),
            ("max_paths: 3", "max_paths"),
            ("replay_memory_mib: 0", "replay_memory_mib"),
            ("port: fast", "port"),
            ("time_inside: card", "time_inside"),
            ("log: loud", "log"),
        ] {
            let error = load(&format!("{GOOD}{line}\n")).unwrap_err();
            assert!(error.contains(key), "{line}: {error}");
        }
        for (from, to, key) in [
            ("name: relay1", "name: \"\"", "name"),
            ("name: relay1", "name: relay_1", "name"),
            ("\"[::]:7000\"", "\"0.0.0.0:7001\"", "listen"),
            ("[\"0.0.0.0:7000\", \"[::]:7000\"]", "[]", "listen"),
            (
                "[\"0.0.0.0:7000\", \"[::]:7000\"]",
                "[\"[::]:7000\"]",
                "advertise",
            ),
            ("advertise: [\"192.0.2.1:7000\"]\n", "", "advertise"),
            ("192.0.2.1:7000", "0.0.0.0:7000", "advertise"),
            ("192.0.2.1:7000", "192.0.2.1:0", "advertise"),
            ("192.0.2.1:7000", "224.0.0.1:7000", "advertise"),
            ("aaaaaaaa\n", "aaa\n", "directory"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let error = load(&text).unwrap_err();
            assert!(error.contains(key), "{to}: {error}");
        }
    }

    #[test]
    fn a_missing_file() {
        let error = Config::load(Path::new("/nowhere/relay.yaml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read /nowhere/relay.yaml: "),
            "{error}"
        );
    }
}
