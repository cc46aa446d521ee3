//! The addresses that the host gets.

use std::net::{IpAddr, Ipv4Addr};

use super::kernel_in_memory::{
    LEASE, OTHER_LEASE, TUNNEL, WIRE, host, prefix, settle, wanted, with_main,
};
use crate::host::desired::{Place, desired};
use crate::host::observed::{Address, Observed};

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
fn the_leased_address_is_the_interfaces_first() {
    let mut wanted = wanted();
    wanted.resolver = Some(Place::Inside);
    wanted.lease = None;
    let mut host = host();
    settle(&mut host, &wanted, |_, _| {});
    for lease in [LEASE, OTHER_LEASE] {
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
