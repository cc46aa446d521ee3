//! Telling the directory that the relay is there, what it can do, and how busy it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mixline_directory_client::DirectoryClient;
use mixline_protocol::identity::{IdentityKey, SIGNATURE, X25519Public, X25519Secret};
use mixline_protocol::records::{
    MAX_TEXT, OnionKeys as Published, Registration as Signed, RelayDescriptor, Snapshot,
};
use mixline_protocol::time::UnixTime;
use mixline_relay_engine::outcome::Outcome;
use tokio::sync::watch;

use super::SharedOnionKeys;
use crate::reload::Offer;
use crate::standing::Standing;
use crate::workers::WorkerStatistics;

/// How often the relay registers.
const EVERY: Duration = Duration::from_secs(20);
/// How soon it tries again when that fails; doubled each time, up to [`EVERY`].
const RETRY: Duration = Duration::from_secs(1);
/// How long a descriptor lives. It is replaced long before.
const LIFE: u64 = 600;

/// How long the last descriptor of a relay that leaves lives: as short as clocks allow that are
/// not quite the same. After that the directory does not list the relay any more, and nobody who
/// has its descriptor uses it.
const FAREWELL: u64 = 10;

/// How registration goes, for people.
#[derive(Debug, Clone, Default)]
pub struct RegistrationStatus {
    /// When the directory last took a descriptor.
    pub last_success: Option<UnixTime>,
    /// What went wrong since, one line.
    pub last_error: Option<String>,
    /// Whether the last descriptor was a farewell.
    pub withdrawn: bool,
}

/// Why a registration failed, as an operator reads it.
#[derive(Debug, thiserror::Error)]
enum RegistrationError {
    /// The descriptor cannot be made: something in it is too long, or too much.
    #[error("{0}")]
    Descriptor(mixline_protocol::Error),
    /// The directory was not reached, or said no.
    #[error("{0}")]
    Directory(mixline_directory_client::Error),
}

/// What a descriptor says, and who registers it.
pub struct Registration {
    /// Signs descriptors.
    pub identity: Arc<IdentityKey>,
    /// The link key.
    pub link: X25519Secret,
    /// What may change while the relay runs.
    pub offer: watch::Receiver<Offer>,
    /// How the relay stands.
    pub standing: watch::Receiver<Standing>,
    /// The onion keys.
    pub onion: Arc<SharedOnionKeys>,
    /// What the workers count.
    pub workers: Vec<Arc<WorkerStatistics>>,
    /// How it goes.
    pub status: Arc<Mutex<RegistrationStatus>>,
    /// Datagrams a second relayed of late.
    pub load: watch::Sender<u32>,
}

impl Registration {
    /// Registers again and again, once there are onion keys.
    pub async fn run(
        mut self,
        mut client: DirectoryClient,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    ) {
        let mut url = self.offer.borrow().directory_url.clone();
        let mut version = 0;
        let mut wait = RETRY;
        let mut first = 0;
        let mut load = Load::new(self.relayed());
        // Without a snapshot there are no onion keys, since how long they live is not known.
        if snapshots.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            // Its session key, of the newest snapshot.
            let snapshot = snapshots.borrow().clone();
            let Some(directory) = snapshot.map(|of| of.directory_service.session) else {
                return;
            };
            let now = UnixTime::from(SystemTime::now());
            let onion = self.onion.lock().as_ref().map(|onion| onion.published(now));
            let published = match onion.filter(|onion| !onion.is_empty()) {
                Some(published) => published,
                None => {
                    // The control plane is about to make them.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            self.load
                .send_replace(load.measure(self.relayed(), Instant::now()));
            version = next_version(version, self.known_version(&snapshots));
            let leaving = *self.standing.borrow_and_update() != Standing::Present;
            let life = if leaving { FAREWELL } else { LIFE };
            let descriptor = self.describe(published, version, first, now, life);
            wait = match self.register(&mut client, &directory, descriptor).await {
                Ok(()) if leaving => {
                    // Gone for as long as the relay is.
                    if self.standing.changed().await.is_err() {
                        return;
                    }
                    self.find_directory(&mut url, &mut client);
                    continue;
                }
                Ok(()) => EVERY,
                Err(error) => {
                    self.failed(&error);
                    // A directory that checks wants the address first that this came from, and which one
                    // that is the kernel decides, or a router. One that is full, or asked too often, is
                    // content with the address, and others count on its being the first.
                    if matches!(
                        error,
                        RegistrationError::Directory(mixline_directory_client::Error::Refused {
                            forbidden: true,
                            ..
                        })
                    ) {
                        first += 1;
                    }
                    if wait == EVERY {
                        RETRY
                    } else {
                        (wait * 2).min(EVERY)
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // What is new in the descriptor is not kept for the next time.
                Ok(()) = self.offer.changed() => self.find_directory(&mut url, &mut client),
                Ok(()) = self.standing.changed() => {}
            }
        }
    }

    /// The directory may be somewhere else now.
    fn find_directory(&self, url: &mut String, client: &mut DirectoryClient) {
        let now = self.offer.borrow().directory_url.clone();
        if now != *url {
            match DirectoryClient::new(&now, *client.id()) {
                Ok(new) => *client = new,
                Err(error) => self.failed(&RegistrationError::Directory(error)),
            }
            *url = now;
        }
    }

    /// What the relay says of itself. `first`: how many of its addresses stand behind the others.
    fn describe(
        &self,
        onion: Published,
        version: u64,
        first: usize,
        now: UnixTime,
        life: u64,
    ) -> Result<RelayDescriptor, RegistrationError> {
        let mut offer = self.offer.borrow().clone();
        let addresses = offer.advertise.len().max(1);
        offer.advertise.rotate_left(first % addresses);
        let descriptor = RelayDescriptor {
            id: self.identity.relay_id(),
            version,
            issued: now,
            expires: now.plus(life),
            link: self.link.public(),
            onion,
            addresses: offer.advertise,
            capacity: offer.capacity,
            load: *self.load.borrow(),
            family: offer.family,
            name: offer.name,
            software: software(),
            signature: [0; SIGNATURE],
        };
        descriptor
            .sign(&self.identity)
            .map_err(RegistrationError::Descriptor)
    }

    async fn register(
        &self,
        client: &mut DirectoryClient,
        directory: &X25519Public,
        descriptor: Result<RelayDescriptor, RegistrationError>,
    ) -> Result<(), RegistrationError> {
        let descriptor = descriptor?;
        let (now, life) = (
            descriptor.issued,
            descriptor.expires.since(descriptor.issued),
        );
        let signed = Signed::new(descriptor, &self.link, directory)
            .map_err(RegistrationError::Descriptor)?;
        client
            .register(&signed)
            .await
            .map_err(RegistrationError::Directory)?;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let withdrawn = life == FAREWELL;
        if withdrawn {
            tracing::info!("withdrawn from the directory");
        } else if status.last_success.is_none() || status.last_error.is_some() || status.withdrawn {
            tracing::info!("registered with the directory");
        }
        *status = RegistrationStatus {
            last_success: Some(now),
            last_error: None,
            withdrawn,
        };
        Ok(())
    }

    fn failed(&self, error: &RegistrationError) {
        let text = error.to_string();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.last_error.as_ref() != Some(&text) {
            tracing::warn!("not registered: {text}; trying again");
        }
        status.last_error = Some(text);
    }

    fn relayed(&self) -> u64 {
        let of = |worker: &Arc<WorkerStatistics>| {
            let counters = worker.counters();
            counters.of(Outcome::Forwarded) + counters.of(Outcome::Delivered)
        };
        self.workers.iter().map(of).sum()
    }

    /// The version that the directory has of us: this machine's clock may have been ahead.
    fn known_version(&self, snapshots: &watch::Receiver<Option<Arc<Snapshot>>>) -> u64 {
        let own = self.identity.relay_id();
        let snapshot = snapshots.borrow();
        let known = snapshot
            .iter()
            .flat_map(|s| &s.relays)
            .find(|relay| relay.id == own);
        known.map_or(0, |relay| relay.version)
    }
}

/// A version beyond those used before: the time in milliseconds, if that is enough.
fn next_version(last: u64, known: u64) -> u64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    now.max(last.saturating_add(1)).max(known.saturating_add(1))
}

/// What this relay runs, for its descriptor.
fn software() -> String {
    let mut text = concat!("mixline-relay ", env!("CARGO_PKG_VERSION")).to_owned();
    text.truncate(MAX_TEXT);
    text
}

/// Datagrams a second between two looks.
struct Load {
    count: u64,
    at: Instant,
    last: u32,
}

impl Load {
    fn new(count: u64) -> Self {
        Self {
            count,
            at: Instant::now(),
            last: 0,
        }
    }

    fn measure(&mut self, count: u64, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        // A retry soon after a failure has seen too little to say anything new.
        if seconds >= 5.0 {
            self.last = ((count - self.count) as f64 / seconds) as u32;
            (self.count, self.at) = (count, now);
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow() {
        let first = next_version(0, 0);
        assert!(first > 1_700_000_000_000);
        assert!(next_version(first, 0) > first);
        assert_eq!(next_version(0, first * 2), first * 2 + 1);
        assert!(software().len() <= MAX_TEXT);
    }

    #[test]
    fn load_is_a_rate() {
        let mut load = Load::new(100);
        let at = load.at;
        assert_eq!(load.measure(300, at + Duration::from_secs(1)), 0);
        assert_eq!(load.measure(1100, at + Duration::from_secs(10)), 100);
        assert_eq!(load.measure(1100, at + Duration::from_secs(20)), 0);
    }
}
