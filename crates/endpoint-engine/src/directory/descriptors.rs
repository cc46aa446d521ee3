//! Descriptors that are known, for a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mixline_protocol::address;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::ServiceDescriptor;
use mixline_protocol::time::UnixTime;

use crate::clock::Now;

/// At most so many descriptors are kept; the least recently learnt goes first.
pub const MAX_DESCRIPTORS: usize = 512;
/// How long one is used without asking again.
pub const FRESH: Duration = Duration::from_secs(300);

struct Known {
    descriptor: ServiceDescriptor,
    learnt: Instant,
}

/// Descriptors by ID, and IDs by address.
#[derive(Default)]
pub struct Descriptors {
    known: HashMap<AnonymousId, Known>,
    by_ipv4: HashMap<IpAddr, AnonymousId>,
    by_ipv6: HashMap<IpAddr, AnonymousId>,
}

impl Descriptors {
    /// Keeps a verified descriptor, unless a newer one of the same ID is known.
    pub fn learn(&mut self, descriptor: ServiceDescriptor, now: Instant) {
        let id = descriptor.id;
        if self
            .known
            .get(&id)
            .is_some_and(|old| old.descriptor.version > descriptor.version)
        {
            return;
        }
        self.forget(&id);
        if self.known.len() >= MAX_DESCRIPTORS {
            let age = |known: &Known| now.saturating_duration_since(known.learnt);
            let oldest = self
                .known
                .iter()
                .max_by_key(|(_, known)| age(known))
                .map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.forget(&oldest);
            }
        }
        self.by_ipv6.insert(address::ipv6(&id).into(), id);
        if let Some(lease) = &descriptor.lease {
            self.by_ipv4.insert(lease.ipv4.into(), id);
        }
        self.known.insert(
            id,
            Known {
                descriptor,
                learnt: now,
            },
        );
    }

    /// Forgets what is known of an ID.
    pub fn forget(&mut self, id: &AnonymousId) {
        if let Some(known) = self.known.remove(id) {
            self.by_ipv6.remove(&address::ipv6(id).into());
            if let Some(lease) = known.descriptor.lease {
                // The address may have been learnt again, with a newer lease of somebody else.
                let ipv4 = lease.ipv4.into();
                if self.by_ipv4.get(&ipv4) == Some(id) {
                    self.by_ipv4.remove(&ipv4);
                }
            }
        }
    }

    /// The descriptor of an ID, if it is fresh enough to be used.
    #[must_use]
    pub fn get(&self, id: &AnonymousId, now: Now) -> Option<&ServiceDescriptor> {
        let known = self.known.get(id)?;
        let fresh = now.instant.saturating_duration_since(known.learnt) < FRESH;
        (fresh && now.unix() < known.descriptor.expires).then_some(&known.descriptor)
    }

    /// The descriptor of an ID, however long ago it was learnt.
    #[must_use]
    pub fn last_known(&self, id: &AnonymousId) -> Option<&ServiceDescriptor> {
        self.known.get(id).map(|known| &known.descriptor)
    }

    /// When the descriptor of an ID was learnt.
    #[must_use]
    pub fn learnt(&self, id: &AnonymousId) -> Option<Instant> {
        self.known.get(id).map(|known| known.learnt)
    }

    /// The descriptor of the ID that has an address.
    #[must_use]
    pub fn at(&self, address: &IpAddr, now: Now) -> Option<&ServiceDescriptor> {
        let table = if address.is_ipv4() {
            &self.by_ipv4
        } else {
            &self.by_ipv6
        };
        let descriptor = self.get(table.get(address)?, now)?;
        let lasts = |until: UnixTime| now.unix() < until;
        let held = descriptor.lease.is_some_and(|lease| lasts(lease.expires));
        (address.is_ipv6() || held).then_some(descriptor)
    }

    /// Drops what is too old to be used.
    pub fn expire(&mut self, now: Now) {
        let old: Vec<AnonymousId> = self
            .known
            .keys()
            .filter(|id| self.get(id, now).is_none())
            .copied()
            .collect();
        for id in old {
            self.forget(&id);
        }
    }
}
