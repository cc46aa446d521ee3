//! Quantiles of the time inside, from what workers count.

use hdrhistogram::Histogram;

use super::report::InsideReport;

/// The longest time that is told apart from longer ones, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;
/// Digits that a time is exact to, which is more than the workers' own.
const DIGITS: u8 = 2;

/// Times in nanoseconds and how many datagrams were inside for so long.
pub struct Times(Option<Histogram<u64>>);

impl Times {
    /// From pairs of a time and a number of datagrams, in any order.
    #[must_use]
    pub fn of(counts: impl IntoIterator<Item = (u64, u64)>) -> Self {
        // It refuses bounds that make no sense, and these do.
        let mut histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS).ok();
        if let Some(histogram) = &mut histogram {
            for (time, datagrams) in counts {
                histogram.saturating_record_n(time, datagrams);
            }
        }
        Self(histogram)
    }

    /// The quantiles that are shown.
    #[must_use]
    pub fn report(&self) -> InsideReport {
        let Some(times) = self.0.as_ref().filter(|times| !times.is_empty()) else {
            return InsideReport::default();
        };
        let us = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
        InsideReport {
            datagrams: times.len(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_datagrams() {
        let times = Times::of([
            (10_000, 500),
            (100_000, 490),
            (1_000_000, 9),
            (9_000_000, 1),
        ]);
        let report = times.report();
        assert_eq!(report.datagrams, 1000);
        let near = |is: f64, wanted: f64| (wanted..wanted * 1.01).contains(&is);
        assert!(near(report.p50_us, 10.0), "{report:?}");
        assert!(near(report.p99_us, 100.0), "{report:?}");
        assert!(near(report.p999_us, 1000.0), "{report:?}");
        assert_eq!(Times::of([]).report(), InsideReport::default());
    }
}
