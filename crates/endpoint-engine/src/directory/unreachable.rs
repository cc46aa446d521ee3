//! Addresses that lead nowhere, for a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// At most so many addresses are remembered.
pub const MAX_UNREACHABLE: usize = 1024;
/// How long packets to a peer that was not reached are rejected at once.
pub const NOT_REACHED: Duration = Duration::from_secs(10);
/// How long packets to an address that nobody has are rejected without asking again.
pub const NOBODY: Duration = Duration::from_secs(4);
/// How often a peer that was not reached is tried meanwhile, if packets ask for it.
pub const RETRY: Duration = Duration::from_secs(2);

struct Entry {
    /// Packets are rejected until then.
    until: Instant,
    /// When the peer is tried again; `None` if not before.
    retry: Option<Instant>,
}

/// Addresses whose packets are rejected at once.
#[derive(Default)]
pub struct Unreachable {
    addresses: HashMap<IpAddr, Entry>,
}

/// What to do with a packet to an address without a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known against it.
    Free,
    /// It is rejected; `retry` if the peer should be tried again meanwhile.
    Unreachable {
        /// Whether to try.
        retry: bool,
    },
}

impl Unreachable {
    /// A peer was not reached: its packets are rejected for a while, and it is tried again if they
    /// go on.
    pub fn not_reached(&mut self, address: IpAddr, now: Instant) {
        self.add(
            address,
            Entry {
                until: now + NOT_REACHED,
                retry: Some(now + RETRY),
            },
            now,
        );
    }

    /// Nobody has this address: packets to it are rejected for a while.
    pub fn nobody(&mut self, address: IpAddr, now: Instant) {
        self.add(
            address,
            Entry {
                until: now + NOBODY,
                retry: None,
            },
            now,
        );
    }

    fn add(&mut self, address: IpAddr, entry: Entry, now: Instant) {
        if self.addresses.len() >= MAX_UNREACHABLE {
            self.addresses.retain(|_, entry| entry.until > now);
        }
        if self.addresses.len() < MAX_UNREACHABLE {
            self.addresses.insert(address, entry);
        }
    }

    /// How a packet to an address stands.
    pub fn standing(&mut self, address: &IpAddr, now: Instant) -> Standing {
        let Some(entry) = self.addresses.get_mut(address) else {
            return Standing::Free;
        };
        if now >= entry.until {
            self.addresses.remove(address);
            return Standing::Free;
        }
        let retry = entry.retry.is_some_and(|at| now >= at);
        if retry {
            entry.retry = Some(now + RETRY);
        }
        Standing::Unreachable { retry }
    }

    /// What was tried from elsewhere says nothing about here.
    pub fn forget(&mut self) {
        self.addresses.retain(|_, entry| entry.retry.is_none());
    }

    /// The peer can be reached.
    pub fn clear(&mut self, address: &IpAddr) {
        self.addresses.remove(address);
    }
}
