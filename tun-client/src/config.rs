//! The configuration file, YAML. An unknown key is refused with its name and line.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mixline_daemon::logging::{Filter, LoggingError};
use mixline_daemon::reload::{Origin, Reloaded};
use mixline_directory_client::DirectoryClient;
use mixline_endpoint::{EngineConfig, PolicyRule};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::{AnonName, Label};
use serde::{Deserialize, Deserializer, Serialize};

use crate::control::{self, Sockets};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/mixline/client.yaml";
/// The longest name of a Linux interface (`IFNAMSIZ`, with its zero).
const MAX_INTERFACE_NAME: usize = 15;
/// The smallest MTU that carries IPv6 (RFC 8200, section 5).
const MIN_MTU: u16 = 1280;
/// The most names that one client publishes.
pub const MAX_NAMES: usize = 16;
/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// The settings of a client. Everything but `directory` has a default.
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
    /// Which network to join.
    pub directory: Directory,
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

/// The directory whose network is joined.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Where its public part answers: `http://host:port`.
    pub url: String,
    /// Its ID: what the snapshot has to be signed by.
    #[serde(deserialize_with = "from_text")]
    pub id: AnonymousId,
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

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("configuration {}: {problem}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: ConfigProblem,
}

impl ConfigError {
    /// Whether this user may not read the file.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(&self.problem, ConfigProblem::Read(error)
            if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Why a configuration was not read again: one line. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be changed.
    #[error(transparent)]
    Log(#[from] LoggingError),
}

/// What is wrong with a configuration: one line that names the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(io::Error),
    /// It is not YAML, or a key or value is not one that is known. Says which line.
    #[error("{0}")]
    Yaml(serde_yaml::Error),
    /// No interface can have this name.
    #[error(
        "interface: {name:?} is no name for an interface (1 to {MAX_INTERFACE_NAME} letters, \
         digits, `_`, `-`, `.`)"
    )]
    Interface {
        /// As configured.
        name: String,
    },
    /// IPv6 needs a larger MTU.
    #[error("mtu: {mtu} is below {MIN_MTU}")]
    Mtu {
        /// As configured, bytes.
        mtu: u16,
    },
    /// The directory's address is not one for HTTP.
    #[error(
        "directory.url: {url:?} does not begin with http:// (the snapshot is signed, it needs no \
         TLS)"
    )]
    DirectoryUrl {
        /// As configured.
        url: String,
    },
    /// The directory's address is none.
    #[error("directory.url: {0}")]
    Directory(mixline_directory_client::Error),
    /// A value that the endpoint refuses, with its key.
    #[error("{}: {} is not {}", .0.key, .0.got, .0.allowed)]
    Engine(mixline_endpoint::ConfigError),
    /// The state directory depends on where the client is started.
    #[error("state_dir: {} is not absolute", path.display())]
    StateDir {
        /// As configured.
        path: PathBuf,
    },
    /// More names than one client publishes.
    #[error("publish: {count} names, of at most {MAX_NAMES}")]
    TooManyNames {
        /// How many are configured.
        count: usize,
    },
    /// Names are published and nobody may open a session.
    #[error("accept: `never` contradicts `publish`: nobody could reach it")]
    PublishedButClosed,
}

/// A text that is no name to publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no name: 1 to 40 letters, digits and hyphens, such as freespeech.anon")]
pub struct NotALabel {
    /// The text.
    pub text: String,
}

/// A text that is no address of a name server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no IP address, with or without a port")]
struct NotAnUpstream {
    text: String,
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

    /// Reads the file again. What can change in place does, in `self`; the rest is named and stays.
    ///
    /// # Errors
    /// What is wrong with the file; then nothing changes.
    pub fn reload(&mut self, origin: &Origin) -> Result<Reloaded, ReloadError> {
        // Whoever adds a key decides here what a reload does with it.
        let Self {
            state_dir,
            interface,
            mtu,
            directory,
            control_socket,
            publish,
            accept,
            dns,
            lock,
            log,
            policies,
            guards,
            head_length,
            tail_length,
            public_tails,
            private_tails,
        } = Self::load(&origin.file)?;
        let mut done = Reloaded::default();
        done.replace_log(&origin.logging, &mut self.log, log)?;
        done.replace("mtu", &mut self.mtu, mtu);
        done.replace("publish", &mut self.publish, publish);
        done.replace("accept", &mut self.accept, accept);
        done.replace("dns.mode", &mut self.dns.mode, dns.mode);
        done.replace("dns.upstream", &mut self.dns.upstream, dns.upstream);
        done.replace("dns.forward", &mut self.dns.forward, dns.forward);
        done.replace("policies", &mut self.policies, policies);
        done.keep("state_dir", &self.state_dir, &state_dir);
        done.keep("interface", &self.interface, &interface);
        done.keep("control_socket", &self.control_socket, &control_socket);
        done.replace("guards", &mut self.guards, guards);
        done.replace("head_length", &mut self.head_length, head_length);
        done.replace("tail_length", &mut self.tail_length, tail_length);
        done.replace("public_tails", &mut self.public_tails, public_tails);
        done.replace("private_tails", &mut self.private_tails, private_tails);
        done.replace("lock", &mut self.lock, lock);
        if directory.id == self.directory.id {
            done.replace("directory.url", &mut self.directory.url, directory.url);
        } else {
            // Another network: not the old one at the address of the new.
            done.keep("directory", &self.directory, &directory);
        }
        Ok(done)
    }

    /// Reads and checks the text of a configuration.
    ///
    /// # Errors
    /// Any [`ConfigProblem`] but [`ConfigProblem::Read`].
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigProblem> {
        let config: Self = serde_yaml::from_str(text).map_err(ConfigProblem::Yaml)?;
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

    fn check(&self) -> Result<(), ConfigProblem> {
        let name = self.interface.as_str();
        if name.is_empty()
            || name.len() > MAX_INTERFACE_NAME
            || !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
            || name.starts_with(['.', '-'])
        {
            return Err(ConfigProblem::Interface {
                name: name.to_owned(),
            });
        }
        if self.mtu < MIN_MTU {
            return Err(ConfigProblem::Mtu { mtu: self.mtu });
        }
        let url = &self.directory.url;
        if url.strip_prefix("http://").is_none_or(str::is_empty) {
            return Err(ConfigProblem::DirectoryUrl { url: url.clone() });
        }
        DirectoryClient::new(url, self.directory.id).map_err(ConfigProblem::Directory)?;
        self.engine().check().map_err(ConfigProblem::Engine)?;
        if !self.state_dir.is_absolute() {
            return Err(ConfigProblem::StateDir {
                path: self.state_dir.clone(),
            });
        }
        if self.publish.len() > MAX_NAMES {
            return Err(ConfigProblem::TooManyNames {
                count: self.publish.len(),
            });
        }
        if self.accept == Accept::Never && !self.publish.is_empty() {
            return Err(ConfigProblem::PublishedButClosed);
        }
        Ok(())
    }
}

/// A name with or without its `.anon`.
///
/// # Errors
/// [`NotALabel`], which says what a name may be.
pub fn parse_label(text: &str) -> Result<Label, NotALabel> {
    let parsed = match text.parse::<AnonName>() {
        Ok(AnonName::Label(label)) => Some(label),
        Ok(AnonName::Id(_)) => None,
        Err(_) => text.parse().ok(),
    };
    parsed.ok_or_else(|| NotALabel {
        text: text.to_owned(),
    })
}

/// An IP address, or one with a port; port 53 if there is none.
fn parse_upstream(text: &str) -> Result<SocketAddr, NotAnUpstream> {
    text.parse::<SocketAddr>()
        .or_else(|_| {
            text.parse::<IpAddr>()
                .map(|ip| SocketAddr::new(ip, DNS_PORT))
        })
        .map_err(|_| NotAnUpstream {
            text: text.to_owned(),
        })
}

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
}

/// One element of a list, so that an error points at it.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct NameText(Label);

impl TryFrom<String> for NameText {
    type Error = NotALabel;

    fn try_from(text: String) -> Result<Self, NotALabel> {
        parse_label(&text).map(Self)
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct UpstreamText(SocketAddr);

impl TryFrom<String> for UpstreamText {
    type Error = NotAnUpstream;

    fn try_from(text: String) -> Result<Self, NotAnUpstream> {
        parse_upstream(&text).map(Self)
    }
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Label>, D::Error> {
    let names = Vec::<NameText>::deserialize(deserializer)?;
    Ok(names.into_iter().map(|NameText(name)| name).collect())
}

fn upstreams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let upstreams = Vec::<UpstreamText>::deserialize(deserializer)?;
    Ok(upstreams
        .into_iter()
        .map(|UpstreamText(address)| address)
        .collect())
}

/// The state directory unless the configuration names another one.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    "/var/lib/mixline".into()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> String {
        format!(
            "directory:\n  url: http://172.20.0.2:8080\n  id: {}\n",
            AnonymousId([7; 32])
        )
    }

    /// What is said about a text that is not taken.
    fn refused(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn only_the_directory_is_needed() {
        let config = Config::parse(&minimal()).unwrap();
        assert_eq!(config.interface, "mixline0");
        assert_eq!(config.mtu, 1500);
        assert_eq!(config.directory.id, AnonymousId([7; 32]));
        assert_eq!(
            config.control_socket(),
            Path::new("/var/lib/mixline/control.sock")
        );
        assert_eq!(
            config.control_sockets().0,
            ["/var/lib/mixline/control.sock", "/run/mixline/client.sock"].map(PathBuf::from)
        );
        assert_eq!(config.dns, Dns::default());
        assert_eq!(config.accept, Accept::Published);
        let error = refused("interface: mixline0\n");
        assert!(error.contains("missing field `directory`"), "{error}");
    }

    #[test]
    fn everything_is_read() {
        let text = minimal()
            + "state_dir: /tmp/a\ninterface: mix1\nmtu: 9000\ncontrol_socket: /run/m.sock\n\
               publish: [FreeSpeech, other.anon]\naccept: always\n\
               dns: {mode: resolv-conf, upstream: [192.0.2.1, \"[2001:db8::1]:5353\"], forward: false}\n\
               policies: [{port: 5060, policy: duplicate 2}]\n\
               guards: 2\nhead_length: 1\ntail_length: 4\npublic_tails: 8\nprivate_tails: 2\n";
        let config = Config::parse(&text).unwrap();
        let names: Vec<&str> = config.publish.iter().map(Label::as_str).collect();
        assert_eq!(names, ["freespeech", "other"]);
        assert_eq!(config.accept, Accept::Always);
        assert_eq!(config.dns.mode, DnsMode::ResolvConf);
        assert_eq!(
            config.dns.upstream,
            [
                "192.0.2.1:53".parse().unwrap(),
                "[2001:db8::1]:5353".parse().unwrap()
            ]
        );
        assert!(!config.dns.forward);
        assert_eq!(config.policies.len(), 1);
        let engine = config.engine();
        assert_eq!(
            (engine.guards, engine.head_length, engine.tail_length),
            (2, 1, 4)
        );
        assert_eq!((engine.public_tails, engine.private_tails), (8, 2));
        assert_eq!((engine.mtu, engine.policies.len()), (9000, 1));
    }

    #[test]
    fn the_defaults_of_paths_are_those_of_the_engine() {
        let config = Config::parse(&minimal()).unwrap();
        assert_eq!(config.engine(), EngineConfig::default());
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let error = refused(&(minimal() + "interfaec: mixline1\n"));
        assert!(
            error.contains("interfaec") && error.contains("line 4"),
            "{error}"
        );
        let error = refused(&(minimal() + "dns:\n  mod: off\n"));
        assert!(error.contains("dns") && error.contains("mod"), "{error}");
        assert!(error.contains("line 5"), "{error}");
        let error = refused(&(minimal() + "dns: {mode: perhaps}\n"));
        assert!(
            error.contains("perhaps") && error.contains("resolv-conf"),
            "{error}"
        );
        assert!(error.contains("line 4"), "{error}");
    }

    #[test]
    fn wrong_values_are_named() {
        for (line, key) in [
            ("interface: a-name-that-is-too-long", "interface"),
            ("interface: ../etc", "interface"),
            ("mtu: 1000", "mtu"),
            ("mtu: 70000", "mtu"),
            ("state_dir: relative", "state_dir"),
            ("publish: [www.example.com]", "publish"),
            ("publish: a", "publish"),
            ("accept: never\npublish: [a]", "accept"),
            ("dns: {upstream: [nonsense]}", "dns"),
            ("policies: [{policy: fastest}]", "policies"),
            ("guards: 0", "guards"),
            ("guards: 6", "guards"),
            ("head_length: 0", "head_length"),
            ("head_length: 5", "head_length"),
            ("tail_length: 5", "tail_length"),
            ("public_tails: 0", "public_tails"),
            ("public_tails: 9", "public_tails"),
            ("private_tails: 1", "private_tails"),
            ("private_tails: 5", "private_tails"),
            ("head_length: -1", "head_length"),
        ] {
            let error = refused(&format!("{}{line}\n", minimal()));
            assert!(error.contains(key), "{line}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = refused("directory: {url: \"http://a\", id: abc}");
        assert!(
            error.contains("directory") && error.contains("abc"),
            "{error}"
        );
        let text = minimal().replace("http://", "ftp://");
        assert!(refused(&text).contains("directory.url"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::load(Path::new("/nonexistent/client.yaml"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/client.yaml"), "{error}");
    }

    #[test]
    fn names_with_and_without_their_domain() {
        assert_eq!(parse_label("a.anon"), parse_label("A"));
        assert!(parse_label(&AnonymousId([1; 32]).host()).is_err());
        assert!(parse_label("a.b.anon").is_err());
        assert!(parse_label("").is_err());
    }
}
