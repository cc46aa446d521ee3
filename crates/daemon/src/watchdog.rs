//! The watchdog of the service manager (`WatchdogSec=`): it hears that the daemon is alive as
//! long as all its parts are, and ends and restarts the daemon otherwise.
//!
//! Each part counts its rounds. The thread that looks at the counts is one that may hang itself,
//! so a daemon whose main thread hangs is silent as well.

use std::time::{Duration, Instant};

use crate::service_manager;

/// A part that has to show that it lives.
struct Part {
    name: String,
    /// How long its rounds take at most.
    patience: Duration,
    rounds: Box<dyn Fn() -> u64 + Send>,
    /// What it had counted, and when that was new.
    last: (u64, Instant),
    silent: bool,
}

/// Tells the service manager that the daemon is alive, as long as it is.
pub struct Watchdog {
    every: Duration,
    parts: Vec<Part>,
}

impl Watchdog {
    /// The watchdog that the service manager asks for by `WATCHDOG_USEC`; none if it asks for
    /// none, or asks another process.
    #[must_use]
    pub fn asked_for() -> Option<Self> {
        sd_notify::watchdog_enabled().map(Self::within)
    }

    /// One that has to speak within this time.
    fn within(time: Duration) -> Self {
        Self {
            // sd_watchdog_enabled(3) recommends half of it; a third allows for one that is lost.
            every: (time / 3).max(Duration::from_millis(10)),
            parts: Vec::new(),
        }
    }

    /// How often to [`look`](Self::look).
    #[must_use]
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Watches a part: `rounds` grows as long as it lives, at least once in `patience`.
    pub fn watch(
        &mut self,
        name: impl Into<String>,
        patience: Duration,
        rounds: impl Fn() -> u64 + Send + 'static,
    ) {
        self.parts.push(Part {
            name: name.into(),
            patience,
            last: (rounds(), Instant::now()),
            rounds: Box::new(rounds),
            silent: false,
        });
    }

    /// Tells the service manager that the daemon is alive, if all parts are. Says whether they
    /// are; the log names one that is not.
    pub fn look(&mut self, now: Instant) -> bool {
        let mut alive = true;
        for part in &mut self.parts {
            let rounds = (part.rounds)();
            if rounds != part.last.0 {
                part.last = (rounds, now);
                part.silent = false;
                continue;
            }
            // What has moved since the last look is not asked for more.
            let silence = now.saturating_duration_since(part.last.1);
            if silence > part.patience.max(self.every) {
                alive = false;
                if !part.silent {
                    part.silent = true;
                    tracing::error!(
                        "{} hangs: nothing of it for {} s",
                        part.name,
                        silence.as_secs()
                    );
                }
            }
        }
        if alive {
            service_manager::alive();
        }
        alive
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn one_part_that_hangs_is_enough() {
        let mut dog = Watchdog::within(Duration::from_secs(30));
        assert_eq!(dog.every(), Duration::from_secs(10));
        let counts = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        for (number, count) in counts.iter().enumerate() {
            let count = Arc::clone(count);
            dog.watch(
                format!("part {number}"),
                Duration::from_secs(12),
                move || count.load(Ordering::Relaxed),
            );
        }
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let beat = |part: usize| counts[part].fetch_add(1, Ordering::Relaxed);
        beat(0);
        beat(1);
        assert!(dog.look(at(10)));
        beat(0);
        assert!(dog.look(at(20)));
        beat(0);
        assert!(!dog.look(at(30)));
        beat(0);
        beat(1);
        assert!(dog.look(at(40)));
    }
}
