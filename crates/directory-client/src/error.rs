//! What can go wrong, each as one line that says what to do.

use std::fmt;

use mixline_http_client::StatusCode;
use mixline_protocol::identity::NetworkId;

/// The result of talking to a directory.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a snapshot was not had, or a relay not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configured address of the directory cannot be used.
    #[error("directory url `{url}`: {reason}; it looks like http://198.51.100.7:8080")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No address of a directory is known.
    #[error(
        "no address of a directory of the network is known: `directories: [URL, ...]` says some"
    )]
    NoUrl,
    /// None of several directories is of use.
    #[error("none of the network's {asked} directories is of use now; the last: {last}")]
    NoDirectory {
        /// How many addresses were asked.
        asked: usize,
        /// What went wrong with the last of them.
        last: String,
    },
    /// No answer.
    #[error("directory {url} is unreachable: {reason}")]
    Unreachable {
        /// Its address.
        url: String,
        /// What the network said.
        reason: String,
    },
    /// An answer, but not one of a directory.
    #[error("{url} does not answer as a directory does ({reason}): is the url right?")]
    NotADirectory {
        /// Its address.
        url: String,
        /// What was odd.
        reason: String,
    },
    /// The snapshot is not the network's.
    #[error(
        "the snapshot from {url} has a bad signature: it is not of network {expected}; \
         either the configured id is wrong or somebody on the way changed it"
    )]
    Signature {
        /// Its address.
        url: String,
        /// Whose directories should have signed.
        expected: NetworkId,
    },
    /// Too few directories have signed.
    #[error(
        "the snapshot from {url} is signed by {signed} of the network's directories, and it takes {quorum}: \
         it is not the network's"
    )]
    Quorum {
        /// Its address.
        url: String,
        /// How many have.
        signed: usize,
        /// How many should have.
        quorum: usize,
    },
    /// The network's directories are not those any more that have signed.
    #[error(
        "the snapshot from {url} is signed by version {said} of the network's roster, and version {held} \
         counts: the directory there is not one any more, or is behind"
    )]
    Retired {
        /// Its address.
        url: String,
        /// The version that has signed.
        said: u32,
        /// The version that counts.
        held: u32,
    },
    /// What lists the directories is not theirs.
    #[error(
        "the roster from {url} does not verify ({reason}): either the configured network is wrong or \
         somebody on the way changed it"
    )]
    Roster {
        /// Its address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The snapshot's life is over, though the clocks agree.
    #[error(
        "the snapshot from {url} has expired {seconds_ago} s ago: the directory, or a cache \
         before it, gives old ones"
    )]
    Expired {
        /// Its address.
        url: String,
        /// Seconds since its end.
        seconds_ago: u64,
    },
    /// The snapshot's life has not begun, though the clocks agree.
    #[error("the snapshot from {url} is not valid before {seconds_ahead} s from now")]
    NotYetValid {
        /// Its address.
        url: String,
        /// Seconds until its beginning.
        seconds_ahead: u64,
    },
    /// The snapshot was made before the last one that was seen.
    #[error(
        "the snapshot from {url} is {seconds} s older than the one before: a cache on the way, or \
         somebody there, gives old ones"
    )]
    Older {
        /// Its address.
        url: String,
        /// Seconds between the two.
        seconds: u64,
    },
    /// A time was refused, and the clocks do not agree.
    #[error("{0}; set the clock (for example: timedatectl set-ntp true)")]
    Clock(ClockError),
    /// The directory said no.
    #[error("directory {url} refuses: {text}")]
    Refused {
        /// Its address.
        url: String,
        /// The status of its answer. With 403, it does not take this of anybody, or not from here: another
        /// time is of no help.
        status: StatusCode,
        /// Its words, one line.
        text: String,
    },
    /// The directory does not have the record that a heartbeat is about.
    #[error("directory {url} does not have this relay's record: it is to be registered again")]
    NotRegistered {
        /// Its address.
        url: String,
    },
}

impl Error {
    /// Whether a directory does not take something of anybody, or not from here.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::FORBIDDEN)
    }

    /// Whether trying again, with nothing changed here, can help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Url { .. })
    }
}

/// How far the local clock is from the directory's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockError {
    /// Seconds that the local clock is ahead; negative: behind.
    pub ahead: i64,
}

impl fmt::Display for ClockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.ahead < 0 { "behind" } else { "ahead of" };
        let seconds = self.ahead.unsigned_abs();
        f.write_str("this machine's clock is ")?;
        match seconds {
            0..120 => write!(f, "{seconds} seconds")?,
            120..7170 => write!(f, "{} minutes", (seconds + 30) / 60)?,
            7170..171_000 => write!(f, "{} hours", (seconds + 1800) / 3600)?,
            _ => write!(f, "{} days", (seconds + 43_200) / 86_400)?,
        }
        write!(f, " {way} the directory's")
    }
}
