//! How often somebody is tried who may never have asked for it.
//!
//! A relay is tried where it says that it is, and it can say anything. Four initiations go to an address in an
//! attempt; so attempts at one site, and in its network, are few, however many relays name it. Of those few, relays of
//! one network have a part, so that a relay's second address comes up whoever else names it. Where a relay has
//! registered from nobody else uses up what there is: that address has answered already, over TCP.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mixline_protocol::rate_limit::{Rate, RateLimiter, site};
use mixline_protocol::shares::{Network, Shares, networks};

/// Attempts at a site (an IPv4 address, an IPv6 /64) of relays that have registered from there.
pub const AT_ITS_OWN: Rate = Rate {
    burst: 256,
    interval: Duration::from_millis(50),
};
/// The same where nobody checks where registrations come from, of relays that say that first.
pub const AT_A_FIRST: Rate = Rate {
    burst: 64,
    interval: Duration::from_millis(500),
};
/// Attempts at a site of relays that have registered from elsewhere ...
pub const AT_A_SITE: Rate = Rate {
    burst: 8,
    interval: Duration::from_secs(30),
};
/// ... of which relays of one network (an IPv4 /16, an IPv6 /32) have so many.
pub const OF_ONE_NETWORK: Rate = Rate {
    burst: 3,
    interval: Duration::from_secs(90),
};
/// The same for all of an IPv4 /24, or IPv6 /48 ...
pub const AROUND_A_SITE: Rate = Rate {
    burst: 256,
    interval: Duration::from_secs(1),
};
/// ... and relays of one network.
pub const AROUND_OF_ONE_NETWORK: Rate = Rate {
    burst: 64,
    interval: Duration::from_secs(4),
};
/// Sites and networks that are told apart. Past that nothing new is tried until others have recovered; sites have
/// shares by network.
const TOLD_APART: usize = 16_384;

/// What has been sent lately.
pub struct Budget {
    own: RateLimiter<IpAddr, Shares>,
    first: RateLimiter<IpAddr, Shares>,
    sites: RateLimiter<IpAddr, Shares>,
    around: RateLimiter<Network>,
    of_one: RateLimiter<(Network, IpAddr)>,
    around_of_one: RateLimiter<(Network, Network)>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            own: RateLimiter::by_network(AT_ITS_OWN, TOLD_APART),
            first: RateLimiter::by_network(AT_A_FIRST, TOLD_APART),
            sites: RateLimiter::by_network(AT_A_SITE, TOLD_APART),
            around: RateLimiter::new(AROUND_A_SITE, TOLD_APART),
            of_one: RateLimiter::new(OF_ONE_NETWORK, TOLD_APART),
            around_of_one: RateLimiter::new(AROUND_OF_ONE_NETWORK, TOLD_APART),
        }
    }
}

impl Budget {
    /// Whether a relay that has registered from `source` may be tried at `to` now; counts it if so. `checked`: the
    /// registration did come from there.
    pub fn may_try(&mut self, to: IpAddr, source: IpAddr, checked: bool, now: Instant) -> bool {
        let (to, from) = (site(to), site(source));
        let [_, around, _] = networks(to);
        if to == from {
            return if checked {
                self.own.admit(to, now)
            } else {
                self.first.admit(to, now) && self.around.admit(around, now)
            };
        }
        let [by, ..] = networks(source);
        self.of_one.admit((by, to), now)
            && self.around_of_one.admit((by, around), now)
            && self.sites.admit(to, now)
            && self.around.admit(around, now)
    }
}
