//! The state directory, which only the relay's user may write and read. Nothing is made here: what
//! root makes is not the relay's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

use super::finding::Finding;

/// What was seen of the state directory.
#[derive(Debug, Clone)]
pub struct State {
    /// Where it is.
    pub path: PathBuf,
    /// Permissions and owner; none if it is not there.
    pub owned: Option<(u32, u32)>,
    /// Whether it, or the nearest folder above that is there, can be written.
    pub writable: bool,
    /// The user that this process runs as.
    pub user: u32,
}

impl State {
    /// Looks at the machine.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let there = path.ancestors().find(|path| path.exists());
        Self {
            path: path.into(),
            owned: fs::metadata(path)
                .ok()
                .map(|metadata| (metadata.mode() & 0o7777, metadata.uid())),
            writable: there
                .is_some_and(|path| path.is_dir() && access(path, AccessFlags::W_OK).is_ok()),
            user: geteuid().as_raw(),
        }
    }

    /// Compares it with what the relay needs.
    #[must_use]
    pub fn judge(&self) -> Finding {
        let check = "state directory";
        let path = self.path.display();
        match self.owned {
            Some((mode, _)) if mode & 0o077 != 0 => Finding::problem(
                check,
                format!("{path} is open to others (mode {mode:o})"),
                format!("chmod 700 {path}"),
            ),
            Some(_) if !self.writable => Finding::problem(
                check,
                format!("{path} cannot be written by user {}", self.user),
                format!("chown {} {path}, or run as its owner", self.user),
            ),
            Some((_, owner)) if owner != self.user => Finding::ok(
                check,
                format!("{path}, of user {owner}; you are user {}", self.user),
            ),
            Some(_) => Finding::ok(check, path.to_string()),
            None if self.writable => {
                Finding::ok(check, format!("{path} is not there yet, and will be made"))
            }
            None => Finding::problem(
                check,
                format!("{path} is not there, and user {} cannot make it", self.user),
                format!("install -d -m 700 -o {} {path} as root", self.user),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn states() {
        let judge = |owned, writable| {
            let path = PathBuf::from("/var/lib/mixline-relay");
            let state = State {
                path,
                owned,
                writable,
                user: 5,
            };
            state.judge().level
        };
        assert_eq!(judge(Some((0o700, 5)), true), Level::Ok);
        assert_eq!(judge(Some((0o700, 6)), true), Level::Ok);
        assert_eq!(judge(Some((0o750, 5)), true), Level::Problem);
        assert_eq!(judge(Some((0o700, 6)), false), Level::Problem);
        assert_eq!(judge(None, true), Level::Ok);
        assert_eq!(judge(None, false), Level::Problem);
    }

    #[test]
    fn nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/state");
        let state = State::read(&path);
        assert!(state.writable && state.owned.is_none());
        assert!(!path.exists());
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(!State::read(&folder.path().join("file/state")).writable);
    }
}
