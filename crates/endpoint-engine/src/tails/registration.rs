//! How far the mailbox of a tail is: whether its guard knows of it.

use std::time::{Duration, Instant};

/// How long an answer is waited for before the registration is sent again.
pub const RETRY: Duration = Duration::from_secs(1);

/// A guard that has not answered for so long, after several questions, is one that takes no mailbox.
const IGNORED: Duration = Duration::from_secs(4);

/// How often it is asked then.
const RETRY_IGNORED: Duration = Duration::from_secs(15);

/// How far the mailbox of a tail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// The guard has to be told.
    Needed,
    /// It has been told for the first time, and has not answered.
    Sent {
        /// In which message.
        request: u32,
        /// When.
        at: Instant,
        /// When it was told first.
        first: Instant,
    },
    /// It delivers.
    Done,
    /// It delivered, and may have forgotten: it is being told again.
    Again {
        /// In which message, and when; `None` if not yet.
        sent: Option<(u32, Instant)>,
    },
}

impl Registration {
    /// Whether the guard has once said that it delivers.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done | Self::Again { .. })
    }

    /// Whether the guard has to be told, or told again.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let late = |at: Instant| now.saturating_duration_since(at) >= RETRY;
        match self {
            Self::Needed => true,
            Self::Sent { at, .. } if self.is_ignored(now) => {
                now.saturating_duration_since(*at) >= RETRY_IGNORED
            }
            Self::Sent { at, .. } => late(*at),
            Self::Done => false,
            Self::Again { sent } => sent.is_none_or(|(_, at)| late(at)),
        }
    }

    /// Whether the guard has left it without an answer for so long that others had better be used.
    #[must_use]
    pub fn is_ignored(&self, now: Instant) -> bool {
        match self {
            Self::Sent { first, .. } => now.saturating_duration_since(*first) >= IGNORED,
            Self::Needed | Self::Done | Self::Again { .. } => false,
        }
    }

    /// In which message the guard was told, while its answer is awaited.
    #[must_use]
    pub fn request(&self) -> Option<u32> {
        match self {
            Self::Sent { request, .. } => Some(*request),
            Self::Again { sent } => sent.map(|(request, _)| request),
            Self::Needed | Self::Done => None,
        }
    }
}
