//! How long datagrams stay in the relay: a histogram of fixed size, which a worker adds to once a
//! batch, and which other threads read while it does.
//!
//! The layout is that of HdrHistogram (Gil Tene): powers of two, each in [`PARTS`] parts of equal
//! width, so that a time is known to a thirty-second part of itself. A bucket is an atomic that one
//! thread writes, with plain loads and stores: a batch costs a shift, an addition and no lock, and
//! nothing is allocated. A reader may see a batch in one number and not yet in another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bits of a time that are kept below its highest.
const PRECISION: u32 = 5;
/// Parts of a power of two.
const PARTS: usize = 1 << PRECISION;
/// Times up to 2 to this power are in the first parts: 512 ns, less than any batch takes.
const SHORTEST: u32 = 9;
/// Longer times than 2 to this power, in nanoseconds, count as that: 17 s. Nothing is held for as long.
const LONGEST: u32 = 34;
const BUCKETS: usize = (LONGEST - SHORTEST + 1) as usize * PARTS;

/// Times that datagrams were inside.
pub struct TimeInside {
    buckets: [AtomicU64; BUCKETS],
    /// Nanoseconds of all datagrams together; it wraps after centuries.
    sum: AtomicU64,
}

impl Default for TimeInside {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }
}

impl std::fmt::Debug for TimeInside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.counts()).finish()
    }
}

impl TimeInside {
    /// Adds so many datagrams that were inside for so long. One thread only may call this.
    #[inline]
    pub fn record(&self, time: Duration, datagrams: u64) {
        if datagrams == 0 {
            return;
        }
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let add = |count: &AtomicU64, n: u64| {
            let before = count.load(Ordering::Relaxed);
            count.store(before.wrapping_add(n), Ordering::Relaxed);
        };
        add(&self.sum, ns.wrapping_mul(datagrams));
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            add(bucket, datagrams);
        }
    }

    /// The buckets that are not empty, shortest times first: the longest time in it, in nanoseconds
    /// (included), and how many datagrams.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets
            .iter()
            .enumerate()
            .map(|(bucket, count)| (longest_in(bucket), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }

    /// The times of all datagrams together, in nanoseconds.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// The bucket of a time in nanoseconds. A power of two is the last of its bucket, as the bounds of
/// a histogram of Prometheus are.
#[inline]
fn bucket_of(ns: u64) -> usize {
    let ns = ns.saturating_sub(1);
    // The highest bit; all up to the shortest are in the first parts.
    let power = (u64::BITS - ns.leading_zeros()).max(SHORTEST);
    if power > LONGEST {
        return BUCKETS - 1;
    }
    let above = (power - SHORTEST) as usize;
    // In the first, all bits count; in others the highest one is known.
    let (first, width) = if above == 0 {
        (0, SHORTEST - PRECISION)
    } else {
        (1 << (power - 1), power - 1 - PRECISION)
    };
    above * PARTS + ((ns - first) >> width) as usize
}

/// The longest time of a bucket, in nanoseconds.
fn longest_in(bucket: usize) -> u64 {
    let (above, part) = (bucket / PARTS, (bucket % PARTS) as u64 + 1);
    if above == 0 {
        return part << (SHORTEST - PRECISION);
    }
    let power = SHORTEST + above as u32;
    (1 << (power - 1)) + (part << (power - 1 - PRECISION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        let mut before = 0;
        for bucket in 0..BUCKETS {
            let longest = longest_in(bucket);
            assert!(longest > before, "{bucket}");
            assert_eq!(bucket_of(before + 1), bucket, "{bucket}");
            assert_eq!(bucket_of(longest), bucket, "{bucket}");
            // No wider than a thirty-second part of its times, or than that of the shortest.
            assert!(longest - before <= before.max(1 << SHORTEST) / PARTS as u64);
            before = longest;
        }
        assert_eq!(before, 1 << LONGEST);
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        // Powers of two end a bucket.
        for power in SHORTEST..=LONGEST {
            assert_eq!(longest_in(bucket_of(1 << power)), 1 << power);
        }
    }

    #[test]
    fn times_are_counted_by_datagrams() {
        let times = TimeInside::default();
        times.record(Duration::from_micros(100), 64);
        times.record(Duration::from_micros(100), 1);
        times.record(Duration::from_secs(100), 2);
        times.record(Duration::from_secs(1), 0);
        let counts: Vec<_> = times.counts().collect();
        assert_eq!(counts, [(100_352, 65), (1 << LONGEST, 2)]);
        assert_eq!(times.sum(), 65 * 100_000 + 2 * 100_000_000_000);
    }
}
