//! What others have inside the virtual networks, and which of it is theirs.

use std::net::{IpAddr, Ipv4Addr};

use super::super::Action;
use super::kernel_in_memory::{
    BRIDGE, LEASE, VPN, WIRE, act, host, is_inside, is_led_out, link, other_route, prefix, settle,
    wanted, with_main,
};
use crate::host::desired::desired;
use crate::host::finding::Finding;
use crate::host::observed::{Address, Link, OtherRoute, Rule};
use crate::host::others::all_wires;
use crate::host::outside::Outside;
use crate::host::prefix::Prefix;

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
