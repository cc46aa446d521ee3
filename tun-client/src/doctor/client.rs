//! The client itself: its configuration, whether it runs, and what it says is wrong.

use mixline_daemon::doctor::{Finding, Level};
use serde_json::Value;

use super::diagnosis::ClientState;
use crate::config::{Config, ConfigError};
use crate::control::{Request, Sockets};
use crate::error::{ControlProblem, Error};

/// What a running client says is wrong, in its own words.
pub const SAYS: &str = "says";

/// What was seen of a running client.
#[derive(Debug)]
pub struct Client {
    sockets: Option<Sockets>,
    answer: Result<Value, Error>,
}

impl Client {
    /// Asks it for its status. Without a configuration nobody knows where.
    #[must_use]
    pub fn read(config: Option<&Config>) -> Self {
        let sockets = config.map(Config::control_sockets);
        let answer = match &sockets {
            Some(sockets) => sockets.ask(&Request::Status),
            None => Err(Error::NotRunning {
                path: Default::default(),
            }),
        };
        Self { sockets, answer }
    }

    /// One that said this, for tests.
    #[cfg(test)]
    pub fn saying(status: Value) -> Self {
        Self {
            sockets: None,
            answer: Ok(status),
        }
    }

    /// One that is not there, for tests.
    #[cfg(test)]
    pub fn missing() -> Self {
        Self::read(None)
    }

    /// Its status, if it runs.
    #[must_use]
    pub fn status(&self) -> Option<&Value> {
        self.answer.as_ref().ok()
    }

    /// Whether it runs, as far as that is known.
    #[must_use]
    pub fn state(&self) -> ClientState {
        match &self.answer {
            Ok(_) => ClientState::Running,
            Err(Error::NotRunning { .. } | Error::OutOfReach { .. }) => ClientState::NotRunning,
            Err(_) => ClientState::NotAsked,
        }
    }

    /// Asks it for something else.
    ///
    /// # Errors
    /// Those of [`Sockets::ask`].
    pub fn ask(&self, request: &Request) -> Result<Value, Error> {
        match &self.sockets {
            Some(sockets) => sockets.ask(request),
            None => Err(Error::NotRunning {
                path: Default::default(),
            }),
        }
    }

    /// Says what is wrong.
    #[must_use]
    pub fn judge(&self, config: &Result<Config, ConfigError>) -> Vec<Finding> {
        let mut findings = vec![judge_config(config)];
        match &self.answer {
            Ok(status) => {
                let state = status["state"].as_str().unwrap_or_default();
                let step = status["step"].as_str().filter(|step| !step.is_empty());
                findings.push(match step {
                    None => Finding::ok("running", state),
                    Some(step) => Finding::warning(
                        "running",
                        format!("{state}: {step}"),
                        "what the lines below name; or wait",
                    ),
                });
                let problems = status["problems"].as_array();
                for problem in problems.into_iter().flatten().filter_map(Value::as_str) {
                    findings.push(Finding {
                        level: Level::Warning,
                        ..Finding::ok(SAYS, problem)
                    });
                }
            }
            Err(Error::NotRunning { .. } | Error::OutOfReach { .. }) => {
                findings.push(Finding::ok(
                    "running",
                    "no, or not where this user may look; what follows is about the host",
                ));
            }
            Err(
                error @ Error::Control {
                    problem: ControlProblem::PermissionDenied,
                    ..
                },
            ) => findings.push(Finding::warning(
                "running",
                error.to_string(),
                format!(
                    "sudo usermod -aG {} $USER, and log in again",
                    crate::control::GROUP
                ),
            )),
            Err(error) => findings.push(Finding::problem(
                "running",
                error.to_string(),
                "systemctl restart mixline-client, or see its log",
            )),
        }
        findings
    }
}

fn judge_config(config: &Result<Config, ConfigError>) -> Finding {
    match config {
        Ok(config) => Finding::ok(
            "configuration",
            format!(
                "network {} at {}",
                config.network.id,
                config.network.urls.join(", ")
            ),
        ),
        Err(error) => Finding::problem(
            "configuration",
            error.to_string(),
            "sudo mixline-client join mixline:ID@http://HOST:PORT, or edit the file",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_client_says_is_told() {
        let config = Config::load(std::path::Path::new("/nonexistent"));
        let client = Client::saying(json!({
            "state": "starting", "step": "connecting to guards", "problems": ["no guard"]
        }));
        assert_eq!(client.state(), ClientState::Running);
        let findings = client.judge(&config);
        assert_eq!(findings[0].level, Level::Problem);
        assert!(findings[0].change.as_ref().unwrap().contains("join"));
        assert_eq!(findings[1].found, "starting: connecting to guards");
        assert_eq!(
            (findings[2].level, findings[2].found.as_str()),
            (Level::Warning, "no guard")
        );
        let none = Client::missing();
        assert_eq!(none.state(), ClientState::NotRunning);
        assert_eq!(none.judge(&config)[1].level, Level::Ok);
    }
}
