//! `mixline-client join`: from the one line that names a network to a configuration.
//!
//! Of a configuration that is there, the keys that name the network change and nothing else: the text is
//! edited, and taken only if it still says what it said about everything else.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use futures_util::future::join_all;
use mixline_daemon::network::Network;
use mixline_directory_client::{DirectoryClient, Error, Fetched};
use serde_yaml::{Mapping, Value};

use crate::config::{Config, ConfigProblem};

/// The keys that name a network: those that are written, and the one of a directory that is alone.
const KEYS: [&str; 3] = ["network", "directories", "directory"];
/// The longest configuration that is edited, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Everybody reads a new configuration: it has no secret, and members of the group need it.
const MODE: u32 = 0o644;

/// Why a network is not joined: one line that says what to do. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The configuration that is there cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It cannot be edited.
    #[error("{}: {problem}; to join by hand, write: {line}", path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: EditProblem,
        /// What it should say.
        line: String,
    },
    /// It names another network, and nobody can be asked.
    #[error(
        "{} names another network, {before}: --force replaces it", path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// The network that it names.
        before: String,
    },
    /// The person said no.
    #[error("nothing was changed")]
    Declined,
    /// The terminal.
    #[error("cannot ask: {0}")]
    Ask(io::Error),
    /// No directory answers as the network's would; what the first one did.
    #[error("{0}; nothing was written (--no-check writes without asking it)")]
    Directory(mixline_directory_client::Error),
    /// The configuration cannot be written.
    #[error("cannot write {}: {error}{}", path.display(), as_root(error))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Why a configuration cannot be edited.
#[derive(Debug, thiserror::Error)]
pub enum EditProblem {
    /// It is no YAML, or not of keys and values.
    #[error("it is no configuration that could be changed in part")]
    Form,
    /// What it says besides is wrong.
    #[error("{0}")]
    Wrong(ConfigProblem),
}

fn as_root(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; run it as root, or name a place of your own with --config"
    } else {
        ""
    }
}

/// Which network a configuration named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// None.
    None,
    /// This one, perhaps elsewhere.
    This,
    /// Another one: `ID at URL`.
    Other(String),
}

/// Where a person answers, if one is there.
pub type Terminal<'a> = Option<(&'a mut dyn BufRead, &'a mut dyn Write)>;

/// A configuration that was written.
#[derive(Debug)]
pub struct Joined {
    /// What it says now.
    pub config: Config,
    /// Which network it named.
    pub before: Before,
}

/// What the directories have answered.
#[derive(Debug)]
pub struct Checked {
    /// Relays in the snapshot.
    pub relays: usize,
    /// How many were asked.
    pub asked: usize,
    /// What went wrong with those that were of no use.
    pub failed: Vec<mixline_directory_client::Error>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            relays,
            asked,
            failed,
        } = self;
        if *asked == 1 {
            return write!(f, "its directory answers, with {relays} relays");
        }
        let answer = asked - failed.len();
        write!(
            f,
            "{answer} of the {asked} directories answer, with {relays} relays"
        )?;
        failed.iter().try_for_each(|error| write!(f, "; {error}"))
    }
}

/// Asks each directory for its snapshot, once.
///
/// # Errors
/// [`JoinError::Directory`] if none answers with what the network's directories have signed.
pub async fn check(network: &Network) -> Result<Checked, JoinError> {
    let answers = network.urls.iter().map(|url| async {
        let mut client = DirectoryClient::new(url, network.id)?;
        client.fetch().await
    });
    let (mut relays, mut failed) = (None, Vec::new());
    for answer in join_all(answers).await {
        match answer {
            Ok(Fetched::Snapshot(snapshot)) => relays = relays.max(Some(snapshot.relays.len())),
            Ok(Fetched::NotModified) => relays = relays.max(Some(0)),
            Err(error) => failed.push(error),
        }
    }
    let asked = network.urls.len();
    match relays {
        Some(relays) => Ok(Checked {
            relays,
            asked,
            failed,
        }),
        None => Err(JoinError::Directory(
            failed.into_iter().next().unwrap_or(Error::NoUrl),
        )),
    }
}

/// Writes the network into a configuration. Another one is replaced if a person agrees, or with
/// `force`.
///
/// # Errors
/// [`JoinError`].
pub fn write(
    file: &Path,
    network: &Network,
    force: bool,
    terminal: Terminal<'_>,
) -> Result<Joined, JoinError> {
    let text = read(file)?;
    let edited = edit(text.as_deref(), network).map_err(|problem| JoinError::Edit {
        path: file.to_owned(),
        problem,
        line: network.keys().trim_end().replace('\n', ", and: "),
    })?;
    if let Before::Other(before) = &edited.before
        && !force
    {
        agree(file, before, terminal)?;
    }
    if text.as_deref() != Some(edited.text.as_str()) {
        replace(file, &edited.text, text.is_none()).map_err(|error| JoinError::Write {
            path: file.to_owned(),
            error,
        })?;
    }
    Ok(Joined {
        config: edited.config,
        before: edited.before,
    })
}

fn agree(file: &Path, before: &str, terminal: Terminal<'_>) -> Result<(), JoinError> {
    let Some((answers, questions)) = terminal else {
        return Err(JoinError::Other {
            path: file.to_owned(),
            before: before.to_owned(),
        });
    };
    let mut answer = String::new();
    write!(
        questions,
        "{} names another network, {before}. Replace it? [y/N] ",
        file.display()
    )
    .and_then(|()| questions.flush())
    .and_then(|()| answers.read_line(&mut answer))
    .map_err(JoinError::Ask)?;
    if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        Ok(())
    } else {
        Err(JoinError::Declined)
    }
}

fn read(file: &Path) -> Result<Option<String>, JoinError> {
    let failed = |error| JoinError::Read {
        path: file.to_owned(),
        error,
    };
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > MAX_FILE => {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(_) | Err(_) => {}
    }
    fs::read_to_string(file).map(Some).map_err(failed)
}

/// Replaces the file as a whole, also where a link leads to it. One that is there keeps its mode and
/// owner.
fn replace(file: &Path, text: &str, new: bool) -> io::Result<()> {
    let place = match fs::canonicalize(file) {
        Ok(place) => place,
        Err(_) => {
            if let Some(directory) = file.parent() {
                fs::create_dir_all(directory)?;
            }
            file.to_owned()
        }
    };
    let mut out = AtomicWriteFile::open(&place)?;
    out.write_all(text.as_bytes())?;
    if new {
        out.as_file()
            .set_permissions(fs::Permissions::from_mode(MODE))?;
    }
    out.commit()
}

/// A configuration with another directory.
struct Edited {
    text: String,
    config: Config,
    before: Before,
}

fn edit(text: Option<&str>, network: &Network) -> Result<Edited, EditProblem> {
    let Some(text) = text else {
        let text = format!(
            "# A client of a Mixline network; client.yaml.example beside it has all keys.\n{}",
            network.keys()
        );
        return Edited::of(text, Before::None);
    };
    let old = mapping(text)?;
    let new = with_keys(text, &network.keys());
    let rest = |mapping: &Mapping| {
        let mut mapping = mapping.clone();
        for key in KEYS {
            mapping.remove(key);
        }
        mapping
    };
    if rest(&old) != rest(&mapping(&new)?) {
        return Err(EditProblem::Form);
    }
    Edited::of(new, before(&old, network))
}

impl Edited {
    fn of(text: String, before: Before) -> Result<Self, EditProblem> {
        let config = Config::parse(&text).map_err(EditProblem::Wrong)?;
        Ok(Self {
            text,
            config,
            before,
        })
    }
}

/// The keys of a configuration, which may be wrong as one. A file of comments alone has none.
fn mapping(text: &str) -> Result<Mapping, EditProblem> {
    match serde_yaml::from_str(text) {
        Ok(Value::Mapping(mapping)) => Ok(mapping),
        Ok(Value::Null) => Ok(Mapping::new()),
        Ok(_) | Err(_) => Err(EditProblem::Form),
    }
}

/// Which network was named. What names none, as an example does not, is none.
fn before(old: &Mapping, network: &Network) -> Before {
    let mut named = Mapping::new();
    for key in KEYS {
        if let Some(value) = old.get(key) {
            named.insert(key.into(), value.clone());
        }
    }
    // All else has its default then.
    let named = serde_yaml::to_string(&named).unwrap_or_default();
    let Ok(config) = Config::parse(&named) else {
        return Before::None;
    };
    let Network { id, urls } = config.network;
    if id == network.id {
        Before::This
    } else {
        Before::Other(format!("{id} at {}", urls.join(", ")))
    }
}

/// The text with these lines where a network was named first, and it is named nowhere else; at the end if it was not.
fn with_keys(text: &str, keys: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (mut out, mut at, mut written) = (String::new(), 0, false);
    while let Some(line) = lines.get(at) {
        if !names_a_network(line) {
            out += line;
            at += 1;
            continue;
        }
        if !std::mem::replace(&mut written, true) {
            out += keys;
        }
        at += 1 + behind_key(lines.get(at + 1..).unwrap_or_default());
    }
    if !written {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out += keys;
    }
    out
}

fn names_a_network(line: &str) -> bool {
    let is = |key: &str| {
        [key.to_owned(), format!("\"{key}\""), format!("'{key}'")]
            .iter()
            .any(|key| {
                let rest = line.strip_prefix(key.as_str());
                rest.is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with(':'))
            })
    };
    KEYS.into_iter().any(is)
}

/// How many of the lines behind that of a key belong to it: as far as lines that are indented, close a bracket,
/// or go on with a list.
fn behind_key(lines: &[&str]) -> usize {
    let belongs = |line: &&str| {
        let goes_on = line.starts_with([' ', '\t', '}', ']']) || line.starts_with("- ");
        goes_on && !line.trim().is_empty()
    };
    let ends = |line: &&str| !belongs(line) && !line.trim().is_empty() && !line.starts_with('#');
    let reach = lines.iter().position(ends).unwrap_or(lines.len());
    let inside = lines.get(..reach).unwrap_or_default();
    inside.iter().rposition(belongs).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use mixline_protocol::identity::AnonymousId;

    use super::*;

    fn network(id: u8) -> Network {
        Network::new(AnonymousId([id; 32]), "http://198.51.100.7:8080").unwrap()
    }

    fn edited(text: &str) -> Edited {
        edit(Some(text), &network(1)).unwrap()
    }

    #[test]
    fn a_new_configuration_has_the_network_and_all_defaults() {
        let new = edit(None, &network(1)).unwrap();
        assert_eq!(new.config.network, network(1));
        assert_eq!(new.config.interface, "mixline0");
        assert_eq!(new.before, Before::None);
    }

    #[test]
    fn only_the_section_changes() {
        let other = AnonymousId([2; 32]);
        let keys = network(1).keys();
        for old in [
            format!("directory: {{url: \"http://a\", id: {other}}} # the lab\n"),
            format!("directory:\n  url: http://a\n  # why not\n\n  id: {other}\n"),
            format!("directory:\n  url: http://a\n# at the margin\n  id: {other}\n"),
            format!("directory: {{\n  url: http://a,\n  id: {other}\n}}\n"),
            format!("\"directory\" : {{url: http://a, id: {other}}}\n"),
            format!("network: {other}\ndirectories: [\"http://a\"]\n"),
            format!("directories:\n- http://a\n# so far\nnetwork: {other}\n"),
            format!("network: {other}\ndirectories:\n  - http://a\n"),
        ] {
            let before = "# first\ninterface: mix1 # ours\n\n";
            let behind = "\n# last\npolicies:\n  - {port: 5060, policy: duplicate 2}\n# the end";
            let new = edited(&format!("{before}{old}{behind}"));
            let text = new.text.replace("# so far\n", "");
            assert_eq!(text, format!("{before}{keys}{behind}"));
            assert_eq!(new.before, Before::Other(format!("{other} at http://a")));
            assert_eq!(edited(&new.text).text, new.text);
            assert_eq!(edited(&new.text).before, Before::This);
        }
    }

    #[test]
    fn what_names_no_network_gets_one() {
        for (old, kept) in [
            ("", ""),
            ("# nothing yet", "# nothing yet\n"),
            ("mtu: 1400\n", "mtu: 1400\n"),
            ("mtu: 1400", "mtu: 1400\n"),
            // Examples, as they come.
            ("directory: {url: \"http://a\", id: ID}\n", ""),
            ("network: ID\ndirectories: [\"http://a\"]\n", ""),
        ] {
            let new = edited(old);
            assert_eq!(new.text, format!("{kept}{}", network(1).keys()), "{old}");
            assert_eq!(new.before, Before::None, "{old}");
        }
        let example = include_str!("../../packaging/examples/client.yaml.example");
        let new = edited(example);
        assert_eq!(new.text.lines().count(), example.lines().count());
    }

    #[test]
    fn what_cannot_be_changed_in_part_is_left_alone() {
        let refused = |text: &str| edit(Some(text), &network(1)).map(|new| new.text);
        for text in [
            "{mtu: 1400}\n",
            "- a list\n",
            "mtu: [\n",
            "mtu: 1400\n...\n",
            "? directory\n: {}\nmtu: 1400\n",
            "mtu: 1400\nmtu: 1500\n",
        ] {
            assert!(refused(text).is_err(), "{text}: {:?}", refused(text));
        }
        let error = refused("mtu: 1400\ninterfaec: x\n").unwrap_err();
        assert!(error.to_string().contains("interfaec"), "{error}");
    }

    #[test]
    fn another_network_is_replaced_only_if_somebody_agrees() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("etc/client.yaml");
        write(&file, &network(2), false, None).unwrap();
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o644);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        write(&file, &network(2), false, None).unwrap();
        let before = fs::read_to_string(&file).unwrap();
        let error = write(&file, &network(1), false, None).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        let answered = |answer: &str| {
            let (mut answers, mut asked) = (answer.as_bytes(), Vec::new());
            let terminal: Terminal<'_> = Some((&mut answers, &mut asked));
            let joined = write(&file, &network(1), false, terminal);
            (joined, String::from_utf8(asked).unwrap())
        };
        for answer in ["", "\n", "no\n", "yup\n"] {
            let (joined, asked) = answered(answer);
            assert!(matches!(joined, Err(JoinError::Declined)), "{answer}");
            assert!(asked.contains("another network"), "{asked}");
            assert_eq!(fs::read_to_string(&file).unwrap(), before);
        }
        answered("y\n").0.unwrap();
        let now = Config::load(&file).unwrap();
        assert_eq!(now.network, network(1));
        write(&file, &network(2), true, None).unwrap();
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_link_leads_to_what_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (
            directory.path().join("real.yaml"),
            directory.path().join("client.yaml"),
        );
        fs::write(&file, "mtu: 1400\n").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, &network(1), false, None).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&file).unwrap().contains("network:"));
    }
}
