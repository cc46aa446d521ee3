//! Keeping a snapshot current.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::random::OsRandom;
use mixline_protocol::records::Snapshot;
use mixline_protocol::time::UnixTime;
use rand_core::Rng as _;
use tokio::sync::watch;

use crate::{DirectoryClient, Fetched};

/// Between fetches, if the directory does not say.
const USUAL: Duration = Duration::from_secs(10);
/// The shortest and the longest time between fetches that the directory can ask for.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(120);
/// After the first failure; doubled with each further one, up to [`BACKOFF_LONGEST`].
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_LONGEST: Duration = Duration::from_secs(15);
/// How often it is looked whether the wall clock has gone another way than time.
const LOOK: Duration = Duration::from_secs(2);
/// By so much: the machine has slept, or its clock was set.
const STEP: Duration = Duration::from_secs(3);

/// How the following goes, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FollowStatus {
    /// When the directory last answered as it should.
    pub last_success: Option<UnixTime>,
    /// What went wrong since, one line. `None` after a success.
    pub last_error: Option<String>,
    /// Failures since the last success.
    pub failures: u32,
    /// When the newest snapshot ends.
    pub valid_until: Option<UnixTime>,
    /// Seconds that this machine's clock is ahead of the directory's: a hint.
    pub clock_ahead: Option<i64>,
}

impl DirectoryClient {
    /// Fetches again and again, until nobody receives snapshots any more.
    ///
    /// How often is the directory's to say (`Cache-Control: max-age`), within 1 s and
    /// 120 s; after failures 1 s, doubled up to 15 s; and at once after the machine has slept or its
    /// clock was set, since what holds until when is a matter of the wall clock. Each wait is up to a quarter
    /// shorter at random, so that a network does not ask in step. The last snapshot stays
    /// in the channel while the directory is away: its `valid_until` says how long it holds. None is
    /// taken that was made before it.
    pub async fn follow(
        mut self,
        snapshots: watch::Sender<Option<Arc<Snapshot>>>,
        status: watch::Sender<FollowStatus>,
    ) {
        if let Some(snapshot) = snapshots.borrow().as_deref() {
            self.start_after(snapshot);
        }
        loop {
            let wait = self.step(&snapshots, &status).await;
            tokio::select! {
                () = pause(shortened(wait)) => {}
                () = snapshots.closed() => return,
            }
        }
    }

    async fn step(
        &mut self,
        snapshots: &watch::Sender<Option<Arc<Snapshot>>>,
        status: &watch::Sender<FollowStatus>,
    ) -> Duration {
        match self.fetch().await {
            Ok(fetched) => {
                let now = self.now();
                if status.borrow().failures > 0 {
                    tracing::info!("directory {} answers again", self.url());
                }
                let newest = match fetched {
                    Fetched::Snapshot(snapshot) => Some(snapshot),
                    Fetched::NotModified => None,
                };
                status.send_modify(|status| {
                    status.last_success = Some(now);
                    status.last_error = None;
                    status.failures = 0;
                    status.clock_ahead = self.clock_ahead();
                    if let Some(snapshot) = &newest {
                        status.valid_until = Some(snapshot.valid_until);
                    }
                });
                if newest.is_some() {
                    snapshots.send_replace(newest);
                }
                self.max_age()
                    .map_or(USUAL, |age| age.clamp(SHORTEST, LONGEST))
            }
            Err(error) => {
                let text = error.to_string();
                let before = status.borrow().clone();
                if before.last_error.as_ref() != Some(&text) {
                    tracing::warn!("{text}; trying again");
                }
                status.send_modify(|status| {
                    status.last_error = Some(text);
                    status.failures = status.failures.saturating_add(1);
                    status.clock_ahead = self.clock_ahead();
                });
                BACKOFF
                    .saturating_mul(1 << before.failures.min(5))
                    .min(BACKOFF_LONGEST)
            }
        }
    }
}

/// Waits, but not beyond a step of the wall clock against the monotonic one, which stands still while
/// the machine sleeps.
async fn pause(wait: Duration) {
    let until = tokio::time::Instant::now() + wait;
    while tokio::time::Instant::now() < until {
        let (began, wall) = (Instant::now(), SystemTime::now());
        let look = tokio::time::Instant::now() + LOOK;
        tokio::time::sleep_until(until.min(look)).await;
        if stepped(wall, SystemTime::now(), began.elapsed()) {
            return;
        }
    }
}

/// Whether the wall clock has gone from one time to the other by a step, in `passed`.
fn stepped(from: SystemTime, to: SystemTime, passed: Duration) -> bool {
    match to.duration_since(from) {
        Ok(ahead) => ahead.abs_diff(passed) >= STEP,
        Err(back) => back.duration() + passed >= STEP,
    }
}

/// Three quarters of the time, and a random part of the last one.
fn shortened(wait: Duration) -> Duration {
    let quarter = wait / 4;
    let part = OsRandom::new().next_u32();
    wait - quarter.mul_f64(f64::from(part) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_and_a_clock_that_is_set_are_steps() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let second = Duration::from_secs(1);
        assert!(!stepped(wall, wall + 2 * second, 2 * second));
        assert!(!stepped(wall, wall + 4 * second, 2 * second));
        assert!(!stepped(wall, wall + 70 * second, 70 * second));
        // Asleep for a minute, in which the monotonic clock stood still.
        assert!(stepped(wall, wall + 62 * second, 2 * second));
        assert!(stepped(wall, wall - 280 * second, 2 * second));
        assert!(stepped(wall, wall + 86400 * second, 2 * second));
    }
}
