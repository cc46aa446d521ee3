//! What is remembered on disk: the guards, and nothing that tells who this endpoint is.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use mixline_endpoint_engine::Guards;

const GUARDS: &str = "guards.json";
const LOCK: &str = "endpoint.lock";

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
        let path = self.path.join(GUARDS);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::State { path, source }),
        };
        Guards::load(wanted, &text)
            .map(Some)
            .map_err(|reason| Error::StateContent { path, reason })
    }

    /// Stores the guards: afterwards the file holds either the old ones or the new ones.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn store_guards(&self, text: &str) -> Result<()> {
        let path = self.path.join(GUARDS);
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
