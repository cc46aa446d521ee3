//! Measuring in rounds, and what to say of many.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What one subject yields, one sample a round: nanoseconds of one operation, or another figure.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// Median and spread of many samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// A tenth of the samples is below.
    pub low: f64,
    /// A tenth of the samples is above.
    pub high: f64,
}

impl Samples {
    /// Of all samples.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        // Between two samples, the mean of both by how near they are.
        let quantile = |tenths: usize| {
            let (at, between) = (
                sorted.len().saturating_sub(1) * tenths / 10,
                sorted.len().saturating_sub(1) * tenths % 10,
            );
            let (Some(low), high) = (sorted.get(at), sorted.get(at + 1)) else {
                return f64::NAN;
            };
            high.map_or(*low, |high| low + (high - low) * between as f64 / 10.0)
        };
        Summary {
            median: quantile(5),
            low: quantile(1),
            high: quantile(9),
        }
    }

    /// Round by round, how many times `other` this took.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// Each sample through `f`.
    #[must_use]
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().copied().map(f).collect())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(0);
        write!(
            f,
            "{:.digits$} ({:.digits$} to {:.digits$})",
            self.median, self.low, self.high
        )
    }
}

/// Something to be measured: does its operation many times and returns the nanoseconds
/// that one took.
pub type Subject<'a> = Box<dyn FnMut() -> f64 + 'a>;

impl Summary {
    /// Of a figure that was measured once, or that has no spread.
    #[must_use]
    pub fn of(value: f64) -> Self {
        Self {
            median: value,
            low: value,
            high: value,
        }
    }

    /// Median and both ends through `f`, which may turn the order around.
    #[must_use]
    pub fn map(self, f: impl Fn(f64) -> f64) -> Self {
        let (low, high) = (f(self.low), f(self.high));
        Self {
            median: f(self.median),
            low: low.min(high),
            high: low.max(high),
        }
    }
}

/// Keeps the first error of subjects, which cannot return one.
#[derive(Debug, Default)]
pub struct FirstError(RefCell<Option<anyhow::Error>>);

impl FirstError {
    /// The value, or not a number if there is none.
    pub fn or_nan(&self, result: anyhow::Result<f64>) -> f64 {
        result.unwrap_or_else(|error| {
            self.0.borrow_mut().get_or_insert(error);
            f64::NAN
        })
    }

    /// The error, if there was one.
    ///
    /// # Errors
    /// That one.
    pub fn tell(&self) -> anyhow::Result<()> {
        self.0.take().map_or(Ok(()), Err)
    }
}

/// Measures all subjects once a round, each time another of them first, and gives `rounds` samples
/// of each. A few rounds before those fill caches and do not count. Says on standard error how far
/// it is.
pub fn run_rounds(rounds: usize, subjects: &mut [Subject<'_>]) -> Vec<Samples> {
    let warm_up = rounds / 10 + 1;
    let mut all = vec![Samples::default(); subjects.len()];
    let mut told = Instant::now();
    for round in 0..rounds + warm_up {
        if told.elapsed() >= Duration::from_secs(3) {
            eprintln!("  {} %", 100 * round / (rounds + warm_up));
            told = Instant::now();
        }
        for i in 0..subjects.len() {
            let at = (round + i) % subjects.len();
            let took = subjects[at]();
            if round >= warm_up {
                all[at].0.push(took);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_and_ratios() {
        let samples = Samples((0..=100).rev().map(f64::from).collect());
        let summary = samples.summary();
        assert_eq!(
            (summary.low, summary.median, summary.high),
            (10.0, 50.0, 90.0)
        );
        assert_eq!(
            samples.map(|ns| ns * 2.0).over(&samples).summary().high,
            2.0
        );
        assert_eq!(format!("{summary:.1}"), "50.0 (10.0 to 90.0)");
        assert_eq!(Samples(vec![4.0, 2.0]).summary().median, 3.0);
        assert_eq!(Samples(vec![7.0]).summary(), Summary::of(7.0));
    }

    #[test]
    fn all_subjects_have_the_same_number_of_rounds() {
        let mut counts = [0, 0, 0];
        let [a, b, c] = &mut counts;
        let mut subjects: Vec<Subject<'_>> = [a, b, c]
            .into_iter()
            .map(|count| -> Subject<'_> {
                Box::new(move || {
                    *count += 1;
                    1.0
                })
            })
            .collect();
        let all = run_rounds(20, &mut subjects);
        drop(subjects);
        assert!(all.iter().all(|samples| samples.0.len() == 20));
        assert_eq!(counts, [23; 3]);
    }
}
