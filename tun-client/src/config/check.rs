//! What a configuration has to be, beside what YAML and the types of its values say.

use std::io;
use std::path::PathBuf;

use mixline_daemon::network::KeysError;
use mixline_directory_client::DirectoryClient;

use super::{Accept, Config, MAX_NAMES};

/// The longest name of a Linux interface (`IFNAMSIZ`, with its zero).
const MAX_INTERFACE_NAME: usize = 15;
/// The smallest MTU that carries IPv6 (RFC 8200, section 5).
const MIN_MTU: u16 = 1280;

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
    /// It names no network, or two.
    #[error("{0}")]
    Network(KeysError),
    /// A directory's address is not one for HTTP.
    #[error("{key}: {url:?} does not begin with http:// (the snapshot is signed, it needs no TLS)")]
    DirectoryUrl {
        /// The key.
        key: &'static str,
        /// As configured.
        url: String,
    },
    /// A directory's address is none.
    #[error("{key}: {error}")]
    Directory {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        error: Box<mixline_directory_client::Error>,
    },
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

impl Config {
    /// What is wrong with it, if anything is.
    pub(super) fn check(&self) -> Result<(), ConfigProblem> {
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
        self.check_network()?;
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

    fn check_network(&self) -> Result<(), ConfigProblem> {
        let key = match self.directory {
            Some(_) => "directory.url",
            None => "directories",
        };
        for url in &self.network.urls {
            if url.strip_prefix("http://").is_none_or(str::is_empty) {
                let url = url.clone();
                return Err(ConfigProblem::DirectoryUrl { key, url });
            }
            DirectoryClient::new(url, self.network.id)
                .map_err(Box::new)
                .map_err(|error| ConfigProblem::Directory { key, error })?;
        }
        Ok(())
    }
}
