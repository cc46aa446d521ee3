//! What a directory tells the service manager while it runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mixline_daemon::service_manager;
use mixline_daemon::watchdog::Watchdog;
use mixline_endpoint::Handle;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::config::Config;
use crate::registry::Registry;

/// How often it is asked whether a snapshot is due.
pub const TICK: Duration = Duration::from_millis(250);
/// How often ended records are removed.
pub const SWEEP: Duration = Duration::from_secs(10);
/// How often the status line is looked at.
const STATUS: Duration = Duration::from_secs(5);
/// How often the private part is asked.
const ASK: Duration = Duration::from_secs(2);
/// How much longer than planned a round may take: signing, waiting for the disk, a busy machine.
const MORE: Duration = Duration::from_secs(20);

/// Rounds that the parts of a directory have made: each shows that it lives.
#[derive(Debug, Default)]
pub struct Life {
    /// Looks whether a snapshot is due.
    pub snapshots: AtomicU64,
    /// Sweeps of the store: its writing thread has answered.
    pub sweeps: AtomicU64,
    /// Answers of the private part.
    answers: AtomicU64,
    /// Whether there is a private part to answer.
    is_private: AtomicBool,
}

impl Life {
    /// One more round of a part.
    pub fn count(part: &AtomicU64) {
        part.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the private part again and again, as long as this is polled.
    pub async fn of_private_part(&self, handle: &Handle) {
        self.is_private.store(true, Ordering::Relaxed);
        let _ended = Ended(&self.is_private);
        loop {
            if handle.status().await.is_some() {
                Self::count(&self.answers);
            }
            sleep(ASK).await;
        }
    }

    /// Grows as long as the private part answers, or there is none.
    fn private_rounds(&self) -> u64 {
        if !self.is_private.load(Ordering::Relaxed) {
            Self::count(&self.answers);
        }
        self.answers.load(Ordering::Relaxed)
    }
}

/// Nobody asks the private part any more.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The directory in one line.
pub fn line(registry: &Registry, address: SocketAddr) -> String {
    match registry.live_count() {
        1 => format!("serving http://{address}: 1 relay"),
        count => format!("serving http://{address}: {count} relays"),
    }
}

/// Shows what the directory does, whenever that changes.
pub async fn show_status(
    registry: Arc<Registry>,
    first: SocketAddr,
    configs: watch::Receiver<Arc<Config>>,
) {
    let begun = configs.borrow().listen;
    let mut shown = String::new();
    let mut ticks = interval(STATUS);
    loop {
        ticks.tick().await;
        // The kernel may have chosen the first one's port.
        let now = configs.borrow().listen;
        let line = line(&registry, if now == begun { first } else { now });
        if line != shown {
            service_manager::status(&line);
            shown = line;
        }
    }
}

/// Keeps the watchdog quiet as long as snapshots, store and private part live, if there is a
/// watchdog.
pub async fn keep_alive(life: Arc<Life>) {
    let Some(mut dog) = Watchdog::asked_for() else {
        return;
    };
    let part = |rounds: fn(&Life) -> u64| {
        let life = Arc::clone(&life);
        move || rounds(&life)
    };
    let snapshots = part(|life| life.snapshots.load(Ordering::Relaxed));
    dog.watch("the making of snapshots", TICK + MORE, snapshots);
    let sweeps = part(|life| life.sweeps.load(Ordering::Relaxed));
    dog.watch("the store", SWEEP + MORE, sweeps);
    dog.watch("the private part", ASK + MORE, part(Life::private_rounds));
    let mut ticks = interval(dog.every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        dog.look(Instant::now());
    }
}
