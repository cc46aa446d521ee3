//! Epochs of onion keys.
//!
//! Epoch `n` of a network whose epochs last `E` seconds is the time from `n * E` to
//! `(n + 1) * E`. Its onion keys are honoured for a grace period more, and then erased,
//! so that no capture can be opened later. Relays publish the current epoch's key and
//! the next one's, and open paths under both: a builder takes the next key in the last
//! quarter of an epoch, so that what it builds does not die at once.

use crate::time::UnixTime;

/// The epoch at `now`. `seconds` is an epoch's length; zero counts as one.
#[must_use]
pub fn current(now: UnixTime, seconds: u32) -> u32 {
    u32::try_from(now.0 / u64::from(seconds.max(1))).unwrap_or(u32::MAX)
}

/// When epoch `n` begins.
#[must_use]
pub fn starts(n: u32, seconds: u32) -> UnixTime {
    UnixTime(u64::from(n) * u64::from(seconds.max(1)))
}

/// When the key of epoch `n` stops being honoured. With `grace` 0: when the epoch ends.
#[must_use]
pub fn ends(n: u32, seconds: u32, grace: u32) -> UnixTime {
    UnixTime((u64::from(n) + 1) * u64::from(seconds.max(1)) + u64::from(grace))
}

/// The epoch whose keys a path that is built now should use: the current one, or the
/// next one in the last quarter of an epoch.
#[must_use]
pub fn for_building(now: UnixTime, seconds: u32) -> u32 {
    let epoch = current(now, seconds);
    let left = ends(epoch, seconds, 0).since(now);
    if left * 4 <= u64::from(seconds) {
        epoch.saturating_add(1)
    } else {
        epoch
    }
}

/// When a path whose hops use the keys of `epochs` ends: with the earliest of them, grace
/// not counted. `None` for a path without hops.
#[must_use]
pub fn expiry(epochs: impl IntoIterator<Item = u32>, seconds: u32) -> Option<UnixTime> {
    epochs.into_iter().min().map(|n| ends(n, seconds, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour() {
        assert_eq!(current(UnixTime(7199), 3600), 1);
        assert_eq!(current(UnixTime(7200), 3600), 2);
        assert_eq!(starts(2, 3600), UnixTime(7200));
        assert_eq!(ends(1, 3600, 0), UnixTime(7200));
        assert_eq!(ends(1, 3600, 300), UnixTime(7500));
        assert_eq!(for_building(UnixTime(3600 + 2699), 3600), 1);
        assert_eq!(for_building(UnixTime(3600 + 2700), 3600), 2);
        assert_eq!(expiry([3, 2, 3], 3600), Some(UnixTime(10_800)));
        assert_eq!(expiry([], 3600), None);
    }

    #[test]
    fn extremes_do_not_panic() {
        assert_eq!(current(UnixTime(u64::MAX), 0), u32::MAX);
        assert_eq!(for_building(UnixTime(u64::MAX), 0), u32::MAX);
        assert_eq!(
            ends(u32::MAX, u32::MAX, u32::MAX).0,
            (1 << 32) * 0xffff_ffff + 0xffff_ffff
        );
    }
}
