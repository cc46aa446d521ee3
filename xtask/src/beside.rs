//! A program of tests that runs beside other work, from its start until somebody asks how it went.

use crate::run;
use crate::summary::Summary;
use anyhow::{Context, Result};
use mixline_testnet::programs::target_directory;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What removes what a killed program has set up.
type CleanUp = Box<dyn Fn() -> Result<()>>;

/// A program that runs. Dropped before its end, it is killed, and what it has set up goes.
pub struct Beside {
    name: &'static str,
    child: Child,
    /// What it says, which is printed at its end, since others print meanwhile.
    log: PathBuf,
    began: Instant,
    ended: bool,
    clean_up: CleanUp,
}

impl Beside {
    /// Starts it. It ends when this process does, however that ends.
    pub fn start(
        name: &'static str,
        command: &Command,
        clean_up: impl Fn() -> Result<()> + 'static,
    ) -> Result<Self> {
        let file = format!("beside-{}.log", name.replace("::", "-").replace(' ', "-"));
        let log = target_directory().join(file);
        let to = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let errors = to.try_clone()?;
        // The signal comes when the thread that started it ends, and this is the main one.
        let mut program = Command::new("setpriv");
        program.args(["--pdeathsig", "KILL", "--"]);
        run::behind(&mut program, command);
        let child = program
            .stdin(Stdio::null())
            .stdout(to)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        println!(
            "== {name}: begins, and says what it says to {}",
            log.display()
        );
        Ok(Self {
            name,
            child,
            log,
            began: Instant::now(),
            ended: false,
            clean_up: Box::new(clean_up),
        })
    }

    /// Waits for its end, prints what it said, and counts. Not to have run any test is a failure.
    pub fn end(mut self) -> Result<Summary> {
        println!("== {}: its end", self.name);
        let waited = Instant::now();
        let succeeded = self.child.wait()?.success();
        self.ended = true;
        let text = fs::read(&self.log)?;
        let text = String::from_utf8_lossy(&text);
        print!("{text}");
        println!(
            "== {}: {} s, of which {} s were waited for",
            self.name,
            self.began.elapsed().as_secs(),
            waited.elapsed().as_secs()
        );
        Ok(judge(self.name, &text, succeeded))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        println!("== {}: ended, since something else has failed", self.name);
        if let Err(error) = (self.clean_up)() {
            eprintln!("removing what it has set up: {error:#}");
        }
    }
}

/// How it went, by the closing line of ours at its end, or by those of test programs.
fn judge(name: &str, text: &str, succeeded: bool) -> Summary {
    let mut read = Summary::default();
    text.lines().for_each(|line| read.read(line));
    let closing = text.lines().last().and_then(Summary::parse);
    let mut summary = match closing {
        Some(mut closing) => {
            closing.failures = read.failures;
            closing
        }
        None => read.finished(),
    };
    if summary.failed == 0 && (!succeeded || summary.passed + summary.not_run() == 0) {
        println!("{name} did not run to its end");
        summary.failed += 1;
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_run_or_not_to_its_end_has_failed() {
        let passed = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out\n";
        let failed =
            "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out\n";
        let none = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 10 filtered out\n";
        let skipped = format!("skipped: needs root\n{none}");
        for (text, succeeded, wanted) in [
            (passed, true, "1 passed, 0 failed, 0 skipped"),
            (failed, false, "0 passed, 1 failed, 0 skipped"),
            // Another name, killed, and another half of it.
            (none, true, "0 passed, 1 failed, 0 skipped"),
            ("", false, "0 passed, 1 failed, 0 skipped"),
            (passed, false, "1 passed, 1 failed, 0 skipped"),
            (
                "ok it\n7 passed, 0 failed\n",
                true,
                "7 passed, 0 failed, 0 skipped",
            ),
            (
                "ok it\n7 passed, 2 failed\n",
                false,
                "7 passed, 2 failed, 0 skipped",
            ),
            (
                "7 passed, 0 failed\n",
                false,
                "7 passed, 1 failed, 0 skipped",
            ),
        ] {
            let judged = judge("a test", text, succeeded).to_string();
            assert_eq!(judged, wanted, "{text} {succeeded}");
        }
        assert_eq!(judge("a test", &skipped, true).failed, 0);
    }
}
