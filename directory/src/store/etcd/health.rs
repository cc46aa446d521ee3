//! What is the matter with etcd at the moment, said once in the log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::cluster::Trouble;
use crate::{Error, Result};

/// By so many seconds this machine's clock and those of etcd's members may differ. Front ends of one owner
/// must agree on what has ended, or one gives away what another still holds for somebody; names and
/// addresses rest for far longer before somebody else gets them.
pub(super) const CLOCKS: i64 = 60;

/// What is the matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Matter {
    /// No member answers, or none that has a leader.
    away: Option<String>,
    /// etcd takes no more.
    full: bool,
    /// How far this machine's clock is ahead, if that is too far.
    clock_ahead: Option<i64>,
}

/// What is the matter with etcd. It is looked at anew when something goes wrong.
#[derive(Debug, Default)]
pub(super) struct Health {
    matter: Mutex<Matter>,
    doubt: Notify,
    /// Whether changes are said. Who opens the store hears what is the matter as an error.
    is_open: AtomicBool,
}

impl Health {
    /// Whether there is somebody to ask.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) fn can_read(&self) -> Result<()> {
        match &self.matter().away {
            Some(reason) => Err(away(reason)),
            None => Ok(()),
        }
    }

    /// Whether anything can be written.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) fn can_write(&self) -> Result<()> {
        let matter = self.matter();
        match &*matter {
            Matter {
                away: Some(reason), ..
            } => Err(away(reason)),
            Matter {
                clock_ahead: Some(ahead),
                ..
            } => Err(Error::Unavailable(clock(*ahead))),
            Matter { full: true, .. } => Err(full()),
            _ => Ok(()),
        }
    }

    /// Whether etcd was full when it was last asked.
    pub(super) fn is_full(&self) -> bool {
        self.matter().full
    }

    /// Whether nobody answered.
    pub(super) fn is_away(&self) -> bool {
        self.matter().away.is_some()
    }

    /// Somebody answers.
    pub(super) fn answered(&self, clock_ahead: Option<i64>) {
        self.change(|matter| {
            matter.away = None;
            if let Some(ahead) = clock_ahead {
                matter.clock_ahead = (ahead.abs() > CLOCKS).then_some(ahead);
            }
        });
    }

    /// Whether etcd has room.
    pub(super) fn set_full(&self, full: bool) {
        self.change(|matter| matter.full = full);
    }

    /// Nobody answers.
    pub(super) fn set_away(&self, reason: &str) {
        self.change(|matter| {
            matter.away.get_or_insert_with(|| reason.to_owned());
        });
    }

    /// A request has failed.
    pub(super) fn failed(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Away(reason) => {
                self.set_away(&reason);
                away(&reason)
            }
            Trouble::Unknown(reason) => {
                self.doubt.notify_one();
                Error::Unknown(format!("etcd: {reason}"))
            }
            Trouble::Full => {
                self.set_full(true);
                full()
            }
            Trouble::Refused(_, reason) => Error::Store(format!("etcd refuses: {reason}")),
        }
    }

    /// From now on what changes is said in the log.
    pub(super) fn opened(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Waits until it is worth looking.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    fn matter(&self) -> MutexGuard<'_, Matter> {
        self.matter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is the matter, and says so if it has changed.
    fn change(&self, change: impl FnOnce(&mut Matter)) {
        let mut matter = self.matter();
        let before = matter.clone();
        change(&mut matter);
        let now = matter.clone();
        drop(matter);
        if self.is_open.load(Ordering::Relaxed) {
            say(&before, &now);
        }
    }
}

/// One line for each thing that begins or ends.
fn say(before: &Matter, now: &Matter) {
    match (&before.away, &now.away) {
        (None, Some(reason)) => tracing::error!(
            "{}; requests that need it are refused until it answers, nothing that was acknowledged is lost",
            away_text(reason)
        ),
        (Some(_), None) => tracing::info!("etcd answers again"),
        _ => {}
    }
    match (before.full, now.full) {
        (false, true) => tracing::error!(
            "{FULL}; nothing new is stored until then, lookups go on, nothing that was acknowledged is lost"
        ),
        (true, false) => tracing::info!("etcd takes records again"),
        _ => {}
    }
    match (before.clock_ahead, now.clock_ahead) {
        (None, Some(ahead)) => tracing::error!("{}; nothing is stored until then", clock(ahead)),
        (Some(_), None) => tracing::info!("this machine's clock and etcd's agree"),
        _ => {}
    }
}

const FULL: &str = "etcd is full: compact and defragment it, or raise its quota, and disarm its alarm (etcdctl \
                    compact, defrag, alarm disarm)";

fn away(reason: &str) -> Error {
    Error::Unavailable(away_text(reason))
}

fn away_text(reason: &str) -> String {
    format!("etcd does not answer, or has no quorum: {reason}")
}

fn full() -> Error {
    Error::Unavailable(FULL.into())
}

fn clock(ahead: i64) -> String {
    let way = if ahead < 0 { "behind" } else { "ahead of" };
    format!(
        "this machine's clock is {} s {way} that of a member of etcd; set the one that is wrong",
        ahead.unsigned_abs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<()>) -> String {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        let text = error.to_string();
        assert_eq!(text.lines().count(), 1);
        text
    }

    #[test]
    fn what_is_the_matter_decides_what_is_done() {
        let health = Health::default();
        health.can_write().unwrap();
        health.set_full(true);
        health.can_read().unwrap();
        assert!(text(health.can_write()).contains("full"));
        health.set_full(false);
        for (ahead, word) in [(CLOCKS + 1, "61 s ahead"), (-100, "100 s behind")] {
            health.answered(Some(ahead));
            health.can_read().unwrap();
            assert!(text(health.can_write()).contains(word));
        }
        health.answered(None);
        health.can_write().unwrap_err();
        health.answered(Some(CLOCKS));
        health.can_write().unwrap();
        let failed = health.failed(Trouble::Away("x: refused".into()));
        assert!(matches!(failed, Error::Unavailable(_)));
        assert!(text(health.can_read()).contains("x: refused"));
        health.answered(None);
        health.can_read().unwrap();
        let failed = health.failed(Trouble::Unknown("x".into()));
        assert!(matches!(failed, Error::Unknown(_)));
        health.can_write().unwrap();
    }
}
