//! The first boot of the disk image: from a file that the operator left to a relay that runs.
//!
//! The file is YAML, of the keys of [`FirstBoot`]; or user data of cloud-init, which begins with
//! `#cloud-config` and has the same keys below `mixline_relay`. A key that is not known is refused.
//! [`FirstBoot::make`] writes nothing unless the relay would run.

mod host;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mixline_relay_engine::port_kind::PortKind;
use serde::{Deserialize, Deserializer};

pub use host::{Host, HostError};

use super::machine::{Machine, Proposal};
use super::{CONFIG, Enabled, InitError, Network, STATE_DIR, Wishes};
use crate::config::Config;
use crate::doctor::{self, Diagnosis, Level};

/// The longest file that is read, bytes.
const LONGEST: u64 = 64 << 10;
/// How user data of cloud-init begins.
const CLOUD_CONFIG: &str = "#cloud-config";

/// Why there is no relay yet: what to do.
#[derive(Debug, thiserror::Error)]
pub enum FirstBootError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is not as documented.
    #[error("{path}: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// The machine.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The relay.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The doctor's problems.
    #[error("the relay would not run here:{0}")]
    Doctor(String),
    /// The unit.
    #[error("the relay is made, and does not run: {0}")]
    NotStarted(String),
}

impl FirstBootError {
    /// Whether a person has to change the file: no later try will find it better.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Form { .. } => true,
            Self::Init(error) => matches!(error, InitError::Config(_)),
            Self::Host(_) | Self::Doctor(_) | Self::NotStarted(_) => false,
        }
    }
}

/// What an operator leaves for the first boot.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstBoot {
    /// The network to join.
    #[serde(deserialize_with = "network")]
    network: Network,
    /// What people call the relay.
    name: String,
    /// Where to listen; by default, on all addresses of the families that are advertised.
    #[serde(default)]
    listen: Vec<SocketAddr>,
    /// Where others reach the relay; by default, the public addresses of the interface.
    #[serde(default)]
    advertise: Vec<SocketAddr>,
    /// Whose addresses to take; by default, that of the default route.
    #[serde(default)]
    interface: Option<String>,
    /// How datagrams get in and out.
    #[serde(default)]
    port: PortKind,
    /// Other keys of the relay's configuration.
    #[serde(default)]
    settings: serde_yaml::Mapping,
    /// Who may log in as root by ssh, a key a line.
    #[serde(default)]
    ssh_authorized_keys: Vec<String>,
    /// What crypt(3) makes of root's password.
    #[serde(default)]
    root_password_hash: Option<String>,
    /// Addresses, where there is no DHCP.
    #[serde(default, rename = "static")]
    fixed: Option<host::Static>,
}

/// What is honoured of cloud-init's user data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudConfig {
    mixline_relay: FirstBoot,
    #[serde(default)]
    ssh_authorized_keys: Vec<String>,
}

fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
    let line = String::deserialize(deserializer)?;
    line.parse().map_err(serde::de::Error::custom)
}

impl FirstBoot {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`FirstBootError::Read`], [`FirstBootError::Form`].
    pub fn read(path: &Path) -> Result<Self, FirstBootError> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
            .map_err(|error| FirstBootError::Read {
                path: path.to_owned(),
                error,
            })?;
        Self::parse(&text).map_err(|reason| FirstBootError::Form {
            path: path.to_owned(),
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() as u64 > LONGEST {
            return Err(format!("longer than {LONGEST} bytes"));
        }
        // An editor of another system may have put a mark in front.
        let text = text.trim_start_matches('\u{feff}');
        let this = if text.starts_with(CLOUD_CONFIG) {
            let cloud: CloudConfig = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
            let mut this = cloud.mixline_relay;
            this.ssh_authorized_keys.extend(cloud.ssh_authorized_keys);
            this
        } else {
            serde_yaml::from_str(text).map_err(|error| error.to_string())?
        };
        this.host().check()?;
        Ok(this)
    }

    /// What the machine is to be beside a relay.
    #[must_use]
    pub fn host(&self) -> Host {
        Host {
            ssh_authorized_keys: self.ssh_authorized_keys.clone(),
            root_password_hash: self.root_password_hash.clone(),
            fixed: self.fixed.clone(),
        }
    }

    /// The relay's configuration, with what this machine suggests: as text, and checked.
    fn config(&self) -> Result<(String, Config), InitError> {
        let mut wishes = Wishes {
            network: self.network.clone(),
            name: Some(self.name.clone()),
            state_dir: STATE_DIR.into(),
            listen: self.listen.clone(),
            advertise: self.advertise.clone(),
            port: self.port,
        };
        let machine = Machine::look(self.interface.as_deref())?;
        wishes.suggest(&machine.addresses);
        let missing = wishes.missing();
        if !missing.is_empty() {
            return Err(InitError::Missing(missing.join(", ")));
        }
        let settings = if self.settings.is_empty() {
            String::new()
        } else {
            serde_yaml::to_string(&self.settings).unwrap_or_default()
        };
        let text = |proposal: &Proposal| wishes.yaml(proposal) + &settings;
        let file = Path::new(CONFIG);
        let bare = Config::parse(file, &text(&Proposal::default()))?;
        let text = text(&machine.propose(&bare));
        let config = Config::parse(file, &text)?;
        Ok((text, config))
    }

    /// Lets the doctor look; then writes configuration and keys, and starts the relay.
    ///
    /// # Errors
    /// [`FirstBootError`]; then nothing was written, but for [`FirstBootError::NotStarted`] and keys.
    pub async fn make(&self) -> Result<(), FirstBootError> {
        let file = Path::new(CONFIG);
        if file.exists() {
            return Err(InitError::Exists(file.to_owned()).into());
        }
        let (text, config) = self.config()?;
        let diagnosis = doctor::examine(Some(&config), None).await;
        if !diagnosis.runs {
            return Err(FirstBootError::Doctor(problems(&diagnosis)));
        }
        // The configuration last: with it, all is there.
        super::make_keys(&config)?;
        super::write(file, &text).map_err(|error| InitError::Write {
            path: file.to_owned(),
            error,
        })?;
        match super::enable(file) {
            Enabled::Yes => Ok(()),
            Enabled::No(why) | Enabled::Failed(why) => Err(FirstBootError::NotStarted(why)),
        }
    }
}

/// What keeps the relay from running, a line each.
fn problems(diagnosis: &Diagnosis) -> String {
    let checks = diagnosis
        .sections
        .iter()
        .flat_map(|section| &section.checks);
    checks
        .filter(|finding| finding.level == Level::Problem)
        .map(|finding| {
            let change = finding.change.as_deref().unwrap_or_default();
            format!("\n  {}: {}; change: {change}", finding.check, finding.found)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use mixline_protocol::identity::AnonymousId;

    use super::*;

    fn line() -> String {
        format!("mixline:{}@http://192.0.2.9:8080", AnonymousId([7; 32]))
    }

    #[test]
    fn a_file_of_two_lines_will_do() {
        let text = format!("network: {}\nname: relay7\n", line());
        for text in [text.clone(), format!("\u{feff}{text}")] {
            let left = FirstBoot::parse(&text).unwrap();
            assert_eq!(left.name, "relay7");
            assert_eq!(left.port, PortKind::Auto);
            assert_eq!(left.host(), Host::default());
        }
    }

    #[test]
    fn all_of_it_becomes_a_configuration() {
        let text = format!(
            "network: {}\nname: relay7\nadvertise: ['192.0.2.1:7001', '[2001:db8::1]:7001']\nport: udp\n\
             settings: {{bandwidth: 20 MB, family: us, workers: 2}}\nroot_password_hash: $6$salt$hash\n\
             ssh_authorized_keys: [ssh-ed25519 AAAA me]\n\
             static: {{addresses: [192.0.2.1/24], gateways: [192.0.2.254], dns: ['2001:db8::53']}}\n",
            line()
        );
        let left = FirstBoot::parse(&text).unwrap();
        let (text, config) = left.config().unwrap();
        assert!(
            text.contains("listen: [\"0.0.0.0:7001\", \"[::]:7001\"]"),
            "{text}"
        );
        assert_eq!(config.family.as_deref(), Some("us"));
        assert_eq!(config.state_dir, Path::new(STATE_DIR));
        assert_eq!(config.port, PortKind::Udp);
    }

    #[test]
    fn user_data_of_cloud_init() {
        let text = format!(
            "#cloud-config\nssh_authorized_keys:\n  - ssh-ed25519 BBBB you\nmixline_relay:\n  network: {}\n  \
             name: relay7\n  ssh_authorized_keys: [ssh-ed25519 AAAA me]\n",
            line()
        );
        let left = FirstBoot::parse(&text).unwrap();
        assert_eq!(left.host().ssh_authorized_keys.len(), 2);
        let error = FirstBoot::parse(&format!("{text}packages: [nmap]\n")).unwrap_err();
        assert!(error.contains("unknown field `packages`"), "{error}");
        let error = FirstBoot::parse("#cloud-config\nhostname: x\n").unwrap_err();
        assert!(error.contains("hostname"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let line = line();
        for (text, what) in [
            (format!("network: {line}\n"), "missing field `name`"),
            ("name: x\n".to_owned(), "missing field `network`"),
            (String::new(), "missing field `network`"),
            (
                format!("network: {line}\nname: x\nnmae: y\n"),
                "unknown field `nmae`",
            ),
            (
                format!("network: {}\nname: x\n", line.replace("mixline:", "mix:")),
                "names no network",
            ),
            (
                format!("network: {line}\nname: x\nadvertise: [here]\n"),
                "advertise",
            ),
            (
                format!("network: {line}\nname: x\nroot_password_hash: secret\n"),
                "root_password_hash",
            ),
            (
                format!(
                    "network: {line}\nname: x\nssh_authorized_keys: [\"ssh-rsa A\\nssh-rsa B\"]\n"
                ),
                "ssh_authorized_keys",
            ),
            (
                format!("network: {line}\nname: x\nstatic: {{addresses: [192.0.2.1]}}\n"),
                "192.0.2.1",
            ),
        ] {
            let error = FirstBoot::parse(&text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn settings_are_those_of_a_relay_and_say_nothing_twice() {
        let settings = |settings: &str| {
            let text = format!(
                "network: {}\nname: relay7\nadvertise: ['192.0.2.1:1']\nsettings: {{{settings}}}\n",
                line()
            );
            FirstBoot::parse(&text).unwrap().config().map(drop)
        };
        settings("mean_delay_ms: 3").unwrap();
        let error = FirstBootError::from(settings("nonsense: 1").unwrap_err());
        assert!(error.to_string().contains("nonsense") && error.is_final());
        let error = settings("name: other").unwrap_err().to_string();
        assert!(error.contains("duplicate field `name`"), "{error}");
    }
}
