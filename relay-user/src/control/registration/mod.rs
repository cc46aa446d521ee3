//! Telling the directories that the relay is there, what it can do, and how busy it is.
//!
//! All of them have the same record of it, which is made anew when something in it changes; each hears from
//! the relay by itself, so that one that is away keeps none from the others.

mod directory;
mod load;
mod record;
mod status;
mod versions;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mixline_directory_client::Known;
use mixline_protocol::identity::{IdentityKey, X25519Secret};
use mixline_protocol::records::{OnionKeys, RelayRecord, Snapshot};
use mixline_protocol::time::UnixTime;
use mixline_relay_engine::outcome::Outcome;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::SharedOnionKeys;
use crate::reload::Offer;
use crate::standing::Standing;
use crate::state_dir::StateDir;
use crate::workers::WorkerStatistics;
use directory::{AtDirectory, Target};
use load::Load;
use record::Maker;

pub use status::{Registered, RegistrationStatus};
pub use versions::Versions;

/// How often it is looked whether there is something new to say; and before there is a first record.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_FIRST: Duration = Duration::from_millis(50);

/// What a record says, and who registers it.
pub struct Registration {
    /// Signs records.
    pub identity: Arc<IdentityKey>,
    /// The link key.
    pub link: X25519Secret,
    /// What may change while the relay runs.
    pub offer: watch::Receiver<Offer>,
    /// How the relay stands.
    pub standing: watch::Receiver<Standing>,
    /// The newest snapshot.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The newest roster.
    pub known: watch::Receiver<Known>,
    /// The onion keys.
    pub onion: Arc<SharedOnionKeys>,
    /// What the workers count.
    pub workers: Vec<Arc<WorkerStatistics>>,
    /// Versions of all that it says.
    pub versions: Arc<Versions>,
    /// Where those are stored.
    pub state: Arc<StateDir>,
    /// How it goes.
    pub status: Arc<Mutex<RegistrationStatus>>,
    /// Datagrams a second relayed of late.
    pub load: watch::Sender<u32>,
}

/// What there is to say, for who says it to one directory.
#[derive(Clone)]
struct Shared {
    link: X25519Secret,
    record: watch::Receiver<Option<Arc<RelayRecord>>>,
    standing: watch::Receiver<Standing>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    load: watch::Receiver<u32>,
    versions: Arc<Versions>,
    state: Arc<StateDir>,
    status: Arc<Mutex<RegistrationStatus>>,
}

impl Shared {
    /// A version beyond all before it.
    fn next_version(&self, known: u64) -> u64 {
        next_version(&self.versions, &self.state, known)
    }
}

fn next_version(versions: &Versions, state: &StateDir, known: u64) -> u64 {
    versions.next(known, |before| {
        if let Err(error) = state.store_version(before) {
            tracing::warn!("{error}; after a restart with a slow clock, directories may refuse");
        }
    })
}

impl Registration {
    /// Registers with all directories of the network, again and again, once there are onion keys.
    pub async fn run(mut self) {
        // Without a snapshot there are no onion keys, since how long they live is not known.
        let mut snapshots = self.snapshots.clone();
        if snapshots.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut maker = Maker::new(Arc::clone(&self.identity), self.link.public());
        let mut load = Load::new(self.relayed());
        let made = watch::Sender::new(None);
        let (mut targets, mut tasks) = (Vec::new(), JoinSet::new());
        loop {
            self.load
                .send_replace(load.measure(self.relayed(), Instant::now()));
            let wanted = self.targets();
            if wanted != targets {
                self.show(&wanted);
                tasks = self.tell(&wanted, &made);
                targets = wanted;
            }
            self.make(&mut maker, &made);
            let first = made.borrow().is_none();
            tokio::select! {
                () = tokio::time::sleep(if first { LOOK_FIRST } else { LOOK }) => {}
                Ok(()) = self.offer.changed() => {}
                Ok(()) = self.known.changed() => {}
                // They end when the relay does.
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    /// The directories of the network.
    fn targets(&self) -> Vec<Target> {
        let known = self.known.borrow();
        let network = known.network();
        let Some(roster) = known.roster() else {
            return vec![Target {
                network,
                roster: 0,
                index: 0,
                name: None,
                urls: self.offer.borrow().directories.clone(),
            }];
        };
        let members = roster.members.iter().enumerate();
        members
            .map(|(index, member)| Target {
                network,
                roster: roster.version,
                index,
                name: Some(member.name.clone()),
                urls: vec![member.url.clone()],
            })
            .collect()
    }

    /// What is known of directories that stay is kept.
    fn show(&self, targets: &[Target]) {
        let quorum = self.known.borrow().roster().map_or(1, |of| of.quorum());
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let directories = targets.iter().map(|target| {
            let url = target.urls.first().cloned().unwrap_or_default();
            let before = status.directories.iter().find(|of| of.url == url);
            Registered {
                name: target.name.clone(),
                url,
                ..before.cloned().unwrap_or_default()
            }
        });
        *status = RegistrationStatus {
            directories: directories.collect(),
            quorum,
        };
    }

    fn tell(
        &self,
        targets: &[Target],
        made: &watch::Sender<Option<Arc<RelayRecord>>>,
    ) -> JoinSet<()> {
        let shared = Arc::new(Shared {
            link: self.link.clone(),
            record: made.subscribe(),
            standing: self.standing.clone(),
            snapshots: self.snapshots.clone(),
            load: self.load.subscribe(),
            versions: Arc::clone(&self.versions),
            state: Arc::clone(&self.state),
            status: Arc::clone(&self.status),
        });
        let mut tasks = JoinSet::new();
        for target in targets {
            let at = AtDirectory {
                target: target.clone(),
                shared: Arc::clone(&shared),
            };
            tasks.spawn(at.run());
        }
        tasks
    }

    /// Makes the record that counts now.
    fn make(&self, maker: &mut Maker, made: &watch::Sender<Option<Arc<RelayRecord>>>) {
        let now = UnixTime::from(SystemTime::now());
        let Some(onion) = self.published(now) else {
            // The control plane is about to make them.
            return;
        };
        let last = made.borrow().clone();
        if last.is_some_and(|last| self.is_forbidden(&last)) {
            // A directory that checks wants the address first that this came from, and which one that is the
            // kernel decides, or a router. One that is full, or asked too often, is content with the address,
            // and others count on its being the first.
            maker.rotate();
        }
        let known = self.known_version();
        let next = || next_version(&self.versions, &self.state, known);
        let offer = self.offer.borrow().clone();
        match maker.record(&offer, onion, now, known, next) {
            Ok(record) => {
                made.send_if_modified(|last| {
                    let differs = last.as_ref() != Some(&record);
                    *last = Some(record);
                    differs
                });
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    fn published(&self, now: UnixTime) -> Option<OnionKeys> {
        let onion = self.onion.lock();
        let published = onion.as_ref().map(|onion| onion.published(now));
        published.filter(|keys| !keys.is_empty())
    }

    fn is_forbidden(&self, record: &RelayRecord) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.is_forbidden(&record.digest())
    }

    fn failed(&self, text: &str) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        for directory in &mut status.directories {
            if directory.last_error.as_deref() != Some(text) {
                tracing::warn!("not registered: {text}");
            }
            directory.last_error = Some(text.to_owned());
        }
    }

    fn relayed(&self) -> u64 {
        let of = |worker: &Arc<WorkerStatistics>| {
            let counters = worker.counters();
            counters.of(Outcome::Forwarded) + counters.of(Outcome::Delivered)
        };
        self.workers.iter().map(of).sum()
    }

    /// The version that the directories have of us: this machine's clock may have been ahead, in a life of
    /// which nothing is stored.
    fn known_version(&self) -> u64 {
        let own = self.identity.relay_id();
        let snapshot = self.snapshots.borrow();
        let mut relays = snapshot.iter().flat_map(|snapshot| &snapshot.relays);
        let known = relays.find(|relay| relay.descriptor.id == own);
        known.map_or(0, |relay| relay.descriptor.version)
    }
}
