//! Writes the text format of Prometheus ("Exposition formats", version 0.0.4).

use std::fmt::{Display, Write as _};

/// What a family's numbers are.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Only grows while the process lives; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The text so far.
#[derive(Default)]
pub struct Exposition {
    out: String,
    /// The name of the family under way.
    name: String,
}

impl Exposition {
    /// Begins a family. Its samples follow before the next one begins.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> &mut Self {
        // In a help text a quotation mark is one.
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.out, "# HELP {name} {help}");
        let _ = writeln!(self.out, "# TYPE {name} {}", kind.name());
        name.clone_into(&mut self.name);
        self
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// A histogram of the family. `buckets`: upper bounds that grow, and how many were at most that,
    /// all those below included; `count`: how many there were.
    pub fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        sum: f64,
        count: u64,
    ) {
        for (bound, below) in buckets {
            self.line("_bucket", labels, Some(&bound.to_string()), below);
        }
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: impl Display,
    ) {
        let bound = bound.map(|bound| ("le", bound));
        let labels: Vec<String> = labels
            .iter()
            .copied()
            .chain(bound)
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        let _ = write!(self.out, "{}{suffix}", self.name);
        if !labels.is_empty() {
            let _ = write!(self.out, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.out, " {value}");
    }
}

/// The value of a label as it is written.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_numbers_are_written_as_the_format_wants_them() {
        let mut text = Exposition::default();
        text.family("a_total", Kind::Counter, "One \"and\"\ntwo \\.")
            .sample(&[], 3)
            .sample(&[("why", "a \"b\"\nc\\"), ("n", "1")], 0.5);
        text.family("t_seconds", Kind::Histogram, "Times.")
            .histogram(&[("worker", "0")], [(0.5, 1), (1.0, 3)], 2.25, 4);
        let wanted = "# HELP a_total One \"and\"\\ntwo \\\\.\n\
            # TYPE a_total counter\n\
            a_total 3\n\
            a_total{why=\"a \\\"b\\\"\\nc\\\\\",n=\"1\"} 0.5\n\
            # HELP t_seconds Times.\n\
            # TYPE t_seconds histogram\n\
            t_seconds_bucket{worker=\"0\",le=\"0.5\"} 1\n\
            t_seconds_bucket{worker=\"0\",le=\"1\"} 3\n\
            t_seconds_bucket{worker=\"0\",le=\"+Inf\"} 4\n\
            t_seconds_sum{worker=\"0\"} 2.25\n\
            t_seconds_count{worker=\"0\"} 4\n";
        assert_eq!(text.finish(), wanted);
    }
}
