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
use super::routing::Routing;

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
    /// Whether a directory has said so. Before, what is virtual in every network is closed: names and IPv6.
    pub network_known: bool,
    /// Former ones, whose addresses some programs still have: nobody is there. None overlaps the
    /// present one.
    pub former: Vec<VirtualNetwork>,
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
            network_known: true,
            former: Vec::new(),
            ipv6: None,
            lease: None,
            resolver: None,
            told: BTreeSet::new(),
            outside: BTreeSet::new(),
        }
    }

    /// The same where these networks were left before. One that overlaps the present one is no more what
    /// it was.
    #[must_use]
    pub fn with_former(mut self, former: &[VirtualNetwork]) -> Self {
        let present = Prefix::from(self.network);
        let apart = |former: &&VirtualNetwork| !present.overlaps(&Prefix::from(**former));
        self.former = former.iter().filter(apart).copied().collect();
        self
    }

    /// The virtual networks, former ones behind.
    #[must_use]
    pub fn networks(&self) -> Vec<Prefix> {
        let former = self.former.iter().copied().map(Prefix::from);
        let ipv4 = self.network_known.then(|| self.network.into());
        ipv4.into_iter()
            .chain([IPV6_NETWORK])
            .chain(former)
            .collect()
    }

    /// Whether an own address is one of a virtual network, and that is no former one.
    #[must_use]
    pub fn is_at_home(&self, address: IpAddr, network: Prefix) -> bool {
        let current = [self.network.into(), IPV6_NETWORK];
        current.contains(&network) && network.is_ipv6() == address.is_ipv6()
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

    /// Whether a rule of somebody else's leads all packets to a family's virtual network elsewhere,
    /// before the client's is asked.
    #[must_use]
    pub fn is_overruled(&self, ipv6: bool, observed: &Observed) -> bool {
        let own = self.rules.iter().filter(|rule| rule.table == TABLE);
        let mut own = own.filter(|rule| rule.to.is_ipv6() == ipv6);
        own.any(|own| {
            let leads = |rule: &Rule| {
                let mut routes = observed.others.iter();
                routes.any(|route| route.table == rule.table && route.to.overlaps(&own.to))
            };
            let before = observed.rules.iter().take_while(|rule| *rule != own);
            let mut others = before.filter(|rule| !rule.is_own() && rule.table != LOCAL_TABLE);
            others.any(|rule| rule.is_for_all() && rule.to.covers(&own.to) && leads(rule))
        })
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
    let taken = |outside: &Outside| {
        let address = outside.at.ip();
        own.contains(&address) || (!outside.is_name_server() && wanted.told.contains(&address))
    };
    let outside = outside::hidden(&wanted.outside, &networks, taken, &mut findings);
    let routing = Routing {
        wanted,
        observed,
        interface,
        others: &others,
        outside: &outside,
        own: &own,
    };
    let (rules, routes) = (routing.rules(), routing.routes());
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
    findings.extend(earlier(&rules, observed));
    Desired {
        filter: Filter {
            interface: wanted.interface.clone(),
            networks,
            own,
            heard: others.heard(observed),
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
            !other.is_own()
                && other.table != LOCAL_TABLE
                && rules.iter().filter(|rule| rule.table == TABLE).any(|rule| {
                    rule.to.overlaps(&other.to)
                        && observed.rules.iter().position(|there| there == rule) > Some(*position)
                })
        })
        .map(|(_, other)| Finding::Earlier {
            priority: other.priority,
            table: other.table,
        })
}
