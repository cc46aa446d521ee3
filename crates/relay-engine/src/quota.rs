//! Quotas that neighbours share, so that one that floods leaves room for all others.
//!
//! A neighbour gets a permit only while it holds fewer than are free. One that takes
//! all it can gets half of the permits, two get a third each, and so on, and there is
//! always room for the next one. No neighbour needs to be known beforehand, and
//! nothing is looked through. (Dynamic thresholds: Choudhury and Hahne, "Dynamic queue
//! length thresholds for shared-memory packet switches", 1998, with alpha = 1.)

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A fixed number of permits.
#[derive(Debug)]
pub struct Quota {
    capacity: usize,
    used: AtomicUsize,
}

/// How many permits of one quota one neighbour holds.
#[derive(Debug, Default)]
pub struct Usage(AtomicUsize);

/// Room for one datagram, path or message; given back when this is dropped.
#[derive(Debug)]
pub struct Permit {
    quota: Arc<Quota>,
    usage: Arc<Usage>,
}

impl Quota {
    /// `capacity` permits, all free.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            used: AtomicUsize::new(0),
        })
    }

    /// A permit for the neighbour of `usage`, if it holds fewer than are free.
    pub(crate) fn take(self: &Arc<Self>, usage: &Arc<Usage>) -> Option<Permit> {
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        if usage.0.load(Ordering::Relaxed) >= self.capacity.saturating_sub(used) {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        usage.0.fetch_add(1, Ordering::Relaxed);
        Some(Permit {
            quota: Arc::clone(self),
            usage: Arc::clone(usage),
        })
    }

    /// How many permits are held.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// How many usages a [`Crowd`] has.
const BUCKETS: usize = 64;

/// A quota of those who are nobody yet: a datagram that has not authenticated says whose it is, and may lie. What
/// says the same has one usage, which a few others share, by a secret: nobody can aim at another's.
#[derive(Debug)]
pub struct Crowd {
    quota: Arc<Quota>,
    usages: [Arc<Usage>; BUCKETS],
    secret: RandomState,
}

impl Crowd {
    /// `capacity` permits, all free.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            quota: Quota::new(capacity),
            usages: std::array::from_fn(|_| Arc::default()),
            secret: RandomState::new(),
        }
    }

    /// A permit for whoever says to be `who`, if its usage holds fewer than are free.
    pub(crate) fn take(&self, who: u32) -> Option<Permit> {
        let bucket = self.secret.hash_one(who) % BUCKETS as u64;
        self.quota
            .take(self.usages.get(usize::try_from(bucket).ok()?)?)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(1, Ordering::Relaxed);
        self.usage.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one neighbour takes up in a relay, by quota.
#[derive(Debug, Clone, Default)]
pub struct NeighbourUsage {
    /// Datagrams held for a path or a link.
    pub held: Arc<Usage>,
    /// Paths whose header waits to be opened.
    pub opening: Arc<Usage>,
    /// Control messages.
    pub control: Arc<Usage>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(quota: &Arc<Quota>, usage: &Arc<Usage>) -> Vec<Permit> {
        std::iter::from_fn(|| quota.take(usage)).collect()
    }

    #[test]
    fn a_flood_leaves_room() {
        let quota = Quota::new(100);
        let usages: Vec<Arc<Usage>> = (0..4).map(|_| Arc::default()).collect();
        let first = take_all(&quota, &usages[0]);
        assert_eq!(first.len(), 50);
        let second = take_all(&quota, &usages[1]);
        assert_eq!(second.len(), 25);
        // Those that flood keep what they have, and the next still finds some.
        assert_eq!(take_all(&quota, &usages[2]).len(), 13);
        drop(first);
        assert_eq!(quota.used(), 25);
        assert!(!take_all(&quota, &usages[0]).is_empty());
        drop(second);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn a_crowd_leaves_room_for_who_says_something_else() {
        let crowd = Crowd::new(100);
        let flood: Vec<_> = std::iter::from_fn(|| crowd.take(7)).collect();
        assert_eq!(flood.len(), 50);
        let others = (8..40).filter_map(|who| crowd.take(who)).count();
        assert!(others >= 25, "{others}");
        drop(flood);
        assert!(crowd.take(7).is_some());
        assert_eq!(crowd.quota.used(), 0);
    }

    #[test]
    fn never_more_than_there_are() {
        let quota = Quota::new(8);
        let usages: Vec<Arc<Usage>> = (0..100).map(|_| Arc::default()).collect();
        let taken: Vec<_> = usages
            .iter()
            .flat_map(|usage| take_all(&quota, usage))
            .collect();
        assert_eq!(taken.len(), 8);
        assert_eq!(quota.used(), 8);
    }
}
