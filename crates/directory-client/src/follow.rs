//! Keeping a snapshot current.

use std::sync::Arc;
use std::time::Duration;

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
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);

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
    /// 120 s; after failures 1 s, doubled up to 30 s. Each wait is up to a quarter
    /// shorter at random, so that a network does not ask in step. The last snapshot stays
    /// in the channel while the directory is away: its `valid_until` says how long it holds.
    pub async fn follow(
        mut self,
        snapshots: watch::Sender<Option<Arc<Snapshot>>>,
        status: watch::Sender<FollowStatus>,
    ) {
        loop {
            let wait = self.step(&snapshots, &status).await;
            tokio::select! {
                () = tokio::time::sleep(shortened(wait)) => {}
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

/// Three quarters of the time, and a random part of the last one.
fn shortened(wait: Duration) -> Duration {
    let quarter = wait / 4;
    let part = OsRandom::new().next_u32();
    wait - quarter.mul_f64(f64::from(part) / f64::from(u32::MAX))
}
