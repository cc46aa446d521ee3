//! One directory: it is given the record, and told again and again that the relay is there.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mixline_directory_client::{DirectoryClient, Error};
use mixline_protocol::identity::{NetworkId, X25519Public};
use mixline_protocol::records::{Heartbeat, Registration as Signed, RelayRecord};
use mixline_protocol::time::UnixTime;
use tokio::time::sleep;

use super::Shared;
use super::status::{Registered, RegistrationStatus};
use crate::standing::Standing;

/// How often a directory hears that the relay is there.
const EVERY: Duration = Duration::from_secs(20);
/// How soon it is tried again when that fails; doubled each time, up to [`EVERY`].
const RETRY: Duration = Duration::from_secs(1);

/// Which directory, and where it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which network it is of.
    pub network: NetworkId,
    /// Which version of the roster names it; 0 if it is alone.
    pub roster: u32,
    /// Its place there.
    pub index: usize,
    /// What the roster calls it.
    pub name: Option<String>,
    /// Where it is asked: at the next of these if one does not answer.
    pub urls: Vec<String>,
}

/// Why a directory does not have this relay, as an operator reads it.
#[derive(Debug, thiserror::Error)]
enum RegistrationError {
    /// The proof cannot be made.
    #[error("{0}")]
    Proof(mixline_protocol::Error),
    /// The directory was not reached, or said no.
    #[error("{0}")]
    Directory(#[from] Error),
}

/// What becomes of the relay at one directory.
pub struct AtDirectory {
    pub target: Target,
    pub shared: Arc<Shared>,
}

impl AtDirectory {
    /// Registers, and says again and again that the relay is there, or that it leaves.
    pub async fn run(self) {
        let mut shared = Shared::clone(&self.shared);
        let (mut at, mut wait) = (0, RETRY);
        let mut client = self.client(at);
        loop {
            let Some((session, record)) = self.known(&mut shared).await else {
                return;
            };
            let leaving = *shared.standing.borrow_and_update() != Standing::Present;
            let told = match &mut client {
                Ok(client) if leaving => self.say_goodbye(client, &session, &record).await,
                Ok(client) => self.tell(client, &session, &record).await,
                Err(error) => Err(error.clone().into()),
            };
            wait = match told {
                Ok(()) => {
                    self.told(&record, leaving);
                    if leaving {
                        // Gone for as long as the relay is.
                        if shared.standing.changed().await.is_err() {
                            return;
                        }
                        continue;
                    }
                    EVERY
                }
                Err(error) => {
                    self.failed(&error, &record);
                    if matches!(
                        error,
                        RegistrationError::Directory(Error::Unreachable { .. })
                    ) {
                        at += 1;
                        client = self.client(at);
                    }
                    if wait == EVERY {
                        RETRY
                    } else {
                        (wait * 2).min(EVERY)
                    }
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                // What is new in the record is not kept for the next time.
                Ok(()) = shared.record.changed() => {}
                Ok(()) = shared.standing.changed() => {}
            }
        }
    }

    fn client(&self, at: usize) -> Result<DirectoryClient, Error> {
        let urls = &self.target.urls;
        let url = urls.get(at % urls.len().max(1)).ok_or(Error::NoUrl)?;
        DirectoryClient::new(url, self.target.network)
    }

    /// The directory's session key, of the newest snapshot, and the relay's record, once there are both.
    async fn known(&self, shared: &mut Shared) -> Option<(X25519Public, Arc<RelayRecord>)> {
        loop {
            let record = shared.record.borrow_and_update().clone();
            let session = self.session(shared);
            if let (Some(session), Some(record)) = (session, record) {
                return Some((session, record));
            }
            if session.is_none() {
                let text = "the newest snapshot does not have this directory's session key yet";
                self.entry(|entry| entry.last_error = Some(text.into()));
            }
            tokio::select! {
                changed = shared.snapshots.changed() => changed.ok()?,
                changed = shared.record.changed() => changed.ok()?,
            }
        }
    }

    /// Also one of a descriptor whose life is over: it proves as much, and directories that have been away
    /// for long learn by it which relays there are.
    fn session(&self, shared: &mut Shared) -> Option<X25519Public> {
        let snapshot = shared.snapshots.borrow_and_update().clone()?;
        let entry = snapshot.directories.get(self.target.index)?;
        let same = snapshot.roster == self.target.roster;
        entry.service.as_ref().filter(|_| same).map(|of| of.session)
    }

    /// Registers the record if the directory does not have it, and says otherwise that the relay is there.
    async fn tell(
        &self,
        client: &mut DirectoryClient,
        session: &X25519Public,
        record: &RelayRecord,
    ) -> Result<(), RegistrationError> {
        let digest = record.digest();
        if self.entry(|entry| entry.has == Some(digest)) == Some(true) {
            let heartbeat = self.heartbeat(session, record, false)?;
            match client.heartbeat(&heartbeat).await {
                Err(Error::NotRegistered { .. }) => {}
                other => return Ok(other?),
            }
        }
        let heartbeat = self.heartbeat(session, record, false)?;
        let signed = Signed {
            heartbeat,
            record: record.clone(),
        };
        Ok(client.register(&signed).await?)
    }

    async fn say_goodbye(
        &self,
        client: &mut DirectoryClient,
        session: &X25519Public,
        record: &RelayRecord,
    ) -> Result<(), RegistrationError> {
        let heartbeat = self.heartbeat(session, record, true)?;
        match client.heartbeat(&heartbeat).await {
            // Whom it does not know it does not list.
            Err(Error::NotRegistered { .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    fn heartbeat(
        &self,
        session: &X25519Public,
        record: &RelayRecord,
        leaving: bool,
    ) -> Result<Heartbeat, RegistrationError> {
        let shared = &self.shared;
        let heartbeat = Heartbeat::new(
            record.descriptor.id,
            shared.next_version(record.descriptor.version),
            (*shared.load.borrow(), leaving),
            record.digest(),
            (&shared.link, session),
        );
        heartbeat.map_err(RegistrationError::Proof)
    }

    fn told(&self, record: &RelayRecord, leaving: bool) {
        let who = self.who();
        self.entry(|entry| {
            let anew = entry.last_success.is_none() || entry.last_error.is_some();
            if leaving {
                tracing::info!("withdrawn from {who}");
            } else if anew || entry.withdrawn {
                tracing::info!("registered with {who}");
            }
            entry.last_success = Some(UnixTime::from(SystemTime::now()));
            entry.last_error = None;
            entry.withdrawn = leaving;
            entry.has = (!leaving).then(|| record.digest());
            entry.forbids = None;
        });
    }

    fn failed(&self, error: &RegistrationError, record: &RelayRecord) {
        let (who, text) = (self.who(), error.to_string());
        self.entry(|entry| {
            if entry.last_error.as_ref() != Some(&text) {
                tracing::warn!("not registered with {who}: {text}; trying again");
            }
            entry.last_error = Some(text);
            if let RegistrationError::Directory(error) = error {
                let forbids = error.is_forbidden().then(|| record.digest());
                entry.forbids = forbids.or(entry.forbids);
            }
        });
    }

    fn who(&self) -> String {
        let name = self.target.name.as_ref();
        name.map_or("the directory".into(), |name| format!("directory {name}"))
    }

    /// What is known of it. None if it is no directory of the network any more.
    fn entry<T>(&self, look: impl FnOnce(&mut Registered) -> T) -> Option<T> {
        let mut status: MutexGuard<'_, RegistrationStatus> = self
            .shared
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        status.directories.get_mut(self.target.index).map(look)
    }
}
