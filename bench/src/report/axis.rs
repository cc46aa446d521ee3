//! Where a value is on an axis, and which values are marked there.

use crate::outcome::Scale;

/// An axis from one end in the drawing to the other.
#[derive(Debug, Clone, Copy)]
pub struct Scaled {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scaled {
    /// Large enough for all values, between two coordinates. Values that are not numbers, and on
    /// a logarithmic axis those that are not positive, do not count.
    #[must_use]
    pub fn new(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter_map(|value| measure(scale, value)) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        match scale {
            Scale::Linear => (low, high) = (low.min(0.0), ceiling(high)),
            Scale::Logarithmic => (low, high) = (low.floor(), high.ceil()),
            Scale::Nines => {}
        }
        if high - low < 1e-9 {
            high = low + 1.0;
        }
        Self {
            scale,
            low,
            high,
            from,
            to,
        }
    }

    /// The coordinate of a value; what is beyond an end is drawn at that end.
    #[must_use]
    pub fn position(&self, value: f64) -> f64 {
        let measured = measure(self.scale, value).unwrap_or(self.low);
        let share = ((measured - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// The values to be marked, with their labels.
    #[must_use]
    pub fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = step((self.high - self.low) / 5.0);
                let first = (self.low / step).ceil() as i64;
                let last = (self.high / step + 1e-9).floor() as i64;
                (first..=last)
                    .map(|number| number as f64 * step)
                    .map(|value| (value, short(value)))
                    .collect()
            }
            Scale::Logarithmic => (self.low as i32..=self.high as i32)
                .map(|power| 10_f64.powi(power))
                .map(|value| (value, short(value)))
                .collect(),
            Scale::Nines => [0.1, 0.5, 0.9, 0.99, 0.999, 0.9999]
                .into_iter()
                .filter(|share| {
                    measure(self.scale, *share)
                        .is_some_and(|at| (self.low..=self.high + 1e-9).contains(&at))
                })
                .map(|share| (share, format!("{} %", short(100.0 * share))))
                .collect(),
        }
    }
}

/// A value in the axis's own measure.
fn measure(scale: Scale, value: f64) -> Option<f64> {
    let measured = match scale {
        Scale::Linear => value,
        Scale::Logarithmic => value.log10(),
        Scale::Nines => -(1.0 - value).log10(),
    };
    measured.is_finite().then_some(measured)
}

/// The least of 1, 2, 2.5, 5 times a power of ten that is `least` or more.
fn step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let times = [1.0, 2.0, 2.5, 5.0].into_iter();
    let found = times
        .map(|times| times * power)
        .find(|step| *step >= least * 0.999);
    found.unwrap_or(10.0 * power)
}

/// A round value somewhat above the highest.
fn ceiling(high: f64) -> f64 {
    let step = step(high / 5.0);
    (high * 1.04 / step).ceil() * step
}

/// A number as one writes it: three digits that mean something, thousands as `k` and `M`.
#[must_use]
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let size = value.abs();
    let (value, unit) = match size {
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits: usize = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.35, "1.35"),
            (0.2625, "0.263"),
            (99.9, "99.9"),
            (1254.4, "1254"),
            (100_000.0, "100k"),
            (1_000_000.0, "1M"),
            (9_417.3, "9417"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn ends_and_middle() {
        let linear = Scaled::new(Scale::Linear, [3.0, 9.0].into_iter(), 0.0, 100.0);
        assert_eq!(linear.position(0.0), 0.0);
        assert!(linear.position(9.0) < 100.0 && linear.position(1e9) == 100.0);
        assert_eq!(linear.position(f64::NAN), 0.0);
        let decades = Scaled::new(Scale::Logarithmic, [1.0, 1e6].into_iter(), 0.0, 60.0);
        assert_eq!((decades.position(1e3), decades.ticks().len()), (30.0, 7));
        let nines = Scaled::new(Scale::Nines, [0.1, 0.999].into_iter(), 0.0, 1.0);
        assert_eq!(nines.ticks().last().unwrap().1, "99.9 %");
    }

    #[test]
    fn nothing_at_all_is_drawn_too() {
        for scale in [Scale::Linear, Scale::Logarithmic, Scale::Nines] {
            let axis = Scaled::new(scale, std::iter::empty(), 0.0, 10.0);
            assert!(axis.position(0.5).is_finite());
            assert!(axis.ticks().len() < 20);
        }
    }
}
