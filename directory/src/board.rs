//! What the directory hands out: the newest snapshot; and what goes into the next one, of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mixline_protocol::records::{ServiceDescriptor, Snapshot};
use tokio::sync::watch;

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

impl Published {
    /// A snapshot that clients may keep for so many seconds without asking.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, max_age: u64) -> Self {
        let bytes = snapshot.encode();
        Self {
            etag: Snapshot::entity_tag(&bytes),
            bytes: bytes.into(),
            snapshot,
            max_age,
        }
    }
}

/// The newest snapshot, for those who ask, and the descriptor of this directory's own service, for those who make
/// the next one.
pub struct Board {
    newest: watch::Sender<Option<Arc<Published>>>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    service: Mutex<Option<Arc<ServiceDescriptor>>>,
    /// Grows when the directory's own tails change, or what is to be spent on coming through them.
    service_changes: AtomicU64,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            newest: watch::Sender::new(None),
            snapshots: watch::Sender::new(None),
            service: Mutex::default(),
            service_changes: AtomicU64::new(0),
        }
    }
}

impl Board {
    /// The newest snapshot; `None` before there is one.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Published>> {
        self.newest.borrow().clone()
    }

    /// The newest snapshot, and each one after it, for the directory's own endpoint.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.subscribe()
    }

    /// This is the newest from now on.
    pub fn publish(&self, published: Published) {
        self.snapshots
            .send_replace(Some(published.snapshot.clone()));
        self.newest.send_replace(Some(Arc::new(published)));
    }

    /// How this directory's endpoint is reached.
    #[must_use]
    pub fn service(&self) -> Option<Arc<ServiceDescriptor>> {
        self.service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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

    /// Grows when the service has changed in what others see of it.
    #[must_use]
    pub fn service_changes(&self) -> u64 {
        self.service_changes.load(Ordering::Acquire)
    }
}
