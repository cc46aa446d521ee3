//! How much a relay has sent in this month, and what it does when that is all it may send.
//!
//! Months are those of UTC. A relay that has used up its month hibernates: it withdraws from the
//! directory, takes no new paths and sends no cells, until the next month begins or the
//! configuration allows more. What was sent is written down now and then, and when the relay stops.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::time::UnixTime;
use mixline_relay_engine::allowance::{Allowance, Rate, SENT_BYTES};
use mixline_relay_engine::messages::Command;
use mixline_relay_engine::queues::WorkerHandle;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::control::tell;
use crate::reload::Offer;
use crate::standing::Standing;
use crate::state_dir::StateDir;

/// How often what was sent is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is written down: what a crash forgets.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// A month of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    year: u64,
    /// 1 to 12.
    number: u64,
}

impl Month {
    /// The month of a time.
    #[must_use]
    pub fn of(time: UnixTime) -> Self {
        // After "chrono-Compatible Low-Level Date Algorithms" (H. Hinnant), civil_from_days: years
        // begin in March there, so that the leap day is the last of a year.
        let days = time.0 / 86_400 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day_of_year + 2) / 153;
        let (number, next) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        Self {
            year: era * 400 + year + next,
            number,
        }
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.number)
    }
}

/// What was sent in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The month of UTC, such as `2026-11`.
    pub month: String,
    /// Bytes of cells that were sent on, headers included.
    pub sent: u64,
}

impl Volume {
    /// Nothing yet, in the month of a time.
    fn at(now: UnixTime) -> Self {
        Self {
            month: Month::of(now).to_string(),
            sent: 0,
        }
    }

    /// As it is written: the month and the bytes.
    fn text(&self) -> String {
        format!("{} {}\n", self.month, self.sent)
    }

    /// What was written.
    fn read(text: &str) -> Option<Self> {
        let (month, sent) = text.trim().split_once(' ')?;
        Some(Self {
            month: month.to_owned(),
            sent: sent.parse().ok()?,
        })
    }

    /// Adds what was sent since the last time; with a new month it begins anew.
    fn add(&mut self, bytes: u64, now: UnixTime) {
        let month = Month::of(now).to_string();
        // A clock that goes back does not forget what was sent.
        if month > self.month {
            *self = Self { month, sent: 0 };
        }
        self.sent = self.sent.saturating_add(bytes);
    }
}

/// Watches over the month.
pub struct Accounts {
    state: Arc<StateDir>,
    volume: Mutex<Volume>,
    /// Cells since the start that are in it.
    counted: AtomicU64,
    allowance: Arc<Allowance>,
    workers: Vec<WorkerHandle>,
    standing: watch::Sender<Standing>,
    offer: watch::Receiver<Offer>,
}

impl Accounts {
    /// With what was written down before. `standing` is where it is said that the relay
    /// hibernates.
    #[must_use]
    pub fn new(
        state: Arc<StateDir>,
        allowance: Arc<Allowance>,
        workers: Vec<WorkerHandle>,
        standing: watch::Sender<Standing>,
        offer: watch::Receiver<Offer>,
    ) -> Self {
        let mut volume = Volume::at(now());
        match state.volume() {
            Ok(None) => {}
            Ok(Some(text)) => match Volume::read(&text) {
                Some(before) => volume = before,
                None => {
                    tracing::warn!("what was sent in this month is not readable: it counts anew")
                }
            },
            Err(error) => tracing::warn!("{error}: what was sent in this month counts anew"),
        }
        volume.add(0, now());
        let accounts = Self {
            state,
            volume: Mutex::new(volume),
            counted: AtomicU64::new(0),
            allowance,
            workers,
            standing,
            offer,
        };
        accounts.look(0, now());
        accounts
    }

    /// What was sent in this month.
    #[must_use]
    pub fn volume(&self) -> Volume {
        self.volume
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Adds up what was sent, as long as this is polled. `relayed` says how many cells that was
    /// since the start.
    pub async fn run(&self, relayed: impl Fn() -> u64) {
        let mut offer = self.offer.clone();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = (self.volume(), Instant::now());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // What the configuration allows now counts at once.
                Ok(()) = offer.changed() => {}
            }
            self.count(relayed());
            if written.1.elapsed() >= WRITE_EVERY && self.volume() != written.0 {
                self.write();
                written = (self.volume(), Instant::now());
            }
        }
    }

    /// Counts what was sent at last, and writes it down: the relay has stopped.
    pub fn close(&self, relayed: u64) {
        self.count(relayed);
        self.write();
    }

    /// Counts the cells that are new among those relayed since the start.
    fn count(&self, relayed: u64) {
        let before = self.counted.swap(relayed, Ordering::Relaxed);
        self.look(relayed.saturating_sub(before) * SENT_BYTES, now());
    }

    /// Counts bytes, and hibernates or wakes.
    fn look(&self, bytes: u64, now: UnixTime) {
        let sent = {
            let mut volume = self.volume.lock().unwrap_or_else(PoisonError::into_inner);
            volume.add(bytes, now);
            volume.sent
        };
        let offer = self.offer.borrow().clone();
        let is_used_up = offer.monthly.is_some_and(|most| sent >= most);
        let rate = match offer.bandwidth {
            _ if is_used_up => Rate::Nothing,
            Some(bytes) => Rate::Bytes(bytes),
            None => Rate::Unlimited,
        };
        self.allowance.set(rate);
        let changed = self.standing.send_if_modified(|standing| {
            let wanted = match *standing {
                // Who leaves does not come back.
                Standing::Leaving => Standing::Leaving,
                Standing::Present | Standing::Hibernating if is_used_up => Standing::Hibernating,
                Standing::Present | Standing::Hibernating => Standing::Present,
            };
            let differs = *standing != wanted;
            *standing = wanted;
            differs
        });
        if changed {
            if is_used_up {
                tracing::warn!("`monthly` is used up: hibernating until the next month");
                self.write();
            } else {
                tracing::info!("`monthly` has room again");
            }
            for worker in &self.workers {
                tell(worker, Command::NewPaths(!is_used_up));
            }
        }
    }

    /// Writes down what was sent.
    fn write(&self) {
        if let Err(error) = self.state.store_volume(&self.volume().text()) {
            tracing::warn!("{error}: a restart counts some of this month anew");
        }
    }
}

fn now() -> UnixTime {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_of_utc() {
        for (seconds, month) in [
            (0, "1970-01"),
            (951_782_399, "2000-02"),
            (951_868_799, "2000-02"),
            (951_868_800, "2000-03"),
            (1_709_164_800, "2024-02"),
            (1_709_251_200, "2024-03"),
            (1_798_761_599, "2026-12"),
            (1_798_761_600, "2027-01"),
            (4_107_542_400, "2100-03"),
            (4_107_542_399, "2100-02"),
        ] {
            assert_eq!(Month::of(UnixTime(seconds)).to_string(), month, "{seconds}");
        }
    }

    #[test]
    fn a_month_adds_up_and_the_next_begins_anew() {
        let december = UnixTime(1_798_761_599);
        let mut volume = Volume::at(december);
        volume.add(5, december);
        volume.add(6, december);
        assert_eq!(volume.sent, 11);
        assert_eq!(Volume::read(&volume.text()), Some(volume.clone()));
        volume.add(7, december.plus(1));
        assert_eq!((volume.month.as_str(), volume.sent), ("2027-01", 7));
        // A clock that goes back.
        volume.add(8, december);
        assert_eq!((volume.month.as_str(), volume.sent), ("2027-01", 15));
        assert_eq!(Volume::read("2027-01"), None);
    }
}
