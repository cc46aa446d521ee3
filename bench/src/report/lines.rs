//! Lines over axes, with spreads and bounds.

use super::axis::Scaled;
use super::svg::{Markup, coordinate, drawing};
use crate::outcome::{Lines, Point, Scale, Series};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = HEIGHT - 52.0;

/// Draws lines.
pub fn lines(markup: &mut Markup, plot: &Lines) {
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let x = Scaled::new(plot.x.scale, points().map(|point| point.x), LEFT, RIGHT);
    let bounds = plot.bounds.iter().map(|(_, at)| *at);
    let heights = points()
        .flat_map(|point| [point.y, point.spread.map_or(point.y, |(_, high)| high)])
        .chain(bounds);
    let y = Scaled::new(plot.y.scale, heights, BOTTOM, TOP);
    drawing(markup, &plot.title, (WIDTH, HEIGHT), |svg| {
        grid(svg, plot, &x, &y);
        for (label, at) in &plot.bounds {
            let at = y.position(*at);
            line(svg, "bound dashed", (LEFT, at), (RIGHT, at));
            let position = (LEFT + 8.0, at - 9.0);
            text(svg, "tick", position, "start", label);
        }
        for (number, series) in plot.series.iter().enumerate() {
            draw(svg, number, series, |point| {
                (x.position(point.x), y.position(point.y))
            });
            for point in &series.points {
                if let Some((low, high)) = point.spread
                    && high > low
                {
                    let at = x.position(point.x);
                    let class = format!("spread series{number}");
                    line(svg, &class, (at, y.position(low)), (at, y.position(high)));
                }
            }
        }
        legend(svg, plot);
    });
}

fn grid(svg: &mut Markup, plot: &Lines, x: &Scaled, y: &Scaled) {
    for (value, label) in y.ticks() {
        let at = y.position(value);
        line(svg, "grid", (LEFT, at), (RIGHT, at));
        text(svg, "tick", (LEFT - 8.0, at), "end", &label);
    }
    for (value, label) in x.ticks() {
        let at = x.position(value);
        if plot.x.scale != Scale::Linear {
            line(svg, "grid", (at, TOP), (at, BOTTOM));
        }
        text(svg, "tick", (at, BOTTOM + 18.0), "middle", &label);
    }
    line(svg, "axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    let middle = (LEFT + RIGHT) / 2.0;
    text(
        svg,
        "axis-name",
        (middle, HEIGHT - 10.0),
        "middle",
        &plot.x.label,
    );
    text(svg, "axis-name", (8.0, 14.0), "start", &plot.y.label);
}

fn draw(svg: &mut Markup, number: usize, series: &Series, position: impl Fn(&Point) -> (f64, f64)) {
    let positions: Vec<(f64, f64)> = series
        .points
        .iter()
        .filter(|point| point.y.is_finite())
        .map(position)
        .collect();
    let path: Vec<String> = positions
        .iter()
        .map(|(x, y)| format!("{},{}", coordinate(*x), coordinate(*y)))
        .collect();
    svg.shape(
        "polyline",
        &[
            ("class", &format!("series{number}")),
            ("points", &path.join(" ")),
        ],
    );
    for (x, y) in positions {
        svg.shape(
            "circle",
            &[
                ("class", &format!("series{number}")),
                ("cx", &coordinate(x)),
                ("cy", &coordinate(y)),
                ("r", &3.5),
            ],
        );
    }
}

fn legend(svg: &mut Markup, plot: &Lines) {
    if plot.series.len() < 2 {
        return;
    }
    let mut at = RIGHT;
    for (number, series) in plot.series.iter().enumerate().rev() {
        text(svg, "tick", (at, 14.0), "end", &series.label);
        at -= 7.0 * series.label.chars().count() as f64 + 12.0;
        let class = format!("series{number}");
        svg.shape(
            "circle",
            &[
                ("class", &class),
                ("cx", &coordinate(at)),
                ("cy", &14),
                ("r", &5),
            ],
        );
        at -= 18.0;
    }
}

fn line(svg: &mut Markup, class: &str, from: (f64, f64), to: (f64, f64)) {
    svg.shape(
        "line",
        &[
            ("class", &class),
            ("x1", &coordinate(from.0)),
            ("y1", &coordinate(from.1)),
            ("x2", &coordinate(to.0)),
            ("y2", &coordinate(to.1)),
        ],
    );
}

fn text(svg: &mut Markup, class: &str, at: (f64, f64), anchor: &str, text: &str) {
    svg.text(
        "text",
        &[
            ("class", &class),
            ("x", &coordinate(at.0)),
            ("y", &coordinate(at.1)),
            ("text-anchor", &anchor),
        ],
        text,
    );
}
