//! Where routes and rules lead: inside, or nowhere, or to a neighbourhood that was there.

use std::net::{IpAddr, Ipv4Addr};

use mixline_client::host::desired::{Place, Wanted};
use mixline_client::host::kernel::Kernel;
use mixline_client::host::outside::Outside;
use mixline_client::host::reconcile::Reconciler;
use mixline_client::testing::Tun;
use mixline_protocol::address::VirtualNetwork;
use mixline_testnet::netns;

use crate::wire::{LEASE, OWN, WAIT, Wire, bind, ip, left_to_do, listen, settle, soon, wanted};

#[test]
fn the_host_settles_and_is_put_back() {
    let Some(wire) = Wire::new() else { return };
    wire.on_host(|| {
        let wanted = wanted();
        let kernel = Kernel::open().unwrap();
        let before = kernel.observe(&wanted).unwrap();
        let tun = Tun::create("mixline0", 1500).unwrap();
        let report = settle(&wanted);
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(report.ipv4 && report.ipv6, "{report:?}");
        assert_eq!(report.resolver, Some(Ipv4Addr::new(10, 0, 0, 53)));
        assert_eq!(
            left_to_do(&wanted),
            [],
            "the kernel gives back what was asked for"
        );
        assert!(ip("route get 10.1.2.3").contains("dev mixline0 "));
        assert!(ip("route get 10.1.2.3").contains(&format!("src {LEASE}")));
        assert!(ip("-6 route get fd01::1").contains("dev mixline0 "));
        assert!(ip("route get 192.0.2.77").contains("dev eth0"));
        // The interface's first address is the leased one.
        let shown = ip("-o -4 address show dev mixline0");
        assert!(
            shown.lines().next().unwrap().contains("10.77.0.1/32"),
            "{shown}"
        );
        drop(tun);
        Reconciler::open().unwrap().remove(&wanted).unwrap();
        assert_eq!(kernel.observe(&wanted).unwrap(), before);
    });
}

#[test]
fn nothing_gets_out_whatever_happens_to_routes_rules_and_interface() {
    let Some(wire) = Wire::new() else { return };
    let (ipv4, ipv6): (IpAddr, IpAddr) = ("10.1.2.3".parse().unwrap(), "fd01::3".parse().unwrap());
    // Without the client both leave.
    assert!(soon(|| wire.gets_out(ipv4)) && soon(|| wire.gets_out(ipv6)));
    let mut tun = Some(wire.on_host(|| Tun::create("mixline0", 1500).unwrap()));
    wire.on_host(|| settle(&wanted()));
    let events: [&[&str]; 9] = [
        &[],
        &["link set mixline0 down"],
        &["link set mixline0 down", "link set mixline0 up"],
        &["route flush table 28009", "-6 route flush table 28009"],
        &[
            "rule del to 10.0.0.0/8 lookup 28009",
            "-6 rule del to fd00::/8 lookup 28009",
        ],
        &[
            "route add 10.0.0.0/8 via 192.0.2.1 table 52",
            "rule add pref 0 to 10.0.0.0/8 lookup 52",
        ],
        &[
            "route add 10.0.0.0/8 via 192.0.2.1",
            "-6 route add fd00::/8 via 2001:db8::1",
        ],
        &["route add 10.1.2.3/32 via 192.0.2.1"],
        &[
            "rule del pref 0 to 10.0.0.0/8 lookup 52",
            "rule add pref 5270 lookup 52",
        ],
    ];
    for event in events {
        wire.on_host(|| {
            for line in event {
                ip(line);
            }
        });
        assert!(
            !wire.gets_out(ipv4) && !wire.gets_out(ipv6),
            "after {event:?}"
        );
        let report = wire.on_host(|| settle(&wanted()));
        assert!(report.ipv4 && report.ipv6, "after {event:?}: {report:?}");
        wire.on_host(|| assert_eq!(left_to_do(&wanted()), [], "after {event:?}"));
        assert!(
            !wire.gets_out(ipv4) && !wire.gets_out(ipv6),
            "after {event:?}"
        );
    }
    // A rule of another, but for one that was there first, does not lead away.
    assert!(
        wire.on_host(|| ip("route get 10.1.2.3"))
            .contains("dev mixline0")
    );
    // The process is killed.
    tun.take();
    assert!(!wire.gets_out(ipv4) && !wire.gets_out(ipv6));
    let unreachable = wire.on_host(|| ip("rule show"));
    assert!(unreachable.contains("lookup 28009"), "{unreachable}");
}

#[test]
fn a_neighbourhood_inside_the_virtual_network_keeps_its_addresses() {
    let Some(wire) = Wire::new() else { return };
    let neighbour: IpAddr = "10.0.0.1".parse().unwrap();
    wire.on_router(|| ip("address add 10.0.0.1/24 dev host"));
    wire.on_host(|| ip("address add 10.0.0.7/24 dev eth0"));
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    let report = wire.on_host(|| settle(&wanted()));
    assert!(report.ipv4);
    assert_eq!(report.resolver, Some(Ipv4Addr::new(169, 254, 53, 53)));
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert!(soon(|| wire.gets_out(neighbour)));
    assert!(!wire.gets_out("10.1.2.3".parse().unwrap()));
    // The host moves on: what was the neighbourhood's is nobody's again.
    wire.on_host(|| ip("address del 10.0.0.7/24 dev eth0"));
    assert!(
        !wire.gets_out("10.0.0.9".parse().unwrap()),
        "before anybody looked"
    );
    let report = wire.on_host(|| settle(&wanted()));
    assert_eq!(report.problems, Vec::<String>::new());
}

#[test]
fn a_wire_as_wide_as_the_virtual_network_leaves_the_host_its_way_out() {
    let Some(wire) = Wire::new() else { return };
    wire.on_router(|| {
        ip("address add 10.0.0.1/8 dev host");
        ip("address add 198.51.100.1/32 dev lo");
    });
    wire.on_host(|| {
        ip("address del 192.0.2.2/24 dev eth0");
        ip("address add 10.3.4.5/8 dev eth0");
        ip("route add default via 10.0.0.1");
    });
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    let report = wire.on_host(|| settle(&wanted()));
    assert!(report.ipv4, "{report:?}");
    // With an empty table of neighbours: the gateway is asked for by ARP.
    wire.on_host(|| ip("neighbour flush dev eth0"));
    let there = || {
        let one = |count: &str, to: &str| {
            let asked = netns::tool("ping").args(["-c", count, "-W1", to]).output();
            asked.unwrap().status.success()
        };
        wire.on_host(|| one("1", "198.51.100.1"))
    };
    assert!(soon(there), "{report:?}");
    assert!(!wire.gets_out("10.1.2.3".parse().unwrap()));
}

#[test]
fn a_neighbour_does_not_get_the_address_that_a_program_was_told_for_a_name() {
    let Some(wire) = Wire::new() else { return };
    let told: IpAddr = "10.0.0.9".parse().unwrap();
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    let mut wanted = wanted();
    wanted.told = [told].into();
    wire.on_host(|| settle(&wanted));
    wire.on_router(|| ip("address add 10.0.0.1/24 dev host"));
    wire.on_host(|| ip("address add 10.0.0.7/24 dev eth0"));
    wire.on_host(|| settle(&wanted));
    assert!(soon(|| wire.gets_out("10.0.0.8".parse().unwrap())));
    assert!(!wire.gets_out(told));
    // Nor does whoever holds the name get what is meant for a neighbour.
    let routes = wire.on_host(|| ip("route show table 28009"));
    assert!(routes.contains("unreachable 10.0.0.9 "), "{routes}");
    // A name server there is asked all the same, at its port alone.
    wanted.outside = [Outside::udp((told, 53).into())].into();
    wire.on_host(|| settle(&wanted));
    let asked = wire.on_router(|| {
        let _ = netns::ip_output("route replace local 10.0.0.9/32 dev lo");
        listen("0.0.0.0:53")
    });
    assert!(soon(|| {
        wire.on_host(|| {
            let _ = bind("0.0.0.0:0").send_to(b"?", (told, 53));
        });
        asked.recv(&mut [0; 8]).is_ok()
    }));
    assert!(!wire.gets_out(told));
    wire.on_host(|| assert_eq!(left_to_do(&wanted), []));
}

#[test]
fn a_moved_virtual_network_leaves_the_former_one_closed() {
    let Some(wire) = Wire::new() else { return };
    let former = VirtualNetwork {
        prefix: Ipv4Addr::new(10, 96, 0, 0),
        length: 12,
    };
    wire.on_host(|| {
        let before = Wanted {
            resolver: Some(Place::Loopback),
            ..Wanted::closed("mixline0", former)
        };
        settle(&before);
        assert!(ip("address show dev lo").contains("10.96.0.53/32"));
        let reconciler = Reconciler::open().unwrap();
        reconciler.leave(former, &wanted()).unwrap();
        let moved = Wanted {
            network: "10.0.0.0/12".parse().unwrap(),
            ..wanted()
        };
        settle(&moved.with_former(&[former]));
        let shown = ip("address show dev lo");
        assert!(
            !shown.contains("10.96.0.53") && shown.contains("10.0.0.53/32"),
            "{shown}"
        );
    });
    assert!(!wire.gets_out("10.97.1.2".parse().unwrap()));
    assert!(soon(|| wire.gets_out("10.200.1.2".parse().unwrap())));
    wire.on_host(|| Reconciler::open().unwrap().remove(&wanted()).unwrap());
    assert!(soon(|| wire.gets_out("10.97.1.2".parse().unwrap())));
}

#[test]
fn the_hosts_own_addresses_are_its_own_where_their_rule_was_moved() {
    let Some(wire) = Wire::new() else { return };
    wire.on_host(|| {
        ip("rule add pref 100 lookup local");
        ip("rule del pref 0 lookup local");
        ip("-6 rule add pref 100 lookup local");
        ip("-6 rule del pref 0 lookup local");
    });
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    wire.on_host(|| {
        settle(&wanted());
        assert_eq!(left_to_do(&wanted()), []);
        for own in [
            IpAddr::V4(LEASE),
            OWN.into(),
            Ipv4Addr::new(10, 0, 0, 53).into(),
        ] {
            let here = bind((own, 5004));
            here.set_read_timeout(Some(WAIT)).unwrap();
            let from = bind((own, 0));
            from.send_to(b"here", (own, 5004)).unwrap();
            assert!(here.recv(&mut [0; 8]).is_ok(), "{own}");
        }
    });
    assert!(!wire.gets_out("10.1.2.3".parse().unwrap()));
}
