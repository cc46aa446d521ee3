//! Making snapshots: when, of what, and handing them out.
//!
//! A snapshot is made anew when the network has changed in what paths are built by, but
//! not more often than the network's size allows ([`pace`]); when only loads have changed,
//! once a minute; and in any case when half of its life is over, so that what a client
//! fetches is always good for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mixline_protocol::identity::{IdentityKey, X25519Public};
use mixline_protocol::records::{ServiceDescriptor, Snapshot};
use mixline_protocol::time::UnixTime;
use tokio::sync::watch;

use crate::registry::Registry;
use crate::{Error, Result};

/// Seconds after which a snapshot is made anew though only loads and ends have changed.
const REFRESH: u64 = 60;
/// A descriptor of the directory's own that ends sooner than this is not published, seconds.
const LEAST_SERVICE_LIFE: u64 = 30;

/// The shortest time in seconds between two snapshots of a network with so many relays, and the
/// time for which clients need not ask again. Small networks come up fast; in large ones a
/// snapshot is large, and a single relay matters less.
#[must_use]
pub fn pace(relays: usize) -> u64 {
    (relays as u64 / 16).clamp(2, 60)
}

/// A snapshot as it is handed out.
#[derive(Debug)]
pub struct Published {
    /// What it says.
    pub snapshot: Arc<Snapshot>,
    /// Its encoding.
    pub bytes: axum::body::Bytes,
    /// Its entity tag, quotes included.
    pub etag: String,
    /// For how many seconds clients may keep it without asking.
    pub max_age: u64,
}

/// Makes the snapshots and holds the newest.
pub struct Publisher {
    registry: Arc<Registry>,
    key: Arc<IdentityKey>,
    session: X25519Public,
    /// A snapshot's life, seconds.
    validity: AtomicU64,
    service: Mutex<Option<Arc<ServiceDescriptor>>>,
    /// Grows when the directory's own tails change, what is to be spent on coming through them, or how long a snapshot lives.
    service_changes: AtomicU64,
    /// The changes that the newest snapshot has seen.
    seen: Mutex<(u64, u64)>,
    newest: watch::Sender<Arc<Published>>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
}

impl Publisher {
    /// A publisher with its first snapshot. `session` is the key of the directory's sessions,
    /// `validity` a snapshot's life in seconds.
    ///
    /// # Errors
    /// [`Error::Snapshot`].
    pub fn new(
        registry: Arc<Registry>,
        key: Arc<IdentityKey>,
        session: X25519Public,
        validity: u64,
        now: UnixTime,
    ) -> Result<Self> {
        let seen = (registry.changes(), 0);
        let first = Arc::new(make(&registry, &key, session, validity, None, now)?);
        let snapshots = watch::Sender::new(Some(first.snapshot.clone()));
        Ok(Self {
            registry,
            key,
            session,
            validity: AtomicU64::new(validity),
            service: Mutex::default(),
            service_changes: AtomicU64::new(0),
            seen: Mutex::new(seen),
            newest: watch::Sender::new(first),
            snapshots,
        })
    }

    /// The newest snapshot.
    #[must_use]
    pub fn newest(&self) -> Arc<Published> {
        self.newest.borrow().clone()
    }

    /// The newest snapshot, and each one after it, for the directory's own endpoint.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.subscribe()
    }

    /// The life in seconds of the snapshots to come.
    pub fn set_validity(&self, seconds: u64) {
        if self.validity.swap(seconds, Ordering::Relaxed) != seconds {
            self.service_changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// What the directory's endpoint publishes from now on.
    pub fn set_service(&self, descriptor: Option<Arc<ServiceDescriptor>>) {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        let offered = |d: &Option<Arc<ServiceDescriptor>>| {
            d.as_ref()
                .map(|d| (d.tails.clone(), d.effort))
                .unwrap_or_default()
        };
        if offered(&service) != offered(&descriptor) {
            self.service_changes.fetch_add(1, Ordering::AcqRel);
        }
        *service = descriptor;
    }

    /// Makes a new snapshot if it is time; says whether it did.
    ///
    /// # Errors
    /// [`Error::Snapshot`]; the one before stays.
    pub fn tick(&self, now: UnixTime) -> Result<bool> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = (
            self.registry.changes(),
            self.service_changes.load(Ordering::Acquire),
        );
        let newest = self.newest();
        let relays = newest.snapshot.relays.len().max(self.registry.live_count());
        if !is_due(&newest.snapshot, changes != *seen, pace(relays), now) {
            return Ok(false);
        }
        let service = self
            .service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (registry, key) = (&self.registry, &self.key);
        let made = make(
            registry,
            key,
            self.session,
            self.validity.load(Ordering::Relaxed),
            service.as_deref(),
            now,
        )?;
        *seen = changes;
        self.snapshots.send_replace(Some(made.snapshot.clone()));
        self.newest.send_replace(Arc::new(made));
        Ok(true)
    }
}

/// Whether the snapshot is to be replaced. A clock that was set back makes it due, too.
fn is_due(newest: &Snapshot, changed: bool, pace: u64, now: UnixTime) -> bool {
    let age = now.since(newest.issued);
    let half = newest.valid_until.since(newest.issued) / 2;
    now < newest.issued || age >= half.min(REFRESH) || (changed && age >= pace)
}

fn make(
    registry: &Registry,
    key: &IdentityKey,
    session: X25519Public,
    validity: u64,
    service: Option<&ServiceDescriptor>,
    now: UnixTime,
) -> Result<Published> {
    let usable = |d: &&ServiceDescriptor| {
        d.issued <= now && d.expires > now.plus(LEAST_SERVICE_LIFE) && !d.tails.is_empty()
    };
    let directory_service = match service.filter(usable) {
        Some(descriptor) => descriptor.clone(),
        None => without_tails(key, session, validity, now)?,
    };
    let relays: Vec<_> = registry
        .live_relays()
        .into_iter()
        .map(|r| (*r.descriptor).clone())
        .collect();
    let max_age = pace(relays.len());
    let snapshot = Snapshot {
        directory: key.anonymous_id(),
        issued: now,
        // Nothing in it outlives its parts.
        valid_until: now.plus(validity).min(directory_service.expires),
        parameters: registry.parameters(),
        relays,
        directory_service,
        signature: [0; 64],
    };
    let snapshot = snapshot.sign(key).map_err(Error::Snapshot)?;
    let bytes = snapshot.encode();
    Ok(Published {
        snapshot: Arc::new(snapshot),
        etag: Snapshot::entity_tag(&bytes),
        bytes: bytes.into(),
        max_age,
    })
}

/// The directory's descriptor while it cannot be reached through relays.
fn without_tails(
    key: &IdentityKey,
    session: X25519Public,
    validity: u64,
    now: UnixTime,
) -> Result<ServiceDescriptor> {
    let descriptor = ServiceDescriptor {
        id: key.anonymous_id(),
        version: now.0.saturating_mul(1000),
        issued: now,
        expires: now.plus(validity),
        session,
        effort: mixline_protocol::effort::EffortTerms::default(),
        lease: None,
        tails: Vec::new(),
        clients: None,
        signature: [0; 64],
    };
    descriptor.sign(key).map_err(Error::Snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tests::{NOW, registry, relay, service};
    use mixline_protocol::identity::X25519Secret;

    fn publisher() -> (Arc<Registry>, Publisher) {
        let registry = Arc::new(registry());
        let key = Arc::new(crate::registry::tests::directory_key());
        let session = X25519Secret::from_bytes([1; 32]).public();
        let publisher = Publisher::new(registry.clone(), key, session, 600, NOW).unwrap();
        (registry, publisher)
    }

    fn verify(published: &Published, now: UnixTime) -> Snapshot {
        let id = crate::registry::tests::directory_key().anonymous_id();
        Snapshot::decode_and_verify(&published.bytes, &id, now).unwrap()
    }

    #[test]
    fn a_relay_comes_and_goes() {
        let (registry, publisher) = publisher();
        assert!(verify(&publisher.newest(), NOW).relays.is_empty());
        registry.register_relay(relay(1, NOW), None, NOW).unwrap();
        // Not more often than the pace.
        assert!(!publisher.tick(NOW.plus(1)).unwrap());
        assert!(publisher.tick(NOW.plus(2)).unwrap());
        let first = publisher.newest();
        assert_eq!(verify(&first, NOW.plus(2)).relays, [relay(1, NOW)]);
        // Nothing new, nothing made.
        assert!(!publisher.tick(NOW.plus(10)).unwrap());
        assert_eq!(publisher.newest().etag, first.etag);
        // A minute of silence.
        registry.forget_silent(NOW.plus(60));
        assert!(!publisher.tick(NOW.plus(12)).unwrap());
        registry.forget_silent(NOW.plus(61));
        assert!(publisher.tick(NOW.plus(61)).unwrap());
        let after = publisher.newest();
        assert!(verify(&after, NOW.plus(61)).relays.is_empty());
        assert_ne!(after.etag, first.etag);
    }

    #[test]
    fn a_new_load_waits_for_the_refresh() {
        let (registry, publisher) = publisher();
        registry.register_relay(relay(1, NOW), None, NOW).unwrap();
        assert!(publisher.tick(NOW.plus(2)).unwrap());
        let key = crate::registry::tests::relay_key(1);
        let mut busy = relay(1, NOW.plus(20));
        busy.load += 1;
        registry
            .register_relay(busy.sign(&key).unwrap(), None, NOW.plus(20))
            .unwrap();
        assert!(!publisher.tick(NOW.plus(30)).unwrap());
        assert!(publisher.tick(NOW.plus(62)).unwrap());
        let mut moved = relay(1, NOW.plus(63));
        moved.addresses[0].set_port(7001);
        registry
            .register_relay(moved.sign(&key).unwrap(), None, NOW.plus(63))
            .unwrap();
        assert!(publisher.tick(NOW.plus(64)).unwrap());
    }

    #[test]
    fn the_directory_is_in_its_snapshot() {
        let (_, publisher) = publisher();
        assert!(
            verify(&publisher.newest(), NOW)
                .directory_service
                .tails
                .is_empty()
        );
        let own = service(99, 1, NOW);
        publisher.set_service(Some(Arc::new(own.clone())));
        assert!(publisher.tick(NOW.plus(2)).unwrap());
        assert_eq!(
            verify(&publisher.newest(), NOW.plus(2)).directory_service,
            own
        );
        // Nothing is published past its end, and no snapshot outlives it.
        let late = own.expires.minus(100);
        assert!(publisher.tick(late).unwrap());
        assert_eq!(publisher.newest().snapshot.valid_until, own.expires);
        assert!(publisher.tick(own.expires.minus(20)).unwrap());
        assert!(
            publisher
                .newest()
                .snapshot
                .directory_service
                .tails
                .is_empty()
        );
    }

    #[test]
    fn snapshots_are_renewed_in_time() {
        let (_, publisher) = publisher();
        for minute in 1..60 {
            let now = NOW.plus(60 * minute);
            assert!(publisher.tick(now).unwrap());
            assert!(publisher.newest().snapshot.valid_until >= now.plus(300));
        }
        assert!(publisher.tick(NOW).unwrap(), "the clock was set back");
        assert_eq!(publisher.newest().snapshot.issued, NOW);
    }

    #[test]
    fn pace_follows_size() {
        assert_eq!([pace(0), pace(8), pace(320), pace(4096)], [2, 2, 20, 60]);
    }
}
