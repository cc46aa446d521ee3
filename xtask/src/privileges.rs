//! Namespaces and packages need root. Whoever is not root gets there by sudo, and only for what
//! needs it: cargo never runs as another user, so that nothing in `target` changes hands.

use anyhow::{Context, Result, bail};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

/// Variables that mean something to this program and that sudo would drop.
const KEPT: &str = "CARGO_TARGET_DIR,MIXLINE_LOG,MIXLINE_REQUIRE_ROOT,NO_COLOR";

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
pub fn run_sudo<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<u8> {
    let own = std::env::current_exe().context("finding this program")?;
    let status = Command::new("sudo")
        .arg(format!("--preserve-env={KEPT}"))
        .arg("--")
        .arg(own)
        .args(arguments)
        .status();
    match status {
        Ok(status) => {
            let code = status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal));
            Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Err(_) => bail!("this needs root, and there is no sudo: run it again as root"),
    }
}
