//! The names that this client serves: claimed, renewed, and remembered if a command asked
//! for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mixline_daemon::due::Due;
use mixline_endpoint::{DirectoryQueries, QueryError};
use mixline_protocol::name::Label;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::config::MAX_NAMES;
use crate::error::{Error, Result};
use crate::state::State;

/// A claim lives for seven days; it is renewed after this.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 3600);
/// How long until a claim without an answer is tried again.
const RETRY: Duration = Duration::from_secs(15);
/// How long until a refused claim is tried again: the name may become free.
const RETRY_REFUSED: Duration = Duration::from_secs(600);
/// Between two searches for claims that are due.
const POLL: Duration = Duration::from_secs(5);

/// How far the claim of a name is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reason")]
pub enum ClaimState {
    /// The directory has not been asked yet.
    Claiming,
    /// The name is ours.
    Published,
    /// The directory did not answer; it is asked again.
    Waiting(String),
    /// The directory says no.
    Refused(String),
}

/// Why a name is not published, or not withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// One client publishes no more names.
    #[error("{MAX_NAMES} names are published already")]
    TooMany,
    /// The directory refused it, or could not be asked.
    #[error("{} is not published: {error}", label.host())]
    NotClaimed {
        /// The name.
        label: Label,
        /// What the directory said, or why it was not asked.
        error: QueryError,
    },
    /// It is not among the names.
    #[error("{} is not published here", label.host())]
    NotPublished {
        /// The name.
        label: Label,
    },
    /// It is done, but a restart will not know of it.
    #[error("{0}")]
    NotRemembered(Error),
}

/// One name.
#[derive(Debug, Clone, Serialize)]
pub struct Name {
    /// `label.anon`.
    pub name: String,
    /// How far its claim is.
    #[serde(flatten)]
    pub claim: ClaimState,
    /// Whether the configuration lists it.
    pub configured: bool,
    /// Whether a command published it: it is served also without the configuration.
    #[serde(skip)]
    remembered: bool,
    #[serde(skip)]
    label: Label,
    #[serde(skip)]
    due: Due,
}

/// All names of a client.
#[derive(Debug)]
pub struct Names {
    state: Arc<State>,
    entries: Mutex<Vec<Name>>,
    /// The names that are ours, for the responder.
    held: watch::Sender<Vec<Label>>,
    /// There are more to claim.
    more: Notify,
}

impl Names {
    /// The names of the configuration, then those that commands published before.
    ///
    /// # Errors
    /// [`Error::Content`] if the remembered names are damaged.
    pub fn load(configured: &[Label], state: Arc<State>) -> Result<Self> {
        let remembered = state.names()?;
        let mut entries: Vec<Name> = Vec::new();
        for label in configured.iter().chain(&remembered) {
            if !entries.iter().any(|entry| entry.label == *label) {
                let (configured, remembered) =
                    (configured.contains(label), remembered.contains(label));
                entries.push(entry(*label, configured, remembered));
            }
        }
        let held = watch::Sender::new(Vec::new());
        Ok(Self {
            state,
            entries: Mutex::new(entries),
            held,
            more: Notify::new(),
        })
    }

    /// All names, and how far their claims are.
    #[must_use]
    pub fn list(&self) -> Vec<Name> {
        self.lock().clone()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The names that the directory has for this ID.
    #[must_use]
    pub fn held(&self) -> watch::Receiver<Vec<Label>> {
        self.held.subscribe()
    }

    /// Claims what is due, once, one after the other.
    pub async fn claim_due(&self, directory: &DirectoryQueries) {
        let due: Vec<Label> = self
            .lock()
            .iter()
            .filter(|name| name.due.is_past())
            .map(|name| name.label)
            .collect();
        for label in due {
            let result = directory.claim_name(label).await;
            self.note(label, &result);
        }
    }

    /// Renews claims, for ever.
    pub async fn keep(self: Arc<Self>, directory: DirectoryQueries) {
        loop {
            let _ = tokio::time::timeout(POLL, self.more.notified()).await;
            self.claim_due(&directory).await;
        }
    }

    /// Whether all of these are served.
    #[must_use]
    pub fn has_all(&self, labels: &[Label]) -> bool {
        let entries = self.lock();
        let is_served = |label: &Label| entries.iter().any(|entry| entry.label == *label);
        labels.iter().all(is_served)
    }

    /// Takes over what the configuration says now: as after a start with it. Names that commands
    /// published stay.
    pub fn configure(&self, configured: &[Label]) {
        {
            let mut entries = self.lock();
            entries.retain(|entry| entry.remembered || configured.contains(&entry.label));
            for entry in entries.iter_mut() {
                entry.configured = configured.contains(&entry.label);
            }
            for label in configured {
                if !entries.iter().any(|entry| entry.label == *label) {
                    tracing::info!("{} is served, as the configuration says", label.host());
                    entries.push(entry(*label, true, false));
                }
            }
        }
        self.tell();
        self.more.notify_one();
    }

    /// Claims a name by command, and remembers it.
    ///
    /// # Errors
    /// [`NameError::TooMany`] and [`NameError::NotClaimed`], with nothing remembered;
    /// [`NameError::NotRemembered`].
    pub async fn publish(
        &self,
        label: Label,
        directory: &DirectoryQueries,
    ) -> std::result::Result<(), NameError> {
        let known = self.lock().iter().any(|entry| entry.label == label);
        if !known && self.lock().len() >= MAX_NAMES {
            return Err(NameError::TooMany);
        }
        let result = directory.claim_name(label).await;
        if result.is_ok() && !known {
            {
                let mut entries = self.lock();
                // Another command may have had the same or other names meanwhile.
                let known = entries.iter().any(|entry| entry.label == label);
                if !known && entries.len() >= MAX_NAMES {
                    return Err(NameError::TooMany);
                }
                if !known {
                    entries.push(entry(label, false, true));
                }
            }
            self.remember()?;
        }
        // What is not among the names is not noted.
        self.note(label, &result);
        result.map_err(|error| NameError::NotClaimed { label, error })
    }

    /// Stops serving a name. True if the configuration will bring it back.
    ///
    /// # Errors
    /// [`NameError::NotPublished`], [`NameError::NotRemembered`].
    pub fn unpublish(&self, label: Label) -> std::result::Result<bool, NameError> {
        let configured = {
            let mut entries = self.lock();
            let Some(at) = entries.iter().position(|entry| entry.label == label) else {
                return Err(NameError::NotPublished { label });
            };
            entries.remove(at).configured
        };
        self.tell();
        self.remember()?;
        Ok(configured)
    }

    /// Writes down how a claim went.
    fn note(&self, label: Label, result: &std::result::Result<(), QueryError>) {
        let (claim, wait) = match result {
            Ok(()) => (ClaimState::Published, RENEW_AFTER),
            Err(QueryError::Refused(why)) => (ClaimState::Refused(why.clone()), RETRY_REFUSED),
            Err(error) => (ClaimState::Waiting(error.to_string()), RETRY),
        };
        let mut entries = self.lock();
        let Some(entry) = entries.iter_mut().find(|entry| entry.label == label) else {
            return;
        };
        match &claim {
            ClaimState::Refused(why) if entry.claim != claim => {
                tracing::error!(
                    "{} is not published: the directory refused: {why}",
                    entry.name
                );
            }
            ClaimState::Published if entry.claim != claim => {
                tracing::info!("{} is published", entry.name);
            }
            _ => {}
        }
        // A renewal without an answer changes nothing yet: the claim still lives.
        let lives = entry.claim == ClaimState::Published;
        if !(lives && matches!(claim, ClaimState::Waiting(_))) {
            entry.claim = claim;
        }
        entry.due = Due::after(wait);
        drop(entries);
        self.tell();
    }

    /// Tells the responder which names are ours.
    fn tell(&self) {
        let held = self
            .lock()
            .iter()
            .filter(|entry| entry.claim == ClaimState::Published)
            .map(|entry| entry.label)
            .collect();
        self.held.send_replace(held);
    }

    fn remember(&self) -> std::result::Result<(), NameError> {
        let labels: Vec<Label> = self
            .lock()
            .iter()
            .filter(|entry| entry.remembered)
            .map(|entry| entry.label)
            .collect();
        self.state
            .keep_names(&labels)
            .map_err(NameError::NotRemembered)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Name>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(label: Label, configured: bool, remembered: bool) -> Name {
    Name {
        name: label.host(),
        claim: ClaimState::Claiming,
        configured,
        remembered,
        label,
        due: Due::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(configured: &[&str], remembered: &[&str]) -> (tempfile::TempDir, Names) {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(directory.path()).unwrap());
        let parse = |names: &[&str]| -> Vec<Label> {
            names.iter().map(|name| name.parse().unwrap()).collect()
        };
        state.keep_names(&parse(remembered)).unwrap();
        let names = Names::load(&parse(configured), state).unwrap();
        (directory, names)
    }

    fn claim(names: &Names, at: usize) -> ClaimState {
        names.list()[at].claim.clone()
    }

    #[test]
    fn names_of_both_kinds_once_each() {
        let (_directory, names) = names(&["a", "b"], &["b", "c"]);
        let list: Vec<(String, bool)> = names
            .list()
            .into_iter()
            .map(|name| (name.name, name.configured))
            .collect();
        let expected = [("a.anon", true), ("b.anon", true), ("c.anon", false)];
        assert_eq!(
            list,
            expected.map(|(name, configured)| (name.to_owned(), configured))
        );
    }

    #[test]
    fn what_is_held_follows_the_directory() {
        let (_directory, names) = names(&["a"], &[]);
        let label: Label = "a".parse().unwrap();
        let held = names.held();
        assert!(held.borrow().is_empty());
        names.note(label, &Ok(()));
        assert_eq!(*held.borrow(), [label]);
        // Not answered: still ours. Refused: not.
        names.note(label, &Err(QueryError::Timeout("x".into())));
        assert_eq!(claim(&names, 0), ClaimState::Published);
        assert_eq!(*held.borrow(), [label]);
        names.note(label, &Err(QueryError::Refused("taken".into())));
        assert_eq!(claim(&names, 0), ClaimState::Refused("taken".into()));
        assert!(held.borrow().is_empty());
    }

    #[test]
    fn another_configuration_is_as_a_start_with_it() {
        let (_directory, names) = names(&["a", "b"], &["b", "c"]);
        let label = |text: &str| -> Label { text.parse().unwrap() };
        names.note(label("a"), &Ok(()));
        names.note(label("b"), &Ok(()));
        let held = names.held();
        names.configure(&[label("c"), label("d")]);
        let list: Vec<(String, bool, bool)> = names
            .list()
            .into_iter()
            .map(|name| {
                (
                    name.name,
                    name.configured,
                    name.claim == ClaimState::Published,
                )
            })
            .collect();
        // What was claimed is not claimed again.
        let expected = [
            ("b.anon", false, true),
            ("c.anon", true, false),
            ("d.anon", true, false),
        ];
        let owned =
            |(name, configured, published): (&str, _, _)| (name.to_owned(), configured, published);
        assert_eq!(list, expected.map(owned));
        assert_eq!(*held.borrow(), [label("b")]);
        // One that a command withdrew comes back, as the configuration says.
        assert!(names.unpublish(label("d")).unwrap());
        names.configure(&[label("d")]);
        assert!(names.list().iter().any(|name| name.name == "d.anon"));
        assert_eq!(names.state.names().unwrap(), [label("b"), label("c")]);
    }

    #[test]
    fn unpublishing_is_remembered() {
        let (_directory, names) = names(&["a"], &["b"]);
        let (a, b): (Label, Label) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(names.unpublish(a).unwrap());
        assert_eq!(names.state.names().unwrap(), [b]);
        assert!(!names.unpublish(b).unwrap());
        assert_eq!(names.state.names().unwrap(), []);
        assert!(names.is_empty());
        assert!(
            names
                .unpublish(b)
                .unwrap_err()
                .to_string()
                .contains("b.anon")
        );
    }

    #[test]
    fn names_as_json() {
        let (_directory, names) = names(&["a"], &[]);
        names.note(
            "a".parse().unwrap(),
            &Err(QueryError::Refused("taken".into())),
        );
        let json = serde_json::to_value(names.list()).unwrap();
        let expected = serde_json::json!([
            { "name": "a.anon", "state": "refused", "reason": "taken", "configured": true }
        ]);
        assert_eq!(json, expected);
    }
}
