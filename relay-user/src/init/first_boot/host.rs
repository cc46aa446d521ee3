//! What the machine of the disk image becomes beside a relay: who may log in, and its addresses.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Deserializer};

/// Who may log in as root.
const KEYS: &str = "/root/.ssh/authorized_keys";
/// Addresses, before the image's own file, which asks for DHCP.
const NETWORK: &str = "/etc/systemd/network/70-first-boot.network";

/// What cannot be done to the machine.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file.
    #[error("cannot write {path}: {error}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A program of the system.
    #[error("{program}: {reason}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        reason: String,
    },
}

/// What the machine is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Who may log in as root by ssh, a key a line.
    pub ssh_authorized_keys: Vec<String>,
    /// What crypt(3) makes of root's password.
    pub root_password_hash: Option<String>,
    /// Addresses, where there is no DHCP.
    pub fixed: Option<Static>,
}

/// Addresses, where there is no DHCP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Static {
    /// The card; by default, all of them.
    #[serde(default)]
    interface: Option<String>,
    /// With their prefixes' lengths.
    addresses: Vec<Prefixed>,
    #[serde(default)]
    gateways: Vec<IpAddr>,
    #[serde(default)]
    dns: Vec<IpAddr>,
}

/// An address in its network: `192.0.2.7/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefixed {
    address: IpAddr,
    length: u8,
}

impl<'de> Deserialize<'de> for Prefixed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let address: IpAddr = address.parse().ok()?;
            let length = length.parse().ok()?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            (length <= longest).then_some(Self { address, length })
        });
        parsed.ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no address with a length: 192.0.2.7/24"
            ))
        })
    }
}

impl Static {
    /// For systemd-networkd.
    fn network(&self) -> String {
        let card = match &self.interface {
            Some(name) => format!("Name={name}"),
            None => "Type=ether\nKind=!*".into(),
        };
        let mut text = format!("# From the first boot.\n[Match]\n{card}\n\n[Network]\n");
        for Prefixed { address, length } in &self.addresses {
            let _ = writeln!(text, "Address={address}/{length}");
        }
        for gateway in &self.gateways {
            let _ = writeln!(text, "Gateway={gateway}");
        }
        for server in &self.dns {
            let _ = writeln!(text, "DNS={server}");
        }
        text
    }
}

impl Host {
    /// Checks what the form does not say; else gives what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        for key in &self.ssh_authorized_keys {
            let one_line = !key.chars().any(char::is_control);
            if !one_line || key.split_whitespace().count() < 2 {
                return Err(format!("ssh_authorized_keys: `{key}` is not one key"));
            }
        }
        if let Some(hash) = &self.root_password_hash {
            let is_hash = hash.starts_with('$')
                && hash.bytes().filter(|byte| *byte == b'$').count() >= 3
                && hash.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            if !is_hash {
                return Err(
                    "root_password_hash: what `openssl passwd -6` prints, not a password".into(),
                );
            }
        }
        if let Some(fixed) = &self.fixed {
            let name = fixed.interface.as_deref().unwrap_or("eth0");
            if !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
            {
                return Err(format!("static: interface: `{name}` is not one's name"));
            }
            if fixed.addresses.is_empty() {
                return Err("static: addresses: there is none".into());
            }
        }
        Ok(())
    }

    /// Makes the machine so. What is so already is left alone.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn apply(&self) -> Result<(), HostError> {
        if !self.ssh_authorized_keys.is_empty() {
            let path = Path::new(KEYS);
            add_lines(path, &self.ssh_authorized_keys).map_err(|error| HostError::Write {
                path: path.to_owned(),
                error,
            })?;
            run("systemctl", &["--no-block", "start", "ssh.service"], "")?;
        }
        if let Some(hash) = &self.root_password_hash {
            run("chpasswd", &["--encrypted"], &format!("root:{hash}\n"))?;
        }
        if let Some(fixed) = &self.fixed {
            let (path, text) = (Path::new(NETWORK), fixed.network());
            if fs::read_to_string(path).ok().as_deref() != Some(&text) {
                fs::write(path, text).map_err(|error| HostError::Write {
                    path: path.to_owned(),
                    error,
                })?;
                run("networkctl", &["reload"], "")?;
            }
            let online = ["--any", "--timeout=60"];
            run("/usr/lib/systemd/systemd-networkd-wait-online", &online, "")?;
        }
        Ok(())
    }
}

/// Adds lines that a file of its owner's does not have.
fn add_lines(path: &Path, lines: &[String]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    let there = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    for line in lines {
        if !there.lines().any(|old| old == line) {
            writeln!(file, "{line}")?;
        }
    }
    file.sync_all()
}

/// Runs a program of the system with a text to read.
fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<(), HostError> {
    let failed = |reason: String| HostError::Program { program, reason };
    let mut process = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = process.stdin.take() {
        // A program that does not read says itself why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = process
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(
        said.lines().last().unwrap_or("it failed").to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn addresses_become_a_network() {
        let text = "{interface: eno1, addresses: [192.0.2.7/24, '2001:db8::7/64'], gateways: ['2001:db8::1']}";
        let fixed: Static = serde_yaml::from_str(text).unwrap();
        let host = Host {
            fixed: Some(fixed.clone()),
            ..Host::default()
        };
        host.check().unwrap();
        let network = fixed.network();
        assert!(network.contains("[Match]\nName=eno1\n"), "{network}");
        assert!(
            network.contains("Address=192.0.2.7/24\nAddress=2001:db8::7/64\nGateway=2001:db8::1\n"),
            "{network}"
        );
        for wrong in ["192.0.2.7/33", "192.0.2.7", "::/129", "here/8"] {
            let text = format!("{{addresses: ['{wrong}']}}");
            assert!(serde_yaml::from_str::<Static>(&text).is_err(), "{wrong}");
        }
        let text = "{interface: \"eno1\\n[Network]\", addresses: [192.0.2.7/24]}";
        let host = Host {
            fixed: serde_yaml::from_str(text).unwrap(),
            ..Host::default()
        };
        assert!(host.check().is_err());
    }

    #[test]
    fn keys_are_added_once_and_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(".ssh/authorized_keys");
        let keys = ["ssh-ed25519 AAAA me".to_owned()];
        add_lines(&file, &keys).unwrap();
        fs::write(&file, "ssh-ed25519 AAAA me\nssh-rsa BBBB you\n").unwrap();
        add_lines(&file, &keys).unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "ssh-ed25519 AAAA me\nssh-rsa BBBB you\n"
        );
        let mode = fs::metadata(file.parent().unwrap()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
    }
}
