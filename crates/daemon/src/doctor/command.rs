//! Programs of the system that know what the kernel tells no other program.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where system programs are; not every user has these folders on the path.
const FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// A program's output; none if it is not there, fails, or takes too long.
#[must_use]
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:{FOLDERS}"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut out = child.stdout.take()?;
    let (done, text) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = out.read_to_end(&mut bytes).map(|_| bytes);
        // If it took too long, nobody waits any more.
        let _ = done.send(read);
    });
    let text = text.recv_timeout(PATIENCE);
    if text.is_err() {
        // It may have ended in this moment.
        let _ = child.kill();
    }
    let success = child.wait().is_ok_and(|status| status.success());
    let bytes = text.ok()?.ok()?;
    success.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_say_something_or_nothing() {
        assert_eq!(output("echo", &["a", "b"]).as_deref(), Some("a b\n"));
        assert_eq!(output("false", &[]), None);
        assert_eq!(output("mixline-no-such-program", &[]), None);
    }
}
