//! Both clocks, as they are passed in.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mixline_protocol::link::Timestamp;
use mixline_protocol::time::UnixTime;

/// A moment: on the monotonic clock, for timers, and on the wall clock, for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic.
    pub instant: Instant,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    /// The moment at which the two clocks show this. A wall clock before 1970 counts as 1970.
    #[must_use]
    pub fn new(instant: Instant, wall: SystemTime) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            instant,
            unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The wall clock in seconds.
    #[must_use]
    pub fn unix(&self) -> UnixTime {
        UnixTime(self.unix_ms / 1000)
    }

    /// The wall clock as link handshakes write it.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        Timestamp {
            seconds: self.unix_ms / 1000,
            nanos: u32::try_from(self.unix_ms % 1000 * 1_000_000).unwrap_or(0),
        }
    }
}
