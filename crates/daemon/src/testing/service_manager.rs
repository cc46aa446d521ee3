//! A service manager: a socket that hears what a daemon tells.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The longest notice.
const LONGEST: usize = 4096;

/// Hears one daemon.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl ServiceManager {
    /// Listens at a path that is not there yet.
    ///
    /// # Errors
    /// Those of `bind(2)`.
    pub fn listen(path: &Path) -> io::Result<Self> {
        Ok(Self {
            socket: UnixDatagram::bind(path)?,
            path: path.to_owned(),
        })
    }

    /// Lets a command tell it what it does, and asks for a sign of life within `watchdog`, if
    /// there is one.
    pub fn supervise(&self, command: &mut Command, watchdog: Option<Duration>) {
        command.env("NOTIFY_SOCKET", &self.path);
        if let Some(time) = watchdog {
            command.env("WATCHDOG_USEC", time.as_micros().to_string());
        }
    }

    /// The lines of the next notice; none if there is none within `patience`.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub fn next(&self, patience: Duration) -> io::Result<Option<Vec<String>>> {
        let mut buffer = [0; LONGEST];
        self.socket
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                Ok(Some(text.lines().map(str::to_owned).collect()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next notice with a line that begins so, within `patience`. Those before it are
    /// forgotten.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub fn wait_for(&self, start: &str, patience: Duration) -> io::Result<Option<Vec<String>>> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.next(left)? {
                Some(notice) if notice.iter().any(|line| line.starts_with(start)) => {
                    return Ok(Some(notice));
                }
                Some(_) if !left.is_zero() => {}
                _ => return Ok(None),
            }
        }
    }
}
