//! What a doctor found: a line on what is so, and one on what to change.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be, or of no consequence.
    Ok,
    /// It works, and could work better.
    Warning,
    /// It does not work as configured.
    Problem,
}

impl Level {
    /// As people read it.
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

    /// It works, and could work better.
    pub fn warning(check: &str, found: impl Into<String>, change: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            change: Some(change.into()),
            ..Self::ok(check, found)
        }
    }

    /// It does not work as configured.
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

/// The width of the column of levels, and of that of checks.
const LEVEL: usize = 7;
const CHECK: usize = 18;

/// How many findings of a level there are.
#[must_use]
pub fn count(sections: &[Section], level: Level) -> usize {
    let findings = sections.iter().flat_map(|section| &section.checks);
    findings.filter(|finding| finding.level == level).count()
}

/// The findings for people, part by part.
#[must_use]
pub fn text(sections: &[Section]) -> String {
    let mut out = String::new();
    for Section { part, checks } in sections {
        let _ = writeln!(out, "\n{part}");
        for finding in checks {
            let (level, check) = (finding.level.word(), &finding.check);
            let _ = writeln!(out, "  {level:LEVEL$}  {check:CHECK$} {}", finding.found);
            if let Some(change) = &finding.change {
                let _ = writeln!(out, "  {:LEVEL$}  {:CHECK$} change: {change}", "", "");
            }
        }
    }
    out
}

/// How many findings of each level there are, for people: `1 problem, 2 warnings`.
#[must_use]
pub fn counts(sections: &[Section]) -> String {
    let (problems, warnings) = (
        count(sections, Level::Problem),
        count(sections, Level::Warning),
    );
    format!(
        "{problems} {}, {warnings} {}",
        if problems == 1 { "problem" } else { "problems" },
        if warnings == 1 { "warning" } else { "warnings" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_is_and_what_to_change() {
        let sections = [Section {
            part: "kernel".into(),
            checks: vec![
                Finding::ok("version", "6.1"),
                Finding::problem("jit", "off", "sysctl x"),
            ],
        }];
        assert_eq!(
            text(&sections),
            "\nkernel\n\
             \x20 ok       version            6.1\n\
             \x20 PROBLEM  jit                off\n\
             \x20                             change: sysctl x\n"
        );
        assert_eq!(counts(&sections), "1 problem, 0 warnings");
        assert_eq!(counts(&[]), "0 problems, 0 warnings");
    }
}
