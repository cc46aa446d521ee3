//! What every benchmark has to give: figures, a table, what they were to reach, and plots.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::measure::Summary;

/// What a benchmark measured. Serialised, it is the benchmark's object in the JSON; displayed,
/// its table on the terminal, ratios first.
pub trait Report: Serialize + fmt::Display {
    /// What it was to reach.
    fn goals(&self) -> Vec<Goal> {
        Vec::new()
    }

    /// What to draw.
    fn plots(&self) -> Vec<Plot> {
        Vec::new()
    }
}

/// A report of whatever benchmark.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// For people.
    pub table: String,
    /// For programs.
    pub json: Value,
    /// What it was to reach.
    pub goals: Vec<Goal>,
    /// What to draw.
    pub plots: Vec<Plot>,
}

impl Outcome {
    /// Of a benchmark's own report.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn of(report: &impl Report) -> Result<Self> {
        Ok(Self {
            table: report.to_string(),
            json: serde_json::to_value(report)?,
            goals: report.goals(),
            plots: report.plots(),
        })
    }
}

/// A figure with a bound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// What it is, in a few words.
    pub what: String,
    /// What was measured; none if it could not be.
    pub measured: Option<f64>,
    /// What it was to be.
    pub bound: Bound,
}

/// What a figure was to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Goal {
    /// To be `bound` or less.
    #[must_use]
    pub fn at_most(what: impl Into<String>, measured: Option<f64>, bound: f64) -> Self {
        Self {
            what: what.into(),
            measured,
            bound: Bound::AtMost(bound),
        }
    }

    /// To be `bound` or more.
    #[must_use]
    pub fn at_least(what: impl Into<String>, measured: Option<f64>, bound: f64) -> Self {
        Self {
            what: what.into(),
            measured,
            bound: Bound::AtLeast(bound),
        }
    }

    /// Whether it was reached; none if it could not be measured.
    #[must_use]
    pub fn reached(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.bound {
            Bound::AtMost(bound) => measured <= bound,
            Bound::AtLeast(bound) => measured >= bound,
        })
    }
}

/// A drawing.
#[derive(Debug, Clone, PartialEq)]
pub enum Plot {
    /// Bars beside each other.
    Bars(Bars),
    /// Lines over an axis.
    Lines(Lines),
}

/// Horizontal bars, each with its spread and perhaps a bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// What is compared.
    pub title: String,
    /// What else there is to know, in a sentence; may be empty.
    pub note: String,
    /// Of all bars: `ns`, `times`, `packets/s`.
    pub unit: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What it is.
    pub label: String,
    /// How long it is, with the spread that is drawn over its end.
    pub value: Summary,
    /// Where a mark is drawn that it was to reach, or not to pass.
    pub bound: Option<Bound>,
}

impl Bar {
    /// A bar without a bound.
    #[must_use]
    pub fn new(label: impl Into<String>, value: Summary) -> Self {
        Self {
            label: label.into(),
            value,
            bound: None,
        }
    }

    /// The same with a bound.
    #[must_use]
    pub fn with(self, bound: Bound) -> Self {
        Self {
            bound: Some(bound),
            ..self
        }
    }
}

/// Lines over a common axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    /// What is shown.
    pub title: String,
    /// What else there is to know, in a sentence; may be empty.
    pub note: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
    /// Dashed across the plot: what it is, and at which `y`.
    pub bounds: Vec<(String, f64)>,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// What is along it, with the unit.
    pub label: String,
    /// How it is divided.
    pub scale: Scale,
}

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten.
    Logarithmic,
    /// For shares of all from 0 to 1: by nines (0.9, 0.99, 0.999) as the tail is what matters.
    Nines,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What it is.
    pub label: String,
    /// From left to right.
    pub points: Vec<Point>,
}

/// One point of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// How high.
    pub y: f64,
    /// Its spread, drawn as a bar from low to high.
    pub spread: Option<(f64, f64)>,
}
