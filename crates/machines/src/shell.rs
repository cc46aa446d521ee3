//! A root shell in a machine, driven over a socket: a command at a time, with its output and its
//! exit code.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What a command gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its exit code, as the shell has it.
    pub code: i32,
    /// What it wrote, both outputs in one, lines ending in `\n`.
    pub output: String,
}

/// The host's end of the shell.
#[derive(Debug)]
pub struct Shell {
    socket: UnixStream,
    read: Vec<u8>,
    /// The number of the last command: the end of its output bears it, so that none is taken for
    /// another's.
    number: u64,
}

impl Shell {
    /// A shell at the other end of a socket.
    #[must_use]
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            read: Vec::new(),
            number: 0,
        }
    }

    /// Waits until the other end has written a text.
    ///
    /// # Errors
    /// `TimedOut`; `UnexpectedEof` if the other end closes.
    pub fn wait_for(&mut self, text: &str, timeout: Duration) -> io::Result<()> {
        self.until(text.as_bytes(), timeout).map(drop)
    }

    /// Runs a command of shell syntax. Its input is empty.
    ///
    /// # Errors
    /// `TimedOut`: the command may go on; `UnexpectedEof`.
    pub fn run(&mut self, command: &str, timeout: Duration) -> io::Result<Answer> {
        let mut output = String::new();
        let code = self.run_shown(command, timeout, |line| {
            output.push_str(line);
            output.push('\n');
        })?;
        output.truncate(output.trim_end_matches('\n').len());
        Ok(Answer { code, output })
    }

    /// As [`run`](Self::run), with each line given to `show` when it comes; gives the exit code.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_shown(
        &mut self,
        command: &str,
        timeout: Duration,
        mut show: impl FnMut(&str),
    ) -> io::Result<i32> {
        self.number += 1;
        let number = self.number;
        // The mark is put together by the other shell, so that an echo of the command is none.
        let line =
            format!("{{ {command}\n}} </dev/null; printf '\n@@%s %d %d@@\n' MIXLINE {number} $?\n");
        self.socket.write_all(line.as_bytes())?;
        let mark = format!("@@MIXLINE {number} ");
        let end = Instant::now() + timeout;
        // The mark's own line end comes before it: an empty line that is not the command's.
        let mut empty = false;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.until(b"\n", left)?;
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(code) = line
                .strip_prefix(&mark)
                .and_then(|rest| rest.strip_suffix("@@"))
            {
                return Ok(code.trim().parse().unwrap_or(-1));
            }
            if std::mem::replace(&mut empty, line.is_empty()) {
                show("");
            }
            if !line.is_empty() {
                show(&line);
            }
        }
    }

    /// What was read before a pattern; the pattern is taken as well.
    fn until(&mut self, pattern: &[u8], timeout: Duration) -> io::Result<Vec<u8>> {
        let end = Instant::now() + timeout;
        let mut looked = 0;
        loop {
            let from = looked.min(self.read.len());
            if let Some(at) = find(&self.read[from..], pattern) {
                let rest = self.read.split_off(from + at + pattern.len());
                let mut before = std::mem::replace(&mut self.read, rest);
                before.truncate(from + at);
                return Ok(before);
            }
            looked = (self.read.len() + 1).saturating_sub(pattern.len());
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut bytes = [0; 16 << 10];
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // A terminal's line ends are not wanted.
                Ok(count) => self
                    .read
                    .extend(bytes[..count].iter().filter(|byte| **byte != b'\r')),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A shell of this host at the other end.
    fn shell() -> (Shell, Child) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let end = || {
            Stdio::from(OwnedFd::from(
                theirs.try_clone().expect("another descriptor"),
            ))
        };
        let child = Command::new("sh")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("a shell");
        (Shell::new(ours), child)
    }

    #[test]
    fn commands_give_their_output_and_their_code() {
        let (mut shell, mut child) = shell();
        let answer = shell
            .run("echo one; echo two >&2; (exit 7)", LONG)
            .expect("an answer");
        assert_eq!((answer.code, answer.output.as_str()), (7, "one\ntwo"));
        let answer = shell
            .run("printf '@@MIXLINE 9 9@@'", LONG)
            .expect("an answer");
        assert_eq!(
            (answer.code, answer.output.as_str()),
            (0, "@@MIXLINE 9 9@@")
        );
        assert_eq!(shell.run("cat", LONG).expect("an answer").output, "");
        drop(shell);
        child.wait().expect("the shell ends");
    }

    #[test]
    fn a_command_that_takes_too_long_is_given_up_and_not_taken_for_the_next() {
        let (mut shell, mut child) = shell();
        let error = shell
            .run("sleep 1; echo late", Duration::from_millis(100))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let answer = shell.run("echo now", LONG).expect("an answer");
        assert!(answer.output.ends_with("now"), "{answer:?}");
        drop(shell);
        child.wait().expect("the shell ends");
    }
}
