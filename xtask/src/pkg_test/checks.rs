//! Checks, and what they look at the container with.

use anyhow::{Result, bail};
use mixline_machines::container::Container;
use std::time::{Duration, Instant};

/// How long a command that only looks may take.
pub const SHORT: Duration = Duration::from_secs(30);
/// How long what comes by itself is waited for. It says nothing about speed: other tests have the machine
/// as well.
const PATIENCE: Duration = Duration::from_secs(90);

/// The checks, one after the other: what was looked at, and what came of it.
pub struct Checks {
    began: Instant,
    /// How many passed.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
    /// What those said.
    failures: Vec<String>,
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
            failures: Vec::new(),
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
            self.fail(format!("NOT RUN {name}"));
            return;
        }
        match check() {
            Ok(()) => {
                self.passed += 1;
                self.say(&format!("ok      {name}"));
            }
            Err(error) => {
                self.lost = matches!(
                    error.downcast_ref(),
                    Some(
                        mixline_machines::Error::Timeout { .. }
                            | mixline_machines::Error::Ended { .. }
                    )
                );
                self.fail(format!("FAILED  {name}: {}", chain(&error)));
            }
        }
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.say(&what);
        self.failures.push(what);
    }

    /// Prints once more what failed, for who sees the end alone.
    pub fn repeat_failures(&self) {
        for failure in &self.failures {
            println!("{failure}");
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

/// Fails unless a command in the container succeeds, tried again and again for [`PATIENCE`].
pub fn until(container: &mut Container, command: &str) -> Result<()> {
    until_within(container, command, PATIENCE)
}

/// As [`until`], for what may also not happen.
pub fn until_within(container: &mut Container, command: &str, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        let answer = container.run(command, SHORT)?;
        if answer.code == 0 {
            return Ok(());
        }
        if Instant::now() > end {
            bail!(
                "not within {} s: `{command}`\n{}",
                limit.as_secs(),
                answer.output
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
