//! What is sent to addresses of relays where nobody has answered yet.
//!
//! A descriptor has up to four addresses. The first one is where the relay registers from, as far as the directory
//! checks sources; the others may be anybody's. Who writes somebody else's address into a descriptor, and builds paths
//! to that relay, has every relay send handshakes there. So to an address, and to a network, that has not
//! answered, little is sent, no matter in how many descriptors it is. First addresses have a bound of their
//! own, a wide one: nobody else can use it up, so who names an honest relay's address keeps no link to it
//! from coming up.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mixline_protocol::rate_limit::{Rate, RateLimiter, site};
use mixline_protocol::shares::Shares;

use super::prefix::Prefix;

/// Initiations to one address (an IPv6 /64) that is no relay's first and where nobody has answered: at most
/// 10 in the first minute and 4 in each later one.
pub const TO_ONE_ADDRESS: Rate = Rate {
    burst: 6,
    interval: Duration::from_secs(15),
};
/// The same to one that is a relay's first: eight relays may be at one, and begin anew every five seconds.
pub const TO_ONE_FIRST: Rate = Rate {
    burst: 64,
    interval: Duration::from_millis(500),
};
/// The same to one network (an IPv4 /24 or IPv6 /48). A network may be full of relays, and this one
/// have just started.
pub const TO_ONE_NETWORK: Rate = Rate {
    burst: 256,
    interval: Duration::from_millis(250),
};
/// Addresses, and networks, that are told apart: as many as descriptors can have. Where there are more, as
/// descriptors change, nothing is sent to the newest until others have recovered; addresses have shares by network.
const TOLD_APART: usize = 16_384;

/// Where somebody has answered, and how much may be sent to the rest.
pub struct Unproven {
    answered: HashSet<SocketAddr>,
    first: Budget,
    other: Budget,
}

struct Budget {
    addresses: RateLimiter<IpAddr, Shares>,
    networks: RateLimiter<Prefix>,
}

impl Budget {
    fn new(to_one_address: Rate) -> Self {
        Self {
            addresses: RateLimiter::by_network(to_one_address, TOLD_APART),
            networks: RateLimiter::new(TO_ONE_NETWORK, TOLD_APART),
        }
    }
}

impl Default for Unproven {
    fn default() -> Self {
        Self {
            answered: HashSet::new(),
            first: Budget::new(TO_ONE_FIRST),
            other: Budget::new(TO_ONE_ADDRESS),
        }
    }
}

impl Unproven {
    /// Whether an initiation may be sent there now; counts it if so. `is_first`: whether it is the first
    /// address of the relay that it is for.
    pub fn may_send(&mut self, to: SocketAddr, is_first: bool, now: Instant) -> bool {
        let budget = if is_first {
            &mut self.first
        } else {
            &mut self.other
        };
        self.answered.contains(&to)
            || (budget.addresses.admit(site(to.ip()), now)
                && budget.networks.admit(Prefix::of(to), now))
    }

    /// A neighbour has authenticated from there.
    pub fn answered(&mut self, from: SocketAddr) {
        self.answered.insert(from);
    }

    /// Nobody has answered there for long.
    pub fn silent(&mut self, at: &[SocketAddr]) {
        for address in at {
            self.answered.remove(address);
        }
    }

    /// Forgets what answered at other addresses than these.
    pub fn keep_only(&mut self, advertised: &HashSet<SocketAddr>) {
        self.answered.retain(|at| advertised.contains(at));
    }
}
