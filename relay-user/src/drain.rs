//! Leaving the network without breaking what goes through the relay.
//!
//! The relay withdraws its descriptor, takes no new paths, and goes on with those it knows, until
//! none is in use or the time is up. Then it stops as it always does.

use std::time::{Duration, Instant};

use mixline_relay_engine::messages::Command;
use mixline_relay_engine::queues::WorkerHandle;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use crate::control::tell;
use crate::standing::Standing;

/// Without a cell for so long no path is in use: one in use is probed several times a second
/// (`mixline_protocol::path::cache::IDLE`).
const QUIET: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long those that watch have to hear of the end.
const LAST_WORD: Duration = Duration::from_millis(200);

/// How far a relay has come with leaving.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Whether the directory has taken the descriptor that ends.
    pub withdrawn: bool,
    /// Cells relayed in the last second.
    pub cells_s: u64,
    /// Seconds since the last cell.
    pub quiet_s: u64,
    /// Seconds that it goes on at most.
    pub left_s: u64,
    /// Why it has ended; none before.
    #[serde(default)]
    pub end: Option<End>,
}

/// Why a relay has ended its leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// No path is in use any more.
    Quiet,
    /// The time is up.
    Timeout,
}

impl Progress {
    /// In one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        let directory = if self.withdrawn {
            "withdrawn from the directory"
        } else {
            "withdrawing from the directory"
        };
        match self.end {
            None if self.quiet_s == 0 => format!(
                "{directory}; {} cells/s still; at most {} s more",
                self.cells_s, self.left_s
            ),
            None => format!(
                "{directory}; no cells for {} of {} s; at most {} s more",
                self.quiet_s,
                QUIET.as_secs(),
                self.left_s
            ),
            Some(End::Quiet) => format!("{directory}; no path is in use: stopping"),
            Some(End::Timeout) => format!(
                "{directory}; the time is up, with {} cells/s: stopping",
                self.cells_s
            ),
        }
    }
}

/// Lets a relay leave.
pub struct Departure {
    /// When it ends at the latest; none as long as the relay stays.
    deadline: watch::Sender<Option<Instant>>,
    progress: watch::Sender<Progress>,
    /// How the relay stands: its descriptor is withdrawn unless it is present.
    standing: watch::Sender<Standing>,
    workers: Vec<WorkerHandle>,
}

impl Departure {
    /// For a relay with these workers, whose registration listens to `standing`.
    #[must_use]
    pub fn new(standing: watch::Sender<Standing>, workers: Vec<WorkerHandle>) -> Self {
        Self {
            deadline: watch::Sender::new(None),
            progress: watch::Sender::default(),
            standing,
            workers,
        }
    }

    /// Begins to leave, or changes how long that may take. It goes on if nobody watches.
    pub fn begin(&self, within: Duration) -> watch::Receiver<Progress> {
        tracing::info!(
            "leaving: no new paths; stopping within {} s",
            within.as_secs()
        );
        self.deadline.send_replace(Some(Instant::now() + within));
        self.progress.subscribe()
    }

    /// Returns when the relay has been told to leave and may stop. `relayed` says how many cells it
    /// has sent on, `is_withdrawn` whether the directory knows that it leaves.
    pub async fn run(&self, relayed: impl Fn() -> u64, is_withdrawn: impl Fn() -> bool) {
        let mut begun = self.deadline.subscribe();
        if begun.wait_for(Option::is_some).await.is_err() {
            return std::future::pending().await;
        }
        self.standing.send_replace(Standing::Leaving);
        for worker in &self.workers {
            tell(worker, Command::NewPaths(false));
        }
        let mut last = (relayed(), Instant::now());
        let mut ticks = interval(LOOK);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let count = relayed();
            let cells_s = count - last.0;
            if cells_s > 0 {
                last = (count, now);
            }
            let quiet = now.saturating_duration_since(last.1);
            let left = (*self.deadline.borrow())
                .map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            let end = if quiet >= QUIET {
                Some(End::Quiet)
            } else {
                left.is_zero().then_some(End::Timeout)
            };
            let progress = Progress {
                withdrawn: is_withdrawn(),
                cells_s,
                quiet_s: quiet.as_secs(),
                left_s: left.as_secs(),
                end,
            };
            if end.is_some() {
                tracing::info!("{}", progress.line());
            }
            self.progress.send_replace(progress);
            if end.is_some() {
                sleep(LAST_WORD).await;
                return;
            }
        }
    }
}
