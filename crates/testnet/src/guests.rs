//! Hosts that a benchmark adds to the network: honest newcomers, and those who attack it. Each has a
//! namespace and a wire of its own to the router.
//!
//! Their addresses are those of RFC 2544 and RFC 9637, which are for benchmarks and documentation and
//! in no route outside. What the router has no other route for goes to [`ATTACKERS`], so that answers to
//! forged addresses end there without a word, and nothing leaves the network.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::{Result, StepContext as _};
use crate::namespaces::{self, SETTINGS};
use crate::netns::{self, ip_in};
use crate::topology::ROUTER;

/// One host.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its namespace.
    pub namespace: &'static str,
    /// The router's end of its wire.
    wire: &'static str,
    /// Its address; the network is the /24 around it, the router's address in it ends in 1.
    pub ipv4: Ipv4Addr,
    /// The same for IPv6 and a /64.
    pub ipv6: Ipv6Addr,
}

/// Where clients and relays start that nobody knows yet.
pub const NEWCOMERS: Guest = Guest {
    namespace: "mixline-newcomers",
    wire: "newcomers",
    ipv4: Ipv4Addr::new(198, 18, 0, 2),
    ipv6: Ipv6Addr::new(0x3fff, 0x300, 0, 0, 0, 0, 0, 2),
};

/// Where attacks come from.
pub const ATTACKERS: Guest = Guest {
    namespace: "mixline-attackers",
    wire: "attackers",
    ipv4: Ipv4Addr::new(198, 19, 0, 2),
    ipv6: Ipv6Addr::new(0x3fff, 0x301, 0, 0, 0, 0, 0, 2),
};

/// A /60 all of whose addresses [`ATTACKERS`] has.
pub const SITE: (Ipv6Addr, u8) = (Ipv6Addr::new(0x3fff, 0x301, 0, 0x10, 0, 0, 0, 0), 60);

/// IPv4 networks all of whose addresses [`ATTACKERS`] has, as somebody who rents machines everywhere: as many /16s
/// as fit. They are other ones than those that forged sources are drawn from, whose answers nobody takes.
pub const NETWORKS: (Ipv4Addr, u8) = (Ipv4Addr::new(128, 0, 0, 0), 4);

/// All of them.
pub const ALL: [Guest; 2] = [NEWCOMERS, ATTACKERS];

/// Adds both to a network that is up. They go with it.
pub fn add() -> Result<()> {
    for guest in ALL {
        wire(&guest)?;
    }
    let (site, length) = SITE;
    let (networks, shorter) = NETWORKS;
    let theirs = format!(
        "route add local {site}/{length} dev lo\nroute add local {networks}/{shorter} dev lo\n"
    );
    ip_in(ATTACKERS.namespace, &theirs).step("giving the attackers a site and networks")?;
    let (ipv4, ipv6) = (ATTACKERS.ipv4, ATTACKERS.ipv6);
    let routes = format!("route add default via {ipv4}\nroute add {site}/{length} via {ipv6}\n");
    ip_in(ROUTER, &routes).step("routes to the attackers")
}

fn wire(guest: &Guest) -> Result<()> {
    let Guest {
        namespace, wire, ..
    } = *guest;
    let step = || format!("adding {namespace}");
    netns::add(namespace)?;
    netns::ip(&format!(
        "link add eth0 netns {namespace} type veth peer name {wire} netns {ROUTER}\n"
    ))
    .step(step())?;
    namespaces::shell(namespace, SETTINGS)?;
    let (ipv4, ipv6) = (guest.ipv4, guest.ipv6);
    let (gateway4, gateway6) = (guest.gateway_ipv4(), guest.gateway_ipv6());
    ip_in(
        namespace,
        &format!(
            "link set lo up\nlink set eth0 up\n\
             addr add {ipv4}/24 dev eth0\naddr add {ipv6}/64 dev eth0 nodad\n\
             route add default via {gateway4}\nroute add default via {gateway6}\n"
        ),
    )
    .step(step())?;
    ip_in(
        ROUTER,
        &format!(
            "link set {wire} up\n\
             addr add {gateway4}/24 dev {wire}\naddr add {gateway6}/64 dev {wire} nodad\n"
        ),
    )
    .step(step())
}

impl Guest {
    fn gateway_ipv4(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.ipv4.octets();
        Ipv4Addr::new(a, b, c, 1)
    }

    fn gateway_ipv6(&self) -> Ipv6Addr {
        let mut segments = self.ipv6.segments();
        segments[7] = 1;
        Ipv6Addr::from(segments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Node;

    #[test]
    fn guests_are_in_no_network_of_a_node() {
        for guest in ALL {
            let [a, b, ..] = guest.ipv4.octets();
            assert!(a == 198 && (b == 18 || b == 19), "{guest:?}");
            for node in Node::all() {
                assert_ne!(node.ipv6().segments()[..2], guest.ipv6.segments()[..2]);
            }
        }
    }

    #[test]
    fn no_node_and_no_guest_is_in_the_attackers_networks() {
        let (networks, length) = NETWORKS;
        let inside = |it: Ipv4Addr| (u32::from(it) ^ u32::from(networks)) >> (32 - length) == 0;
        assert!(inside(networks) && u32::from(networks) << length == 0);
        assert!(!ALL.iter().any(|guest| inside(guest.ipv4)));
        assert!(!Node::all().any(|node| inside(node.ipv4())));
    }

    #[test]
    fn the_site_is_no_network_of_a_wire() {
        let (site, length) = SITE;
        let mask = u128::MAX << (128 - u32::from(length));
        for guest in ALL {
            assert_ne!(u128::from(site) & mask, u128::from(guest.ipv6) & mask);
        }
        assert_eq!(u128::from(site) & !mask, 0);
    }
}
