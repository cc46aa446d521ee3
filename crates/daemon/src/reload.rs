//! Reading the configuration again while a daemon runs, as SIGHUP asks for.
//!
//! What can change in place does. The rest stays as it was until a restart, and is named. A file
//! that is wrong changes nothing.

use std::fmt::Display;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::logging::{Filter, FilterUse, Logging, LoggingError};
use crate::service_manager;

/// Where a configuration comes from, and what it changes beside the daemon.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The log.
    pub logging: Logging,
}

/// What became of a configuration that was read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys whose new values count from now on.
    pub changed: Vec<String>,
    /// Keys whose new values count after a restart; until then the old ones do.
    pub restart: Vec<String>,
}

impl Reloaded {
    /// Puts the value of a key in the place of the old one, and names the key if they differ.
    pub fn replace<T: PartialEq>(&mut self, key: &str, old: &mut T, new: T) {
        if *old != new {
            self.changed.push(key.to_owned());
            *old = new;
        }
    }

    /// Names a key that cannot change in place, if it differs.
    pub fn keep<T: PartialEq>(&mut self, key: &str, old: &T, new: &T) {
        if old != new {
            self.restart.push(key.to_owned());
        }
    }

    /// Logs what the key `log` says from now on.
    ///
    /// # Errors
    /// [`LoggingError::Gone`].
    pub fn replace_log(
        &mut self,
        logging: &Logging,
        old: &mut Option<Filter>,
        new: Option<Filter>,
    ) -> Result<(), LoggingError> {
        if *old == new {
            return Ok(());
        }
        match logging.set(new.as_ref())? {
            FilterUse::Taken => self.changed.push("log".into()),
            // Without the variable it would have counted; it counts after a start without it.
            FilterUse::Overruled => self.restart.push("log (MIXLINE_LOG goes before it)".into()),
        }
        *old = new;
        Ok(())
    }

    /// For people: a line of what changed, and one of what counts after a restart, if anything does.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let changed = if self.changed.is_empty() {
            "nothing changes".to_owned()
        } else {
            format!("changed: {}", self.changed.join(", "))
        };
        let restart = (!self.restart.is_empty())
            .then(|| format!("counts after a restart: {}", self.restart.join(", ")));
        [changed].into_iter().chain(restart).collect()
    }

    /// The same lines as one text, each with its end.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines().into_iter().map(|line| line + "\n").collect()
    }
}

/// Reads a configuration again by `read`; the log and the service manager hear of it.
///
/// # Errors
/// Those of `read`, which changes nothing then.
pub fn announced<E: Display>(read: impl FnOnce() -> Result<Reloaded, E>) -> Result<Reloaded, E> {
    service_manager::reloading();
    tell(read())
}

/// The same where it takes time, such as for another port to listen on.
///
/// # Errors
/// Those of `read`, which changes nothing then.
pub async fn announced_in_time<E: Display>(
    read: impl Future<Output = Result<Reloaded, E>>,
) -> Result<Reloaded, E> {
    service_manager::reloading();
    tell(read.await)
}

fn tell<E: Display>(result: Result<Reloaded, E>) -> Result<Reloaded, E> {
    match &result {
        Ok(done) => {
            for line in done.lines() {
                tracing::info!("the configuration was read again; {line}");
            }
        }
        Err(error) => tracing::error!("the configuration stays as it was: {error}"),
    }
    service_manager::reloaded();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_and_what_did_not_is_named() {
        let mut done = Reloaded::default();
        assert_eq!(done.text(), "nothing changes\n");
        let mut value = 1;
        done.replace("same", &mut value, 1);
        done.replace("capacity", &mut value, 2);
        done.keep("same", &1, &1);
        done.keep("listen", &1, &2);
        done.keep("port", &1, &2);
        assert_eq!(value, 2);
        assert_eq!(
            done.lines(),
            ["changed: capacity", "counts after a restart: listen, port"]
        );
    }
}
