//! Versions of what a relay says: each beyond all before it, also after a restart with a clock that was
//! set back.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// How far ahead versions are set aside, milliseconds: as often something is to be stored at most. A relay that is
/// started again goes on from there, so directories see a clock that is that much ahead, and bear some of it.
const SET_ASIDE: u64 = 60_000;

/// The versions of one identity, for all that it says and to everybody.
#[derive(Debug, Default)]
pub struct Versions(Mutex<Used>);

#[derive(Debug, Default)]
struct Used {
    last: u64,
    /// All that were used are before this one.
    set_aside: u64,
}

impl Versions {
    /// Of an identity for which this was stored: all its versions were before that one. None for one that is
    /// new.
    #[must_use]
    pub fn new(stored: Option<u64>) -> Self {
        let before = stored.unwrap_or(0);
        Self(Mutex::new(Used {
            last: before,
            set_aside: before,
        }))
    }

    /// The next version, beyond `known` as well: the time in milliseconds, if that is enough. `store`
    /// writes down what [`Versions::new`] wants to know, before the version is used.
    pub fn next(&self, known: u64, store: impl FnOnce(u64)) -> u64 {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let least = used.last.max(known).saturating_add(1);
        let version = now().max(least);
        used.last = version;
        if version >= used.set_aside {
            used.set_aside = version.saturating_add(SET_ASIDE);
            store(used.set_aside);
        }
        version
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_over_restarts_and_beyond_what_others_know() {
        let mut stored = Vec::new();
        let versions = Versions::new(None);
        let first = versions.next(0, |before| stored.push(before));
        assert!(first > 1_700_000_000_000 && stored == [first + SET_ASIDE]);
        let second = versions.next(0, |before| stored.push(before));
        assert!(second > first && stored.len() == 1, "written now and then");
        assert_eq!(versions.next(first * 2, |b| stored.push(b)), first * 2 + 1);
        // The clock had been ahead.
        let before = *stored.last().unwrap();
        assert!(Versions::new(Some(before)).next(0, |_| {}) > before);
    }
}
