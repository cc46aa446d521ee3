//! A network beside another one: a process that has names of namespaces, and a lock, of its own.
//!
//! The names of a network's namespaces are fixed, and so there is one at a time where `ip` keeps names. A process
//! in mount and network namespaces of its own keeps them elsewhere, and meets no other. When its last process
//! ends, the kernel removes what is left.

use crate::error::{Result, SystemContext as _};
use crate::lock;
use crate::namespaces::NETNS_ETC;
use crate::netns::{self, NAMES};
use crate::programs::DIRECTORY;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set for a program that is to be apart.
const APART: &str = "MIXLINE_TESTNET_APART";
/// Parts of names, with commas between them: the tests of a program of which only some are to run.
const ONLY: &str = "MIXLINE_TESTNET_ONLY";

/// Keeps `/etc/netns`, which is removed when it is empty, for those who have mounted something there.
fn placeholder() -> PathBuf {
    Path::new(NETNS_ETC).join("mixline-apart")
}

/// What a program that is apart needs of others; gone with it.
#[derive(Debug)]
pub struct Ground(());

impl Ground {
    /// Makes `command` one that is apart, if its program calls [`enter_if_asked`]. Its network keeps its files
    /// in `directory`.
    ///
    /// # Errors
    /// Without root's rights.
    pub fn prepare(command: &mut Command, directory: &Path) -> Result<Self> {
        let place = placeholder();
        fs::create_dir_all(&place).file("making", &place)?;
        command.env(APART, "1").env(DIRECTORY, directory);
        Ok(Self(()))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        clean_up();
    }
}

/// Makes `command` run only the tests whose names contain one of `parts`, if its program asks
/// [`is_wanted`]. The harness of tests takes one part alone.
pub fn only(command: &mut Command, parts: &[&str]) {
    command.env(ONLY, parts.join(","));
}

/// Whether a test is one of those that this process is to run.
#[must_use]
pub fn is_wanted(test: &str) -> bool {
    std::env::var(ONLY).map_or(true, |parts| has_one_of(test, &parts))
}

fn has_one_of(test: &str, parts: &str) -> bool {
    parts.split(',').any(|part| test.contains(part))
}

/// Removes what is left of a [`Ground`] whose process was killed.
pub fn clean_up() {
    let _ = fs::remove_dir(placeholder());
    let _ = fs::remove_dir(NETNS_ETC); // only when it is empty
}

/// Moves this process into namespaces of its own if its environment says so. To be called before there are
/// other threads.
///
/// # Errors
/// Without root's rights.
pub fn enter_if_asked() -> Result<()> {
    if std::env::var_os(APART).is_none() {
        return Ok(());
    }
    let own_lock = crate::programs::testnet_directory().with_extension("lock");
    for directory in [Path::new(NAMES), Path::new(NETNS_ETC)] {
        fs::create_dir_all(directory).file("making", directory)?;
    }
    for file in [own_lock.as_path(), Path::new(lock::PATH)] {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(file)
            .file("opening", file)?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| netns::Error::Make(errno.into()))?;
    // What is mounted from here on is seen here only.
    let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount_at(None, Path::new("/"), None, all)?;
    for directory in [NAMES, NETNS_ETC] {
        mount_at(None, Path::new(directory), Some("tmpfs"), MsFlags::empty())?;
    }
    mount_at(
        Some(&own_lock),
        Path::new(lock::PATH),
        None,
        MsFlags::MS_BIND,
    )?;
    netns::ip("link set lo up\n")?;
    Ok(())
}

fn mount_at(what: Option<&Path>, at: &Path, kind: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(what, at, kind, flags, None::<&str>)
        .map_err(std::io::Error::from)
        .file("mounting at", at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_tests_are_wanted() {
        for (test, is_wanted) in [
            ("xdp::ports", true),
            ("udp::living::a_night", true),
            ("udp::ports", false),
        ] {
            assert_eq!(has_one_of(test, "xdp,living"), is_wanted, "{test}");
        }
    }
}
