//! The counters that a relay serves in Prometheus' text format.

use crate::error::Result;
use crate::fetch::fetch_bytes;
use crate::topology::{METRICS, Node};
use std::collections::BTreeMap;

/// One reading of all counters of a node.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// Reads a relay's counters.
    pub fn of(node: Node) -> Result<Self> {
        let text = fetch_bytes(&node.namespace(), &format!("http://{METRICS}/metrics"))?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.trim().rsplit_once(' ')?;
                Some((series.to_owned(), value.parse().ok()?))
            })
            .collect();
        Self(samples)
    }

    /// The sum of all series of a metric whose labels contain `label` (such as
    /// `reason="replay"`; empty for all).
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        self.0
            .iter()
            .filter(|(series, _)| {
                let (metric, labels) = series.split_once('{').unwrap_or((series, ""));
                metric == name && labels.contains(label)
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// The sums of a metric by the value of a label.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (series, value) in &self.0 {
            let Some((metric, labels)) = series.split_once('{') else {
                continue;
            };
            let found = labels.split_once(&format!("{label}=\""));
            if let Some((found, _)) = found.and_then(|(_, rest)| rest.split_once('"'))
                && metric == name
            {
                *sums.entry(found.to_owned()).or_default() += value;
            }
        }
        sums
    }

    /// The metric's names with labels, for messages.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(series, _)| series.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_label() {
        let metrics = Metrics::parse(
            "# HELP drops Dropped.\n# TYPE drops counter\n\
             drops{worker=\"0\",reason=\"replay\"} 3\ndrops{worker=\"1\",reason=\"replay\"} 4\n\
             drops{worker=\"0\",reason=\"length\"} 10\nup 1\n",
        );
        assert_eq!(metrics.sum("drops", "reason=\"replay\""), 7.0);
        assert_eq!(metrics.sum("drops", ""), 17.0);
        assert_eq!(metrics.sum("up", ""), 1.0);
        assert_eq!(metrics.sum("down", ""), 0.0);
        let by_reason = metrics.by_label("drops", "reason");
        assert_eq!((by_reason["replay"], by_reason["length"]), (7.0, 10.0));
        assert_eq!(by_reason.len(), 2);
        assert!(metrics.by_label("up", "reason").is_empty());
    }
}
