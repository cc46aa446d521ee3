//! Which networks are closed, and which lead inside.

use std::net::Ipv4Addr;

use mixline_protocol::address::VirtualNetwork;

use super::kernel_in_memory::{
    TUNNEL, WIRE, host, is_inside, is_led_out, prefix, settle, wanted, with_main,
};
use crate::host::desired::{Wanted, desired};
use crate::host::observed::{TABLE, Target};
use crate::host::prefix::{IPV6_NETWORK, Prefix};

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
