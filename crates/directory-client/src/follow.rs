//! Keeping a snapshot current.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::random::OsRandom;
use mixline_protocol::records::Snapshot;
use mixline_protocol::time::UnixTime;
use rand_core::Rng as _;
use tokio::sync::watch;

use crate::{DirectoryClient, DirectoryStatus, Fetched, Known, NetworkClient, Result};

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
    /// When a directory last answered as it should.
    pub last_success: Option<UnixTime>,
    /// What went wrong since, one line. `None` after a success.
    pub last_error: Option<String>,
    /// Failures since the last success.
    pub failures: u32,
    /// Which round is believed: when the newest snapshot was made.
    pub round: Option<UnixTime>,
    /// When the newest snapshot ends.
    pub valid_until: Option<UnixTime>,
    /// Which version of the network's roster counts; `None` if its directory is alone.
    pub roster: Option<u32>,
    /// How it went with each directory.
    pub directories: Vec<DirectoryStatus>,
    /// Seconds that this machine's clock is ahead of the directory's: a hint.
    pub clock_ahead: Option<i64>,
}

/// Where following says what it has seen.
#[derive(Debug, Clone)]
pub struct Following {
    /// The newest snapshot.
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// The newest roster and the last round. What is in here at the beginning is where it goes on from, and
    /// whoever wants it to outlive the process writes it down when it changes.
    pub known: watch::Sender<Known>,
    /// How it goes.
    pub status: watch::Sender<FollowStatus>,
}

impl DirectoryClient {
    /// Fetches again and again, as [`NetworkClient::follow`].
    pub async fn follow(
        self,
        snapshots: watch::Sender<Option<Arc<Snapshot>>>,
        status: watch::Sender<FollowStatus>,
    ) {
        let known = watch::Sender::new(self.known().clone());
        let following = Following {
            snapshots,
            known,
            status,
        };
        NetworkClient::of(self).follow(following).await;
    }
}

impl NetworkClient {
    /// Fetches again and again, until nobody receives snapshots any more.
    ///
    /// How often is the directories' to say (`Cache-Control: max-age`), within 1 s and
    /// 120 s; after failures 1 s, doubled up to 15 s; and at once after the machine has slept or its
    /// clock was set, since what holds until when is a matter of the wall clock. Each wait is up to a quarter
    /// shorter at random, so that a network does not ask in step. The last snapshot stays
    /// in the channel while the directories are away: its `valid_until` says how long it holds. None is
    /// taken that was made before it.
    pub async fn follow(mut self, to: Following) {
        if let Some(snapshot) = to.snapshots.borrow().as_deref() {
            self.start_after(snapshot);
        }
        loop {
            let wait = self.step(&to).await;
            tokio::select! {
                () = pause(shortened(wait)) => {}
                () = to.snapshots.closed() => return,
            }
        }
    }

    async fn step(&mut self, to: &Following) -> Duration {
        let fetched = self.fetch().await;
        to.known.send_if_modified(|known| {
            let differs = known != self.known();
            known.clone_from(self.known());
            differs
        });
        let failures = to.status.borrow().failures;
        self.show(&fetched, &to.status);
        match fetched {
            Ok(fetched) => {
                if failures > 0 {
                    tracing::info!("the network's directory answers again");
                }
                if let Fetched::Snapshot(snapshot) = fetched {
                    to.snapshots.send_replace(Some(snapshot));
                }
                self.max_age()
                    .map_or(USUAL, |age| age.clamp(SHORTEST, LONGEST))
            }
            Err(_) => BACKOFF
                .saturating_mul(1 << failures.min(5))
                .min(BACKOFF_LONGEST),
        }
    }

    fn show(&self, fetched: &Result<Fetched>, status: &watch::Sender<FollowStatus>) {
        let before = status.borrow().clone();
        let mut new = FollowStatus {
            round: self.known().round(),
            roster: self.known().roster().map(|roster| roster.version),
            directories: self.directories().cloned().collect(),
            clock_ahead: self.clock_ahead(),
            ..before.clone()
        };
        match fetched {
            Ok(fetched) => {
                let answers = new.directories.iter().filter_map(|of| of.last_success);
                new.last_success = answers.max();
                new.last_error = None;
                new.failures = 0;
                if let Fetched::Snapshot(snapshot) = fetched {
                    new.valid_until = Some(snapshot.valid_until);
                }
            }
            Err(error) => {
                let text = error.to_string();
                if before.last_error.as_ref() != Some(&text) {
                    tracing::warn!("{text}; trying again");
                }
                new.last_error = Some(text);
                new.failures = new.failures.saturating_add(1);
            }
        }
        warn_of_others(&before, &new);
        status.send_replace(new);
    }
}

/// One line for each directory that has begun to fail while others answer, and for each that is well again.
fn warn_of_others(before: &FollowStatus, now: &FollowStatus) {
    if now.directories.len() < 2 {
        return;
    }
    for directory in &now.directories {
        let url = &directory.url;
        let old = before.directories.iter().find(|old| old.url == *url);
        let old = old.and_then(|old| old.last_error.as_ref());
        match &directory.last_error {
            Some(error) if old != Some(error) => tracing::warn!("{error}; others are asked"),
            None if old.is_some() => tracing::info!("directory {url} answers again"),
            _ => {}
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
