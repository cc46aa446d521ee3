//! Hosts in random states, and what clients may want of them.

use std::net::{IpAddr, Ipv4Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::Action;
use super::kernel_in_memory::{
    BRIDGE, LEASE, OTHER_LEASE, TUNNEL, VPN, WIRE, act, host, other_route, prefix, settle, wanted,
};
use crate::host::desired::Wanted;
use crate::host::observed::{
    Address, INSIDE_TABLE, MAIN_TABLE, OWN_TABLES, Observed, OtherRoute, Route, Rule, TABLE, Target,
};
use crate::host::outside::Outside;
use crate::host::prefix::Prefix;

fn prefixes() -> impl Strategy<Value = Prefix> {
    select(vec![
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.128.0.0/9",
        "10.0.0.0/24",
        "10.1.0.0/16",
        "10.244.3.0/24",
        "172.17.0.0/16",
        "0.0.0.0/0",
        "fd00::/8",
        "fd12:3456:789a:1::/64",
        "::/0",
    ])
    .prop_map(prefix)
}

fn routes() -> impl Strategy<Value = Route> {
    let target = select(vec![
        Target::Interface(WIRE),
        Target::Interface(TUNNEL),
        Target::Throw,
        Target::Unreachable,
        Target::Other,
    ]);
    let table = select(OWN_TABLES.to_vec());
    let metric = select(vec![0, 1, 2, 1 << 16]);
    (table, prefixes(), target, metric).prop_map(|(table, to, target, metric)| Route {
        table,
        to,
        target,
        metric,
    })
}

fn sources() -> impl Strategy<Value = Option<Prefix>> {
    select(vec![
        None,
        Some(Prefix::host(LEASE)),
        Some(Prefix::host(OTHER_LEASE)),
        Some(prefix("10.5.0.0/16")),
    ])
}

fn rules() -> impl Strategy<Value = Rule> {
    (
        select(vec![0, 1, 5270, 32765]),
        sources(),
        prefixes(),
        any::<bool>(),
        select(vec![TABLE, INSIDE_TABLE, 52, 0]),
    )
        .prop_map(|(priority, from, to, narrowed, table)| Rule {
            priority,
            from: match from {
                // The client never leads everybody's packets there.
                None if table == INSIDE_TABLE => Prefix::host(LEASE),
                None => Prefix::everything(to.is_ipv6()),
                Some(from) => from,
            },
            to,
            narrowed,
            table,
        })
}

pub fn hosts() -> impl Strategy<Value = Observed> {
    let address = (
        select(vec![1, WIRE, TUNNEL]),
        select(vec![
            "10.0.0.53/32",
            "10.77.0.1/32",
            "10.0.0.7/24",
            "fd77::1/128",
        ]),
    );
    let main = (
        prefixes(),
        select(vec![WIRE, BRIDGE, VPN]),
        any::<bool>(),
        any::<bool>(),
    );
    (
        vec(routes(), 0..6),
        vec(rules(), 0..5),
        vec(address, 0..4),
        vec(main, 0..5),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<[bool; 5]>(),
        option::of(leases()),
    )
        .prop_map(
            |(routes, rules, addresses, main, filter, ipv6, tunnel, up, earlier)| {
                let mut host = host();
                host.ipv6 = ipv6;
                host.ipv6_inside = ipv6;
                // What another run of the client has left, with this lease.
                if let Some(lease) = earlier {
                    let wanted = Wanted { lease, ..wanted() };
                    settle(&mut host, &wanted, |_, _| {});
                }
                for route in routes {
                    if ipv6 || !route.to.is_ipv6() {
                        act(&mut host, &Action::SetRoute(route));
                    }
                }
                for rule in rules {
                    act(&mut host, &Action::AddRule(rule));
                }
                for (interface, text) in addresses {
                    let prefix = prefix(text);
                    act(
                        &mut host,
                        &Action::AddAddress(Address { interface, prefix }),
                    );
                }
                host.others
                    .extend(
                        main.into_iter()
                            .map(|(to, interface, gateway, main)| OtherRoute {
                                table: if main { MAIN_TABLE } else { 52 },
                                ..other_route(to, interface, gateway)
                            }),
                    );
                for (link, up) in host.links.iter_mut().zip(up) {
                    link.up = up;
                }
                host.filter = filter.then(Vec::new);
                host.ipv6_inside = ipv6 && tunnel;
                if !tunnel {
                    host.links.retain(|link| link.index != TUNNEL);
                    host.routes
                        .retain(|route| route.target != Target::Interface(TUNNEL));
                    host.addresses.retain(|address| address.interface != TUNNEL);
                }
                host
            },
        )
}

/// Virtual addresses that hosts and wishes are about.
pub const SOME: [&str; 5] = [
    "10.200.3.4",
    "10.1.3.4",
    "10.0.0.9",
    "fd99::1",
    "fd12:3456:789a:1::9",
];

fn leases() -> impl Strategy<Value = Option<Ipv4Addr>> {
    select(vec![None, Some(LEASE), Some(OTHER_LEASE)])
}

/// What clients want that told names and talk to relays.
pub fn wishes() -> impl Strategy<Value = Wanted> {
    let some = || {
        vec(
            select(SOME.to_vec()).prop_map(|text| text.parse().unwrap()),
            0..3,
        )
    };
    (leases(), some(), some()).prop_map(|(lease, told, outside): (_, Vec<IpAddr>, Vec<IpAddr>)| {
        Wanted {
            lease,
            told: told.into_iter().collect(),
            outside: outside
                .into_iter()
                .map(|address| Outside::udp((address, 4100).into()))
                .collect(),
            ..wanted()
        }
    })
}
