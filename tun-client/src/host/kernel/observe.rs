//! What the kernel has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::desired::Wanted;
use super::super::observed::{
    Address, INSIDE_TABLE, LOCAL_TABLE, Link, Observed, OtherRoute, Route, Rule, TABLE, Target,
    is_looked_at,
};
use super::super::prefix::Prefix;
use super::{Kernel, KernelError};

/// At most this many routes of other tables are taken note of.
const MAX_OTHERS: usize = 4096;

impl Kernel {
    /// What is there that concerns a client who wants this.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn observe(&self, wanted: &Wanted) -> Result<Observed, KernelError> {
        Ok(Observed {
            filter: self.filter()?,
            ..self.look(wanted)?
        })
    }

    /// The same without the packet filter, which takes no privilege.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn look(&self, wanted: &Wanted) -> Result<Observed, KernelError> {
        let networks = wanted.networks();
        let ipv6 = has_ipv6();
        let mut routes = Vec::new();
        let mut others = Vec::new();
        for message in self.routes(ipv6)? {
            match table_of(&message) {
                TABLE | INSIDE_TABLE => routes.push(own_route(&message)),
                LOCAL_TABLE => {}
                table if others.len() < MAX_OTHERS => others.extend(
                    other_routes(table, &message)
                        .filter(|route| is_looked_at(&route.to, &networks)),
                ),
                _ => {}
            }
        }
        Ok(Observed {
            links: self.links()?,
            addresses: self.addresses()?,
            rules: self.rules(ipv6)?,
            routes,
            others,
            were_wires: BTreeSet::new(),
            filter: None,
            ipv6,
            ipv6_inside: ipv6 && takes_ipv6(&wanted.interface),
        })
    }

    /// An interface that is there and that a route of the own table leads to, unless it is `own`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn interface_of_routes(&self, own: &str) -> Result<Option<String>, KernelError> {
        let mut routes = self.routes(has_ipv6())?;
        routes.retain(|route| table_of(route) == TABLE);
        let links = self.links()?;
        let leads_to = |link: &&Link| {
            let target = Target::Interface(link.index);
            routes.iter().any(|route| own_route(route).target == target)
        };
        let mut others = links.iter().filter(|link| link.name != own);
        Ok(others.find(leads_to).map(|link| link.name.clone()))
    }

    /// Whether there is something of a filter, or a rule that leads to an own table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_anything(&self) -> Result<bool, KernelError> {
        let rules = self.rules(has_ipv6())?;
        Ok(rules.iter().any(Rule::is_own) || self.has_table()?)
    }

    fn links(&self) -> Result<Vec<Link>, KernelError> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self
            .routes
            .request(question, NLM_F_DUMP)
            .map_err(KernelError::at("read interfaces"))?;
        Ok(links(&answers))
    }

    fn addresses(&self) -> Result<Vec<Address>, KernelError> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self
            .routes
            .request(question, NLM_F_DUMP)
            .map_err(KernelError::at("read addresses"))?;
        Ok(answers.iter().filter_map(address).collect())
    }

    fn rules(&self, ipv6: bool) -> Result<Vec<Rule>, KernelError> {
        let mut rules = Vec::new();
        for family in families(ipv6) {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let answers = self
                .routes
                .request(RouteNetlinkMessage::GetRule(message), NLM_F_DUMP)
                .map_err(KernelError::at("read policy rules"))?;
            rules.extend(answers.iter().filter_map(rule));
        }
        Ok(rules)
    }

    /// The routes of all tables, both families.
    fn routes(&self, ipv6: bool) -> Result<Vec<RouteMessage>, KernelError> {
        let mut routes = Vec::new();
        for family in families(ipv6) {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self
                .routes
                .request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)
                .map_err(KernelError::at("read routes"))?;
            routes.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            }));
        }
        Ok(routes)
    }
}

/// Whether the kernel has IPv6.
fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Whether the kernel has IPv6, and an interface that is there takes it.
fn takes_ipv6(interface: &str) -> bool {
    let directory = Path::new("/proc/sys/net/ipv6/conf");
    let disabled = std::fs::read_to_string(directory.join(interface).join("disable_ipv6"));
    disabled.is_ok_and(|text| text.trim() == "0")
}

fn families(ipv6: bool) -> impl Iterator<Item = AddressFamily> {
    [AddressFamily::Inet, AddressFamily::Inet6]
        .into_iter()
        .take(1 + usize::from(ipv6))
}

/// All interfaces. Hardware may be below one (a VLAN), or in it (a bridge, a bond).
fn links(answers: &[RouteNetlinkMessage]) -> Vec<Link> {
    let mut links = Vec::new();
    let mut hardware = BTreeSet::new();
    let mut above: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut kinds: BTreeMap<u32, InfoKind> = BTreeMap::new();
    let mut members: Vec<(u32, u32)> = Vec::new();
    for answer in answers {
        let RouteNetlinkMessage::NewLink(message) = answer else {
            continue;
        };
        let (mut name, mut below, mut elsewhere) = (None, None, false);
        let index = message.header.index;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::ParentDevName(_) => {
                    hardware.insert(index);
                }
                LinkAttribute::Link(other) => below = Some(*other),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::Controller(other) => {
                    above.entry(index).or_default().push(*other);
                    members.push((*other, index));
                }
                LinkAttribute::LinkInfo(parts) => {
                    kinds.extend(parts.iter().find_map(kind_of(index)))
                }
                _ => {}
            }
        }
        if let Some(below) = below.filter(|other| !elsewhere && *other != index) {
            above.entry(below).or_default().push(index);
        }
        links.push(Link {
            index,
            name: name.unwrap_or_default(),
            up: message.header.flags.contains(LinkFlags::Up),
            elsewhere,
            hardware: false,
            point_to_point: message.header.flags.contains(LinkFlags::Pointopoint),
            contained: false,
        });
    }
    let mut rest: Vec<u32> = hardware.iter().copied().collect();
    while let Some(index) = rest.pop() {
        for other in above.get(&index).into_iter().flatten() {
            if hardware.insert(*other) {
                rest.push(*other);
            }
        }
    }
    for link in &mut links {
        link.hardware = hardware.contains(&link.index);
        link.contained = match kinds.get(&link.index) {
            // A virtual machine has a tap for its end.
            Some(InfoKind::Bridge) => members
                .iter()
                .filter(|(bridge, _)| *bridge == link.index)
                .all(|(_, member)| {
                    matches!(kinds.get(member), Some(InfoKind::Veth | InfoKind::Tun))
                }),
            _ => false,
        };
    }
    links
}

/// The kind of a link, from a part of what is said of it.
fn kind_of(index: u32) -> impl Fn(&LinkInfo) -> Option<(u32, InfoKind)> {
    move |part| match part {
        LinkInfo::Kind(kind) => Some((index, kind.clone())),
        _ => None,
    }
}

fn address(answer: &RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = answer else {
        return None;
    };
    // IFA_LOCAL is the own address; IFA_ADDRESS is the peer's where there is one.
    let mut local = None;
    let mut other = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    Some(Address {
        interface: message.header.index,
        prefix: Prefix::new(local.or(other)?, message.header.prefix_len),
    })
}

fn rule(answer: &RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = answer else {
        return None;
    };
    let header = &message.header;
    let ipv6 = header.family == AddressFamily::Inet6;
    let inverted = header.flags.contains(RuleFlags::Invert);
    let mut rule = Rule {
        priority: 0,
        from: Prefix::everything(ipv6),
        to: Prefix::everything(ipv6),
        narrowed: false,
        table: header.table.into(),
    };
    let mut asks_for_more = header.tos > 0;
    let mut asks_for_mark = false;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Source(address) if !inverted => {
                rule.from = Prefix::new(*address, header.src_len);
            }
            RuleAttribute::Destination(address) if !inverted => {
                rule.to = Prefix::new(*address, header.dst_len);
            }
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            RuleAttribute::FwMark(_) | RuleAttribute::FwMask(_) => asks_for_mark = true,
            _ => asks_for_more = true,
        }
    }
    // All but a mark is all that programs send: so tunnels keep their own packets out of themselves.
    rule.narrowed = asks_for_more || asks_for_mark != inverted;
    if header.action != RuleAction::ToTable {
        rule.table = 0;
    }
    Some(rule)
}

fn table_of(message: &RouteMessage) -> u32 {
    let named = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.unwrap_or_else(|| message.header.table.into())
}

fn destination(message: &RouteMessage) -> Prefix {
    let address = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(IpAddr::V4(*to)),
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => Some(IpAddr::V6(*to)),
        _ => None,
    });
    match address {
        Some(address) => Prefix::new(address, message.header.destination_prefix_length),
        None => Prefix::everything(message.header.address_family == AddressFamily::Inet6),
    }
}

/// A route of the client's own tables.
fn own_route(message: &RouteMessage) -> Route {
    let (mut interface, mut metric, mut plain) = (None, 0, true);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::MultiPath(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::PrefSource(_) => plain = false,
            _ => {}
        }
    }
    let target = match (message.header.kind, interface) {
        (RouteType::Unicast, Some(interface)) if plain => Target::Interface(interface),
        (RouteType::Throw, _) => Target::Throw,
        (RouteType::Unreachable, _) => Target::Unreachable,
        _ => Target::Other,
    };
    Route {
        table: table_of(message),
        to: destination(message),
        target,
        metric,
    }
}

/// A route of another table, once for each interface that it leads by.
fn other_routes(table: u32, message: &RouteMessage) -> impl Iterator<Item = OtherRoute> {
    let to = destination(message);
    let unicast = message.header.kind == RouteType::Unicast;
    let gateway = gateway(&message.attributes);
    let hops: Vec<(u32, Option<Gateway>)> = message
        .attributes
        .iter()
        .flat_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => vec![(*index, gateway)],
            RouteAttribute::MultiPath(hops) => hops
                .iter()
                .map(|hop| {
                    let gateway = self::gateway(&hop.attributes);
                    (hop.interface_index, gateway.or(Some(Gateway(None))))
                })
                .collect(),
            _ => Vec::new(),
        })
        .collect();
    hops.into_iter()
        .filter(move |_| unicast)
        .map(move |(interface, gateway)| OtherRoute {
            table,
            to,
            interface,
            gateway: gateway.is_some(),
            via: gateway.and_then(|Gateway(address)| address),
        })
}

/// A gateway, and its address if it is of a known kind.
#[derive(Clone, Copy)]
struct Gateway(Option<IpAddr>);

fn gateway(attributes: &[RouteAttribute]) -> Option<Gateway> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
            Some(Gateway(Some(IpAddr::V4(*address))))
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(address))
        | RouteAttribute::Via(RouteVia::Inet6(address)) => {
            Some(Gateway(Some(IpAddr::V6(*address))))
        }
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(Gateway(Some(IpAddr::V4(*address)))),
        RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => Some(Gateway(None)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_for_all(inverted: bool, attributes: Vec<RuleAttribute>) -> bool {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.action = RuleAction::ToTable;
        if inverted {
            message.header.flags = RuleFlags::Invert;
        }
        message.attributes = attributes;
        rule(&RouteNetlinkMessage::NewRule(message)).is_some_and(|rule| rule.is_for_all())
    }

    #[test]
    fn a_rule_for_all_but_a_mark_is_for_what_programs_send() {
        let mark = || {
            vec![
                RuleAttribute::FwMark(51820),
                RuleAttribute::FwMask(u32::MAX),
            ]
        };
        assert!(is_for_all(false, vec![RuleAttribute::Table(52)]));
        assert!(is_for_all(true, mark()));
        assert!(!is_for_all(false, mark()));
        let more = RuleAttribute::Iifname("eth0".into());
        assert!(!is_for_all(false, vec![more.clone()]));
        assert!(!is_for_all(true, [mark(), vec![more]].concat()));
        let source = RuleAttribute::Source(IpAddr::from([192, 0, 2, 1]));
        assert!(!is_for_all(true, [mark(), vec![source]].concat()));
    }
}
