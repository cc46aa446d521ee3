//! Networks inside the virtual ones that others have, and which of them keep their addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::filter::Local;
use super::finding::Finding;
use super::observed::{ANCHOR, LOOPBACK, Observed, OtherRoute, is_looked_at};
use super::prefix::Prefix;

/// A network on a wire that is wider than this many bits is no neighbourhood: whoever hands out
/// addresses there could take all virtual ones.
const WIDEST_ON_A_WIRE: [u8; 2] = [16, 48];
/// How many networks of others the filter names: a sentence has at most 128 expressions
/// (`NFT_RULE_MAXEXPRS`), of which a network takes three.
pub const MAX_LOCAL: usize = 32;
/// How many interfaces to containers are told apart: a sentence has at most 128 expressions, of which
/// an interface takes two.
const MAX_INNER: usize = 16;
/// How many addresses of names inside networks of others are kept from those.
const MAX_KEPT: usize = 512;
/// How many findings there are before overruled routes are no more told one by one.
const MAX_FINDINGS: usize = 2 * MAX_LOCAL;

/// What others have inside the virtual networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// What they keep.
    pub local: BTreeSet<Local>,
    /// Addresses inside that, which names had first: nobody is reached there.
    pub kept: BTreeSet<IpAddr>,
}

impl Others {
    /// What others have, given the client's interface and the addresses that programs were told for
    /// names.
    pub fn of(
        networks: &[Prefix],
        own: Option<u32>,
        told: &BTreeSet<IpAddr>,
        observed: &Observed,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut others = Self::default();
        // The host's own come first: a neighbour announces as many networks as it likes.
        let (wires, own_ones): (Vec<&OtherRoute>, Vec<&OtherRoute>) = observed
            .others
            .iter()
            .filter(|route| Some(route.interface) != own && is_asked(route, observed))
            .partition(|route| is_wire(route.interface, observed));
        for route in own_ones.iter().chain(&wires) {
            if route.to.length > 0 && is_looked_at(&route.to, networks) {
                others.take(route, told, observed, findings);
            }
        }
        for route in wires {
            others.take_way_out(route, networks, told, observed, findings);
        }
        others
    }

    /// What the host is meant by in what others keep on wires: its own addresses, and for each network
    /// the first and the last one, which are everybody's.
    #[must_use]
    pub fn heard(&self, observed: &Observed) -> BTreeSet<IpAddr> {
        let mut heard = BTreeSet::new();
        for local in self.local.iter().filter(|local| local.wire) {
            let mine = observed.addresses.iter().map(|address| address.prefix);
            let mine = mine.filter(|prefix| local.network.contains(prefix.address));
            let everybodys = |prefix: Prefix| [prefix.network().address, prefix.last()];
            let all = mine.flat_map(|mine| {
                let own = std::iter::once(mine.address);
                own.chain(everybodys(mine)).chain(everybodys(local.network))
            });
            heard.extend(all.filter(|address| local.network.contains(*address)));
        }
        heard
    }

    /// A network that somebody routes.
    fn take(
        &mut self,
        route: &OtherRoute,
        told: &BTreeSet<IpAddr>,
        observed: &Observed,
        findings: &mut Vec<Finding>,
    ) {
        let wire = is_wire(route.interface, observed);
        let narrow = route.to.length >= WIDEST_ON_A_WIRE[usize::from(route.to.is_ipv6())];
        let interface = observed.name(route.interface);
        let network = route.to.network();
        if !wire || (narrow && !route.gateway) {
            let local = Local {
                network,
                interface: interface.clone(),
                wire,
                from: network,
            };
            if self.add(local, told, findings) {
                push(findings, Finding::Yielded { network, interface });
            }
        } else if findings.len() < MAX_FINDINGS {
            push(findings, Finding::Overruled { network, interface });
        }
    }

    /// On a wire whose network is too wide to be left to its neighbours: the gateway, and the host's
    /// own address, without which the host would be cut off.
    fn take_way_out(
        &mut self,
        route: &OtherRoute,
        networks: &[Prefix],
        told: &BTreeSet<IpAddr>,
        observed: &Observed,
        findings: &mut Vec<Finding>,
    ) {
        let inside = |address: &IpAddr| networks.iter().any(|n| n.contains(*address));
        let Some(gateway) = route.via.filter(inside) else {
            return;
        };
        let here = observed.addresses.iter().find(|address| {
            address.interface == route.interface && address.prefix.contains(gateway)
        });
        let Some(here) = here else { return };
        for address in [gateway, here.prefix.address] {
            if self.local.iter().any(|l| l.network.contains(address)) {
                continue;
            }
            let local = Local {
                network: Prefix::host(address),
                interface: observed.name(route.interface),
                wire: true,
                from: here.prefix.network(),
            };
            self.add(local, told, findings);
        }
    }

    /// Adds a network, unless there are too many. What names had before is kept out of it.
    fn add(&mut self, local: Local, told: &BTreeSet<IpAddr>, findings: &mut Vec<Finding>) -> bool {
        if self.local.contains(&local) {
            return true;
        }
        if self.local.len() >= MAX_LOCAL {
            push(findings, Finding::TooMany);
            return false;
        }
        let kept = || told.iter().filter(|told| local.network.contains(**told));
        if self.kept.len() + kept().count() > MAX_KEPT {
            let (network, interface) = (local.network, local.interface);
            push(findings, Finding::Crowded { network, interface });
            return false;
        }
        for address in kept() {
            self.kept.insert(*address);
            push(
                findings,
                Finding::Kept {
                    address: *address,
                    interface: local.interface.clone(),
                },
            );
        }
        self.local.insert(local);
        true
    }
}

fn push(findings: &mut Vec<Finding>, finding: Finding) {
    if !findings.contains(&finding) {
        findings.push(finding);
    }
}

/// Whether some rule asks the table of a route for its destinations.
fn is_asked(route: &OtherRoute, observed: &Observed) -> bool {
    let mut rules = observed.rules.iter();
    rules.any(|rule| rule.table == route.table && rule.to.overlaps(&route.to))
}

/// Whether somebody outside the host says which routes lead by an interface, as with DHCP: hardware
/// is behind it, or it leads everywhere and is no tunnel, now or before.
pub fn is_wire(interface: u32, observed: &Observed) -> bool {
    let Some(link) = observed.links.iter().find(|link| link.index == interface) else {
        return true;
    };
    let leads_everywhere = observed
        .others
        .iter()
        .any(|route| route.interface == interface && route.to.length == 0);
    // A container's way out looks like any other pair, but for a gateway behind it.
    let leads_out = observed
        .others
        .iter()
        .any(|route| route.interface == interface && route.gateway);
    let was_one = observed.were_wires.contains(&interface);
    link.hardware
        || was_one
        || (link.elsewhere && leads_out)
        || (leads_everywhere && !link.point_to_point)
}

/// The numbers of all wires.
pub fn all_wires(observed: &Observed) -> BTreeSet<u32> {
    let links = observed.links.iter().map(|link| link.index);
    links
        .filter(|index| *index != LOOPBACK && is_wire(*index, observed))
        .collect()
}

/// The interfaces that lead to none but the host itself, as to its containers, and have an address of
/// the host's: index and name.
pub fn inner(own: Option<u32>, observed: &Observed) -> BTreeSet<(u32, String)> {
    let has_address = |index| observed.addresses.iter().any(|a| a.interface == index);
    observed
        .links
        .iter()
        .filter(|link| ![Some(LOOPBACK), Some(ANCHOR.0), own].contains(&Some(link.index)))
        .filter(|link| link.contained && !is_wire(link.index, observed))
        .filter(|link| link.up && has_address(link.index))
        .map(|link| (link.index, link.name.clone()))
        .take(MAX_INNER)
        .collect()
}

/// The names of all wires.
pub fn wires(own: Option<u32>, observed: &Observed) -> BTreeSet<String> {
    let wires = all_wires(observed);
    observed
        .links
        .iter()
        .filter(|link| Some(link.index) != own && wires.contains(&link.index))
        .map(|link| link.name.clone())
        .collect()
}
