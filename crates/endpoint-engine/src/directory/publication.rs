//! The own descriptor, and how far its publication is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_protocol::records::ServiceDescriptor;
use mixline_protocol::time::UnixTime;

use crate::command::RequestNumber;
use crate::keys::TailKey;

/// A publication that failed is tried again after this ...
pub const FIRST_RETRY: Duration = Duration::from_secs(2);
/// ... which doubles up to this.
pub const LAST_RETRY: Duration = Duration::from_secs(60);

/// The own descriptor.
pub struct Publication {
    /// Public tails.
    pub tails: Vec<TailKey>,
    /// The descriptor as it was signed last.
    pub descriptor: Option<Arc<ServiceDescriptor>>,
    /// When a descriptor last had another suggested effort than the one before.
    pub suggested: Option<Instant>,
    /// Whether the outside has not seen it yet.
    pub changed: bool,
    /// Since when it does not say what it should.
    pub stale: Option<Instant>,
    /// Which version the directory has.
    pub published: u64,
    /// When it accepted that, unix seconds.
    pub published_at: u64,
    /// When it may be published again.
    pub next: Instant,
    /// The time between two tries.
    pub retry: Duration,
    /// Who waits for a descriptor to be there, and until when.
    pub waiting: Vec<(Instant, RequestNumber)>,
    /// Until when the directory may have a descriptor that offers tails; none if it has none.
    pub offered_until: Option<UnixTime>,
    /// Nothing is offered any more.
    pub withdrawn: bool,
}

impl Publication {
    /// Nothing yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            tails: Vec::new(),
            descriptor: None,
            suggested: None,
            changed: false,
            stale: None,
            published: 0,
            published_at: 0,
            next: now,
            retry: FIRST_RETRY,
            waiting: Vec::new(),
            offered_until: None,
            withdrawn: false,
        }
    }

    /// Something is to be offered again, as soon as there are tails.
    pub fn reopen(&mut self, now: Instant) {
        self.withdrawn = false;
        self.make_stale(now);
    }

    /// The descriptor, unless it says that nobody is here.
    #[must_use]
    pub fn offer(&self) -> Option<&Arc<ServiceDescriptor>> {
        self.descriptor
            .as_ref()
            .filter(|descriptor| !descriptor.tails.is_empty())
    }

    /// The descriptor has to say something else now.
    pub fn make_stale(&mut self, now: Instant) {
        self.stale.get_or_insert(now);
    }
}
