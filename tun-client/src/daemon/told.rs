//! The virtual addresses that programs were told for names.
//!
//! A program keeps an address for a while. A network of somebody else's that appears later does not take
//! it: the program would send to a neighbour what it means for a name.
//!
//! They outlive the process in a file of the runtime directory, for whoever sees to the closed host after
//! a kill. That is memory of the machine and no disk: which names were looked up is nobody's business.
//! Without such a directory they are forgotten with the process.

mod recent;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::config::Config;
use crate::dns::shares::Asker;
use recent::{Recent, Shared};

/// How many that the host's own programs were told are remembered: the last ones.
const MAX_TOLD: usize = 4096;
/// The same for all containers together, whose addresses neither push out those of the host nor make a
/// neighbourhood too crowded to be let be. They share them: see [`Shared`].
const MAX_BEHIND: usize = 256;
/// An address that several containers were told counts for each of them, up to here.
const MAX_ENTRIES_BEHIND: usize = 4 * MAX_BEHIND;
/// The file is written anew when it has this many lines.
const MAX_LINES: usize = 2 * (MAX_TOLD + MAX_ENTRIES_BEHIND);
/// Bytes of the longest file that is read: a line is an address, a time, and which container was told.
const MAX_BYTES: u64 = 128 * MAX_LINES as u64;
/// What stands behind an address in the file that a container was told, before the index of its
/// interface and its own address.
const BEHIND: &str = "behind";

/// Addresses that programs were told and when that was: at most 4096, and 256 of containers.
#[derive(Debug, Default)]
pub struct Told(Mutex<Remembered>);

#[derive(Debug)]
struct Remembered {
    host: Recent,
    behind: Shared,
    file: Option<Kept>,
}

/// The file.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Open for appending.
    file: File,
    lines: usize,
}

impl Told {
    /// Those of the client with this configuration, and where it keeps them if it does.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        config
            .told_file()
            .map_or_else(Self::default, |path| Self::kept_in(&path))
    }

    /// What an earlier client of this machine told, and what this one will, in a file.
    #[must_use]
    pub fn kept_in(path: &Path) -> Self {
        let mut remembered = Remembered::default();
        remembered.read(path, now());
        if let Err(error) = remembered.write(path) {
            tracing::debug!(%error, "addresses of names are forgotten with the process");
        }
        Self(Mutex::new(remembered))
    }

    /// What the client with this configuration told, which may have been killed.
    #[must_use]
    pub fn left_by(config: &Config) -> BTreeSet<IpAddr> {
        let path = config.told_file();
        path.map_or_else(BTreeSet::new, |path| Self::read_from(&path))
    }

    fn read_from(path: &Path) -> BTreeSet<IpAddr> {
        let mut remembered = Remembered::default();
        remembered.read(path, now());
        remembered.all(now())
    }

    /// Remembers from now on what somebody was told; another address is forgotten for it if there are
    /// too many.
    pub fn add(&self, address: IpAddr, asker: Asker) {
        self.lock().add(address, asker, now());
    }

    /// All that are remembered.
    #[must_use]
    pub fn all(&self) -> BTreeSet<IpAddr> {
        self.lock().all(now())
    }

    /// Forgets them all: the host is open.
    pub fn forget(&self) {
        let mut remembered = self.lock();
        if let Some(kept) = &remembered.file {
            let _ = std::fs::remove_file(&kept.path);
        }
        *remembered = Remembered::default();
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Remembered {
    fn default() -> Self {
        Self {
            host: Recent::default(),
            behind: Shared::new(MAX_BEHIND, MAX_ENTRIES_BEHIND),
            file: None,
        }
    }
}

impl Remembered {
    fn add(&mut self, address: IpAddr, asker: Asker, now: Duration) {
        self.insert(address, asker, now);
        let is_to_write = match asker {
            Asker::Host => self.host.is_to_write(address, now),
            Asker::Behind { link, source } => self.behind.is_to_write((link, source), address, now),
        };
        if !is_to_write {
            return;
        }
        let Some(kept) = &mut self.file else { return };
        let done = if kept.lines < MAX_LINES {
            kept.lines += 1;
            kept.file.write_all(line(address, asker, now).as_bytes())
        } else {
            let path = kept.path.clone();
            self.write(&path)
        };
        if let Err(error) = done {
            tracing::warn!(%error, "addresses of names are forgotten with the process");
            self.file = None;
        }
    }

    fn insert(&mut self, address: IpAddr, asker: Asker, at: Duration) {
        match asker {
            Asker::Host => {
                self.host.insert(address, at);
                if self.host.len() > MAX_TOLD {
                    self.host.forget_oldest();
                }
            }
            Asker::Behind { link, source } => self.behind.insert((link, source), address, at),
        }
    }

    fn all(&mut self, now: Duration) -> BTreeSet<IpAddr> {
        self.host.forget_old(now);
        self.behind.forget_old(now);
        let host = self.host.addresses();
        host.chain(self.behind.addresses()).collect()
    }

    /// Takes over what a file says, as far as it can be read.
    fn read(&mut self, path: &Path, now: Duration) {
        let mut text = String::new();
        let read = File::open(path).and_then(|f| f.take(MAX_BYTES).read_to_string(&mut text));
        if read.is_err() {
            return;
        }
        for line in text.lines() {
            if let Some((address, asker, at)) = read_line(line) {
                // A time that is still to come is of another clock.
                self.insert(address, asker, at.min(now));
            }
        }
    }

    /// Writes a file anew, and keeps it.
    fn write(&mut self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        let host = self.host.iter();
        let host = host.map(|(at, address)| line(address, Asker::Host, at));
        let behind = self
            .behind
            .iter()
            .map(|((link, source), at, address)| line(address, Asker::Behind { link, source }, at));
        let text: String = host.chain(behind).collect();
        file.write_all(text.as_bytes())?;
        std::fs::rename(&new, path)?;
        self.host.set_written();
        self.behind.set_written();
        self.file = Some(Kept {
            path: path.to_owned(),
            file,
            lines: text.lines().count(),
        });
        Ok(())
    }
}

/// What the file says of an address.
fn line(address: IpAddr, asker: Asker, at: Duration) -> String {
    let at = at.as_secs();
    match asker {
        Asker::Host => format!("{address} {at}\n"),
        Asker::Behind { link, source } => format!("{address} {at} {BEHIND} {link} {source}\n"),
    }
}

/// The same read; nothing if it is no such line. Where a line does not say which container was told, as
/// those of earlier clients, it is one that nobody is.
fn read_line(line: &str) -> Option<(IpAddr, Asker, Duration)> {
    let mut words = line.split(' ');
    let address = words.next()?.parse().ok()?;
    let at = Duration::from_secs(words.next()?.parse().ok()?);
    let asker = match (words.next(), words.next(), words.next(), words.next()) {
        (None, ..) => Asker::Host,
        (Some(BEHIND), None, ..) => Asker::Behind {
            link: 0,
            source: Ipv4Addr::UNSPECIFIED.into(),
        },
        (Some(BEHIND), Some(link), Some(source), None) => Asker::Behind {
            link: link.parse().ok()?,
            source: source.parse().ok()?,
        },
        _ => return None,
    };
    Some((address, asker, at))
}

/// The time since the machine's start, sleep included.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::recent::REMEMBERED;
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const CONTAINER: Asker = Asker::Behind {
        link: 3,
        source: IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2)),
    };

    const LOUD: Asker = Asker::Behind {
        link: 3,
        source: IpAddr::V4(Ipv4Addr::new(172, 17, 0, 3)),
    };

    fn address(number: usize) -> IpAddr {
        let bits = 0x0a01_0000 + u32::try_from(number).unwrap();
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    }

    fn at(seconds: usize) -> Duration {
        Duration::from_secs(seconds as u64)
    }

    #[test]
    fn what_was_told_last_is_remembered() {
        let mut told = Remembered::default();
        for number in 0..MAX_TOLD {
            told.add(address(number), Asker::Host, at(number));
        }
        // The first is told again, and so the second one is the oldest.
        told.add(address(0), Asker::Host, at(MAX_TOLD));
        told.add(address(MAX_TOLD), Asker::Host, at(MAX_TOLD));
        let all = told.all(at(MAX_TOLD));
        assert_eq!(all.len(), MAX_TOLD);
        assert!(all.contains(&address(0)) && !all.contains(&address(1)));
        // Containers push out nothing but what they were told.
        for number in 10_000..11_000 {
            told.add(address(number), CONTAINER, at(MAX_TOLD));
        }
        let all = told.all(at(MAX_TOLD));
        assert_eq!(all.len(), MAX_TOLD + MAX_BEHIND);
        assert!(all.contains(&address(2)) && all.contains(&address(10_999)));
        assert!(told.all(at(MAX_TOLD) + REMEMBERED).is_empty());
    }

    #[test]
    fn it_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("told");
        let told = Told::kept_in(&path);
        for number in 0..3 {
            told.add(address(number), Asker::Host);
        }
        told.add(address(9), CONTAINER);
        std::mem::forget(told);
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(
            mode & 0o777,
            0o600,
            "others may not read what was looked up"
        );
        let all: BTreeSet<IpAddr> = [0, 1, 2, 9].map(address).into();
        assert_eq!(Told::read_from(&path), all);
        let next = Told::kept_in(&path);
        next.add("fd00::7".parse().unwrap(), Asker::Host);
        assert_eq!(next.all().len(), 5);
        // It is still known which container was told: another pushes out its own.
        for number in 10_000..11_000 {
            next.add(address(number), LOUD);
        }
        assert!(next.all().contains(&address(9)));
        next.forget();
        assert!(next.all().is_empty() && !path.exists());
    }

    #[test]
    fn the_file_stays_short_and_what_is_no_address_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("told");
        std::fs::write(
            &path,
            "10.1.2.3 99999999999\nnobody 1\n10.1.2.4\n\n10.1.2.5 7 behind x y\n",
        )
        .unwrap();
        let told = Told::kept_in(&path);
        assert_eq!(told.all(), ["10.1.2.3".parse().unwrap()].into());
        // As an earlier client wrote it, on a machine that may have been up for days.
        let at = now().as_secs();
        std::fs::write(&path, format!("10.1.2.3 {at}\n10.1.2.4 {at} behind\n")).unwrap();
        assert_eq!(Told::read_from(&path).len(), 2);
        for number in 0..3 * MAX_LINES {
            told.add(address(number), Asker::Host);
            told.add(address(number), CONTAINER);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() <= MAX_LINES && text.len() as u64 <= MAX_BYTES);
        assert_eq!(Told::read_from(&path), told.all());
    }
}
