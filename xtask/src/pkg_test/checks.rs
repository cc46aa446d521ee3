//! Checks, and what they look at the container with.

use anyhow::{Result, bail};
use mixline_machines::container::Container;
use std::time::{Duration, Instant};

/// How long a command that only looks may take.
pub const SHORT: Duration = Duration::from_secs(30);

/// The checks, one after the other: what was looked at, and what came of it.
pub struct Checks {
    began: Instant,
    /// How many passed.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
    /// The container's shell has not come back from a command: what follows would wait behind it.
    lost: bool,
}

impl Checks {
    /// Time begins.
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            passed: 0,
            failed: 0,
            lost: false,
        }
    }

    /// Says what happens, and when.
    pub fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Checks something, and says what came of it.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        if self.lost {
            self.failed += 1;
            self.say(&format!("NOT RUN {name}"));
            return;
        }
        match check() {
            Ok(()) => {
                self.passed += 1;
                self.say(&format!("ok      {name}"));
            }
            Err(error) => {
                self.failed += 1;
                self.lost = matches!(
                    error.downcast_ref(),
                    Some(
                        mixline_machines::Error::Timeout { .. }
                            | mixline_machines::Error::Ended { .. }
                    )
                );
                self.say(&format!("FAILED  {name}: {}", chain(&error)));
            }
        }
    }
}

/// An error with its causes, and without where in this program it came from.
fn chain(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    causes.join(": ")
}

/// What a command in the container wrote; it has to succeed.
pub fn said(container: &mut Container, command: &str) -> Result<String> {
    Ok(container.expect(command, SHORT)?)
}

/// Fails unless a command in the container gives this.
pub fn expect(container: &mut Container, command: &str, wanted: &str) -> Result<()> {
    let answer = container.run(command, SHORT)?;
    if answer.output.trim() != wanted {
        bail!(
            "`{command}` gave `{}`, not `{wanted}`",
            answer.output.trim()
        );
    }
    Ok(())
}

/// Fails unless a command in the container succeeds within so many seconds, tried again and again.
pub fn until(container: &mut Container, command: &str, seconds: u64) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let answer = container.run(command, SHORT)?;
        if answer.code == 0 {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("not within {seconds} s: `{command}`\n{}", answer.output);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
