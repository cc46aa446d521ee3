//! Which tests take long: read off what a test program prints that runs one test after the other.

use std::fmt;
use std::time::{Duration, Instant};

/// How many are named.
const NAMED: usize = 15;

/// How long tests took.
#[derive(Debug, Default)]
pub struct Slowest {
    /// The end of the test before, or the start of the first one.
    since: Option<Instant>,
    /// The test that runs.
    running: Option<String>,
    took: Vec<(Duration, String)>,
}

impl Slowest {
    /// Reads a line that came at this time. What a test prints itself may stand between its name and
    /// how it ended.
    pub fn read(&mut self, line: &str, now: Instant) {
        if line.starts_with("running ") {
            self.since = Some(now);
        }
        if let Some((name, _)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            self.running = Some(name.trim().to_owned());
        }
        let ended = ["ok", "FAILED", "ignored"]
            .iter()
            .any(|end| line.trim_end().rsplit(' ').next() == Some(end));
        if ended && let Some(name) = self.running.take() {
            let since = self.since.replace(now).unwrap_or(now);
            self.took.push((now.duration_since(since), name));
        }
    }
}

/// A line for each, the slowest first; nothing if none was read.
impl fmt::Display for Slowest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut took: Vec<_> = self.took.iter().collect();
        took.sort_by(|a, b| b.cmp(a));
        for (time, name) in took.iter().take(NAMED) {
            writeln!(f, "   {:6.1} s  {name}", time.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_with_their_time_the_slowest_first() {
        let began = Instant::now();
        let mut slowest = Slowest::default();
        for (at, line) in [
            (1, "running 3 tests"),
            (2, "test udp::one   ... ok"),
            (2, "test udp::two ... "),
            (7, "    after 70 s of sleep: the first name is ok"),
            (9, "ok"),
            (9, "test result: ok. 2 passed; 1 failed"),
            (12, "test udp::three ...     said, and FAILED"),
            (13, "ok"),
        ] {
            slowest.read(line, began + Duration::from_secs(at));
        }
        let said = slowest.to_string();
        let lines: Vec<_> = said.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            ["5.0 s  udp::two", "5.0 s  udp::three", "1.0 s  udp::one"]
        );
        assert_eq!(Slowest::default().to_string(), "");
    }
}
