//! The rounds so far, on the disk.
//!
//! ```text
//! state_dir/rounds/
//!   log         (round 8 | digest 32) *       the snapshots of all rounds
//!   snapshot    the newest
//!   vote        what this directory has voted last
//! ```
//!
//! The newest snapshot is written first, then its round is added to the log: a log that ends before the snapshot is
//! completed by it. What does not fit together is left aside, and the others have it, if there are others.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mixline_directory_engine::Certified;
use mixline_protocol::records::{Roster, Snapshot};
use mixline_protocol::round_log::{LEAF, Leaf, RoundLog};

use crate::{Error, Result};

/// The files.
#[derive(Debug, Clone)]
pub struct Past {
    directory: PathBuf,
}

impl Past {
    /// Those below a state directory.
    ///
    /// # Errors
    /// [`Error::State`] if they cannot be there.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let directory = state_dir.join("rounds");
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(state(&directory, &error));
            }
            _ => {}
        }
        Ok(Self { directory })
    }

    /// The log, and the newest snapshot if a quorum of one of the rosters has signed it, however long ago. A snapshot
    /// without its log is none.
    ///
    /// # Errors
    /// [`Error::State`] if they cannot be read.
    pub fn load(&self, rosters: &[Roster]) -> Result<(RoundLog, Option<Certified>)> {
        let mut log = RoundLog::default();
        for leaf in self.read("log")?.chunks_exact(LEAF) {
            if let Ok(leaf) = leaf.try_into()
                && !log.push(Leaf::decode(leaf))
            {
                break;
            }
        }
        let bytes = self.read("snapshot")?;
        let signed_by = |(_, version, at)| {
            let roster = rosters.iter().find(|roster| roster.version == version)?;
            Snapshot::decode_and_verify(&bytes, roster, at).ok()
        };
        let read = Snapshot::peek(&bytes).ok().and_then(signed_by);
        let Some(snapshot) = read else {
            return Ok((log, None));
        };
        let certified = Certified {
            digest: snapshot.digest(),
            snapshot: Arc::new(snapshot),
        };
        let size = usize::try_from(certified.snapshot.log.size).unwrap_or(usize::MAX);
        if log.head_at(size) != Some(certified.snapshot.log) {
            return Ok((log, None));
        }
        log.truncate(size);
        log.push(leaf_of(&certified));
        Ok((log, Some(certified)))
    }

    /// Keeps a snapshot as the newest, and its round in the log, which is `log` with it.
    ///
    /// # Errors
    /// [`Error::State`] if they cannot be written.
    pub fn keep(&self, certified: &Certified, log: &RoundLog) -> Result<()> {
        self.replace("snapshot", &certified.snapshot.encode())?;
        let path = self.directory.join("log");
        let written = fs::metadata(&path).map_or(0, |about| about.len()) / LEAF as u64;
        let before = log.leaves().len().saturating_sub(1);
        if written == before as u64 {
            return self.append(&path, &leaf_of(certified).encode());
        }
        let all: Vec<u8> = log.leaves().iter().flat_map(Leaf::encode).collect();
        self.replace("log", &all)
    }

    /// What was voted last; nothing if there is nothing.
    ///
    /// # Errors
    /// [`Error::State`] if it cannot be read.
    pub fn vote(&self) -> Result<Vec<u8>> {
        self.read("vote")
    }

    /// Keeps what is voted.
    ///
    /// # Errors
    /// [`Error::State`] if it cannot be written.
    pub fn keep_vote(&self, vote: &[u8]) -> Result<()> {
        self.replace("vote", vote)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path);
        let written = file.and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        });
        written.map_err(|error| state(path, &error))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.directory.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(state(&path, &error)),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        let partial = path.with_extension("new");
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&partial)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            File::open(&self.directory)?.sync_all()
        })();
        written.map_err(|error| state(&path, &error))
    }
}

fn leaf_of(certified: &Certified) -> Leaf {
    Leaf {
        round: certified.snapshot.issued,
        digest: certified.digest,
    }
}

fn state(path: &Path, error: &io::Error) -> Error {
    Error::State {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
