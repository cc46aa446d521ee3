//! Logging to standard error.

use std::env::{self, VarError};
use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The variable that says what is logged: a level, or a filter such as
/// `info,mixline_directory=debug`.
pub const VARIABLE: &str = "MIXLINE_LOG";
/// What is logged if the variable says nothing.
const DEFAULT: &str = "info";

/// The variable is set, and is not a filter.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE} is `{value}`")]
pub struct FilterError {
    /// What it is set to.
    value: String,
    /// Why that is none; absent if it is not even text.
    source: Option<ParseError>,
}

/// Whether lines say which module they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modules {
    /// They do.
    Shown,
    /// They do not.
    Hidden,
}

/// Starts logging of what [`VARIABLE`] asks for. To be called once in a process.
///
/// # Errors
/// If the variable is not a filter; then logging has started all the same, at `info`.
pub fn start(modules: Modules) -> Result<(), FilterError> {
    let asked = asked(env::var(VARIABLE));
    let (filter, outcome) = match asked {
        Ok(filter) => (filter, Ok(())),
        Err(error) => (EnvFilter::new(DEFAULT), Err(error)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(modules == Modules::Shown)
        .init();
    outcome
}

fn asked(variable: Result<String, VarError>) -> Result<EnvFilter, FilterError> {
    let value = match variable {
        Ok(value) => value,
        Err(VarError::NotPresent) => DEFAULT.to_owned(),
        Err(VarError::NotUnicode(value)) => {
            return Err(FilterError {
                value: value.to_string_lossy().into_owned(),
                source: None,
            });
        }
    };
    EnvFilter::try_new(&value).map_err(|source| FilterError {
        value,
        source: Some(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let filter = |value: &str| asked(Ok(value.into())).map(|filter| filter.to_string());
        assert_eq!(
            asked(Err(VarError::NotPresent)).unwrap().to_string(),
            "info"
        );
        assert_eq!(filter("debug").unwrap(), "debug");
        let error = filter("mixline=loud").unwrap_err();
        assert_eq!(error.to_string(), "MIXLINE_LOG is `mixline=loud`");
    }
}
