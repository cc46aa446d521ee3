//! The policy rules before all others, and the routes of the own tables.
//!
//! Where a packet goes to a virtual address decides [`TABLE`], which leaves to others what they have
//! inside the virtual networks. What comes *from* an own virtual address is asked for in
//! [`INSIDE_TABLE`] first, which leaves them nothing: an answer goes back the way that the question
//! came, also if somebody announces the asker's network on a wire meanwhile to see whether it does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::desired::Wanted;
use super::observed::{INSIDE_TABLE, Observed, Route, Rule, TABLE, Target};
use super::others::Others;
use super::outside::{self, Outside};
use super::prefix::Prefix;

/// The first of all priorities: only the host's own addresses come before.
const FIRST: u32 = 0;
/// Of several routes to one network the first of these counts: others have it, it leads somewhere,
/// nobody is there.
const YIELDED: u32 = 1;
const OPEN: u32 = 2;
const CLOSED: u32 = 1 << 16;

/// What rules and routes are made from.
pub struct Routing<'a> {
    /// What the client wants.
    pub wanted: &'a Wanted,
    /// What the kernel has.
    pub observed: &'a Observed,
    /// The client's interface, if it is there.
    pub interface: Option<u32>,
    /// What others have inside the virtual networks.
    pub others: &'a Others,
    /// Whom the client itself reaches there.
    pub outside: &'a BTreeSet<Outside>,
    /// The host's own virtual addresses, and the resolver's.
    pub own: &'a BTreeSet<IpAddr>,
}

impl Routing<'_> {
    /// The rules, in the order in which they are to be asked.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let from = self.sources().into_iter().map(|source| Rule {
            from: Prefix::host(source),
            ..rule(Prefix::everything(source.is_ipv6()), INSIDE_TABLE)
        });
        let to = self.networks().map(|network| rule(network, TABLE));
        from.chain(to).collect()
    }

    /// All routes of both tables.
    #[must_use]
    pub fn routes(&self) -> BTreeSet<Route> {
        let mut routes: BTreeSet<Route> = self
            .others
            .kept
            .iter()
            .map(|address| closed(TABLE, Prefix::host(*address)))
            .collect();
        for network in self.networks() {
            routes.insert(closed(TABLE, network));
            routes.extend(
                self.way_in(network)
                    .map(|index| open(TABLE, network, index)),
            );
        }
        let local = self.others.local.iter().map(|local| local.network);
        routes.extend(local.map(|network| left(TABLE, network)));
        routes.extend(outside::routes(self.outside, YIELDED));
        if !self.sources().is_empty() {
            for network in self.networks() {
                routes.insert(closed(INSIDE_TABLE, network));
                let inside = self.way_in(network);
                routes.extend(inside.map(|index| open(INSIDE_TABLE, network, index)));
            }
        }
        // Some move the kernel's rule for the host's own addresses behind others (Cilium does).
        if !self.observed.is_local_first() {
            for own in self.own {
                routes.insert(left(TABLE, Prefix::host(*own)));
                routes.insert(left(INSIDE_TABLE, Prefix::host(*own)));
            }
        }
        routes.retain(|route| !route.to.is_ipv6() || self.observed.ipv6);
        routes
    }

    /// The virtual networks of the families that the kernel has.
    fn networks(&self) -> impl Iterator<Item = Prefix> {
        let networks = self.wanted.networks().into_iter();
        networks.filter(|network| !network.is_ipv6() || self.observed.ipv6)
    }

    /// The own addresses that packets leave from by the client's interface.
    fn sources(&self) -> Vec<IpAddr> {
        if self.interface.is_none() {
            return Vec::new();
        }
        let ipv6 = self.wanted.ipv6.filter(|_| self.observed.ipv6_inside);
        let lease = self.wanted.lease.map(IpAddr::V4);
        lease.into_iter().chain(ipv6.map(IpAddr::V6)).collect()
    }

    /// The interface that leads into a network, if one does: without an own address in it, packets
    /// would have a source that is not ours.
    fn way_in(&self, network: Prefix) -> Option<u32> {
        let mut sources = self.sources().into_iter();
        let has_source = sources.any(|source| self.wanted.is_at_home(source, network));
        self.interface.filter(|_| has_source)
    }
}

fn rule(to: Prefix, table: u32) -> Rule {
    Rule {
        priority: FIRST,
        from: Prefix::everything(to.is_ipv6()),
        to,
        narrowed: false,
        table,
    }
}

fn open(table: u32, to: Prefix, interface: u32) -> Route {
    Route {
        table,
        to,
        target: Target::Interface(interface),
        metric: OPEN,
    }
}

fn closed(table: u32, to: Prefix) -> Route {
    Route {
        table,
        to,
        target: Target::Unreachable,
        metric: CLOSED,
    }
}

/// Left to the rules that follow.
fn left(table: u32, to: Prefix) -> Route {
    Route {
        table,
        to,
        target: Target::Throw,
        metric: YIELDED,
    }
}
