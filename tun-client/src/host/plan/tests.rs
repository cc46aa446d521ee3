//! A kernel in memory, from random states.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::desired::{Place, Wanted, desired};
use super::super::finding::Finding;
use super::super::observed::{
    INSIDE_TABLE, LOCAL_TABLE, Link, MAIN_TABLE, OWN_TABLES, OtherRoute, TABLE,
};
use super::super::others::all_wires;
use super::super::outside::Outside;
use super::super::prefix::{IPV6_NETWORK, Prefix};
use super::*;

const TUNNEL: u32 = 7;
const WIRE: u32 = 2;
const BRIDGE: u32 = 3;
const VPN: u32 = 4;
const LEASE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const OWN: Ipv6Addr = Ipv6Addr::new(0xfd77, 1, 2, 3, 4, 5, 6, 7);

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix::new(
        address.parse::<IpAddr>().unwrap(),
        length.parse::<u8>().unwrap(),
    )
}

fn wanted() -> Wanted {
    Wanted {
        ipv6: Some(OWN),
        lease: Some(LEASE),
        resolver: Some(Place::Loopback),
        ..Wanted::closed("mixline0", VirtualNetwork::default())
    }
}

fn link(index: u32, name: &str) -> Link {
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
fn host() -> Observed {
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

fn other_route(to: Prefix, interface: u32, gateway: bool) -> OtherRoute {
    OtherRoute {
        table: MAIN_TABLE,
        to,
        interface,
        gateway,
        via: None,
    }
}

/// The kernel: does one action.
fn act(kernel: &mut Observed, action: &Action) {
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
fn is_led_out(kernel: &Observed, to: IpAddr) -> bool {
    is_led_out_from(kernel, None, to)
}

/// The same for one with a source, or before it has one.
fn is_led_out_from(kernel: &Observed, from: Option<IpAddr>, to: IpAddr) -> bool {
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
fn is_inside(kernel: &Observed, from: IpAddr, to: IpAddr) -> bool {
    let mut tunnel = kernel.clone();
    let by_tunnel = !is_led_out_from(&tunnel, Some(from), to);
    tunnel
        .routes
        .retain(|route| route.target != Target::Unreachable);
    by_tunnel && !is_led_out_from(&tunnel, Some(from), to)
}

fn settle(kernel: &mut Observed, wanted: &Wanted, mut look: impl FnMut(&Observed, &Action)) {
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

fn hosts() -> impl Strategy<Value = Observed> {
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
    )
        .prop_map(
            |(routes, rules, addresses, main, filter, ipv6, tunnel, up)| {
                let mut host = host();
                for route in routes {
                    if ipv6 || !route.to.is_ipv6() {
                        act(&mut host, &Action::SetRoute(route));
                    }
                }
                for rule in rules {
                    act(&mut host, &Action::AddRule(rule));
                }
                host.addresses = addresses
                    .into_iter()
                    .map(|(interface, text)| Address {
                        interface,
                        prefix: prefix(text),
                    })
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect();
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
                host.ipv6 = ipv6;
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

const SOME: [&str; 5] = [
    "10.200.3.4",
    "10.1.3.4",
    "10.0.0.9",
    "fd99::1",
    "fd12:3456:789a:1::9",
];

/// What clients want that told names and talk to relays.
fn wishes() -> impl Strategy<Value = Wanted> {
    let some = || {
        vec(
            select(SOME.to_vec()).prop_map(|text| text.parse().unwrap()),
            0..3,
        )
    };
    (some(), some()).prop_map(|(told, outside): (Vec<IpAddr>, Vec<IpAddr>)| Wanted {
        told: told.into_iter().collect(),
        outside: outside
            .into_iter()
            .map(|address| Outside::udp((address, 4100).into()))
            .collect(),
        ..wanted()
    })
}

/// Virtual addresses that nobody else has.
fn virtual_addresses(wanted: &Wanted, kernel: &Observed) -> Vec<IpAddr> {
    let goal = desired(wanted, kernel);
    let others = goal.others();
    SOME.iter()
        .map(|text| text.parse().unwrap())
        .filter(|address: &IpAddr| kernel.ipv6 || address.is_ipv4())
        .filter(|address| {
            goal.filter.kept.contains(address)
                || !others.iter().any(|other| other.contains(*address))
        })
        .collect()
}

fn is_up(kernel: &Observed, interface: u32) -> bool {
    let mut links = kernel.links.iter();
    links.any(|link| link.index == interface && link.up)
}

/// The addresses that are the client's to give and to take.
fn own_addresses(wanted: &Wanted, kernel: &Observed) -> BTreeSet<Address> {
    let own = kernel.link(&wanted.interface).map(|link| link.index);
    let addresses = kernel.addresses.iter().copied();
    addresses
        .filter(|address| is_own(address, own, &wanted.network))
        .collect()
}

proptest! {
    #[test]
    fn every_host_settles_and_then_looks_as_desired(mut kernel in hosts(), wanted in wishes()) {
        settle(&mut kernel, &wanted, |kernel, action| {
            // The kernel takes no route through an interface that is down.
            let inside = matches!(action, Action::SetRoute(Route { target: Target::Interface(TUNNEL), .. }));
            assert!(!inside || is_up(kernel, TUNNEL), "{action:?}");
        });
        let goal = desired(&wanted, &kernel);
        prop_assert_eq!(kernel.filter.as_ref(), Some(&goal.filter.chains()));
        prop_assert_eq!(kernel.routes.iter().copied().collect::<BTreeSet<_>>(), goal.routes.clone());
        prop_assert_eq!(own_addresses(&wanted, &kernel), goal.addresses.clone());
        for rule in &goal.rules {
            prop_assert!(kernel.rules.contains(rule), "no rule {rule}");
        }
        let mut inside = kernel.rules.iter().filter(|rule| rule.table == INSIDE_TABLE);
        prop_assert!(inside.all(|rule| goal.rules.contains(rule)), "a source too many");
        prop_assert!(goal.interface.is_none_or(|interface| is_up(&kernel, interface)));
        let overruled = goal.findings.iter().any(|f| matches!(f, Finding::Earlier { .. }));
        for address in virtual_addresses(&wanted, &kernel) {
            prop_assert!(overruled || !is_led_out(&kernel, address), "{address}");
        }
    }

    #[test]
    fn what_comes_from_an_own_address_goes_inside_whoever_is_a_neighbour(mut kernel in hosts(), wanted in wishes()) {
        settle(&mut kernel, &wanted, |_, _| {});
        if kernel.link("mixline0").is_none() {
            return Ok(());
        }
        for to in SOME.iter().map(|text| text.parse::<IpAddr>().unwrap()) {
            let own = if to.is_ipv4() { IpAddr::V4(LEASE) } else { IpAddr::V6(OWN) };
            let of_its_family = kernel.rules.iter().filter(|rule| rule.from.address.is_ipv4() == to.is_ipv4());
            let mut before = of_its_family.take_while(|rule| rule.table != INSIDE_TABLE);
            if before.any(|rule| !rule.is_own() && rule.table != LOCAL_TABLE) {
                // Somebody else's rule comes first, which a finding says.
                continue;
            }
            if to.is_ipv4() || kernel.ipv6_inside {
                prop_assert!(!is_led_out_from(&kernel, Some(own), to), "{to}");
            }
        }
    }

    #[test]
    fn the_filter_is_there_before_anything_opens(mut kernel in hosts(), wanted in wishes()) {
        // One that is there is empty, and closes nothing.
        let first = plan(&desired(&wanted, &kernel), &wanted.network, &kernel);
        prop_assert!(matches!(first.first(), Some(Action::SetFilter(chains)) if !chains.is_empty()));
        let mut closed = false;
        settle(&mut kernel, &wanted, |kernel, action| {
            closed |= matches!(action, Action::SetFilter(_));
            assert!(closed && kernel.filter.as_ref().is_some_and(|chains| !chains.is_empty()), "{action:?} comes first");
        });
    }

    #[test]
    fn without_a_filter_what_routes_close_stays_closed_at_every_step(mut kernel in hosts(), wanted in wishes()) {
        let addresses = virtual_addresses(&wanted, &kernel);
        let mut open: BTreeSet<IpAddr> = addresses
            .iter()
            .copied()
            .filter(|address| is_led_out(&kernel, *address))
            .collect();
        settle(&mut kernel, &wanted, |kernel, action| {
            for address in &addresses {
                let out = is_led_out(kernel, *address);
                assert!(!out || open.contains(address), "{address} gets out after {action:?}");
                if !out {
                    open.remove(address);
                }
            }
        });
    }

    #[test]
    fn nothing_is_left_when_all_is_removed(mut kernel in hosts(), wanted in wishes()) {
        settle(&mut kernel, &wanted, |_, _| {});
        let own = kernel.link("mixline0").map(|link| link.index);
        for action in removal(&wanted.network, own, &kernel) {
            act(&mut kernel, &action);
        }
        prop_assert_eq!(&kernel.filter, &None);
        prop_assert!(kernel.routes.is_empty());
        prop_assert!(!kernel.rules.iter().any(Rule::is_own));
        prop_assert!(kernel.addresses.iter().all(|a| !is_own(a, own, &wanted.network)));
    }
}

fn with_main(to: &str, interface: u32, gateway: bool) -> Observed {
    let mut host = host();
    host.others
        .push(other_route(prefix(to), interface, gateway));
    host
}

#[test]
fn neighbours_and_the_hosts_own_networks_keep_their_addresses() {
    for (to, interface, gateway) in [
        ("10.0.0.0/24", WIRE, false),
        ("10.1.0.0/16", WIRE, false),
        ("fd12:3456:789a:1::/64", WIRE, false),
        ("10.244.3.0/24", BRIDGE, true),
        ("10.0.0.0/8", VPN, false),
    ] {
        let goal = desired(&wanted(), &with_main(to, interface, gateway));
        assert_eq!(goal.others(), [prefix(to)], "{to}");
        assert!(matches!(goal.findings[..], [Finding::Yielded { .. }]));
    }
}

#[test]
fn nobody_on_the_wire_hands_out_a_way_for_virtual_addresses() {
    for (to, gateway) in [
        ("10.0.0.0/8", true),
        ("10.0.0.0/9", false),
        ("10.200.0.0/16", true),
        ("10.200.3.4/32", true),
        ("fd00::/8", false),
    ] {
        let goal = desired(&wanted(), &with_main(to, WIRE, gateway));
        assert_eq!(goal.others(), [], "{to}");
        assert!(matches!(goal.findings[..], [Finding::Overruled { .. }]));
    }
}

#[test]
fn the_resolver_is_nobody_elses_address_and_stays_where_it_is() {
    let mut host = host();
    let resolver = |host: &Observed| {
        let resolver = desired(&wanted(), host).resolver.unwrap();
        resolver.prefix.address
    };
    assert_eq!(resolver(&host), Ipv4Addr::new(10, 0, 0, 53));
    host.addresses.push(Address {
        interface: WIRE,
        prefix: prefix("10.0.0.53/32"),
    });
    assert_eq!(resolver(&host), Ipv4Addr::new(10, 0, 0, 54));
    settle(&mut host, &wanted(), |_, _| {});
    host.addresses.retain(|address| address.interface != WIRE);
    assert_eq!(resolver(&host), Ipv4Addr::new(10, 0, 0, 54), "it moved");
    let neighbours = with_main("10.0.0.0/24", WIRE, false);
    assert_eq!(resolver(&neighbours), Ipv4Addr::new(169, 254, 53, 53));
}

#[test]
fn a_rule_before_ours_is_told() {
    let mut host = host();
    let other = Rule {
        priority: 0,
        from: Prefix::everything(false),
        to: prefix("10.0.0.0/8"),
        narrowed: false,
        table: 52,
    };
    act(&mut host, &Action::AddRule(other));
    settle(&mut host, &wanted(), |_, _| {});
    let goal = desired(&wanted(), &host);
    assert_eq!(
        goal.findings,
        [Finding::Earlier {
            priority: 0,
            table: 52
        }]
    );
    // One of a later priority does not matter.
    host.rules.retain(|rule| *rule != other);
    let later = Rule {
        priority: 5270,
        ..other
    };
    act(&mut host, &Action::AddRule(later));
    assert_eq!(desired(&wanted(), &host).findings, []);
    assert!(!is_led_out(&host, "10.200.3.4".parse().unwrap()));
}

#[test]
fn a_network_that_a_rule_leads_elsewhere_is_not_reached() {
    let mut host = host();
    let other = |ipv6| Rule {
        priority: 0,
        from: Prefix::everything(ipv6),
        to: if ipv6 {
            IPV6_NETWORK
        } else {
            prefix("10.0.0.0/8")
        },
        narrowed: false,
        table: 52,
    };
    act(&mut host, &Action::AddRule(other(false)));
    settle(&mut host, &wanted(), |_, _| {});
    let overruled = |host: &Observed| {
        let goal = desired(&wanted(), host);
        [false, true].map(|ipv6| goal.is_overruled(ipv6, host))
    };
    assert_eq!(overruled(&host), [false, false], "its table is empty");
    host.others.push(OtherRoute {
        table: 52,
        ..other_route(prefix("10.0.0.0/8"), WIRE, true)
    });
    assert_eq!(overruled(&host), [true, false]);
    // One that is for some packets only stands in nobody's way.
    for rule in host.rules.iter_mut().filter(|rule| rule.table == 52) {
        rule.narrowed = true;
    }
    assert_eq!(overruled(&host), [false, false]);
}

#[test]
fn without_a_lease_ipv4_refuses_and_ipv6_goes() {
    let mut wanted = wanted();
    wanted.lease = None;
    let mut host = host();
    settle(&mut host, &wanted, |_, _| {});
    let to = |network: Prefix| {
        let routes = host.routes.iter();
        let routes = routes.filter(|route| route.table == TABLE && route.to == network);
        routes.map(|route| route.target).collect::<Vec<_>>()
    };
    assert_eq!(to(prefix("10.0.0.0/8")), [Target::Unreachable]);
    assert!(to(IPV6_NETWORK).contains(&Target::Interface(TUNNEL)));
}

#[test]
fn a_new_lease_comes_before_the_networks_and_the_former_one_goes() {
    let mut wanted = wanted();
    let mut host = host();
    settle(&mut host, &wanted, |_, _| {});
    for lease in [None, Some(LEASE), Some(Ipv4Addr::new(10, 77, 0, 2)), None] {
        wanted.lease = lease;
        settle(&mut host, &wanted, |host, action| {
            assert!(
                !is_led_out(host, "10.200.3.4".parse().unwrap()),
                "{action:?}"
            );
        });
        let own: Vec<Rule> = host
            .rules
            .iter()
            .filter(|r| r.is_own() && !r.to.is_ipv6())
            .copied()
            .collect();
        let from: Vec<IpAddr> = own
            .iter()
            .filter(|r| r.table == INSIDE_TABLE)
            .map(|r| r.from.address)
            .collect();
        assert_eq!(from, lease.map(IpAddr::V4).into_iter().collect::<Vec<_>>());
        assert_eq!(own.last().map(|rule| rule.table), Some(TABLE));
    }
}

/// How many expressions a sentence has at most (`NFT_RULE_MAXEXPRS`).
const MAX_EXPRESSIONS: usize = 128;

#[test]
fn no_sentence_is_longer_than_the_kernel_takes() {
    // A host with many addresses in networks that lie in one another.
    let mut host = with_main("10.1.0.0/16", WIRE, false);
    for third in 0..100 {
        let inside = format!("10.1.{third}.7/24");
        host.others
            .push(other_route(prefix(&inside).network(), WIRE, false));
        host.addresses.push(Address {
            interface: WIRE,
            prefix: prefix(&inside),
        });
    }
    for name in 0..40 {
        host.links.push(Link {
            contained: true,
            ..link(100 + name, &format!("br{name}"))
        });
    }
    let goal = desired(&wanted(), &host);
    assert_eq!(goal.filter.local.len(), 32);
    let chains = goal.filter.chains();
    let sentences = chains.iter().flat_map(|chain| &chain.sentences);
    let longest = sentences.map(Vec::len).max().unwrap();
    assert!(longest <= MAX_EXPRESSIONS, "{longest}");
    assert!(longest > 90, "the bounds are not reached: {longest}");
}

#[test]
fn without_its_filter_a_host_is_closed_by_what_only_closes() {
    let mut host = host();
    let actions = plan(&desired(&wanted(), &host), &wanted().network, &host);
    for action in actions.iter().filter(|action| action.only_closes()) {
        if !matches!(action, Action::SetFilter(_)) {
            act(&mut host, action);
        }
    }
    for address in SOME {
        assert!(!is_led_out(&host, address.parse().unwrap()), "{address}");
    }
    assert!(host.addresses.is_empty() && host.links[4].name == "mixline0");
    let leads = |route: &Route| route.target == Target::Interface(TUNNEL);
    assert!(!host.routes.iter().any(leads));
}

#[test]
fn before_a_directory_has_spoken_ipv4_is_everybodys() {
    let unknown = Wanted {
        network_known: false,
        ..Wanted::closed("mixline0", VirtualNetwork::default())
    };
    let closed = desired(&unknown, &host());
    let mut ours = closed.rules.iter().filter(|rule| rule.table == TABLE);
    assert!(ours.all(|rule| rule.to == IPV6_NETWORK));
    assert!(closed.filter.networks.iter().all(|n| *n == IPV6_NETWORK));
    let known = desired(&wanted(), &host());
    assert!(known.filter.networks.len() > closed.filter.networks.len());
}

#[test]
fn a_former_network_stays_closed() {
    let mut wanted = wanted();
    wanted.network = "10.64.0.0/10".parse().unwrap();
    wanted.lease = Some(Ipv4Addr::new(10, 65, 0, 1));
    wanted.former = vec!["10.0.0.0/10".parse().unwrap()];
    let mut host = with_main("10.1.0.0/16", WIRE, false);
    settle(&mut host, &wanted, |_, _| {});
    assert!(!is_led_out(&host, "10.2.3.4".parse().unwrap()));
    assert!(is_led_out(&host, "10.1.3.4".parse().unwrap()));
    assert!(is_led_out(&host, "10.200.3.4".parse().unwrap()));
    assert!(is_inside(
        &host,
        Ipv4Addr::new(10, 65, 0, 1).into(),
        "10.66.0.1".parse().unwrap()
    ));
    assert!(!is_inside(
        &host,
        Ipv4Addr::new(10, 65, 0, 1).into(),
        "10.2.3.4".parse().unwrap()
    ));
}

#[test]
fn the_leased_address_is_the_interfaces_first() {
    let mut wanted = wanted();
    wanted.resolver = Some(Place::Inside);
    wanted.lease = None;
    let mut host = host();
    settle(&mut host, &wanted, |_, _| {});
    for lease in [LEASE, Ipv4Addr::new(10, 77, 0, 2)] {
        wanted.lease = Some(lease);
        settle(&mut host, &wanted, |_, _| {});
        let inside: Vec<IpAddr> = host
            .addresses
            .iter()
            .filter(|address| address.interface == TUNNEL && !address.prefix.is_ipv6())
            .map(|address| address.prefix.address)
            .collect();
        assert_eq!(inside, [lease, Ipv4Addr::new(10, 0, 0, 53)]);
    }
}

#[test]
fn what_a_neighbour_announces_leaves_room_for_the_hosts_own_networks() {
    let mut host = host();
    let on_wire =
        (0..100).map(|number| other_route(prefix(&format!("fd00:{number}::/64")), WIRE, false));
    host.others.extend(on_wire);
    let own = other_route(prefix("10.88.0.0/24"), BRIDGE, false);
    host.others.push(own);
    let goal = desired(&wanted(), &host);
    assert!(goal.others().contains(&own.to));
    assert_eq!(goal.others().len(), 32);
    let told = goal.findings.iter().filter(|f| **f == Finding::TooMany);
    assert_eq!(told.count(), 1);
    // Nor does it fill the status.
    host.others
        .iter_mut()
        .for_each(|route| route.gateway = true);
    assert!(desired(&wanted(), &host).findings.len() < 80);
}

#[test]
fn a_network_in_a_table_of_another_tunnels_keeps_its_addresses() {
    let route = |interface, gateway| OtherRoute {
        table: 52,
        ..other_route(prefix("10.64.0.0/12"), interface, gateway)
    };
    let asks = Rule {
        priority: 5270,
        from: Prefix::everything(false),
        to: Prefix::everything(false),
        narrowed: false,
        table: 52,
    };
    let mut host = host();
    host.others.push(route(VPN, false));
    assert_eq!(
        desired(&wanted(), &host).others(),
        [],
        "no rule leads there"
    );
    act(&mut host, &Action::AddRule(asks));
    assert_eq!(desired(&wanted(), &host).others(), [prefix("10.64.0.0/12")]);
    host.others.pop();
    host.others.push(route(WIRE, true));
    let goal = desired(&wanted(), &host);
    assert_eq!(goal.others(), []);
    assert!(matches!(goal.findings[..], [Finding::Overruled { .. }]));
}

#[test]
fn the_way_out_of_a_container_is_a_wire() {
    let uplink = 9;
    let mut host = host();
    host.links.push(Link {
        elsewhere: true,
        ..link(uplink, "eth9")
    });
    host.others = vec![
        other_route(prefix("0.0.0.0/1"), uplink, true),
        other_route(prefix("10.0.0.0/8"), uplink, true),
    ];
    assert_eq!(desired(&wanted(), &host).others(), []);
    // The pair that leads from a host to a container has none.
    host.others = vec![other_route(prefix("10.0.0.9/32"), uplink, false)];
    assert_eq!(desired(&wanted(), &host).others(), [prefix("10.0.0.9/32")]);
}

#[test]
fn a_wire_that_has_lost_its_routes_is_still_a_wire() {
    let uplink = 9;
    let mut host = host();
    host.links.push(link(uplink, "eth9"));
    host.others = vec![other_route(Prefix::everything(false), uplink, true)];
    let wires = all_wires(&host);
    assert_eq!(wires, [WIRE, uplink].into());
    host.others = vec![other_route(prefix("10.0.0.0/8"), uplink, true)];
    assert!(!desired(&wanted(), &host).others().is_empty(), "unknown");
    host.were_wires = wires;
    assert!(desired(&wanted(), &host).others().is_empty());
}

#[test]
fn an_address_that_was_told_for_a_name_is_nobody_elses_later() {
    let told: IpAddr = "10.0.0.9".parse().unwrap();
    let mut wanted = wanted();
    wanted.told = [told, "10.200.0.1".parse().unwrap()].into();
    let mut host = with_main("10.0.0.0/16", WIRE, false);
    settle(&mut host, &wanted, |_, _| {});
    let goal = desired(&wanted, &host);
    assert_eq!(goal.filter.kept, [told].into());
    assert!(!is_led_out(&host, told));
    assert!(is_led_out(&host, "10.0.0.8".parse().unwrap()));
    // Who came in from there is answered all the same.
    assert!(is_inside(&host, LEASE.into(), told));
    assert!(is_inside(&host, LEASE.into(), "10.0.0.8".parse().unwrap()));
    assert!(goal.findings.contains(&Finding::Kept {
        address: told,
        interface: "eth0".into()
    }));
    // A neighbourhood with more of them than can be kept is none.
    wanted.told = (0..1000)
        .map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).into())
        .collect();
    settle(&mut host, &wanted, |_, _| {});
    let goal = desired(&wanted, &host);
    assert!(goal.others().is_empty() && goal.filter.kept.is_empty());
    assert!(matches!(goal.findings[..], [Finding::Crowded { .. }]));
    assert!(!is_led_out(&host, "10.0.0.200".parse().unwrap()));
}

#[test]
fn a_wire_as_wide_as_the_virtual_network_leaves_the_way_out() {
    let mut host = with_main("10.0.0.0/8", WIRE, false);
    host.addresses.push(Address {
        interface: WIRE,
        prefix: prefix("10.3.4.5/8"),
    });
    for route in host.others.iter_mut().filter(|route| route.gateway) {
        route.via = Some("10.0.0.1".parse().unwrap());
    }
    settle(&mut host, &wanted(), |_, _| {});
    let goal = desired(&wanted(), &host);
    assert_eq!(
        goal.others(),
        [prefix("10.0.0.1/32"), prefix("10.3.4.5/32")]
    );
    assert!(!is_led_out(&host, "10.0.0.2".parse().unwrap()));
}

#[test]
fn whom_the_client_talks_to_is_let_through_unless_a_name_has_the_address() {
    let at = |text: &str| Outside::udp(text.parse().unwrap());
    let mut wanted = wanted();
    wanted.outside = [
        at("10.9.9.9:4100"),
        at("10.9.9.8:4100"),
        at("10.77.0.1:4100"),
        at("192.0.2.1:4100"),
    ]
    .into();
    wanted.told = ["10.9.9.8".parse().unwrap()].into();
    let mut host = host();
    settle(&mut host, &wanted, |_, _| {});
    let goal = desired(&wanted, &host);
    assert_eq!(goal.others(), [prefix("10.9.9.9/32")]);
    assert!(is_led_out(&host, "10.9.9.9".parse().unwrap()));
    wanted.outside = (0..100)
        .map(|n| Outside::tcp((Ipv4Addr::new(10, 9, 9, n), 80).into()))
        .collect();
    let goal = desired(&wanted, &host);
    assert_eq!(goal.filter.outside.len(), 64);
    assert_eq!(goal.findings, [Finding::TooManyOutside]);
}
