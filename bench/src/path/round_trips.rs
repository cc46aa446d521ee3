//! What round trips took: from the probes' process to the figures.

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest round trip that is told from longer ones, in microseconds: a minute.
const LONGEST: u64 = 60_000_000;
/// Where the percentile plot has its points.
const QUANTILES: [f64; 12] = [
    0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995,
];

/// An empty histogram of microseconds, with three digits.
///
/// # Errors
/// None that happen.
pub fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| anyhow!("{error}"))
}

/// What one process of probes prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Probes that left.
    pub sent: u64,
    /// Microseconds, and how many probes took so many.
    pub took: Vec<(u64, u64)>,
}

impl Counts {
    /// From a histogram.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>, sent: u64) -> Self {
        let took = histogram
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()));
        Self {
            sent,
            took: took.collect(),
        }
    }

    /// Probes that came back.
    #[must_use]
    pub fn came_back(&self) -> u64 {
        self.took.iter().map(|(_, count)| count).sum()
    }
}

/// Round trips of all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct RoundTrips {
    /// The median, in microseconds, as all here.
    pub p50: u64,
    /// One of a hundred took longer.
    pub p99: u64,
    /// One of a thousand took longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// Probes that left.
    pub sent: u64,
    /// The share of them that did not come back.
    pub lost_share: f64,
    /// Quantiles, as far as there are probes enough to tell them, and their microseconds.
    pub quantiles: Vec<(f64, u64)>,
}

impl RoundTrips {
    /// Of all rounds together.
    ///
    /// # Errors
    /// If no probe came back.
    pub fn of(rounds: &[Counts]) -> Result<Self> {
        let mut all = histogram()?;
        for (took, count) in rounds.iter().flat_map(|round| &round.took) {
            all.saturating_record_n(*took, *count);
        }
        let sent: u64 = rounds.iter().map(|round| round.sent).sum();
        let back = all.len();
        if back == 0 {
            return Err(anyhow!("no probe came back"));
        }
        let told = |quantile: &f64| back as f64 * (1.0 - quantile) >= 1.0;
        Ok(Self {
            p50: all.value_at_quantile(0.5),
            p99: all.value_at_quantile(0.99),
            p999: all.value_at_quantile(0.999),
            max: all.max(),
            sent,
            lost_share: sent.saturating_sub(back) as f64 / sent.max(1) as f64,
            quantiles: QUANTILES
                .into_iter()
                .filter(told)
                .map(|quantile| (quantile, all.value_at_quantile(quantile)))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_taken_together() {
        let mut first = histogram().unwrap();
        first.record_n(100, 990).unwrap();
        let mut second = histogram().unwrap();
        second.record_n(5000, 9).unwrap();
        let rounds = [Counts::of(&first, 990), Counts::of(&second, 10)];
        let all = RoundTrips::of(&rounds).unwrap();
        assert_eq!((all.p50, all.sent), (100, 1000));
        assert!((5000..5010).contains(&all.p999), "{all:?}");
        assert!((all.lost_share - 0.001).abs() < 1e-9);
        assert!(RoundTrips::of(&[]).is_err());
    }
}
