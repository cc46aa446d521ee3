//! The versions of what the own ID says: of its records (the descriptor, and claims of names), and of its
//! session initiations.
//!
//! A directory takes a record only if it is newer than the one that it has, and peers keep the newest
//! that they have seen; they take an initiation only if it is later than the one before. A version is the time
//! at which something was made, or more where the clock was set back meanwhile. The ID outlives the program, so
//! a version that is ahead of all that were used is stored: after a restart they go on from there, wherever the
//! clock has gone meanwhile.

use mixline_protocol::records::CLOCK_SKEW;
use mixline_protocol::session::TIMESTAMP_TOLERANCE_MS;
use serde::{Deserialize, Serialize};

use crate::clock::Now;

/// How far ahead of the clock versions are set aside, milliseconds: while they last, nothing is stored.
const SET_ASIDE: u64 = 600_000;
/// So many times of initiations are set aside: they are milliseconds that nothing is the matter with, since the time
/// is said in far coarser steps.
const INITIATIONS_SET_ASIDE: u64 = 128;
/// Versions further ahead of the clock than this were made under another one, milliseconds. Those that
/// were set aside under a clock that no directory minds are not.
const FAR_AHEAD: u64 = CLOCK_SKEW * 1000 + 2 * SET_ASIDE;

/// The versions of what one ID says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnVersions {
    /// The last one that was used.
    used: u64,
    /// The last one that the directory has accepted.
    accepted: u64,
    /// What a restart goes on from.
    stored: Stored,
    unstored: bool,
}

/// What is stored: none that was used, or accepted, is newer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    used: u64,
    accepted: u64,
    /// Of initiations.
    #[serde(default)]
    initiation: u64,
}

/// A text that [`OwnVersions::save`] has not written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OwnVersionsError(#[from] serde_json::Error);

impl OwnVersions {
    /// What [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`OwnVersionsError`] if it did not write this text.
    pub fn load(text: &str) -> Result<Self, OwnVersionsError> {
        let stored: Stored = serde_json::from_str(text)?;
        Ok(Self {
            used: stored.used,
            accepted: stored.accepted,
            stored,
            unstored: false,
        })
    }

    /// The text to store.
    #[must_use]
    pub fn save(&self) -> String {
        serde_json::to_string(&self.stored).unwrap_or_default() + "\n"
    }

    /// The version of a record that is made now.
    pub(crate) fn next(&mut self, now: Now) -> u64 {
        // What was made under a clock that was far ahead, no directory has accepted. To go on from
        // there would leave nothing newer to somebody who has lost this.
        let near = now.unix_ms.saturating_add(FAR_AHEAD);
        if self.used > near {
            self.used = 0;
            self.stored.used = 0;
        }
        let last = self.used.max(self.accepted);
        self.used = now.unix_ms.max(last.saturating_add(1));
        if self.used > self.stored.used {
            // By the clock, so that many restarts do not add up.
            self.stored.used = self.used.max(now.unix_ms.saturating_add(SET_ASIDE));
            self.unstored = true;
        }
        self.used
    }

    /// The directory has accepted a record of this version.
    pub(crate) fn accept(&mut self, version: u64) {
        self.accepted = self.accepted.max(version);
        if version > self.stored.accepted {
            // It will accept those that were set aside with this one.
            let set_aside = version.saturating_add(SET_ASIDE);
            self.stored.accepted = self.stored.used.min(set_aside).max(version);
            self.unstored = true;
        }
    }

    /// The time of the last initiation, or a later one that was set aside.
    pub(crate) fn last_initiation(&self) -> u64 {
        self.stored.initiation
    }

    /// An initiation says this time.
    pub(crate) fn initiate(&mut self, time: u64) {
        // One that is so much earlier was made under another clock, which is not gone back to.
        let is_set_aside =
            (time..=time.saturating_add(TIMESTAMP_TOLERANCE_MS)).contains(&self.stored.initiation);
        if !is_set_aside {
            self.stored.initiation = time.saturating_add(INITIATIONS_SET_ASIDE);
            self.unstored = true;
        }
    }

    /// What is to be stored before anything of it is sent, until it was.
    pub(crate) fn unstored(&self) -> Option<String> {
        self.unstored.then(|| self.save())
    }

    /// What [`Self::unstored`] returned last is on the disk.
    pub(crate) fn set_stored(&mut self) {
        self.unstored = false;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn at(unix_ms: u64) -> Now {
        Now {
            instant: Instant::now(),
            unix_ms,
        }
    }

    #[test]
    fn only_what_was_saved_is_loaded() {
        let mut versions = OwnVersions::default();
        let version = versions.next(at(7));
        versions.accept(version);
        let text = versions.unstored().unwrap();
        let loaded = OwnVersions::load(&text).unwrap();
        assert_eq!(loaded.save(), text);
        assert_eq!(
            (loaded.used, loaded.accepted),
            (7 + SET_ASIDE, 7 + SET_ASIDE)
        );
        assert_eq!(loaded.unstored(), None);
        for wrong in [
            "",
            "{}",
            "7",
            "{\"used\":1,\"accepted\":-1}",
            "{\"used\":1,\"accepted\":1,\"a\":1}",
        ] {
            assert!(OwnVersions::load(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_clock_that_was_far_ahead_leaves_no_trace() {
        let mut versions = OwnVersions::default();
        let version = versions.next(at(1_000_000));
        versions.accept(version);
        assert_eq!(versions.next(at(9_000_000_000)), 9_000_000_000);
        assert_eq!(versions.next(at(999_000)), 1_000_001);
    }

    #[test]
    fn what_was_sent_before_a_crash_may_have_been_accepted() {
        let mut versions = OwnVersions::default();
        let sent = versions.next(at(1_000_000));
        let stored = versions.unstored().unwrap();
        let mut again = OwnVersions::load(&stored).unwrap();
        assert!(again.next(at(800_000)) > sent);
    }

    #[test]
    fn what_could_not_be_stored_is_still_to_be() {
        let mut versions = OwnVersions::default();
        versions.next(at(1_000_000));
        assert!(versions.unstored().is_some());
        assert!(versions.unstored().is_some());
        versions.set_stored();
        assert_eq!(versions.unstored(), None);
    }

    #[test]
    fn something_is_stored_now_and_then() {
        let mut versions = OwnVersions::default();
        let (mut stored, start) = (0, 1_000_000_000);
        for second in 0..6000 {
            let version = versions.next(at(start + second * 1000));
            assert_eq!(version, start + second * 1000);
            versions.accept(version);
            stored += usize::from(versions.unstored().is_some());
            versions.set_stored();
        }
        assert!((10..=20).contains(&stored), "{stored}");
    }

    #[test]
    fn many_restarts_do_not_add_up() {
        let mut disk = OwnVersions::default().save();
        let now = 1_000_000_000;
        for restart in 0..1000 {
            let mut versions = OwnVersions::load(&disk).unwrap();
            let version = versions.next(at(now + restart));
            assert!(version <= now + restart + SET_ASIDE + 1, "{restart}");
            versions.accept(version);
            disk = versions.unstored().unwrap_or(disk);
        }
    }

    proptest! {
        /// Each is newer than all that a directory, whose clock is right, may have accepted.
        #[test]
        fn versions_grow_over_steps_of_the_clock_and_restarts(
            steps in prop::collection::vec((0u64..3_000, any::<bool>()), 1..60)
        ) {
            let right = 10_000_000;
            let (mut versions, mut stored) = (OwnVersions::default(), None);
            let mut accepted = 0;
            for (ahead, restart) in steps {
                if restart {
                    let text: Option<String> = stored.clone();
                    versions = text.map_or_else(OwnVersions::default, |text| {
                        OwnVersions::load(&text).unwrap()
                    });
                }
                // From 20 minutes behind to 30 ahead.
                let wall = right - 1_200_000 + ahead * 1000;
                let version = versions.next(at(wall));
                stored = versions.unstored().or(stored);
                versions.set_stored();
                prop_assert!(version > accepted, "{version} after {accepted}");
                if wall <= right + CLOCK_SKEW * 1000 {
                    accepted = version;
                    versions.accept(version);
                    stored = versions.unstored().or(stored);
                    versions.set_stored();
                }
            }
        }
    }
}
