//! `mixline-relay init`: from the one line that names a network to a relay that runs.
//!
//! It finds out what the machine says, asks a person for what is missing and for consent, writes
//! configuration and keys, lets the doctor look, and enables the unit where systemd runs. Nothing
//! that is there is overwritten.

mod first_boot;
mod machine;
mod proposal;

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use mixline_protocol::random::OsRandom;
use nix::unistd::{Gid, Uid, User, chown};

pub use first_boot::{FirstBoot, FirstBootError, Host, HostError};
use machine::{Machine, Proposal};
pub use mixline_daemon::network::{Network, NoNetwork};
pub use proposal::Wishes;

use crate::config::{Config, ConfigError};
use crate::port::Cards;
use crate::state_dir::{StateDir, StateError};

/// The configuration that the unit runs with.
pub const CONFIG: &str = "/etc/mixline/relay.yaml";
/// The state directory that the unit makes.
pub const STATE_DIR: &str = "/var/lib/mixline-relay";
/// The unit, and the user that it runs as.
const UNIT: &str = "mixline-relay.service";
const USER: &str = "mixline-relay";

/// Why there is no new relay: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A configuration is there.
    #[error(
        "{0} exists already; nothing was changed. Edit it, or remove it first; the keys stay in any \
         case"
    )]
    Exists(PathBuf),
    /// The interface that was named is not there.
    #[error(
        "no interface {name} with addresses (there are {there}): name another with --interface"
    )]
    NoInterface {
        /// What was named.
        name: String,
        /// What there is.
        there: Cards,
    },
    /// Nobody is there to be asked.
    #[error("nobody is at a terminal to be asked; missing: {0}")]
    Missing(String),
    /// The person said no.
    #[error("nothing was written")]
    Declined,
    /// What was asked for cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration cannot be written.
    #[error("cannot write {path}: {error}{}", as_root(.error))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The terminal.
    #[error("cannot ask: {0}")]
    Ask(io::Error),
    /// Keys.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What helps where a right is missing.
fn as_root(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; run it as root, or name places of your own with --config and --state-dir"
    } else {
        ""
    }
}

/// Where a person answers, if one is there.
pub type Terminal<'a> = Option<(&'a mut dyn BufRead, &'a mut dyn Write)>;

/// Fills in what is missing, and lets a person see it. Then writes configuration and keys.
///
/// # Errors
/// [`InitError`]; then nothing was written, but for [`InitError::State`].
pub fn create(
    file: &Path,
    mut wishes: Wishes,
    interface: Option<&str>,
    mut terminal: Terminal<'_>,
) -> Result<Config, InitError> {
    if file.exists() {
        return Err(InitError::Exists(file.to_owned()));
    }
    let machine = Machine::look(interface)?;
    wishes.suggest(&machine.addresses);
    match &mut terminal {
        None => {
            let missing = wishes.missing();
            if !missing.is_empty() {
                return Err(InitError::Missing(missing.join(", ")));
            }
        }
        Some((answers, questions)) => ask(&mut wishes, answers, questions)?,
    }
    let bare = Config::parse(file, &wishes.yaml(&Proposal::default()))?;
    let text = wishes.yaml(&machine.propose(&bare));
    let config = Config::parse(file, &text)?;
    if let Some((answers, questions)) = &mut terminal {
        let shown = format!(
            "{}:\n\n{text}\nWrite it, make the keys, and start the relay if the machine carries it? [Y/n] ",
            file.display()
        );
        let answer = question(answers, questions, &shown)?;
        if !(answer.is_empty() || answer.eq_ignore_ascii_case("y")) {
            return Err(InitError::Declined);
        }
    }
    write(file, &text).map_err(|error| InitError::Write {
        path: file.to_owned(),
        error,
    })?;
    make_keys(&config)?;
    Ok(config)
}

/// Asks for what is missing.
fn ask(
    wishes: &mut Wishes,
    answers: &mut dyn BufRead,
    questions: &mut dyn Write,
) -> Result<(), InitError> {
    while wishes.name.is_none() {
        let name = question(answers, questions, "Name of the relay (a-z A-Z 0-9 -): ")?;
        wishes.name = Some(name).filter(|name| !name.is_empty());
    }
    while wishes.advertise.is_empty() {
        let text = "This machine has no public address. Where do others reach the relay \
                    (ADDRESS:PORT)? ";
        let address = question(answers, questions, text)?;
        match address.parse::<SocketAddr>() {
            Ok(address) => {
                wishes.advertise.push(address);
                wishes.suggest(&[]);
            }
            Err(_) => writeln!(questions, "`{address}` is no address with a port")
                .map_err(InitError::Ask)?,
        }
    }
    Ok(())
}

/// One question and its answer.
fn question(
    answers: &mut dyn BufRead,
    questions: &mut dyn Write,
    text: &str,
) -> Result<String, InitError> {
    let mut line = String::new();
    write!(questions, "{text}")
        .and_then(|()| questions.flush())
        .and_then(|()| answers.read_line(&mut line))
        .and_then(|length| match length {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim().to_owned()),
        })
        .map_err(InitError::Ask)
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = file.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
    }
    // Only if nobody was faster.
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(file)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()
}

/// Makes the state directory and the keys, unless they are there; they are the unit's user's, if
/// root makes them and there is one.
fn make_keys(config: &Config) -> Result<(), InitError> {
    let state = StateDir::open(&config.state_dir)?;
    state.identity(&mut OsRandom::new())?;
    drop(state);
    let user = User::from_name(USER).ok().flatten();
    if let Some(user) = user.filter(|_| Uid::effective().is_root()) {
        give(&config.state_dir, user.uid, user.gid).map_err(|error| InitError::Write {
            path: config.state_dir.clone(),
            error,
        })?;
    }
    Ok(())
}

fn give(directory: &Path, user: Uid, group: Gid) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        chown(&entry?.path(), Some(user), Some(group))?;
    }
    Ok(chown(directory, Some(user), Some(group))?)
}

/// What became of the unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enabled {
    /// It runs, and does so after each start of the machine.
    Yes,
    /// It was left alone.
    No(String),
    /// It does not start, or may not be enabled.
    Failed(String),
}

/// Enables the unit where systemd runs and has it, if it runs with this configuration.
#[must_use]
pub fn enable(file: &Path) -> Enabled {
    if !Path::new("/run/systemd/system").is_dir() {
        return Enabled::No("systemd does not run here".into());
    }
    if file != Path::new(CONFIG) {
        return Enabled::No(format!("{UNIT} runs with {CONFIG}"));
    }
    let output = Command::new("systemctl")
        .args(["enable", "--now", UNIT])
        .output();
    match output {
        Ok(output) if output.status.success() => Enabled::Yes,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or("it failed");
            Enabled::Failed(format!(
                "systemctl enable --now {UNIT}: {first} (journalctl --unit {UNIT})"
            ))
        }
        Err(error) => Enabled::Failed(format!("systemctl: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use mixline_protocol::identity::NetworkId;

    use super::*;
    use crate::config::PortKind;

    fn wishes(directory: &Path) -> Wishes {
        Wishes {
            network: Network {
                id: NetworkId([7; 32]),
                urls: vec!["http://192.0.2.9:8080".into()],
            },
            name: None,
            state_dir: directory.join("state"),
            listen: Vec::new(),
            advertise: Vec::new(),
            port: PortKind::Udp,
        }
    }

    fn talk(answers: &str) -> (Result<Config, InitError>, String, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("etc/relay.yaml");
        let mut asked = Vec::new();
        let mut answers = answers.as_bytes();
        let terminal: Terminal<'_> = Some((&mut answers, &mut asked));
        // An interface without public addresses.
        let result = create(&file, wishes(directory.path()), Some("lo"), terminal);
        (result, String::from_utf8(asked).unwrap(), directory)
    }

    #[test]
    fn a_person_is_asked_for_what_is_missing_and_for_consent() {
        let (result, asked, directory) = talk("relay7\nhere\n192.0.2.1:7000\n\n");
        let config = result.unwrap();
        assert_eq!(config.name, "relay7");
        assert_eq!(config.advertise, ["192.0.2.1:7000".parse().unwrap()]);
        assert!(asked.contains("`here` is no address"), "{asked}");
        assert!(asked.contains("name: relay7"), "{asked}");
        assert!(directory.path().join("state/identity.key").exists());
        let loaded = Config::load(&directory.path().join("etc/relay.yaml")).unwrap();
        assert_eq!(loaded.listen, ["0.0.0.0:7000".parse().unwrap()]);
    }

    #[test]
    fn a_person_may_say_no() {
        let (result, _, directory) = talk("relay7\n192.0.2.1:7000\nn\n");
        assert!(matches!(result, Err(InitError::Declined)));
        assert!(!directory.path().join("etc").exists());
        assert!(!directory.path().join("state").exists());
        let (result, ..) = talk("relay7\n");
        assert!(matches!(result, Err(InitError::Ask(_))));
        let (result, ..) = talk("relay 7\n192.0.2.1:7000\n\n");
        assert!(matches!(result, Err(InitError::Config(_))));
    }
}
