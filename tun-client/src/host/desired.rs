//! What the host should look like, as a value.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mixline_protocol::address::VirtualNetwork;

use super::filter::Filter;
use super::finding::Finding;
use super::observed::{
    ANCHOR, Address, LOCAL_TABLE, LOOPBACK, Observed, Route, Rule, TABLE, Target,
};
use super::others::{self, Others};
use super::outside::{self, Outside};
use super::prefix::{IPV6_NETWORK, Prefix};

/// The first of all priorities: only the host's own addresses come before.
const FIRST: u32 = 0;
/// Of several routes to one network the first of these counts: others have it, it leads somewhere,
/// nobody is there.
const YIELDED: u32 = 1;
const OPEN: u32 = 2;
const CLOSED: u32 = 1 << 16;
/// Where the resolver listens: the virtual network's own address for it, one beside it, or, where
/// the host's neighbourhood has all of them, one that no network routes (RFC 3927).
const RESOLVERS_BESIDE: u32 = 10;
const RESOLVER_ELSEWHERE: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);

/// What the client wants of the host, whatever that looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name of the client's interface, which may or may not be there.
    pub interface: String,
    /// The virtual IPv4 network.
    pub network: VirtualNetwork,
    /// The own virtual IPv6 address, once there is an identity.
    pub ipv6: Option<Ipv6Addr>,
    /// The own virtual IPv4 address, once it is leased.
    pub lease: Option<Ipv4Addr>,
    /// Where there is to be an address for the resolver, if anywhere.
    pub resolver: Option<Place>,
    /// Virtual addresses that programs were told for names.
    pub told: BTreeSet<IpAddr>,
    /// Whom the client itself talks to.
    pub outside: BTreeSet<Outside>,
}

/// Which interface has the resolver's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The loopback interface, where no program takes it for the host's address, and where it stays
    /// when the client dies.
    Loopback,
    /// The anchor, a link of the client's that outlives it: systemd-resolved asks the server of a link
    /// through that link, and forgets it with the link. The client's interface, where the kernel has
    /// no anchor.
    Inside,
}

/// What the host should look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// What may pass at all.
    pub filter: Filter,
    /// Rules before all others.
    pub rules: Vec<Rule>,
    /// All routes of the own table.
    pub routes: BTreeSet<Route>,
    /// The client's interface, if it is there; it is to be up.
    pub interface: Option<u32>,
    /// Addresses of the client's interface and of the resolver.
    pub addresses: BTreeSet<Address>,
    /// The resolver's address, and where it is.
    pub resolver: Option<Address>,
    /// The interfaces that nobody but the host itself is behind: index and name.
    pub inner: BTreeSet<(u32, String)>,
    /// What a person should know.
    pub findings: Vec<Finding>,
}

impl Wanted {
    /// That the host is closed, and no more.
    #[must_use]
    pub fn closed(interface: &str, network: VirtualNetwork) -> Self {
        Self {
            interface: interface.to_owned(),
            network,
            ipv6: None,
            lease: None,
            resolver: None,
            told: BTreeSet::new(),
            outside: BTreeSet::new(),
        }
    }

    /// The virtual networks.
    #[must_use]
    pub fn networks(&self) -> Vec<Prefix> {
        vec![self.network.into(), IPV6_NETWORK]
    }
}

impl Desired {
    /// Whether packets of a family are to reach the client's interface.
    #[must_use]
    pub fn leads_in(&self, ipv6: bool) -> bool {
        self.routes
            .iter()
            .any(|route| route.to.is_ipv6() == ipv6 && matches!(route.target, Target::Interface(_)))
    }

    /// Whether all routes and addresses of a family are there, and the interface is up.
    #[must_use]
    pub fn has_all(&self, ipv6: bool, observed: &Observed) -> bool {
        let up = observed
            .links
            .iter()
            .any(|link| Some(link.index) == self.interface && link.up);
        let mut routes = self.routes.iter().filter(|r| r.to.is_ipv6() == ipv6);
        let mut addresses = self.addresses.iter().filter(|a| a.prefix.is_ipv6() == ipv6);
        up && routes.all(|route| observed.routes.contains(route))
            && addresses.all(|address| observed.addresses.contains(address))
    }

    /// What of the virtual networks is not reached through the interface.
    #[must_use]
    pub fn others(&self) -> Vec<Prefix> {
        let local = self.filter.local.iter().map(|local| local.network);
        let outside = self.filter.outside.iter();
        let outside = outside.map(|outside| Prefix::host(outside.at.ip()));
        local.chain(outside).collect()
    }
}

/// What the host should look like, given what it has.
#[must_use]
pub fn desired(wanted: &Wanted, observed: &Observed) -> Desired {
    let networks = wanted.networks();
    let interface = observed.link(&wanted.interface).map(|link| link.index);
    let mut findings = Vec::new();
    let others = Others::of(&networks, interface, &wanted.told, observed, &mut findings);
    let place = match wanted.resolver {
        Some(Place::Loopback) => Some(LOOPBACK),
        Some(Place::Inside) => observed.anchor().or(interface),
        // What an earlier client left there keeps names from being asked elsewhere.
        None => observed.anchor().filter(|anchor| {
            let mut there = resolvers(&wanted.network).into_iter();
            there.any(|address| observed.has(*anchor, address))
        }),
    };
    let resolver_at = place.map(|place| Address {
        interface: place,
        prefix: Prefix::host(resolver(&wanted.network, place, interface, observed)),
    });
    let resolver = resolver_at.and_then(|address| match address.prefix.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    // What is there is guarded until it has gone.
    let there = observed
        .addresses
        .iter()
        .filter(|address| is_own(address, interface, &wanted.network))
        .map(|address| address.prefix.address);
    let own: BTreeSet<IpAddr> = [
        wanted.ipv6.map(IpAddr::V6),
        wanted.lease.map(IpAddr::V4),
        resolver.map(IpAddr::V4),
    ]
    .into_iter()
    .flatten()
    .chain(there)
    .collect();
    let usable: Vec<Prefix> = networks
        .iter()
        .copied()
        .filter(|network| !network.is_ipv6() || observed.ipv6)
        .collect();
    let taken = |outside: &Outside| {
        let address = outside.at.ip();
        own.contains(&address) || (!outside.is_name_server() && wanted.told.contains(&address))
    };
    let outside = outside::hidden(&wanted.outside, &networks, taken, &mut findings);
    let mut routes: BTreeSet<Route> = others
        .kept
        .iter()
        .filter(|address| address.is_ipv4() || observed.ipv6)
        .map(|address| Route {
            to: Prefix::host(*address),
            target: Target::Unreachable,
            metric: CLOSED,
        })
        .collect();
    for network in &usable {
        let address = if network.is_ipv6() {
            wanted.ipv6.is_some() && observed.ipv6_inside
        } else {
            wanted.lease.is_some()
        };
        // Without an own address there, packets would have a source that is not ours.
        if let Some(interface) = interface.filter(|_| address) {
            routes.insert(Route {
                to: *network,
                target: Target::Interface(interface),
                metric: OPEN,
            });
        }
        routes.insert(Route {
            to: *network,
            target: Target::Unreachable,
            metric: CLOSED,
        });
    }
    let local = others.local.iter().map(|local| Route {
        to: local.network,
        target: Target::Throw,
        metric: YIELDED,
    });
    // Some move the kernel's rule for the host's own addresses behind others (Cilium does).
    let moved = !observed.is_local_first();
    let here = own.iter().filter(|_| moved).map(|address| Route {
        to: Prefix::host(*address),
        target: Target::Throw,
        metric: YIELDED,
    });
    let throws = local.chain(outside::routes(&outside, YIELDED)).chain(here);
    routes.extend(throws.filter(|route| !route.to.is_ipv6() || observed.ipv6));

    if interface.is_some() && wanted.ipv6.is_some() && !observed.ipv6_inside {
        findings.push(Finding::NoIpv6 {
            interface: wanted.interface.clone(),
        });
    }
    let mut addresses = BTreeSet::new();
    if let Some(interface) = interface {
        let own = [
            wanted.lease.map(IpAddr::V4),
            wanted.ipv6.filter(|_| observed.ipv6_inside).map(IpAddr::V6),
        ];
        addresses.extend(own.into_iter().flatten().map(|address| Address {
            interface,
            prefix: Prefix::host(address),
        }));
    }
    addresses.extend(resolver_at);

    let inner = others::inner(interface, observed);
    let rules: Vec<Rule> = usable.iter().copied().map(rule).collect();
    findings.extend(earlier(&rules, observed));
    Desired {
        filter: Filter {
            interface: wanted.interface.clone(),
            networks,
            own,
            local: others.local,
            kept: others.kept,
            outside,
            wires: others::wires(interface, observed),
            inner: inner.iter().map(|(_, name)| name.clone()).collect(),
            resolver: resolver.map(IpAddr::V4),
        },
        rules,
        routes,
        interface,
        addresses,
        resolver: resolver_at,
        inner,
        findings,
    }
}

/// The addresses that the resolver may have; on the loopback interface they are the client's.
#[must_use]
pub fn resolvers(network: &VirtualNetwork) -> Vec<Ipv4Addr> {
    let first = network.resolver().to_bits();
    (0..RESOLVERS_BESIDE)
        .map(|offset| Ipv4Addr::from_bits(first + offset))
        .chain([RESOLVER_ELSEWHERE])
        .collect()
}

/// Whether an address is the client's to give and to take: all of its interface but link-local
/// ones, and the resolver's.
#[must_use]
pub fn is_own(address: &Address, interface: Option<u32>, network: &VirtualNetwork) -> bool {
    let link_local = match address.prefix.address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let resolvers = || {
        resolvers(network)
            .iter()
            .any(|resolver| address.prefix == Prefix::host(*resolver))
    };
    (Some(address.interface) == interface && !link_local)
        || ([LOOPBACK, ANCHOR.0].contains(&address.interface) && resolvers())
}

/// The rule that leads a network into the own table.
fn rule(to: Prefix) -> Rule {
    Rule {
        priority: FIRST,
        to,
        narrowed: false,
        table: TABLE,
    }
}

/// The first address for the resolver that is nobody else's; the one that it has, if that is.
fn resolver(
    network: &VirtualNetwork,
    place: u32,
    own: Option<u32>,
    observed: &Observed,
) -> Ipv4Addr {
    let others: Vec<Prefix> = observed
        .addresses
        .iter()
        .filter(|address| ![Some(LOOPBACK), Some(ANCHOR.0), own].contains(&Some(address.interface)))
        .map(|address| address.prefix)
        .chain(
            observed
                .others
                .iter()
                .filter(|route| Some(route.interface) != own && route.to.length > 0)
                .filter(|route| !route.gateway)
                .map(|route| route.to),
        )
        .collect();
    let free: Vec<Ipv4Addr> = resolvers(network)
        .into_iter()
        .filter(|address| !others.iter().any(|other| other.contains((*address).into())))
        .collect();
    free.iter()
        .find(|address| observed.has(place, **address))
        .or(free.first())
        .copied()
        .unwrap_or(RESOLVER_ELSEWHERE)
}

/// Rules that stand before the client's and lead elsewhere.
fn earlier<'a>(rules: &'a [Rule], observed: &'a Observed) -> impl Iterator<Item = Finding> + 'a {
    observed
        .rules
        .iter()
        .enumerate()
        .filter(|(position, other)| {
            other.table != TABLE
                && other.table != LOCAL_TABLE
                && rules.iter().any(|rule| {
                    rule.to.overlaps(&other.to)
                        && observed.rules.iter().position(|there| there == rule) > Some(*position)
                })
        })
        .map(|(_, other)| Finding::Earlier {
            priority: other.priority,
            table: other.table,
        })
}
