//! One run at a time: trees and disks are made once, and machines have fixed places.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::{Error, Result};

/// The lock; released when it is dropped, and by the kernel when its holder dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a cache directory; calls `waiting` once if another run has it, then waits
    /// for that one.
    ///
    /// # Errors
    /// If the directory cannot be written to.
    pub fn take(cache: &Path, waiting: impl FnOnce()) -> Result<Self> {
        std::fs::create_dir_all(cache).map_err(Error::file("making", cache))?;
        let path = cache.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::file("opening", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(Error::file("locking", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(Error::file("locking", &path)(error)),
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let cache = std::env::temp_dir().join(format!("mixline-lock-{}", std::process::id()));
        let first = Lock::take(&cache, || panic!("nobody else has it")).expect("the lock");
        let (waits, waiting) = mpsc::channel();
        let path = cache.clone();
        let second = std::thread::spawn(move || {
            Lock::take(&path, || waits.send(()).expect("somebody waits")).map(drop)
        });
        waiting.recv().expect("the second waits");
        assert!(!second.is_finished());
        drop(first);
        second.join().expect("it ends").expect("it has the lock");
        std::fs::remove_dir_all(cache).expect("it was there");
    }
}
