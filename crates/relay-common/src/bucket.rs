//! A token bucket in integers, for the kernel and for tests on the host.

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Limit {
    /// Tokens a second; at least 1.
    pub rate: u32,
    /// Tokens that a full bucket holds.
    pub burst: u32,
}

/// A bucket's level. All zero is a bucket that has never been used, and is full.
///
/// Two CPUs may update one bucket at the same time, in which case a token can be
/// spent twice: the limit is soft by as many tokens as there are CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Bucket {
    /// Nanoseconds of filling time that the bucket holds: a token is worth `SECOND / rate`.
    pub level: u64,
    /// When the level was last brought up to date, monotonic nanoseconds; 0 is never.
    pub at: u64,
}

impl Bucket {
    /// Brings the level up to `now` (monotonic nanoseconds) and takes a token.
    /// False if there is none.
    #[inline(always)]
    pub fn take(&mut self, now: u64, limit: &Limit) -> bool {
        let token = SECOND
            / if limit.rate == 0 {
                1
            } else {
                limit.rate as u64
            };
        let full = token * limit.burst as u64;
        let gained = now.saturating_sub(self.at);
        let level = if self.at == 0 || gained > full {
            full
        } else {
            self.level + gained
        };
        let level = if level > full { full } else { level };
        self.at = now;
        if level < token {
            self.level = level;
            return false;
        }
        self.level = level - token;
        true
    }
}

const _: () = {
    assert!(core::mem::size_of::<Bucket>() == 16);
    assert!(core::mem::size_of::<Limit>() == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_its_rate() {
        let limit = Limit { rate: 10, burst: 5 };
        let mut bucket = Bucket::default();
        let start = 7 * SECOND;
        let taken = (0..20).filter(|_| bucket.take(start, &limit)).count();
        assert_eq!(taken, 5);
        // one second later, ten tokens have come, of which five fit
        let taken = (0..20)
            .filter(|_| bucket.take(start + SECOND, &limit))
            .count();
        assert_eq!(taken, 5);
        // a tenth of a second is one token
        assert!(bucket.take(start + SECOND + SECOND / 10, &limit));
        assert!(!bucket.take(start + SECOND + SECOND / 10, &limit));
    }

    #[test]
    fn a_refused_request_does_not_stop_the_filling() {
        let limit = Limit { rate: 1, burst: 1 };
        let mut bucket = Bucket::default();
        assert!(bucket.take(SECOND, &limit));
        for i in 1..10 {
            assert!(!bucket.take(SECOND + i * SECOND / 10, &limit));
        }
        assert!(bucket.take(2 * SECOND, &limit));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let limit = Limit { rate: 1, burst: 1 };
        let mut bucket = Bucket::default();
        assert!(bucket.take(5 * SECOND, &limit));
        assert!(!bucket.take(4 * SECOND, &limit));
    }
}
