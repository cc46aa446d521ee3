//! All that the doctor found.

use std::fmt::Write as _;

use mixline_daemon::doctor::finding::{count, counts, text};
use mixline_daemon::doctor::{Level, Section};
use serde::Serialize;
use serde_json::Value;

/// Whether a client runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientState {
    /// It runs, and was asked.
    Running,
    /// None runs, or none that this user could find.
    NotRunning,
    /// One runs, and this user may not ask it; or it does not answer.
    NotAsked,
}

/// All that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// The configuration.
    pub config: String,
    /// Whether a client runs.
    pub client: ClientState,
    /// Whether nothing stands in the way.
    pub works: bool,
    /// What was found, part by part.
    pub sections: Vec<Section>,
    /// What was measured of the way to the guards, whole; none if nothing was.
    pub measured: Option<Value>,
}

impl Diagnosis {
    /// A diagnosis of these findings.
    #[must_use]
    pub fn new(
        config: String,
        client: ClientState,
        sections: Vec<Section>,
        measured: Option<Value>,
    ) -> Self {
        Self {
            config,
            client,
            works: count(&sections, Level::Problem) == 0,
            sections,
            measured,
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let client = match self.client {
            ClientState::Running => "the client runs",
            ClientState::NotRunning => "no client runs",
            ClientState::NotAsked => "the client was not asked",
        };
        let mut out = format!("{}, {client}\n", self.config);
        out += &text(&self.sections);
        let _ = writeln!(
            out,
            "\n{}: {}",
            counts(&self.sections),
            match (self.works, self.client) {
                (true, ClientState::Running) => "the client works",
                (true, _) => "a client would work",
                (false, ClientState::Running) => "the client does not work as it should",
                (false, _) => "a client would not work like this",
            }
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use mixline_daemon::doctor::Finding;

    use super::*;

    #[test]
    fn only_problems_keep_a_client_from_working() {
        let of = |finding: Finding| {
            let sections = vec![Section {
                part: "names".into(),
                checks: vec![finding],
            }];
            Diagnosis::new("c".into(), ClientState::Running, sections, None)
        };
        let warned = of(Finding::warning("a", "b", "c"));
        assert!(warned.works);
        let failed = of(Finding::problem("resolver", "x", "y"));
        assert!(!failed.works);
        assert_eq!(
            failed.text(),
            "c, the client runs\n\nnames\n  PROBLEM  resolver           x\n\
             \x20                             change: y\n\n\
             1 problem, 0 warnings: the client does not work as it should\n"
        );
        let json = serde_json::to_value(&failed).unwrap();
        assert_eq!(json["client"], "running");
        assert_eq!(json["sections"][0]["checks"][0]["level"], "problem");
    }
}
