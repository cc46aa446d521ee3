//! What is remembered on disk: the guards, and the versions of what the own ID says. The latter are as good
//! as the ID to whoever has the directory, so they stand beside its key.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use mixline_endpoint_engine::{Guards, OwnVersions};

const LOCK: &str = "endpoint.lock";
/// How long a disk is left alone that has failed.
const AGAIN: Duration = Duration::from_secs(30);

/// What is remembered, each in a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The guards.
    Guards,
    /// The versions of what the own ID says.
    OwnVersions,
}

impl Kept {
    fn file(self) -> &'static str {
        match self {
            Self::Guards => "guards.json",
            Self::OwnVersions => "versions.json",
        }
    }

    /// What comes of it that this cannot be stored.
    fn without(self) -> &'static str {
        match self {
            Self::Guards => "the guards cannot be stored: a restart would choose others",
            Self::OwnVersions => {
                "the versions of records and initiations cannot be stored: after a restart the directory may refuse \
                 records, and peers sessions, until the clock is past those"
            }
        }
    }
}

/// The state directory of one endpoint, held under a lock: two endpoints with the same guards
/// file would be one to their guards.
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Opens the directory, makes it (mode 0700) if it is not there, and locks it.
    ///
    /// # Errors
    /// [`Error::State`], also if another endpoint runs on it.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |path: &Path, source| Error::State {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed(path, error))?;
        let name = path.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(|error| failed(&name, error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let busy = "another endpoint uses this directory; give each its own";
                failed(path, io::Error::new(io::ErrorKind::WouldBlock, busy))
            }
            TryLockError::Error(error) => failed(&name, error),
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The guards that were stored; `None` if none were.
    ///
    /// # Errors
    /// [`Error::State`], or [`Error::StateContent`] if the file is not what was stored. Guards are
    /// not chosen anew in silence: that is what an attacker would want.
    pub fn load_guards(&self, wanted: usize) -> Result<Option<Guards>> {
        let (path, text) = self.load(Kept::Guards)?;
        text.map(|text| Guards::load(wanted, &text))
            .transpose()
            .map_err(|reason| Error::StateContent { path, reason })
    }

    /// The versions of what the own ID says that were stored. Those in a file that is not what was stored are
    /// lost: then the directory may refuse records, and peers sessions, until the clock is past those that they have.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn load_own_versions(&self) -> Result<OwnVersions> {
        let (path, text) = self.load(Kept::OwnVersions)?;
        let Some(text) = text else {
            return Ok(OwnVersions::default());
        };
        Ok(OwnVersions::load(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, "{} is not what was stored, and counts as empty", path.display());
            OwnVersions::default()
        }))
    }

    /// Where something is stored, and its text if it was.
    fn load(&self, what: Kept) -> Result<(PathBuf, Option<String>)> {
        let path = self.path.join(what.file());
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok((path, Some(text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((path, None)),
            Err(source) => Err(Error::State { path, source }),
        }
    }

    /// Stores something: afterwards its file holds either the old text or the new one.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn store(&self, what: Kept, text: &str) -> Result<()> {
        let path = self.path.join(what.file());
        self.replace(&path, text)
            .map_err(|source| Error::State { path, source })
    }

    fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(&self.path)?.sync_all()
    }
}

/// When something may be stored: a disk that has failed is not asked again for each packet.
#[derive(Debug)]
pub struct Storing {
    what: Kept,
    rests_until: Option<Instant>,
}

impl Storing {
    /// Nothing of it is stored yet.
    pub fn of(what: Kept) -> Self {
        Self {
            what,
            rests_until: None,
        }
    }

    /// Stores what is to be stored, if it is time to; whether that is on the disk now. Where it is not,
    /// it is to be brought again. Tells of a failure.
    pub fn store(
        &mut self,
        state: &StateDir,
        text: impl FnOnce() -> Option<String>,
        now: Instant,
    ) -> bool {
        if self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        let Some(text) = text() else {
            return false;
        };
        let result = state.store(self.what, &text);
        self.rests_until = result.is_err().then(|| now + AGAIN);
        if let Err(error) = &result {
            tracing::warn!(%error, "{}", self.what.without());
        }
        result.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_stored_is_stored_when_the_disk_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = StateDir::open(&path).unwrap();
        let text = || Some("{\"used\":7,\"accepted\":5,\"initiation\":9}\n".to_owned());
        let mut storing = Storing::of(Kept::OwnVersions);
        let start = Instant::now();
        std::fs::remove_dir_all(&path).unwrap();
        let mut try_at = |now| storing.store(&state, text, now);
        assert!(!try_at(start));
        std::fs::create_dir(&path).unwrap();
        // Not for each packet.
        assert!(!try_at(start + AGAIN / 2));
        assert!(try_at(start + AGAIN));
        assert_eq!(state.load_own_versions().unwrap().save(), text().unwrap());
        assert!(try_at(start + AGAIN));
    }

    #[test]
    fn versions_are_there_after_a_restart_and_a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let none = OwnVersions::default();
        assert_eq!(state.load_own_versions().unwrap(), none);
        let file = folder.path().join(Kept::OwnVersions.file());
        let some = "{\"used\":7,\"accepted\":5,\"initiation\":9}\n";
        state.store(Kept::OwnVersions, some).unwrap();
        let loaded = state.load_own_versions().unwrap();
        assert_eq!(loaded.save(), some);
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(state.load_own_versions().unwrap(), none);
        // What is no file is an error, and not taken for none.
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(state.load_own_versions().is_err());
    }
}
