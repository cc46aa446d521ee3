//! Reading the configuration again while a daemon runs, as SIGHUP asks for.
//!
//! What can change in place does. The rest stays as it was until a restart, and is named. A file
//! that is wrong changes nothing: whatever can fail is prepared first, and what is left then cannot.

use std::fmt::Display;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::logging::{Filter, FilterUse, Logging, LoggingError, Prepared};
use crate::service_manager;

/// Where a configuration comes from, and what it changes beside the daemon.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The log.
    pub logging: Logging,
}

/// A change of the key `log`, ready to be made ([`Origin::prepare_log`]).
#[derive(Debug)]
pub struct LogChange(Option<Prepared>);

impl Origin {
    /// Gets ready to log what the key `log` says. Nothing changes yet.
    ///
    /// # Errors
    /// [`LoggingError::Gone`].
    pub fn prepare_log(
        &self,
        old: Option<&Filter>,
        new: Option<&Filter>,
    ) -> Result<LogChange, LoggingError> {
        let prepared = (old != new).then(|| self.logging.prepare(new));
        prepared.transpose().map(LogChange)
    }
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
    pub fn replace_log(
        &mut self,
        change: LogChange,
        old: &mut Option<Filter>,
        new: Option<Filter>,
    ) {
        match change.0.map(Prepared::commit) {
            None => {}
            Some(FilterUse::Taken) => self.changed.push("log".into()),
            // Without the variable it would have counted; it counts after a start without it.
            Some(FilterUse::Overruled) => {
                self.restart.push("log (MIXLINE_LOG goes before it)".into());
            }
        }
        *old = new;
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

/// Keys of a configuration that change in place: `replace!(done, running, name, family)` puts what the
/// variables `name` and `family` hold into the fields of those names.
#[macro_export]
macro_rules! replace {
    ($done:expr, $running:expr, $($key:ident),+ $(,)?) => {
        $($done.replace(stringify!($key), &mut $running.$key, $key);)+
    };
}

/// Keys of a configuration that stay as they are until a restart, as in [`replace!`](crate::replace).
#[macro_export]
macro_rules! keep {
    ($done:expr, $running:expr, $($key:ident),+ $(,)?) => {
        $($done.keep(stringify!($key), &$running.$key, &$key);)+
    };
}

/// Reads a configuration again by `read`; the log and the service manager hear of it.
///
/// # Errors
/// Those of `read`, which changes nothing then.
pub fn announced<E: Display>(read: impl FnOnce() -> Result<Reloaded, E>) -> Result<Reloaded, E> {
    service_manager::reloading();
    tell(read())
}

/// The same where it takes time, such as for another port to listen on. Once it has begun it comes to
/// its end, also when whoever asked for it does not wait for that.
///
/// # Errors
/// Those of `read`, which changes nothing then.
pub async fn announced_in_time<E: Display + Send + 'static>(
    read: impl Future<Output = Result<Reloaded, E>> + Send + 'static,
) -> Result<Reloaded, E> {
    let whole = tokio::spawn(async {
        service_manager::reloading();
        tell(read.await)
    });
    match whole.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
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

    #[tokio::test]
    async fn what_has_begun_comes_to_its_end_when_nobody_waits_for_it() {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let read = async move {
            begun.send(()).unwrap();
            may_go_on.await.unwrap();
            ended.send(()).unwrap();
            Ok::<_, String>(Reloaded::default())
        };
        tokio::select! {
            biased;
            () = async { has_begun.await.unwrap() } => {}
            _ = announced_in_time(read) => panic!("it waits"),
        }
        go_on.send(()).unwrap();
        has_ended.await.unwrap();
    }

    #[test]
    fn a_log_that_cannot_be_changed_is_known_before_anything_changes() {
        let origin = Origin {
            file: "unused".into(),
            logging: Logging::gone(),
        };
        let debug = Filter::try_from("debug".to_owned()).unwrap();
        assert!(origin.prepare_log(None, Some(&debug)).is_err());
        let same = origin.prepare_log(Some(&debug), Some(&debug)).unwrap();
        let (mut done, mut log) = (Reloaded::default(), Some(debug.clone()));
        done.replace_log(same, &mut log, Some(debug));
        assert_eq!(done, Reloaded::default());
    }

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
