//! The state directory: one identity, held by one process at a time.
//!
//! - `lock`: locked (flock) while a process uses the identity; holds its PID. The file
//!   stays, only the lock counts, so an unclean stop leaves nothing to clean up.
//! - `identity.key`, `session.key`: 32 secret bytes each, mode 0600.
//! - `lease`: the directory's signed lease, so that a restart keeps the address.
//! - `directories`: the newest roster of the network's directories, and the last round, behind neither of which the
//!   client goes back. Not there if the directory is alone.
//! - `network`: the virtual network that the host was closed for last.
//! - `former_networks`: those before it, and when each was left, a line each.
//! - `clients`: the clients that may open sessions, a name and a key a line; without the file, everybody
//!   may. `services`: the IDs of services of which this host is a client, and `client.key`: 32 secret bytes
//!   of which its key for each is made.
//! - `names`: what `publish` was told at run time, one label a line.
//!
//! Files are replaced whole: written aside, flushed, renamed. The lock keeps two
//! processes of one host apart. It cannot know of a *copy* of the directory, on this
//! host or elsewhere: anyone who runs two copies has two hosts that answer for one ID, and
//! take each other's sessions. Copy a state directory only to move it.

pub mod clients;
mod lock;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use atomic_write_file::AtomicWriteFile;
use atomic_write_file::unix::OpenOptionsExt as _;
use mixline_directory_client::Known;
use mixline_endpoint::Identity;
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::identity::{IdentityKey, NetworkId, X25519Secret};
use mixline_protocol::name::Label;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::Lease;
use mixline_protocol::time::UnixTime;
use zeroize::Zeroizing;

use crate::config::MAX_NAMES;
use crate::error::{ContentProblem, Error, Result};
use lock::DirectoryLock;

const IDENTITY: &str = "identity.key";
const SESSION: &str = "session.key";
const LEASE: &str = "lease";
const NAMES: &str = "names";
const DIRECTORIES: &str = "directories";
const NETWORK: &str = "network";
const FORMER: &str = "former_networks";
/// How many virtual networks stay closed that the directory has moved away from: the last ones.
const MAX_FORMER: usize = 4;
/// How long: hardly a program keeps an address longer.
const FORMER_CLOSED: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a secret key.
const KEY: usize = 32;
/// The longest file that is read here.
const MAX_FILE: u64 = 64 * 1024;

/// A locked state directory.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    _lock: DirectoryLock,
}

impl State {
    /// Makes the directory if it is not there (mode 0700), and locks it.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process holds it; [`Error::File`].
    pub fn open(directory: &Path) -> Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            _lock: DirectoryLock::take(directory)?,
        })
    }

    /// Whether a process holds the directory, without taking it.
    #[must_use]
    pub fn is_held(directory: &Path) -> bool {
        DirectoryLock::is_held(directory)
    }

    /// Whether there is an identity in a directory, as far as this user may look.
    #[must_use]
    pub fn has_identity(directory: &Path) -> bool {
        directory.join(IDENTITY).exists()
    }

    /// The virtual network that the host was closed for last, without taking the directory.
    #[must_use]
    pub fn network_of(directory: &Path) -> Option<VirtualNetwork> {
        network(&read(directory, NETWORK).ok()??)
    }

    /// The virtual networks before that, whose addresses programs may still have, without taking the
    /// directory: at most four of the last day.
    #[must_use]
    pub fn former_networks_of(directory: &Path) -> Vec<VirtualNetwork> {
        let former = former(directory, UnixTime::from(SystemTime::now()));
        former.into_iter().map(|(network, _)| network).collect()
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The identity, made at the first start.
    ///
    /// # Errors
    /// [`Error::Content`] if a key file is damaged or readable by others: a damaged one is
    /// never replaced, since the ID would silently change.
    pub fn identity(&self) -> Result<Identity> {
        let rng = &mut OsRandom::new();
        let key = match self.read_secret(IDENTITY)? {
            Some(seed) => IdentityKey::from_seed(*seed),
            None => {
                let key = IdentityKey::generate(rng);
                self.write(IDENTITY, key.seed().as_slice())?;
                key
            }
        };
        let session = match self.read_secret(SESSION)? {
            Some(bytes) => X25519Secret::from_bytes(*bytes),
            None => {
                let secret = X25519Secret::generate(rng);
                self.write(SESSION, secret.to_bytes().as_slice())?;
                secret
            }
        };
        let access = self.access()?;
        Ok(Identity {
            key,
            session,
            access,
        })
    }

    /// The lease that was kept last, decoded and not yet verified. A file that cannot be
    /// read counts as none: the directory gives the same address again.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        let bytes = self.read(LEASE).ok()??;
        Lease::decode(&bytes).ok()
    }

    /// Keeps a lease.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn keep_lease(&self, lease: &Lease) -> Result<()> {
        self.write(LEASE, &lease.encode())
    }

    /// What is known of a network's directories, without taking the state directory. What cannot be read counts as
    /// nothing.
    #[must_use]
    pub fn known_in(directory: &Path, network: NetworkId) -> Known {
        let bytes = read(directory, DIRECTORIES).ok().flatten();
        let known = bytes.and_then(|bytes| Known::decode(&bytes, network).ok());
        known.unwrap_or_else(|| Known::nothing(network))
    }

    /// Keeps what is known of the network's directories, if there are several: of one that is alone only its
    /// ID counts.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn keep_known(&self, known: &Known) -> Result<()> {
        match known.roster() {
            Some(_) => self.write(DIRECTORIES, &known.encode()),
            None => Ok(()),
        }
    }

    /// The virtual network that the host was closed for last. What cannot be read counts as none.
    #[must_use]
    pub fn network(&self) -> Option<VirtualNetwork> {
        network(&self.read(NETWORK).ok()??)
    }

    /// Keeps the virtual network, and the one before it among the former ones.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn keep_network(&self, network: &VirtualNetwork) -> Result<()> {
        let now = UnixTime::from(SystemTime::now());
        if let Some(left) = self.network().filter(|left| left != network) {
            let mut all = former(&self.directory, now);
            all.retain(|(former, _)| *former != left && former != network);
            all.insert(0, (left, now));
            all.truncate(MAX_FORMER);
            let line = |(network, at): &(VirtualNetwork, UnixTime)| format!("{network} {}\n", at.0);
            let text: String = all.iter().map(line).collect();
            self.write(FORMER, text.as_bytes())?;
        }
        self.write(NETWORK, format!("{network}\n").as_bytes())
    }

    /// The names that were published by command, in that order.
    ///
    /// # Errors
    /// [`Error::Content`] if a line is no name.
    pub fn names(&self) -> Result<Vec<Label>> {
        let Some(bytes) = self.read(NAMES)? else {
            return Ok(Vec::new());
        };
        let text = String::from_utf8_lossy(&bytes);
        let names = text
            .lines()
            .map(|line| line.parse::<Label>().map_err(|_| line));
        match names
            .take(MAX_NAMES + 1)
            .collect::<std::result::Result<Vec<_>, _>>()
        {
            Ok(names) if names.len() <= MAX_NAMES => Ok(names),
            Ok(_) => Err(self.content(NAMES, ContentProblem::TooManyNames { most: MAX_NAMES })),
            Err(line) => Err(self.content(
                NAMES,
                ContentProblem::NotAName {
                    line: line.to_owned(),
                },
            )),
        }
    }

    /// Keeps the names that were published by command.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn keep_names(&self, names: &[Label]) -> Result<()> {
        let text: String = names.iter().map(|name| format!("{name}\n")).collect();
        self.write(NAMES, text.as_bytes())
    }

    fn content(&self, name: &str, problem: ContentProblem) -> Error {
        Error::Content {
            path: self.directory.join(name),
            problem,
        }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        read(&self.directory, name)
    }

    fn read_secret(&self, name: &str) -> Result<Option<Zeroizing<[u8; KEY]>>> {
        let path = self.directory.join(name);
        let Some(bytes) = self.read(name)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let metadata = std::fs::metadata(&path).map_err(Error::file("read", &path))?;
        if metadata.mode() & 0o077 != 0 {
            let mode = metadata.mode() & 0o7777;
            return Err(self.content(name, ContentProblem::KeyReadable { mode }));
        }
        match <[u8; KEY]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(Some(Zeroizing::new(key))),
            Err(_) => Err(self.content(
                name,
                ContentProblem::KeyLength {
                    length: bytes.len(),
                    expected: KEY,
                },
            )),
        }
    }

    /// Removes a file, if it is there; that is so on disk when this returns.
    fn remove(&self, name: &str) -> Result<()> {
        let path = self.directory.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", &path)(error))
            }
            _ => File::open(&self.directory)
                .and_then(|directory| directory.sync_all())
                .map_err(Error::file("flush", &self.directory)),
        }
    }

    /// Replaces a file as a whole; it is on disk, with mode 0600, when this returns.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        let replace = || {
            let mut file = AtomicWriteFile::options()
                .mode(0o600)
                .preserve_mode(false)
                .preserve_owner(false)
                .open(&path)?;
            file.write_all(bytes)?;
            // Flushes the file, renames it, and flushes the directory.
            file.commit()
        };
        replace().map_err(Error::file("write", &path))
    }
}

fn read(directory: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = directory.join(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE)
        .read_to_end(&mut bytes)
        .map_err(Error::file("read", &path))?;
    Ok(Some(bytes))
}

/// The networks that were left less than a day ago and when, the last one first. What cannot be read
/// counts as none.
fn former(directory: &Path, now: UnixTime) -> Vec<(VirtualNetwork, UnixTime)> {
    let bytes = read(directory, FORMER).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let entry = |line: &str| {
        let (network, at) = line.split_once(' ')?;
        Some((network.parse().ok()?, UnixTime(at.parse().ok()?)))
    };
    let is_closed = |(_, at): &(VirtualNetwork, UnixTime)| now.0 < at.0 + FORMER_CLOSED.as_secs();
    let entries = text.lines().filter_map(entry).filter(is_closed);
    entries.take(MAX_FORMER).collect()
}

fn network(bytes: &[u8]) -> Option<VirtualNetwork> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use mixline_protocol::records::{Member, Roster};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn networks_that_were_left_are_remembered_for_a_day() {
        let parent = tempfile::tempdir().unwrap();
        let state = State::open(parent.path()).unwrap();
        let network = |number: u8| VirtualNetwork::new([10, number, 0, 0].into(), 16).unwrap();
        for number in 0..7 {
            state.keep_network(&network(number)).unwrap();
            state.keep_network(&network(number)).unwrap();
        }
        let left = State::former_networks_of(parent.path());
        assert_eq!(left, [5, 4, 3, 2].map(network));
        // Back in one of them.
        state.keep_network(&network(4)).unwrap();
        assert_eq!(
            State::former_networks_of(parent.path()),
            [6, 5, 3, 2].map(network)
        );
        let tomorrow = UnixTime(UnixTime::from(SystemTime::now()).0 + FORMER_CLOSED.as_secs() + 1);
        assert!(former(parent.path(), tomorrow).is_empty());
        std::fs::write(
            parent.path().join(FORMER),
            "10.9.0.0/16 x\n\n10.8.0.0/40 9\nrubbish",
        )
        .unwrap();
        assert!(State::former_networks_of(parent.path()).is_empty());
    }

    #[test]
    fn the_identity_stays() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("state");
        let (id, session) = {
            let state = State::open(&directory).unwrap();
            let identity = state.identity().unwrap();
            (identity.key.anonymous_id(), identity.session.public())
        };
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join(IDENTITY)), 0o600);
        assert_eq!(mode(&directory.join(SESSION)), 0o600);
        let again = State::open(&directory).unwrap().identity().unwrap();
        assert_eq!(
            (again.key.anonymous_id(), again.session.public()),
            (id, session)
        );
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        state.write(IDENTITY, &[1; 31]).unwrap();
        let error = state.identity().err().unwrap().to_string();
        assert!(
            error.contains("identity.key") && error.contains("31 bytes"),
            "{error}"
        );
        assert_eq!(
            std::fs::read(directory.path().join(IDENTITY)).unwrap(),
            [1; 31]
        );
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        state.identity().unwrap();
        let path = directory.path().join(SESSION);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = state.identity().err().unwrap().to_string();
        assert!(
            error.contains("session.key") && error.contains("chmod 600"),
            "{error}"
        );
    }

    #[test]
    fn names_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        assert_eq!(state.names().unwrap(), []);
        let names = ["a".parse().unwrap(), "b-c".parse().unwrap()];
        state.keep_names(&names).unwrap();
        assert_eq!(state.names().unwrap(), names);
        state.write(NAMES, b"a\nnot a name\n").unwrap();
        assert!(
            state
                .names()
                .unwrap_err()
                .to_string()
                .contains("not a name")
        );
    }

    #[test]
    fn a_damaged_lease_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        assert!(state.lease().is_none());
        state.write(LEASE, b"nonsense").unwrap();
        assert!(state.lease().is_none());
    }

    #[test]
    fn what_is_known_of_several_directories_is_kept_and_of_one_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        let keys: Vec<_> = (1..=4).map(|n| IdentityKey::from_seed([n; 32])).collect();
        let members = keys.iter().enumerate().map(|(at, key)| Member {
            key: key.public(),
            name: format!("d{at}"),
            url: format!("http://192.0.2.{at}"),
        });
        let mut roster = Roster::first(members.collect(), 300, 10_800).unwrap();
        for key in &keys {
            roster.sign(key, None);
        }
        let network = roster.network();
        let nothing = Known::nothing(network);
        state.keep_known(&nothing).unwrap();
        assert!(!directory.path().join(DIRECTORIES).exists());
        assert_eq!(State::known_in(directory.path(), network), nothing);
        // As `Known::encode` writes it.
        let mut bytes = vec![1];
        bytes.extend(network.0);
        bytes.extend(1_800_000_300_u64.to_be_bytes());
        bytes.extend(roster.encode());
        let known = Known::decode(&bytes, network).unwrap();
        state.keep_known(&known).unwrap();
        assert_eq!(State::known_in(directory.path(), network), known);
        // Of another network it says nothing; neither does a file that is damaged.
        let other = NetworkId([9; 32]);
        assert_eq!(
            State::known_in(directory.path(), other),
            Known::nothing(other)
        );
        std::fs::write(directory.path().join(DIRECTORIES), b"damaged").unwrap();
        assert_eq!(State::known_in(directory.path(), network), nothing);
    }
}
