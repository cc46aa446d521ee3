//! What the host should look like, as a value.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mixline_protocol::address::VirtualNetwork;

use super::filter::{Filter, Local};
use super::observed::{
    ANCHOR, Address, LOCAL_TABLE, LOOPBACK, MainRoute, Observed, Route, Rule, TABLE, Target,
    is_looked_at,
};
use super::prefix::{IPV6_NETWORK, Prefix};

/// The first of all priorities: only the host's own addresses come before.
const FIRST: u32 = 0;
/// Of several routes to one network the first of these counts: others have it, it leads somewhere,
/// nobody is there.
const YIELDED: u32 = 1;
const OPEN: u32 = 2;
const CLOSED: u32 = 1 << 16;
/// A network on a wire that is wider than this many bits is no neighbourhood: whoever hands out
/// addresses there could take all virtual ones.
const WIDEST_ON_A_WIRE: [u8; 2] = [16, 48];
/// How many networks of others the filter names: a sentence has at most 128 expressions
/// (`NFT_RULE_MAXEXPRS`), of which a network takes three.
const MAX_LOCAL: usize = 32;
/// How many findings there are before overruled routes are no more told one by one.
const MAX_FINDINGS: usize = 2 * MAX_LOCAL;
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
    /// What a person should know.
    pub findings: Vec<Finding>,
}

/// What about the host stands in the way, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A network of others inside a virtual one: it goes on, and its addresses are not Mixline's.
    Yielded {
        /// The network.
        network: Prefix,
        /// The interface that it is behind.
        interface: String,
    },
    /// A route into a virtual network that does not count.
    Overruled {
        /// Where it leads to.
        network: Prefix,
        /// The interface that it leads by.
        interface: String,
    },
    /// A rule that comes before the client's: what it leads away is dropped.
    Earlier {
        /// Its priority.
        priority: u32,
        /// Its table.
        table: u32,
    },
    /// More networks of others than are taken note of.
    TooMany,
    /// The client's interface takes no IPv6 address.
    NoIpv6 {
        /// The interface.
        interface: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yielded { network, interface } => write!(
                f,
                "{network} is behind {interface}: its addresses are not reached through Mixline, \
                 and names that have one of them have an IPv6 address only"
            ),
            Self::Overruled { network, interface } => write!(
                f,
                "the route to {network} by {interface} is overruled: its addresses are virtual \
                 ones (a directory with another `network` leaves them alone)"
            ),
            Self::Earlier { priority, table } => write!(
                f,
                "the policy rule {priority} (table {table}) comes before Mixline's and leads \
                 virtual addresses elsewhere: they are dropped; remove it, or make it again after \
                 `mixline-client up`"
            ),
            Self::TooMany => write!(
                f,
                "more than {MAX_LOCAL} networks of others lie inside the virtual networks: the \
                 rest of them is not reached"
            ),
            Self::NoIpv6 { interface } => write!(
                f,
                "no IPv6 on {interface} (disabled in the kernel): .anon names have IPv4 addresses \
                 only"
            ),
        }
    }
}

impl Wanted {
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

    /// Networks of others inside the virtual ones.
    #[must_use]
    pub fn others(&self) -> Vec<Prefix> {
        let local = self.filter.local.iter();
        local.map(|local| local.network).collect()
    }
}

/// What the host should look like, given what it has.
#[must_use]
pub fn desired(wanted: &Wanted, observed: &Observed) -> Desired {
    let networks = wanted.networks();
    let interface = observed.link(&wanted.interface).map(|link| link.index);
    let mut findings = Vec::new();
    let local = local(&networks, interface, observed, &mut findings);
    let place = wanted.resolver.and_then(|place| match place {
        Place::Loopback => Some(LOOPBACK),
        Place::Inside => observed.anchor().or(interface),
    });
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
    let mut routes = BTreeSet::new();
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
    let others = local.iter().map(|(network, _)| *network);
    routes.extend(
        others
            .filter(|network| !network.is_ipv6() || observed.ipv6)
            .map(|to| Route {
                to,
                target: Target::Throw,
                metric: YIELDED,
            }),
    );

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

    let rules: Vec<Rule> = usable.iter().copied().map(rule).collect();
    findings.extend(earlier(&rules, observed));
    Desired {
        filter: Filter {
            interface: wanted.interface.clone(),
            networks,
            own,
            local: named(&local, observed),
            wires: observed
                .links
                .iter()
                .filter(|link| Some(link.index) != interface && link.index != LOOPBACK)
                .filter(|link| is_wire(link.index, observed))
                .map(|link| link.name.clone())
                .collect(),
        },
        rules,
        routes,
        interface,
        addresses,
        resolver: resolver_at,
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

/// Networks of others inside the virtual ones, with their interfaces.
fn local(
    networks: &[Prefix],
    own: Option<u32>,
    observed: &Observed,
    findings: &mut Vec<Finding>,
) -> BTreeSet<(Prefix, u32)> {
    let mut local = BTreeSet::new();
    // The host's own come first: a neighbour announces as many networks as it likes.
    let (wires, own_ones): (Vec<&MainRoute>, Vec<&MainRoute>) = observed
        .main
        .iter()
        .partition(|route| is_wire(route.interface, observed));
    for route in own_ones.into_iter().chain(wires) {
        if Some(route.interface) == own
            || route.to.length == 0
            || !is_looked_at(&route.to, networks)
        {
            continue;
        }
        let narrow = route.to.length >= WIDEST_ON_A_WIRE[usize::from(route.to.is_ipv6())];
        let interface = observed.name(route.interface);
        let network = route.to.network();
        if !is_wire(route.interface, observed) || (narrow && !route.gateway) {
            if local.len() < MAX_LOCAL {
                local.insert((network, route.interface));
                findings.push(Finding::Yielded { network, interface });
            } else if !findings.contains(&Finding::TooMany) {
                findings.push(Finding::TooMany);
            }
        } else if findings.len() < MAX_FINDINGS {
            findings.push(Finding::Overruled { network, interface });
        }
    }
    local
}

/// Whether somebody outside the host says which routes lead by an interface, as with DHCP: hardware
/// is behind it, or it leads everywhere and is no tunnel.
fn is_wire(interface: u32, observed: &Observed) -> bool {
    let Some(link) = observed.links.iter().find(|link| link.index == interface) else {
        return true;
    };
    let leads_everywhere = observed
        .main
        .iter()
        .any(|route| route.interface == interface && route.to.length == 0);
    link.hardware || (leads_everywhere && !link.point_to_point)
}

fn named(local: &BTreeSet<(Prefix, u32)>, observed: &Observed) -> BTreeSet<Local> {
    local
        .iter()
        .map(|(network, interface)| Local {
            network: *network,
            interface: observed.name(*interface),
            wire: is_wire(*interface, observed),
        })
        .collect()
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
                .main
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
