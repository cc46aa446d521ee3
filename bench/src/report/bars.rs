//! Horizontal bars: a name, a bar with its spread, the figure.

use super::axis::{Scaled, short};
use super::svg::{Markup, coordinate, drawing};
use crate::outcome::{Bars, Bound, Goal, Scale};

const WIDTH: f64 = 720.0;
const ROW: f64 = 34.0;
const BAR: f64 = 16.0;
/// Where bars begin, and the farthest that they reach; names are before, figures behind.
const FROM: f64 = 236.0;
const TO: f64 = 560.0;

/// Draws bars.
pub fn bars(markup: &mut Markup, plot: &Bars) {
    let values = plot.bars.iter().flat_map(|bar| {
        let bound = bar.bound.map(value);
        [bar.value.high, bar.value.median].into_iter().chain(bound)
    });
    let axis = Scaled::new(Scale::Linear, values, FROM, TO);
    let height = ROW * plot.bars.len() as f64 + 8.0;
    drawing(markup, &plot.title, (WIDTH, height), |svg| {
        for (number, bar) in plot.bars.iter().enumerate() {
            let middle = 4.0 + ROW * (number as f64 + 0.5);
            name(svg, &bar.label, middle);
            let class = if number == 0 { "bar first" } else { "bar" };
            self::bar(svg, class, axis.position(bar.value.median), middle);
            if bar.value.high > bar.value.low {
                spread(
                    svg,
                    axis.position(bar.value.low),
                    axis.position(bar.value.high),
                    middle,
                );
            }
            if let Some(bound) = bar.bound {
                mark(svg, axis.position(value(bound)), middle);
            }
            let mut figure = format!("{} {}", short(bar.value.median), plot.unit);
            if let Some(bound) = bar.bound {
                figure += &format!("  ({})", said(bound));
            }
            self::figure(svg, "figure", &figure, middle);
        }
    });
}

/// Draws what was to be reached: each figure over its bound, with the bounds in one line.
pub fn goals(markup: &mut Markup, goals: &[Goal]) {
    let height = 2.0 * ROW * goals.len() as f64 + 8.0;
    let axis = Scaled::new(Scale::Linear, [2.0].into_iter(), FROM - 228.0, TO);
    drawing(markup, "Goals", (WIDTH, height), |svg| {
        for (number, goal) in goals.iter().enumerate() {
            let top = 4.0 + 2.0 * ROW * number as f64;
            let (words, bar) = (top + 0.4 * ROW, top + 1.1 * ROW);
            svg.text(
                "text",
                &[("class", &"name"), ("x", &8), ("y", &coordinate(words))],
                &goal.what,
            );
            let bound = value(goal.bound);
            let Some(measured) = goal.measured else {
                figure(svg, "figure missing", "not measured", bar);
                continue;
            };
            let reached = goal.reached() == Some(true);
            let class = if reached { "bar good" } else { "bar bad" };
            from(svg, class, 8.0, axis.position(measured / bound), bar);
            mark(svg, axis.position(1.0), bar);
            let text = format!(
                "{} {}  ({})",
                if reached { "✓" } else { "✗" },
                short(measured),
                said(goal.bound)
            );
            figure(svg, "figure", &text, bar);
        }
    });
}

/// A bound in words.
#[must_use]
pub fn said(bound: Bound) -> String {
    match bound {
        Bound::AtMost(bound) => format!("≤ {}", short(bound)),
        Bound::AtLeast(bound) => format!("≥ {}", short(bound)),
    }
}

fn value(bound: Bound) -> f64 {
    match bound {
        Bound::AtMost(value) | Bound::AtLeast(value) => value,
    }
}

fn name(svg: &mut Markup, text: &str, middle: f64) {
    svg.text(
        "text",
        &[
            ("class", &"name"),
            ("x", &coordinate(FROM - 12.0)),
            ("y", &coordinate(middle)),
            ("text-anchor", &"end"),
        ],
        text,
    );
}

fn figure(svg: &mut Markup, class: &str, text: &str, middle: f64) {
    svg.text(
        "text",
        &[
            ("class", &class),
            ("x", &coordinate(TO + 12.0)),
            ("y", &coordinate(middle)),
        ],
        text,
    );
}

fn bar(svg: &mut Markup, class: &str, to: f64, middle: f64) {
    from(svg, class, FROM, to, middle);
}

fn from(svg: &mut Markup, class: &str, from: f64, to: f64, middle: f64) {
    svg.shape(
        "rect",
        &[
            ("class", &class),
            ("x", &coordinate(from)),
            ("y", &coordinate(middle - BAR / 2.0)),
            ("width", &coordinate((to - from).max(1.0))),
            ("height", &coordinate(BAR)),
            ("rx", &2),
        ],
    );
}

/// A line through the end of a bar, from where a tenth of the rounds was below to where a tenth was
/// above.
fn spread(svg: &mut Markup, low: f64, high: f64, middle: f64) {
    svg.shape(
        "line",
        &[
            ("class", &"spread"),
            ("x1", &coordinate(low)),
            ("x2", &coordinate(high)),
            ("y1", &coordinate(middle)),
            ("y2", &coordinate(middle)),
        ],
    );
}

fn mark(svg: &mut Markup, at: f64, middle: f64) {
    svg.shape(
        "line",
        &[
            ("class", &"bound"),
            ("x1", &coordinate(at)),
            ("x2", &coordinate(at)),
            ("y1", &coordinate(middle - BAR * 0.85)),
            ("y2", &coordinate(middle + BAR * 0.85)),
        ],
    );
}
