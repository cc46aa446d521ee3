//! One network at a time: the namespaces' names are fixed, so a second run waits for the first.

use crate::error::{Result, SystemContext as _};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::Path;

/// Held by the process that has the network. Under `/run`, since namespaces belong to the machine, not to a
/// working copy.
pub(crate) const PATH: &str = "/run/mixline-testnet.lock";

/// The lock; released when dropped, and by the kernel when its holder dies.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock; calls `waiting` once if another run has it, then waits for that one.
    pub fn take(waiting: impl FnOnce()) -> Result<Self> {
        Self::take_at(Path::new(PATH), waiting)
    }

    fn take_at(path: &Path, waiting: impl FnOnce()) -> Result<Self> {
        let open = || {
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .file("opening", path)
        };
        match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => return Ok(Self { _file: file }),
            Err((_, Errno::EWOULDBLOCK)) => waiting(),
            Err((_, errno)) => return Err(errno.into()).file("locking", path),
        }
        match Flock::lock(open()?, FlockArg::LockExclusive) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, errno)) => Err(errno.into()).file("waiting for the other network by", path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn the_second_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = Lock::take_at(&path, || panic!("nobody else has it")).unwrap();
        let (waits, waiting) = mpsc::channel();
        let second =
            std::thread::spawn(move || Lock::take_at(&path, || waits.send(()).unwrap()).map(drop));
        waiting.recv().unwrap();
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap().unwrap();
    }
}
