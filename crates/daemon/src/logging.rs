//! Logging to standard error.
//!
//! Two variables of the environment say how: [`FILTER`] what is logged, [`FORMAT`] in which form.
//! A configuration may say what is logged as well, and be read again while the daemon runs; the
//! variable goes before it. A wrong value is an error: a log that is silently another than
//! the one that was asked for is worse than a daemon that does not start.
//!
//! Where standard error is the journal's (`JOURNAL_STREAM` in systemd.exec(5) names its device
//! and inode), lines of text have no time of their own, since the journal has one.

use std::env::{self, VarError};
use std::fs::File;
use std::io::{IsTerminal as _, stderr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use serde::Deserialize;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt};

/// The variable that says what is logged: a level, or a filter such as
/// `info,mixline_directory=debug`.
pub const FILTER: &str = "MIXLINE_LOG";
/// The variable that says in which form: `text`, or `json` for one object on each line.
pub const FORMAT: &str = "MIXLINE_LOG_FORMAT";
/// What is logged if nobody says anything.
const DEFAULT: &str = "info";
/// The words that are levels, beside the numbers 0 to 5.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// What the names of all modules of the project begin with.
const OWN: &str = "mixline";

/// What is to be logged cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Not a filter.
    #[error(
        "{key} is `{value}`, which is no filter: take off, error, warn, info, debug, trace, or a \
         list such as info,mixline_relay=debug"
    )]
    Filter {
        /// The variable, or the key of the configuration.
        key: &'static str,
        /// What it is set to.
        value: String,
        /// Why that is none; absent if it is a word that is no level, or no text.
        source: Option<ParseError>,
    },
    /// Not a form.
    #[error("{FORMAT} is `{0}`: take text or json")]
    Format(String),
    /// The log cannot be changed any more.
    #[error("the log cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// Whether lines say which module they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modules {
    /// They do.
    Shown,
    /// They do not.
    Hidden,
}

/// The form of what is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Lines for people.
    Text,
    /// One JSON object on each line, for programs.
    Json,
}

/// What the environment says of logging.
#[derive(Debug)]
pub struct Asked {
    filter: Option<String>,
    format: Format,
}

/// Logging that has started.
#[derive(Debug, Clone)]
pub struct Logging {
    /// Whether the environment says what is logged.
    from_environment: bool,
    handle: reload::Handle<EnvFilter, Registry>,
}

/// What became of a filter of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterUse {
    /// It counts from now on.
    Taken,
    /// The variable [`FILTER`] is set, and goes before it.
    Overruled,
}

/// Reads what the environment says of logging. A variable that is empty counts as not set.
///
/// # Errors
/// [`LoggingError::Filter`], [`LoggingError::Format`].
pub fn asked() -> Result<Asked, LoggingError> {
    let filter = value(env::var(FILTER));
    if let Some(filter) = &filter {
        parse(FILTER, filter)?;
    }
    let format = match value(env::var(FORMAT)).as_deref() {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(LoggingError::Format(other.to_owned())),
    };
    Ok(Asked { filter, format })
}

/// What is logged, as a configuration says it under the key `log`: surely a filter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Filter(String);

impl TryFrom<String> for Filter {
    type Error = LoggingError;

    fn try_from(text: String) -> Result<Self, LoggingError> {
        parse("log", &text).map(|_| Self(text))
    }
}

impl Asked {
    /// Starts logging. What `configured` says counts if the environment says nothing. To be
    /// called once in a process.
    pub fn start(self, modules: Modules, configured: Option<&Filter>) -> Logging {
        let configured = configured.map(|filter| filter.0.as_str());
        let filter = EnvFilter::new(self.filter.as_deref().or(configured).unwrap_or(DEFAULT));
        let (filter, handle) = reload::Layer::new(filter);
        let lines = fmt::layer()
            .with_writer(stderr)
            // They would go where the line could not.
            .log_internal_errors(false)
            .with_ansi(stderr().is_terminal())
            .with_target(modules == Modules::Shown);
        let lines = match self.format {
            Format::Json => lines.json().flatten_event(true).boxed(),
            Format::Text if is_journal() => lines.without_time().boxed(),
            Format::Text => lines.boxed(),
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        Logging {
            from_environment: self.filter.is_some(),
            handle,
        }
    }
}

/// Another filter, ready to be used ([`Logging::prepare`]).
#[derive(Debug)]
pub struct Prepared {
    filter: EnvFilter,
    logging: Logging,
}

impl Logging {
    /// Gets ready to log what a configuration says; without a word of it, what is logged by default.
    /// Nothing changes yet.
    ///
    /// # Errors
    /// [`LoggingError::Gone`].
    pub fn prepare(&self, configured: Option<&Filter>) -> Result<Prepared, LoggingError> {
        self.handle.with_current(|_| ())?;
        let filter = configured.map_or(DEFAULT, |filter| &filter.0);
        Ok(Prepared {
            filter: EnvFilter::new(filter),
            logging: self.clone(),
        })
    }

    /// Logging that cannot be changed any more, for tests of what happens then.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn gone() -> Self {
        let (_, handle) = reload::Layer::new(EnvFilter::new(DEFAULT));
        Self {
            from_environment: false,
            handle,
        }
    }
}

impl Prepared {
    /// Logs what it says from now on.
    pub fn commit(self) -> FilterUse {
        if self.logging.from_environment {
            return FilterUse::Overruled;
        }
        // It was there a moment ago. Without it there is nobody to tell.
        let _ = self.logging.handle.reload(self.filter);
        FilterUse::Taken
    }
}

/// What a variable is set to; none if to nothing.
fn value(variable: Result<String, VarError>) -> Option<String> {
    match variable {
        Ok(value) if value.trim().is_empty() => None,
        Ok(value) => Some(value),
        Err(VarError::NotPresent) => None,
        // Has characters that are in no filter, and is refused with them.
        Err(VarError::NotUnicode(value)) => Some(value.to_string_lossy().into_owned()),
    }
}

fn parse(key: &'static str, value: &str) -> Result<EnvFilter, LoggingError> {
    let wrong = |source| LoggingError::Filter {
        key,
        value: value.to_owned(),
        source,
    };
    // A single word that is no level would count as the name of a module, and nothing else
    // would be logged.
    let is_known = |part: &str| {
        let word = part.trim().to_ascii_lowercase();
        word.contains(['=', '['])
            || word.starts_with(OWN)
            || LEVELS.contains(&word.as_str())
            || matches!(word.parse(), Ok(0..=5_u8))
    };
    if value.contains(char::REPLACEMENT_CHARACTER) || !value.split(',').all(is_known) {
        return Err(wrong(None));
    }
    EnvFilter::try_new(value).map_err(|source| wrong(Some(source)))
}

/// Whether standard error is the journal's, as systemd says in `JOURNAL_STREAM`: device and
/// inode, in decimal, with a colon between them (systemd.exec(5)).
fn is_journal() -> bool {
    let stderr = stderr().as_fd().try_clone_to_owned().map(File::from);
    let Ok(metadata) = stderr.and_then(|file| file.metadata()) else {
        return false;
    };
    env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let check = |filter: &str| Filter::try_from(filter.to_owned());
        for good in [
            "debug",
            "INFO",
            "3",
            "off",
            "info,mixline_relay=debug",
            "mixline_relay",
            "warn,hyper=trace",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "loud",
            "mixline=loud",
            "info,",
            "info,verbose",
            "",
            "7",
            "inf\u{fffd}",
        ] {
            let error = check(bad).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("log is `{bad}`, which is no filter")),
                "{error}"
            );
        }
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        assert_eq!(value(Ok(String::new())), None);
        assert_eq!(value(Err(VarError::NotPresent)), None);
        assert_eq!(value(Ok("debug".into())).as_deref(), Some("debug"));
    }
}
