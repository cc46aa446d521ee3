//! The lock on a state directory: one process at a time uses the identity in it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

const FILE: &str = "lock";
/// How often a held directory is tried again, and after which time.
const TRIES: u32 = 5;
const MOMENT: Duration = Duration::from_millis(10);

/// A directory that is locked until this is dropped, or the process ends.
#[derive(Debug)]
pub struct DirectoryLock {
    // The lock goes with the descriptor, and so with the process.
    file: File,
}

impl DirectoryLock {
    /// Makes the directory if it is not there (mode 0700), and locks it.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process holds it; [`Error::NotOwner`]; [`Error::File`].
    pub fn take(directory: &Path) -> Result<Self> {
        let failed = |action: &'static str, path: &Path, error: std::io::Error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => Error::NotOwner {
                directory: directory.to_owned(),
            },
            _ => Error::file(action, path)(error),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed("create", directory, error))?;
        let metadata = std::fs::metadata(directory).map_err(Error::file("read", directory))?;
        if metadata.mode() & 0o077 != 0 {
            std::fs::set_permissions(directory, Permissions::from_mode(0o700))
                .map_err(Error::file("restrict", directory))?;
        }
        let path = directory.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("open", &path, error))?;
        // Who asks whether it is held holds it for a moment.
        let mut taken = file.try_lock();
        for _ in 0..TRIES {
            if !matches!(taken, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(MOMENT);
            taken = file.try_lock();
        }
        match taken {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse {
                    directory: directory.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::File {
                    action: "lock",
                    path,
                    error,
                });
            }
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        written.map_err(Error::file("write", &path))?;
        Ok(Self { file })
    }

    /// Whether a process holds the directory, without taking it.
    #[must_use]
    pub fn is_held(directory: &Path) -> bool {
        let Ok(file) = OpenOptions::new()
            .read(true)
            .write(true)
            .open(directory.join(FILE))
        else {
            return false;
        };
        matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    }
}

impl Drop for DirectoryLock {
    /// Closing the file is not enough: a child that was just forked, and has not begun its own
    /// program yet, has it open too.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_given_back_though_a_child_has_its_file_open() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(directory.path()).unwrap();
        // What a fork gives to the child.
        let inherited = lock.file.try_clone().unwrap();
        drop(lock);
        DirectoryLock::take(directory.path()).unwrap();
        drop(inherited);
    }

    #[test]
    fn a_second_user_is_refused_and_told_who_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!DirectoryLock::is_held(directory.path()));
        let first = DirectoryLock::take(directory.path()).unwrap();
        assert!(DirectoryLock::is_held(directory.path()));
        let error = DirectoryLock::take(directory.path()).unwrap_err();
        assert!(
            matches!(&error, Error::InUse { pid: Some(pid), .. } if *pid == std::process::id()),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id()))
        );
        drop(first);
        assert!(!DirectoryLock::is_held(directory.path()));
        DirectoryLock::take(directory.path()).unwrap();
    }
}
