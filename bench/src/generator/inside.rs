//! How long datagrams were inside a relay, as it counts them.

use std::collections::BTreeMap;

use super::relay_status::RelayStatus;

/// How many datagrams were inside for how long at most, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside(BTreeMap<u64, u64>);

impl Inside {
    /// All that left so far, of all workers.
    #[must_use]
    pub fn of(status: &RelayStatus) -> Self {
        let workers = status.per_worker.iter();
        Self::from_iter(workers.flat_map(|worker| worker.inside_ns.iter().copied()))
    }

    /// Those that are not in `before`, which is earlier.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let counts = self.0.iter().map(|(time, count)| {
            let before = before.0.get(time).copied().unwrap_or(0);
            (*time, count.saturating_sub(before))
        });
        Self(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// How many datagrams.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The time in microseconds for which this share of them was inside at most; not a number without any.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> f64 {
        let wanted = share * self.count() as f64;
        let mut within = 0;
        for (time, count) in &self.0 {
            within += count;
            if within as f64 >= wanted {
                return *time as f64 / 1e3;
            }
        }
        f64::NAN
    }
}

impl FromIterator<(u64, u64)> for Inside {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(counts: I) -> Self {
        let mut all = BTreeMap::new();
        for (time, count) in counts {
            *all.entry(time).or_insert(0) += count;
        }
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_what_has_come_since() {
        let before = Inside::from_iter([(1000, 5), (4000, 100)]);
        // Two workers.
        let after =
            Inside::from_iter([(1000, 505), (2000, 490), (4000, 100), (8000, 9), (2000, 1)]);
        let inside = after.since(&before);
        assert_eq!(
            inside,
            Inside::from_iter([(1000, 500), (2000, 491), (8000, 9)])
        );
        assert_eq!(inside.count(), 1000);
        let quantiles = [0.5, 0.501, 0.99, 0.999, 1.0].map(|share| inside.quantile_us(share));
        assert_eq!(quantiles, [1.0, 2.0, 2.0, 8.0, 8.0]);
        let none = after.since(&after);
        assert_eq!(none.count(), 0);
        assert!(none.quantile_us(0.5).is_nan());
    }
}
