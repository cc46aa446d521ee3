//! A kernel in memory, and hosts that have it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mixline_protocol::address::VirtualNetwork;

use super::super::{Action, plan};
use crate::host::desired::{Place, Wanted, desired};
use crate::host::observed::{LOCAL_TABLE, Link, MAIN_TABLE, Observed, OtherRoute, Rule, Target};
use crate::host::prefix::Prefix;

pub const TUNNEL: u32 = 7;
pub const WIRE: u32 = 2;
pub const BRIDGE: u32 = 3;
pub const VPN: u32 = 4;
pub const LEASE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const OTHER_LEASE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const OWN: Ipv6Addr = Ipv6Addr::new(0xfd77, 1, 2, 3, 4, 5, 6, 7);

pub fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix::new(
        address.parse::<IpAddr>().unwrap(),
        length.parse::<u8>().unwrap(),
    )
}

pub fn wanted() -> Wanted {
    Wanted {
        ipv6: Some(OWN),
        lease: Some(LEASE),
        resolver: Some(Place::Loopback),
        ..Wanted::closed("mixline0", VirtualNetwork::default())
    }
}

pub fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        up: true,
        elsewhere: false,
        hardware: index == WIRE,
        point_to_point: index == VPN,
        contained: index == BRIDGE,
    }
}

/// A host with a wire, a bridge and a tunnel of somebody else's.
pub fn host() -> Observed {
    let everything = |ipv6| Rule {
        priority: 32766,
        from: Prefix::everything(ipv6),
        to: Prefix::everything(ipv6),
        narrowed: false,
        table: 254,
    };
    let local = |ipv6| Rule {
        priority: 0,
        table: LOCAL_TABLE,
        ..everything(ipv6)
    };
    let main = |to: &str, interface, gateway| other_route(prefix(to), interface, gateway);
    Observed {
        links: vec![
            link(1, "lo"),
            link(WIRE, "eth0"),
            link(BRIDGE, "docker0"),
            link(VPN, "tun0"),
            link(TUNNEL, "mixline0"),
        ],
        addresses: Vec::new(),
        rules: vec![
            local(false),
            everything(false),
            local(true),
            everything(true),
        ],
        routes: Vec::new(),
        others: vec![main("0.0.0.0/0", WIRE, true), main("::/0", WIRE, true)],
        were_wires: BTreeSet::new(),
        filter: None,
        ipv6: true,
        ipv6_inside: true,
    }
}

pub fn other_route(to: Prefix, interface: u32, gateway: bool) -> OtherRoute {
    OtherRoute {
        table: MAIN_TABLE,
        to,
        interface,
        gateway,
        via: None,
    }
}

/// The kernel: does one action.
pub fn act(kernel: &mut Observed, action: &Action) {
    match action {
        Action::SetFilter(chains) => kernel.filter = Some(chains.clone()),
        Action::RemoveFilter => kernel.filter = None,
        Action::SetRoute(route) => {
            kernel.routes.retain(|other| !other.has_place_of(route));
            kernel.routes.push(*route);
        }
        Action::RemoveRoute(route) => kernel.routes.retain(|other| other != route),
        Action::AddRule(rule) => {
            if !kernel.rules.contains(rule) {
                let after = kernel
                    .rules
                    .iter()
                    .position(|other| other.priority > rule.priority);
                kernel
                    .rules
                    .insert(after.unwrap_or(kernel.rules.len()), *rule);
            }
        }
        Action::RemoveRule(rule) => {
            let position = kernel.rules.iter().position(|other| other == rule).unwrap();
            kernel.rules.remove(position);
        }
        Action::SetUp(index) => {
            for link in kernel.links.iter_mut().filter(|link| link.index == *index) {
                link.up = true;
            }
        }
        Action::AddAddress(address) => {
            if !kernel.addresses.contains(address) {
                kernel.addresses.push(*address);
            }
        }
        Action::RemoveAddress(address) => kernel.addresses.retain(|other| other != address),
    }
}

/// Whether routes and rules lead a packet to this address out of the host by something else than
/// the tunnel. Rules that are not the client's lead out.
pub fn is_led_out(kernel: &Observed, to: IpAddr) -> bool {
    is_led_out_from(kernel, None, to)
}

/// The same for one with a source, or before it has one.
pub fn is_led_out_from(kernel: &Observed, from: Option<IpAddr>, to: IpAddr) -> bool {
    for rule in &kernel.rules {
        let by_source = match from {
            Some(from) => rule.from.contains(from),
            None => rule.from.length == 0,
        };
        if rule.table == LOCAL_TABLE || !rule.to.contains(to) || !by_source {
            continue;
        }
        if !rule.is_own() {
            return true;
        }
        let best = kernel
            .routes
            .iter()
            .filter(|route| route.table == rule.table && route.to.contains(to))
            .min_by_key(|route| (u8::MAX - route.to.length, route.metric));
        match best.map(|route| route.target) {
            Some(Target::Interface(TUNNEL) | Target::Unreachable) => return false,
            Some(Target::Interface(_) | Target::Other) => return true,
            Some(Target::Throw) | None => {}
        }
    }
    true
}

/// Whether a packet that the host is to answer goes by the tunnel.
pub fn is_inside(kernel: &Observed, from: IpAddr, to: IpAddr) -> bool {
    let mut tunnel = kernel.clone();
    let by_tunnel = !is_led_out_from(&tunnel, Some(from), to);
    tunnel
        .routes
        .retain(|route| route.target != Target::Unreachable);
    by_tunnel && !is_led_out_from(&tunnel, Some(from), to)
}

pub fn settle(kernel: &mut Observed, wanted: &Wanted, mut look: impl FnMut(&Observed, &Action)) {
    for _ in 0..4 {
        let actions = plan(&desired(wanted, kernel), &wanted.network, kernel);
        if actions.is_empty() {
            return;
        }
        for action in &actions {
            act(kernel, action);
            look(kernel, action);
        }
    }
    let actions = plan(&desired(wanted, kernel), &wanted.network, kernel);
    assert_eq!(actions, [], "it does not settle");
}

pub fn with_main(to: &str, interface: u32, gateway: bool) -> Observed {
    let mut host = host();
    host.others
        .push(other_route(prefix(to), interface, gateway));
    host
}

pub fn is_up(kernel: &Observed, interface: u32) -> bool {
    let mut links = kernel.links.iter();
    links.any(|link| link.index == interface && link.up)
}
