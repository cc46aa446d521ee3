//! What the doctor found: a line on what is so, and one on what to change.

use std::fmt::Write as _;

use mixline_daemon::doctor::finding::{count, counts, text};
pub use mixline_daemon::doctor::{Finding, Level, Section};
use serde::{Deserialize, Serialize};

use crate::config::PortKind;

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The relay's name, if a configuration was given.
    pub relay: Option<String>,
    /// The port that is configured; `auto` without a configuration.
    pub port: PortKind,
    /// The interface that was examined.
    pub interface: Option<String>,
    /// Whether the relay would run as configured.
    pub runs: bool,
    /// What was found, part by part.
    pub sections: Vec<Section>,
}

impl Diagnosis {
    /// A diagnosis of these findings.
    #[must_use]
    pub fn new(
        relay: Option<String>,
        port: PortKind,
        interface: Option<String>,
        sections: Vec<Section>,
    ) -> Self {
        Self {
            relay,
            port,
            interface,
            runs: count(&sections, Level::Problem) == 0,
            sections,
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "{}, port: {}, {}\n",
            self.relay.as_deref().unwrap_or("no configuration"),
            self.port.name(),
            match &self.interface {
                Some(name) => format!("interface {name}"),
                None => "no interface".into(),
            }
        );
        out += &text(&self.sections);
        let _ = writeln!(
            out,
            "\n{}: the relay {}",
            counts(&self.sections),
            match (self.runs, &self.relay) {
                (true, Some(_)) => "runs as configured",
                (true, None) => "would run with `port: auto`",
                (false, _) => "does not run like this",
            }
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(findings: Vec<Finding>) -> Diagnosis {
        let sections = vec![Section {
            part: "kernel".into(),
            checks: findings,
        }];
        Diagnosis::new(Some("r1".into()), PortKind::XdpFilter, None, sections)
    }

    #[test]
    fn only_problems_keep_a_relay_from_running() {
        assert!(diagnosis(vec![]).runs);
        assert!(diagnosis(vec![Finding::ok("a", "b"), Finding::warning("a", "b", "c")]).runs);
        assert!(!diagnosis(vec![Finding::ok("a", "b"), Finding::problem("a", "b", "c")]).runs);
    }

    #[test]
    fn people_read_what_is_and_what_to_change() {
        let text = diagnosis(vec![
            Finding::ok("version", "6.1"),
            Finding::problem("jit", "off", "sysctl x"),
        ])
        .text();
        assert_eq!(
            text,
            "r1, port: xdp-filter, no interface\n\nkernel\n\
             \x20 ok       version            6.1\n\
             \x20 PROBLEM  jit                off\n\
             \x20                             change: sysctl x\n\n\
             1 problem, 0 warnings: the relay does not run like this\n"
        );
    }

    #[test]
    fn programs_read_json() {
        let diagnosis = diagnosis(vec![Finding::ok("version", "6.1")]);
        let json = serde_json::to_value(&diagnosis).unwrap();
        assert_eq!(json["sections"][0]["checks"][0]["level"], "ok");
        assert_eq!(json["port"], "xdp-filter");
        assert_eq!(
            serde_json::from_value::<Diagnosis>(json).unwrap(),
            diagnosis
        );
    }
}
