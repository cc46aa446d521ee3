//! What a relay keeps on disk, and whether it may be believed.
//!
//! ```text
//! lock           held while a relay runs on the directory
//! identity.key   seed of the identity, 32 bytes
//! link.key       link secret, 32 bytes
//! onion.keys     onion secrets by epoch, encrypted under a key in `onion.keys.seal`
//! replay.filter  what has been relayed under them, likewise
//! clean          there if, and only if, the relay was stopped in order
//! link.time      before this second, unix, are the times of all link initiations so far
//! version        before this one, milliseconds, are all versions of what was registered
//! network        the newest roster of the network, and the last round
//! volume         what was sent in this month: `2026-11 BYTES`
//! control.sock   where `status` asks
//! ```
//!
//! Onion keys are only as good as the memory of what has been relayed under them.
//! That is written when the relay stops in order, and `clean` last of all. When it starts
//! and `clean` is not there, both are discarded. It is taken away before anything is
//! relayed. All files are for their owner only, and replaced as a whole or not at all. What was in
//! those two is gone when they are replaced or removed (`erasable`); the other secrets stay as long
//! as the directory does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mixline_directory_client::Known;
use mixline_protocol::identity::{IdentityKey, NetworkId, X25519Secret};
use nix::fcntl::{Flock, FlockArg};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::durable;
use crate::erasable::{Erasable, Settled};

/// The most bytes read of any file here: the largest replay memory, and some.
const LARGEST: u64 = 17 << 30;

/// What is wrong with a state directory: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refuses something.
    #[error("state directory: cannot {what} {path}: {error}")]
    Io {
        /// What was to be done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another relay runs on it.
    #[error("state directory {0} is in use: another relay runs on it; give each one its own")]
    InUse(PathBuf),
    /// A file is not what it should be.
    #[error(
        "state directory: {path} is damaged ({reason}); restore it, or remove it to begin anew"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Others can read or write it.
    #[error("state directory {path} is open to others (mode {mode:o}); run: chmod 700 {path}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// A state directory that no other relay uses.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    onion_keys: Erasable,
    replay_filter: Erasable,
    /// Unlocks when it is dropped.
    _lock: Flock<File>,
}

impl StateDir {
    /// Opens the directory, made if it is not there, and locks it.
    ///
    /// # Errors
    /// [`StateError::InUse`], [`StateError::Open`], and [`StateError::Io`] if it cannot be
    /// made or written.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |what| {
            move |error| StateError::Io {
                what,
                path: path.into(),
                error,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("make"))?;
        let metadata = fs::metadata(path).map_err(io("look at"))?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(StateError::Open {
                path: path.into(),
                mode,
            });
        }
        let lock_path = path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| StateError::Io {
                what: "write",
                path: lock_path.clone(),
                error,
            })?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
                |(_, error)| match error {
                    nix::errno::Errno::EWOULDBLOCK => StateError::InUse(path.into()),
                    error => StateError::Io {
                        what: "lock",
                        path: lock_path,
                        error: error.into(),
                    },
                },
            )?;
        let state = Self {
            path: path.into(),
            onion_keys: Erasable::new(path.into(), "onion.keys"),
            replay_filter: Erasable::new(path.into(), "replay.filter"),
            _lock: lock,
        };
        for file in [&state.onion_keys, &state.replay_filter] {
            let settled = file.settle(LARGEST);
            if let Settled::InTheClear(error) = settled.map_err(state.io("put in order", file))? {
                let path = path.join(file.name());
                tracing::warn!(
                    "cannot encrypt {}: {error}; it is removed, and the relay starts as after a stop that \
                     was not clean",
                    path.display()
                );
                // Before anything is lost that belongs together.
                state.remove("clean")?;
                file.discard();
            }
        }
        Ok(state)
    }

    /// Whether a relay runs on a directory.
    #[must_use]
    pub fn is_held(path: &Path) -> bool {
        // Without the file, nobody has ever locked it.
        let Ok(file) = File::open(path.join("lock")) else {
            return false;
        };
        Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
    }

    /// Whether the last relay on a directory stopped in order, and none runs.
    #[must_use]
    pub fn is_clean(path: &Path) -> bool {
        path.join("clean").exists()
    }

    /// Where `status` asks.
    #[must_use]
    pub fn control_socket(path: &Path) -> PathBuf {
        path.join("control.sock")
    }

    /// The relay's identity and link keys, made if they are not there.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::Damaged`].
    pub fn identity(
        &self,
        rng: &mut impl CryptoRng,
    ) -> Result<(IdentityKey, X25519Secret), StateError> {
        let seed = self.secret("identity.key", rng)?;
        let link = self.secret("link.key", rng)?;
        Ok((
            IdentityKey::from_seed(*seed),
            X25519Secret::from_bytes(*link),
        ))
    }

    /// Whether the last relay here stopped in order. From now on, until
    /// [`mark_clean`](Self::mark_clean), it counts as not having done so; if it has not,
    /// onion keys and replay memory are gone.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn take_clean(&self) -> Result<bool, StateError> {
        let clean = self.path.join("clean").exists();
        self.remove("clean")?;
        if !clean {
            for file in [&self.onion_keys, &self.replay_filter] {
                self.erase(file)?;
            }
        }
        Ok(clean)
    }

    /// Says that the relay has stopped in order. After everything else was written.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn mark_clean(&self) -> Result<(), StateError> {
        self.write("clean", b"")
    }

    /// The stored onion keys, if there are any.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn onion_keys(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        self.open_sealed(&self.onion_keys)
    }

    /// Stores the onion keys in place of what was stored, which is gone afterwards, also if the disk
    /// takes nothing new.
    ///
    /// # Errors
    /// [`StateError::Io`]. Nothing is stored then.
    pub fn store_onion_keys(&self, bytes: &[u8]) -> Result<(), StateError> {
        let file = &self.onion_keys;
        file.write(bytes).map_err(|error| {
            if let Err(error) = self.erase(file) {
                tracing::warn!("{error}; onion keys whose time is over may be readable there");
            }
            self.io("write", file)(error)
        })
    }

    /// The stored replay memory, if there is one. It is taken away: it grows old at once.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn take_replay_filter(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let bytes = self.open_sealed(&self.replay_filter)?;
        self.erase(&self.replay_filter)?;
        Ok(bytes)
    }

    /// Stores the replay memory.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn store_replay_filter(&self, bytes: &[u8]) -> Result<(), StateError> {
        let file = &self.replay_filter;
        file.write(bytes).map_err(self.io("write", file))
    }

    /// Before which second all times of link initiations were; none if there were none.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::Damaged`].
    pub fn link_time(&self) -> Result<Option<u64>, StateError> {
        self.number("link.time")
    }

    /// Writes that down.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn store_link_time(&self, seconds: u64) -> Result<(), StateError> {
        self.write("link.time", format!("{seconds}\n").as_bytes())
    }

    /// Before which one all versions of what was registered were; none if nothing was.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::Damaged`].
    pub fn version(&self) -> Result<Option<u64>, StateError> {
        self.number("version")
    }

    /// Writes that down.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn store_version(&self, version: u64) -> Result<(), StateError> {
        self.write("version", format!("{version}\n").as_bytes())
    }

    /// What is known of a network: its newest roster and the last round, if something was stored of it.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::Damaged`].
    pub fn known(&self, network: NetworkId) -> Result<Known, StateError> {
        let Some(bytes) = self.read("network")? else {
            return Ok(Known::nothing(network));
        };
        Known::decode(&bytes, network).map_err(|error| StateError::Damaged {
            path: self.path.join("network"),
            reason: error.to_string(),
        })
    }

    /// Writes that down.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn store_known(&self, known: &Known) -> Result<(), StateError> {
        self.write("network", &known.encode())
    }

    /// What was sent in this month, as it was written; none if nothing was.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn volume(&self) -> Result<Option<String>, StateError> {
        let bytes = self.read("volume")?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Writes down what was sent in this month.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn store_volume(&self, text: &str) -> Result<(), StateError> {
        self.write("volume", text.as_bytes())
    }

    fn open_sealed(&self, file: &Erasable) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        file.read(LARGEST).map_err(self.io("read", file))
    }

    fn erase(&self, file: &Erasable) -> Result<(), StateError> {
        file.remove().map_err(self.io("remove", file))
    }

    fn io(&self, what: &'static str, file: &Erasable) -> impl FnOnce(io::Error) -> StateError {
        let path = self.path.join(file.name());
        move |error| StateError::Io { what, path, error }
    }

    fn secret(
        &self,
        name: &str,
        rng: &mut impl CryptoRng,
    ) -> Result<Zeroizing<[u8; 32]>, StateError> {
        let mut secret = Zeroizing::new([0; 32]);
        match self.read(name)? {
            Some(bytes) if bytes.len() == 32 => secret.copy_from_slice(&bytes),
            Some(bytes) => {
                return Err(StateError::Damaged {
                    path: self.path.join(name),
                    reason: format!("{} bytes instead of 32", bytes.len()),
                });
            }
            None => {
                rng.fill_bytes(secret.as_mut());
                self.write(name, secret.as_ref())?;
            }
        }
        Ok(secret)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, StateError> {
        let Some(bytes) = self.read(name)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let number = text.trim().parse::<u64>();
        number.map(Some).map_err(|error| StateError::Damaged {
            path: self.path.join(name),
            reason: error.to_string(),
        })
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let path = self.path.join(name);
        let read = || {
            let length = fs::metadata(&path)?.len();
            if length > LARGEST {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            fs::read(&path)
        };
        match read() {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::Io {
                what: "read",
                path,
                error,
            }),
        }
    }

    /// Writes a file as a whole, or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        let written = durable::replace(&path, |file| file.write_all(bytes));
        written.map_err(|error| StateError::Io {
            what: "write",
            path,
            error,
        })
    }

    fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        durable::remove(&path).map_err(|error| StateError::Io {
            what: "remove",
            path,
            error,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use mixline_protocol::random::OsRandom;

    use super::*;

    #[test]
    fn keys_stay_and_belong_to_the_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = StateDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        let (identity, link) = first.identity(&mut OsRandom::new()).unwrap();
        for name in ["identity.key", "link.key", "lock"] {
            assert_eq!(
                fs::metadata(path.join(name)).unwrap().mode() & 0o7777,
                0o600,
                "{name}"
            );
        }
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse(_))));
        drop(first);
        let again = StateDir::open(&path).unwrap();
        let (same_identity, same_link) = again.identity(&mut OsRandom::new()).unwrap();
        assert_eq!(identity.public(), same_identity.public());
        assert_eq!(link.public(), same_link.public());
        fs::write(path.join("link.key"), b"short").unwrap();
        let damaged = again.identity(&mut OsRandom::new());
        assert!(matches!(damaged, Err(StateError::Damaged { .. })));
    }

    #[test]
    fn the_time_of_links_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDir::open(&parent.path().join("s")).unwrap();
        assert_eq!(state.link_time().unwrap(), None);
        state.store_link_time(u64::MAX).unwrap();
        state.store_link_time(1_800_000_600).unwrap();
        assert_eq!(state.link_time().unwrap(), Some(1_800_000_600));
        fs::write(parent.path().join("s/link.time"), b"soon").unwrap();
        let damaged = state.link_time();
        assert!(matches!(damaged, Err(StateError::Damaged { .. })));
    }

    #[test]
    fn versions_and_what_is_known_of_the_network_are_kept() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDir::open(&parent.path().join("s")).unwrap();
        assert_eq!(state.version().unwrap(), None);
        state.store_version(1_800_000_000_000).unwrap();
        assert_eq!(state.version().unwrap(), Some(1_800_000_000_000));
        let network = NetworkId([7; 32]);
        let nothing = Known::nothing(network);
        assert_eq!(state.known(network).unwrap(), nothing);
        state.store_known(&nothing).unwrap();
        assert_eq!(state.known(network).unwrap(), nothing);
        fs::write(parent.path().join("s/network"), b"noise").unwrap();
        let damaged = state.known(network);
        assert!(matches!(damaged, Err(StateError::Damaged { .. })));
    }

    #[test]
    fn only_a_clean_stop_keeps_onion_keys() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDir::open(&parent.path().join("s")).unwrap();
        assert!(!state.take_clean().unwrap());
        state.store_onion_keys(b"keys").unwrap();
        state.store_replay_filter(b"filter").unwrap();
        state.mark_clean().unwrap();
        assert!(state.take_clean().unwrap());
        assert_eq!(state.onion_keys().unwrap().unwrap().as_slice(), b"keys");
        assert_eq!(
            state.take_replay_filter().unwrap().unwrap().as_slice(),
            b"filter"
        );
        state.store_replay_filter(b"filter").unwrap();
        // Not marked again: as after a crash.
        assert!(!state.take_clean().unwrap());
        assert!(state.onion_keys().unwrap().is_none());
        assert!(state.take_replay_filter().unwrap().is_none());
    }

    #[test]
    fn what_an_older_relay_has_stored_in_the_clear_is_taken_and_sealed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("s");
        drop(StateDir::open(&path).unwrap());
        for name in ["onion.keys", "replay.filter", "clean"] {
            fs::write(path.join(name), name).unwrap();
        }
        let state = StateDir::open(&path).unwrap();
        assert!(state.take_clean().unwrap());
        let keys = state.onion_keys().unwrap().unwrap();
        assert_eq!(keys.as_slice(), b"onion.keys");
        let filter = state.take_replay_filter().unwrap().unwrap();
        assert_eq!(filter.as_slice(), b"replay.filter");
        let stored = fs::read(path.join("onion.keys")).unwrap();
        assert!(!stored.windows(10).any(|window| window == b"onion.keys"));
        assert!(!path.join("replay.filter").exists());
        // Without its key, a file is none.
        fs::remove_file(path.join("onion.keys.seal")).unwrap();
        assert!(state.onion_keys().unwrap().is_none());
    }

    #[test]
    fn what_is_in_the_clear_and_cannot_be_sealed_stops_no_relay() {
        for name in ["onion.keys", "replay.filter"] {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("s");
            drop(StateDir::open(&path).unwrap());
            for name in ["onion.keys", "replay.filter", "clean"] {
                fs::write(path.join(name), name).unwrap();
            }
            // It can have no second name, as on vfat.
            fs::create_dir(path.join(format!("{name}.plain"))).unwrap();
            let state = StateDir::open(&path).unwrap();
            assert!(!state.take_clean().unwrap(), "{name}");
            assert!(state.onion_keys().unwrap().is_none());
            assert!(state.take_replay_filter().unwrap().is_none());
            assert!(!path.join(name).exists());
            state.store_onion_keys(b"new").unwrap();
            state.store_replay_filter(b"new").unwrap();
            state.mark_clean().unwrap();
            drop(state);
            let state = StateDir::open(&path).unwrap();
            assert!(state.take_clean().unwrap());
            assert_eq!(state.onion_keys().unwrap().unwrap().as_slice(), b"new");
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_new_keeps_nothing_old() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("s");
        let state = StateDir::open(&path).unwrap();
        state.store_onion_keys(b"old").unwrap();
        fs::create_dir(path.join("onion.keys.new")).unwrap();
        assert!(state.store_onion_keys(b"new").is_err());
        assert!(state.onion_keys().unwrap().is_none());
        let keys = fs::read(path.join("onion.keys.seal")).unwrap();
        assert!(keys.iter().all(|byte| *byte == 0));
        fs::remove_dir(path.join("onion.keys.new")).unwrap();
        state.store_onion_keys(b"new").unwrap();
        assert_eq!(state.onion_keys().unwrap().unwrap().as_slice(), b"new");
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("s");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("mode 755") && error.contains("chmod 700"),
            "{error}"
        );
    }
}
