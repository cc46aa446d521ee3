//! What is sent to addresses of relays where they have not answered yet.
//!
//! A descriptor has up to four addresses. The first one is where the relay registers from, as far as the directory
//! checks sources; the others may be anybody's. Who writes somebody else's address into a descriptor, and builds paths
//! to that relay, has every relay send handshakes there. So to an address where the relay in question has not
//! answered, and to its network, little is sent, no matter in how many descriptors it is; that *another* relay is
//! there makes no difference. An address has answered for a relay when the initiation that was sent there was
//! answered, or the relay has used a session that it had begun there.
//!
//! First addresses have a bound of their own, a wide one: nobody else can use it up. The bound of all other
//! addresses is shared by where those come from who name them (the /16 or /32 of their first address): a relay's second
//! address comes up in its turn, however many relays of a few networks name it too.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mixline_protocol::identity::ShortId;
use mixline_protocol::rate_limit::{Rate, RateLimiter, site};
use mixline_protocol::shares::Shares;

use super::known_relays::Relay;
use super::prefix::{Prefix, Provider};

/// Initiations to one address (an IPv6 /64) that is no relay's first and where nobody has answered: at most
/// 15 in the first minute and 8 in each later one ...
pub const TO_ONE_ADDRESS: Rate = Rate {
    burst: 8,
    interval: Duration::from_millis(7500),
};
/// ... of which relays of one network have 5 and 2.
pub const OF_ONE_NETWORK: Rate = Rate {
    burst: 3,
    interval: Duration::from_secs(30),
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
/// Of which, to addresses that are no first ones, relays of one network have a quarter.
const TO_ONE_NETWORK_OF_ONE: Rate = Rate {
    burst: 64,
    interval: Duration::from_secs(1),
};
/// Addresses, and networks, that are told apart: as many as descriptors can have. Where there are more, as
/// descriptors change, nothing is sent to the newest until others have recovered; addresses have shares by network.
const TOLD_APART: usize = 16_384;

/// Where relays have answered, and how much may be sent to the rest.
pub struct Unproven {
    answered: HashSet<(ShortId, SocketAddr)>,
    first: Budget,
    other: Budget,
    /// Of the other, by who names the address.
    shares: NamedBy,
}

struct Budget {
    addresses: RateLimiter<IpAddr, Shares>,
    networks: RateLimiter<Prefix>,
}

/// What relays of one network may have sent to an address that they name, and to its network.
struct NamedBy {
    addresses: RateLimiter<(Provider, IpAddr)>,
    networks: RateLimiter<(Provider, Prefix)>,
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
            shares: NamedBy {
                addresses: limiter(OF_ONE_NETWORK),
                networks: limiter(TO_ONE_NETWORK_OF_ONE),
            },
        }
    }
}

fn limiter<K: Eq + Hash>(rate: Rate) -> RateLimiter<K> {
    RateLimiter::new(rate, TOLD_APART)
}

impl Unproven {
    /// Whether an initiation for this relay may be sent there now; counts it if so.
    pub fn may_send(
        &mut self,
        short: ShortId,
        relay: &Relay,
        to: SocketAddr,
        now: Instant,
    ) -> bool {
        if self.answered.contains(&(short, to)) {
            return true;
        }
        let (address, network) = (site(to.ip()), Prefix::of(to));
        let budget = if relay.first == Some(to) {
            &mut self.first
        } else {
            let Some(first) = relay.first else {
                return false;
            };
            let by = Provider::of(first.ip());
            let shares = &mut self.shares;
            if !shares.addresses.admit((by, address), now)
                || !shares.networks.admit((by, network), now)
            {
                return false;
            }
            &mut self.other
        };
        budget.addresses.admit(address, now) && budget.networks.admit(network, now)
    }

    /// A relay has been found there.
    pub fn answered(&mut self, relay: ShortId, at: SocketAddr) {
        self.answered.insert((relay, at));
    }

    /// A relay has not answered for long.
    pub fn silent(&mut self, relay: ShortId) {
        self.answered.retain(|(short, _)| *short != relay);
    }

    /// Forgets what answered at other addresses than relays have now.
    pub fn keep_only(&mut self, advertised: &HashSet<(ShortId, SocketAddr)>) {
        self.answered.retain(|at| advertised.contains(at));
    }
}
