//! How a directory has answered of late, and when it is asked again.

use std::time::Duration;

use mixline_protocol::time::UnixTime;
use tokio::time::Instant;

use crate::Error;

/// One that said what is not so is left alone for so long, while others answer.
const WRONG: Duration = Duration::from_secs(300);
/// One that did not answer, or not with the newest: after the first time; doubled with each further one, up to [`WRONG`].
const SILENT: Duration = Duration::from_secs(10);

/// How it went with one directory, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryStatus {
    /// Its address.
    pub url: String,
    /// What the network's roster calls it; `None` for an address that is only configured.
    pub name: Option<String>,
    /// When it last answered as it should; `None` if it did not, or was not asked.
    pub last_success: Option<UnixTime>,
    /// What went wrong when it was asked last, one line. `None` after a success.
    pub last_error: Option<String>,
    /// Failures since the last success.
    pub failures: u32,
}

/// The same, and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) status: DirectoryStatus,
    /// Others are asked before it until then.
    rests_until: Option<Instant>,
}

impl Standing {
    pub(crate) fn answered(&mut self, now: UnixTime) {
        self.status.last_success = Some(now);
        self.status.last_error = None;
        self.status.failures = 0;
        self.rests_until = None;
    }

    pub(crate) fn failed(&mut self, error: &Error, now: Instant) {
        let rest = match error {
            // One that is behind may only have heard of the new round later than others.
            Error::Unreachable { .. } | Error::Clock(_) | Error::Older { .. } => SILENT
                .saturating_mul(1 << self.status.failures.min(8))
                .min(WRONG),
            _ => WRONG,
        };
        self.rests_until = Some(now + rest);
        self.status.last_error = Some(error.to_string());
        self.status.failures = self.status.failures.saturating_add(1);
    }

    /// Until when others are asked first, if they are.
    pub(crate) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_wrong_rests_longer_than_who_is_silent() {
        let now = Instant::now();
        let silent = Error::Unreachable {
            url: "http://a".into(),
            reason: "refused".into(),
        };
        let wrong = Error::Quorum {
            url: "http://a".into(),
            signed: 2,
            quorum: 3,
        };
        let rest = |standing: &Standing| standing.rests_until(now).map(|until| until - now);
        let mut standing = Standing::default();
        assert_eq!(rest(&standing), None);
        standing.failed(&silent, now);
        assert_eq!(rest(&standing), Some(SILENT));
        standing.failed(&silent, now);
        assert_eq!(rest(&standing), Some(SILENT * 2));
        for _ in 0..50 {
            standing.failed(&silent, now);
        }
        assert_eq!(rest(&standing), Some(WRONG));
        standing.answered(UnixTime(1));
        assert_eq!(rest(&standing), None);
        standing.failed(&wrong, now);
        assert_eq!(rest(&standing), Some(WRONG));
        assert_eq!(standing.rests_until(now + WRONG), None);
    }
}
