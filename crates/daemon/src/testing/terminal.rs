//! A terminal that goes away.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

/// Between two looks at what was said, milliseconds.
const LOOK: u16 = 20;

/// A terminal with a person at it, who reads all that is said, until it is closed.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    line: File,
    said: Arc<Mutex<String>>,
    closing: Arc<AtomicBool>,
    person: JoinHandle<()>,
}

impl Terminal {
    /// Opens one.
    ///
    /// # Errors
    /// Those of `posix_openpt(3)`, and of opening its other end.
    pub fn open() -> io::Result<Self> {
        // No other process may have it: then it would not be gone when it is closed.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let line = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(ptsname_r(&master)?)?;
        let keyboard = File::from(OwnedFd::from(master));
        let mut screen = keyboard.try_clone()?;
        let said = Arc::new(Mutex::new(String::new()));
        let closing = Arc::new(AtomicBool::new(false));
        let (all, is_closing) = (Arc::clone(&said), Arc::clone(&closing));
        let person = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !is_closing.load(Ordering::Relaxed) {
                let mut look = [PollFd::new(screen.as_fd(), PollFlags::POLLIN)];
                if !poll(&mut look, PollTimeout::from(LOOK)).is_ok_and(|ready| ready > 0) {
                    continue;
                }
                if let Ok(length) = screen.read(&mut bytes) {
                    let text = String::from_utf8_lossy(&bytes[..length]);
                    all.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push_str(&text);
                }
            }
        });
        Ok(Self {
            keyboard,
            line,
            said,
            closing,
            person,
        })
    }

    /// The command, in a session of its own whose terminal this is (setsid(1)).
    ///
    /// # Errors
    /// Those of `dup(2)`.
    pub fn command(&self, command: &Command) -> io::Result<Command> {
        let mut around = Command::new("setsid");
        around
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::from(self.line.try_clone()?))
            .stdout(Stdio::from(self.line.try_clone()?))
            .stderr(Stdio::from(self.line.try_clone()?));
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => around.env(key, value),
                None => around.env_remove(key),
            };
        }
        Ok(around)
    }

    /// Types something.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub fn type_in(&mut self, text: &str) -> io::Result<()> {
        self.keyboard.write_all(text.as_bytes())
    }

    /// Waits until this was said; whether it was.
    #[must_use]
    pub fn hears(&self, text: &str, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            let said = self.said();
            if said.contains(text) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(LOOK.into()));
        }
    }

    /// All that was said.
    #[must_use]
    pub fn said(&self) -> String {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// It is gone: its session gets SIGHUP, and what is written to it fails.
    pub fn close(self) {
        self.closing.store(true, Ordering::Relaxed);
        let _ = self.person.join();
    }
}
