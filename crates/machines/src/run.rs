//! Programs of the host.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// The directories of programs for root, which a user's path may lack.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program of the host, with root's path and plain English. It ends with this process, also when
/// that is killed.
pub(crate) fn program(name: &str) -> Command {
    let mut command = lasting("setpriv");
    command.args(["--pdeathsig", "KILL", "--", name]);
    command
}

/// As [`program`], for one that sees to the end of this process itself.
pub(crate) fn lasting(name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    command
}

/// A program of the host whose mounts and processes end with it: they are in namespaces of their own.
pub(crate) fn unshared(name: &str) -> Command {
    let mut command = program("unshare");
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        name,
    ]);
    command
}

/// A program in the tree of another system.
pub(crate) fn inside(tree: &Path, name: &str) -> Command {
    let mut command = program("chroot");
    command.arg(tree).arg(name);
    command
}

/// Whether the host has a program.
pub(crate) fn is_there(name: &str) -> bool {
    PATH.split(':')
        .any(|directory| Path::new(directory).join(name).is_file())
}

/// What a program writes to its output.
///
/// # Errors
/// If it cannot be run or does not succeed, with what it said.
pub(crate) fn said(command: &mut Command) -> Result<Vec<u8>> {
    let failed = |command: &Command, why: String| Error::Command {
        command: format!("{command:?}").replace('"', ""),
        why,
    };
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return Err(failed(command, error.to_string())),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stdout));
    let lines: Vec<&str> = text.trim().lines().collect();
    let end = lines[lines.len().saturating_sub(12)..].join("\n");
    Err(failed(command, format!("{}\n{end}", output.status)))
}

/// Writes a file and the directories that it lies in.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file("making", parent))?;
    }
    fs::write(path, content).map_err(Error::file("writing", path))
}

/// Reads a small file of text.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::file("reading", path))
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(Error::file("removing", path)),
    }
}

/// Makes a directory for what is about to be made in it, empty; it takes its real name by
/// [`finish`], so that what is half made is never used.
pub(crate) fn begin(path: &Path) -> Result<std::path::PathBuf> {
    let begun = path.with_extension("new");
    remove(&begun)?;
    fs::create_dir_all(&begun).map_err(Error::file("making", &begun))?;
    Ok(begun)
}

/// Gives a directory that is whole its name.
pub(crate) fn finish(begun: &Path, path: &Path) -> Result<()> {
    remove(path)?;
    fs::rename(begun, path).map_err(Error::file("renaming", begun))
}
