//! What the doctor found: a line on what is so, and one on what to change.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::config::PortKind;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be, or of no consequence.
    Ok,
    /// The relay runs, and could run better.
    Warning,
    /// The relay does not run as configured.
    Problem,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "PROBLEM",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What is so.
    pub found: String,
    /// What to change, where something is to be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
}

impl Finding {
    /// Nothing to change.
    pub fn ok(check: &str, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            level: Level::Ok,
            found: found.into(),
            change: None,
        }
    }

    /// The relay runs, and could run better.
    pub fn warning(check: &str, found: impl Into<String>, change: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            change: Some(change.into()),
            ..Self::ok(check, found)
        }
    }

    /// The relay does not run as configured.
    pub fn problem(check: &str, found: impl Into<String>, change: impl Into<String>) -> Self {
        Self {
            level: Level::Problem,
            ..Self::warning(check, found, change)
        }
    }
}

/// What was found of one part of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Which part.
    pub part: String,
    /// What was found.
    pub checks: Vec<Finding>,
}

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

/// The width of the column of levels, and of that of checks.
const LEVEL: usize = 7;
const CHECK: usize = 18;

impl Diagnosis {
    /// A diagnosis of these findings.
    #[must_use]
    pub fn new(
        relay: Option<String>,
        port: PortKind,
        interface: Option<String>,
        sections: Vec<Section>,
    ) -> Self {
        let mut this = Self {
            relay,
            port,
            interface,
            runs: true,
            sections,
        };
        this.runs = this.count(Level::Problem) == 0;
        this
    }

    fn count(&self, level: Level) -> usize {
        let findings = self.sections.iter().flat_map(|section| &section.checks);
        findings.filter(|finding| finding.level == level).count()
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
        for Section { part, checks } in &self.sections {
            let _ = writeln!(out, "\n{part}");
            for finding in checks {
                let (level, check) = (finding.level.word(), &finding.check);
                let _ = writeln!(out, "  {level:LEVEL$}  {check:CHECK$} {}", finding.found);
                if let Some(change) = &finding.change {
                    let _ = writeln!(out, "  {:LEVEL$}  {:CHECK$} change: {change}", "", "");
                }
            }
        }
        let (problems, warnings) = (self.count(Level::Problem), self.count(Level::Warning));
        let _ = writeln!(
            out,
            "\n{problems} {}, {warnings} {}: the relay {}",
            if problems == 1 { "problem" } else { "problems" },
            if warnings == 1 { "warning" } else { "warnings" },
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
