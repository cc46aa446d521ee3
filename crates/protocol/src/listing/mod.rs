//! Which relays a snapshot lists, and how much each of them counts.
//!
//! Functions of what all directories of a network have in common (what relays say of themselves, since when they
//! are listed, what was measured), in integers, and independent of the order in which relays are given: so whoever
//! computes it gets the same, directories before they sign and endpoints before they draw relays.
//!
//! - [`choose`] leaves out relays that name what another one has: keys, addresses, a third place at one site.
//! - [`capacities`] puts what was measured in the place of what is claimed.
//! - [`weights`] bounds each relay, and each network (IPv4 /16, IPv6 /32), by the median of networks.

mod candidates;
mod capacities;
mod weights;

use std::collections::HashMap;
use std::net::IpAddr;

pub use candidates::{Candidate, Identified, MOST_AT_A_SITE, Refused, Thing, choose};
pub use capacities::{Capacity, UNMEASURED_PART, capacities};
pub use weights::{Claim, MOST_MEDIANS, UNIT, weights};

/// A network so wide that relays in one are likely to be one operator's, and relays in many are dear. No two
/// relays of a head or tail share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Neighbourhood {
    /// An IPv4 /16.
    V4([u8; 2]),
    /// An IPv6 /32.
    V6([u8; 4]),
}

impl Neighbourhood {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.octets();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// The middle one; of an even number the greater of the two in the middle.
fn median(mut of: Vec<u64>) -> Option<u64> {
    of.sort_unstable();
    of.get(of.len() / 2).copied()
}

/// The median of the medians of networks, those that relays name first. However many relays there are in one
/// network, they move it as little as one does.
fn median_of_networks<'a>(
    relays: impl Iterator<Item = (Option<&'a Neighbourhood>, u64)>,
) -> Option<u64> {
    let mut networks: HashMap<_, Vec<u64>> = HashMap::new();
    for (network, capacity) in relays {
        networks.entry(network).or_default().push(capacity);
    }
    median(networks.into_values().filter_map(median).collect())
}
