//! How many tests ran and how many did not, read off what test programs print: those of the
//! standard harness (also of `libtest-mimic`), and the lines of `mixline_testnet::skip`.

use mixline_testnet::skip::{NEEDS_ROOT, SKIPPED};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// Tests counted. Displayed, it is the closing line: `N passed, M failed, K skipped`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Ran, and passed.
    pub passed: u64,
    /// Ran, and failed.
    pub failed: u64,
    /// Did not run, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// What is known of those that failed: a name, or what a check said.
    pub failures: Vec<String>,
}

/// The most failures that are named.
const NAMED: usize = 20;

impl Summary {
    /// Counts what a line of output says, if it says anything.
    pub fn read(&mut self, line: &str) {
        if let Some(result) = line.trim().strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.skip("marked so", number_before(result, " ignored"));
        } else if let Some((_, reason)) = line.split_once(SKIPPED) {
            self.skip(reason.trim(), 1);
        } else {
            self.read_failure(line.trim());
        }
    }

    /// Keeps what a line says of a failure: those of the harness, and the checks' at their end.
    pub fn read_failure(&mut self, line: &str) {
        let named = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"));
        let said = ["FAILED  ", "NOT RUN "]
            .iter()
            .any(|begin| line.starts_with(begin))
            .then_some(line);
        if let Some(failure) = named.or(said)
            && self.failures.len() < NAMED
        {
            self.failures.push(failure.to_owned());
        }
    }

    /// At the end of a test program: a test that says that it is skipped passes by the harness.
    #[must_use]
    pub fn finished(mut self) -> Self {
        let said = self
            .skipped
            .iter()
            .filter(|(reason, _)| *reason != "marked so");
        self.passed = self
            .passed
            .saturating_sub(said.map(|(_, count)| count).sum());
        self
    }

    /// Tests that did not run, for whatever reason.
    pub fn not_run(&self) -> u64 {
        self.skipped.values().sum()
    }

    /// Whether root could run more.
    pub fn needs_root(&self) -> bool {
        self.skipped
            .keys()
            .any(|reason| reason.starts_with(NEEDS_ROOT))
    }

    /// What ran and what did not, for people.
    pub fn explain(&self) -> String {
        let mut text = format!(
            "{} tests ran, {} did not",
            self.passed + self.failed,
            self.not_run()
        );
        for (reason, count) in &self.skipped {
            text += &format!("\n   {count} were skipped: {reason}");
        }
        for failure in &self.failures {
            text += &format!("\n   failed: {failure}");
        }
        text
    }

    /// Reads a closing line, which may be silent about what was skipped; what is no such line gives nothing.
    pub fn parse(line: &str) -> Option<Self> {
        let mut numbers = Vec::new();
        for (part, what) in line.trim().split(", ").zip(["passed", "failed", "skipped"]) {
            let (number, is) = part.split_once(' ')?;
            if is != what {
                return None;
            }
            numbers.push(number.parse().ok()?);
        }
        let (passed, failed, skipped) = match numbers[..] {
            [passed, failed] => (passed, failed, 0),
            [passed, failed, skipped] => (passed, failed, skipped),
            _ => return None,
        };
        let mut summary = Self {
            passed,
            failed,
            ..Self::default()
        };
        summary.skip("see above", skipped);
        Some(summary)
    }

    fn skip(&mut self, reason: &str, count: u64) {
        if count > 0 {
            *self.skipped.entry(reason.to_owned()).or_default() += count;
        }
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        for (reason, count) in other.skipped {
            self.skip(&reason, count);
        }
        let room = NAMED.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed,
            self.not_run()
        )
    }
}

/// The number right before a word.
fn number_before(text: &str, word: &str) -> u64 {
    text.split_once(word)
        .and_then(|(before, _)| before.rsplit(|c: char| !c.is_ascii_digit()).next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Summary {
        let mut summary = Summary::default();
        lines.lines().for_each(|line| summary.read(line));
        summary.finished()
    }

    #[test]
    fn results_of_the_harness_are_added_up() {
        let summary = read(
            "running 4 tests\ntest a ... ok\ntest b ... ignored\n\
             test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished \
             in 0.05s\n\
             test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; \
             finished in 1.00s\n",
        );
        assert_eq!(summary.to_string(), "13 passed, 2 failed, 1 skipped");
        assert!(!summary.needs_root());
    }

    #[test]
    fn what_says_that_it_is_skipped_did_not_pass() {
        let summary = read(
            "skipped: needs root\nskipped: built without the XDP program\nskipped: needs root\n\
             test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(summary.to_string(), "2 passed, 0 failed, 3 skipped");
        assert!(summary.needs_root());
        assert!(summary.explain().contains("2 were skipped: needs root"));
        assert!(summary.explain().starts_with("2 tests ran, 3 did not\n"));
    }

    #[test]
    fn what_failed_is_named_at_the_end() {
        let mut summary = read("test a::b ... FAILED\n   3.1 s  FAILED  while it ran\n");
        summary += read("FAILED  a check: not within 90 s\nNOT RUN the next\n");
        summary += read(&"test c ... FAILED\n".repeat(100));
        let text = summary.explain();
        assert!(text.contains("\n   failed: a::b\n   failed: FAILED  a check: not within 90 s"));
        assert!(text.contains("failed: NOT RUN the next\n"));
        assert_eq!(text.matches("failed: ").count(), NAMED);
    }

    #[test]
    fn other_lines_say_nothing() {
        assert_eq!(
            read("test result of nothing\n3 passed; 1 failed\n"),
            Summary::default()
        );
    }

    #[test]
    fn the_closing_line_is_read_again() {
        for line in [
            "13 passed, 2 failed, 1 skipped",
            "0 passed, 0 failed, 0 skipped",
        ] {
            assert_eq!(Summary::parse(line).unwrap().to_string(), line);
        }
        for line in [
            "",
            "3 passed",
            "3 failed, 2 passed, 1 skipped",
            "all passed, none failed",
        ] {
            assert_eq!(Summary::parse(line), None, "{line}");
        }
    }
}
