//! Addresses that lead nowhere, for a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Addresses that are refused at most.
pub const MAX_REFUSALS: usize = 1024;
/// How long packets to an unreachable peer are refused at once.
pub const UNREACHABLE: Duration = Duration::from_secs(10);
/// How long packets to an address that nobody has are refused without asking again.
pub const NOBODY: Duration = Duration::from_secs(4);
/// How often a peer that is being refused is tried, if packets ask for it.
pub const RETRY: Duration = Duration::from_secs(2);

struct Refusal {
    until: Instant,
    retry: Option<Instant>,
}

/// Addresses whose packets are refused at once.
#[derive(Default)]
pub struct Refusals {
    refusals: HashMap<IpAddr, Refusal>,
}

/// What to do with a packet to an address without a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known against it.
    Free,
    /// It is refused; `retry` if the peer should be tried again meanwhile.
    Refused {
        /// Whether to try.
        retry: bool,
    },
}

impl Refusals {
    /// Refuses packets to an unreachable peer for a while; it is tried again if they go on.
    pub fn unreachable(&mut self, address: IpAddr, now: Instant) {
        self.add(
            address,
            Refusal {
                until: now + UNREACHABLE,
                retry: Some(now + RETRY),
            },
            now,
        );
    }

    /// Refuses packets to an address that nobody has, for a while.
    pub fn nobody(&mut self, address: IpAddr, now: Instant) {
        self.add(
            address,
            Refusal {
                until: now + NOBODY,
                retry: None,
            },
            now,
        );
    }

    fn add(&mut self, address: IpAddr, refusal: Refusal, now: Instant) {
        if self.refusals.len() >= MAX_REFUSALS {
            self.refusals.retain(|_, refusal| refusal.until > now);
        }
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.insert(address, refusal);
        }
    }

    /// How a packet to an address stands.
    pub fn standing(&mut self, address: &IpAddr, now: Instant) -> Standing {
        let Some(refusal) = self.refusals.get_mut(address) else {
            return Standing::Free;
        };
        if now >= refusal.until {
            self.refusals.remove(address);
            return Standing::Free;
        }
        let retry = refusal.retry.is_some_and(|at| now >= at);
        if retry {
            refusal.retry = Some(now + RETRY);
        }
        Standing::Refused { retry }
    }

    /// The peer can be reached.
    pub fn clear(&mut self, address: &IpAddr) {
        self.refusals.remove(address);
    }
}
