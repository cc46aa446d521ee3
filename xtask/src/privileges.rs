//! Namespaces and packages need root. A user who is not root gets there by sudo, and only for what
//! needs it: cargo never runs as another user, so that nothing in `target` changes hands.

use anyhow::{Context, Result, bail};
use mixline_testnet::programs;
use std::ffi::OsStr;
use std::io::{ErrorKind, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

/// Variables that mean something to this program or to the tests and that sudo would drop.
const KEPT: &[&str] = &[
    "CARGO_TARGET_DIR",
    "MIXLINE_LOG",
    "MIXLINE_MACHINES",
    "MIXLINE_REQUIRE_ROOT",
    "MIXLINE_TOOLS",
    "NO_COLOR",
    programs::BUILT,
];

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Does nothing for root. Otherwise runs this very program again under sudo, with the same
/// arguments and `more`, and gives its exit code.
pub fn as_root(more: &[&str]) -> Result<Option<ExitCode>> {
    if is_root() {
        return Ok(None);
    }
    let arguments = std::env::args_os()
        .skip(1)
        .chain(more.iter().map(Into::into));
    Ok(Some(ExitCode::from(run_sudo(arguments)?)))
}

/// Runs this program under sudo with other arguments; gives its exit code.
pub fn run_sudo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<u8> {
    match sudo(arguments)?.status() {
        Ok(status) => Ok(exit_code(status)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("this needs root, and there is no sudo: run it again as root")
        }
        Err(error) => Err(error).context("running sudo"),
    }
}

/// This program under sudo, with other arguments.
pub fn sudo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Command> {
    let own = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new("sudo");
    command
        .arg(format!("--preserve-env={}", KEPT.join(",")))
        .arg("--")
        .arg(own)
        .args(arguments);
    Ok(command)
}

/// Whether sudo lets this user in: without a password, or there is a terminal to ask for it.
pub fn can_ask() -> bool {
    let without_password = Command::new("sudo")
        .args(["--non-interactive", "true"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match without_password {
        Ok(status) => status.success() || std::io::stdin().is_terminal(),
        Err(_) => false,
    }
}

/// Under sudo, gives a file, or a directory with all that is in it, to the user who asked for it.
/// Does nothing without sudo, or if there is no such file.
pub fn give_to_user(path: &Path) {
    let id = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
        give(path, user, group);
    }
}

fn give(path: &Path, user: u32, group: u32) {
    let _ = std::os::unix::fs::lchown(path, Some(user), Some(group));
    if path.is_symlink() {
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        give(&entry.path(), user, group);
    }
}

/// As a shell gives it: 128 and the signal's number for a program that a signal ended.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
    }

    #[test]
    fn sudo_runs_this_program_and_keeps_what_means_something() {
        let command = sudo(["run-tests", "{}"]).unwrap();
        let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        assert!(arguments[0].starts_with("--preserve-env=CARGO_TARGET_DIR,"));
        assert!(arguments[0].contains("MIXLINE_REQUIRE_ROOT"));
        assert_eq!(arguments[1], "--");
        assert_eq!(arguments[3..], ["run-tests", "{}"]);
    }

    #[test]
    fn a_directory_is_given_away_with_what_is_in_it() {
        if !mixline_testnet::skip::is_root_or_skip() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("one/two");
        std::fs::create_dir_all(&deep).unwrap();
        std::os::unix::fs::symlink("/etc", deep.join("link")).unwrap();
        let before = std::fs::metadata("/etc").unwrap().uid();
        give(directory.path(), 65534, 65534);
        assert_eq!(std::fs::metadata(&deep).unwrap().uid(), 65534);
        assert_eq!(std::fs::metadata("/etc").unwrap().uid(), before);
    }
}
