//! What passes between a wire and the host, and what does not.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use mixline_client::host::kernel::Kernel;
use mixline_client::host::outside::Outside;
use mixline_client::host::plan::Action;
use mixline_client::host::prefix::Prefix;
use mixline_client::testing::Tun;
use mixline_testnet::{netns, skip};

use crate::containers::Port;
use crate::wire::{HOST, LEASE, OWN, Wire, bind, ip, left_to_do, listen, settle, soon, wanted};

#[test]
fn nobody_on_the_wire_finds_or_reaches_a_virtual_address() {
    let Some(wire) = Wire::new() else { return };
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    wire.on_host(|| settle(&wanted()));
    // The wire works.
    assert!(soon(|| wire.gets_in(HOST.into())));
    for own in [
        IpAddr::V4(LEASE),
        OWN.into(),
        Ipv4Addr::new(10, 0, 0, 53).into(),
    ] {
        assert!(!wire.gets_in(own), "{own}");
    }
    let neighbours = wire.on_router(|| ip("neighbour show dev host"));
    for line in neighbours.lines().filter(|line| {
        !line.starts_with("192.0.2.2")
            && !line.starts_with("2001:db8::2")
            && !line.starts_with("fe80")
    }) {
        assert!(!line.contains("lladdr"), "{line}");
    }
    // It is the filter that does it.
    wire.on_host(|| {
        Kernel::open()
            .unwrap()
            .apply(&Action::RemoveFilter)
            .unwrap()
    });
    for own in [IpAddr::V4(LEASE), OWN.into()] {
        assert!(soon(|| wire.gets_in(own)), "{own}");
    }
}

#[test]
fn a_neighbour_that_asks_in_the_name_of_virtual_addresses_learns_nothing() {
    let Some(wire) = Wire::new() else { return };
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    // Whether the host answers ARP from this address for its own address on the wire.
    let answers = |from: &str| {
        wire.on_router(|| {
            let _ = netns::ip_output(&format!("address add {from}/32 dev host"));
            ip("neighbour flush dev host");
            let arguments = ["-c1", "-W1", "-I", from, "192.0.2.2"];
            let _ = netns::tool("ping").args(arguments).output();
            let _ = netns::ip_output(&format!("address del {from}/32 dev host"));
            ip("neighbour show 192.0.2.2 dev host").contains("lladdr")
        })
    };
    assert!(soon(|| wire.gets_in(HOST.into())));
    // The kernel tells them apart, and the filter does not.
    wire.on_host(|| {
        settle(&wanted());
        let kernel = Kernel::open().unwrap();
        kernel.apply(&Action::RemoveFilter).unwrap();
    });
    // The host may ask the router meanwhile, which then knows it: silence counts once it was heard.
    let is_silent = |from: &str| soon(|| !answers(from));
    assert!(soon(|| answers("10.9.9.9")) && is_silent("10.77.0.1"));
    wire.on_host(|| settle(&wanted()));
    assert!(is_silent("10.9.9.9") && is_silent("10.77.0.1"));
    assert!(soon(|| answers("192.0.2.1")), "an ordinary neighbour");
}

#[test]
fn whom_the_client_talks_to_inside_the_virtual_network_is_reached_and_nothing_else_there() {
    let Some(wire) = Wire::new() else { return };
    let relay: IpAddr = "10.9.9.9".parse().unwrap();
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    let mut wanted = wanted();
    wire.on_host(|| settle(&wanted));
    assert!(!wire.gets_out(relay));
    wanted.outside = [Outside::udp((relay, 5000).into())].into();
    wire.on_host(|| settle(&wanted));
    wire.on_host(|| assert_eq!(left_to_do(&wanted), []));
    assert!(soon(|| wire.gets_out(relay)));
    assert!(!wire.gets_out("10.9.9.8".parse().unwrap()));
    // It answers from its port, and is a stranger from another.
    let answers = |port: u16| {
        let host = wire.on_host(|| listen((HOST, 5003)));
        wire.on_router(|| {
            let socket = bind((relay, port));
            let _ = socket.send_to(b"in", (HOST, 5003));
        });
        host.recv(&mut [0; 8]).is_ok()
    };
    assert!(soon(|| answers(5000)));
    assert!(!answers(5001));
    // Another port of its is a virtual address.
    wanted.outside = [Outside::udp((relay, 4999).into())].into();
    wire.on_host(|| settle(&wanted));
    assert!(!wire.gets_out(relay));
}

#[test]
fn a_host_that_forwards_is_as_silent_for_a_neighbour_as_for_its_lease() {
    let Some(wire) = Wire::new() else { return };
    wire.on_host(|| {
        ip("address add 10.77.0.9/24 dev eth0");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    });
    // Whether the host says anything about an address that it is sent a packet for.
    let answers = |to: &str| {
        wire.on_router(|| {
            ip(&format!("route replace {to}/32 via 192.0.2.2"));
            let ping = netns::tool("ping").args(["-c1", "-W4", to]).output();
            let said = String::from_utf8(ping.unwrap().stdout).unwrap();
            said.contains("From ") || said.contains("bytes from")
        })
    };
    assert!(answers("10.77.0.50"), "what it forwards, without a client");
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    let report = wire.on_host(|| settle(&wanted()));
    assert!(
        report
            .others
            .contains(&Prefix::new(Ipv4Addr::new(10, 77, 0, 0), 24))
    );
    for to in ["10.77.0.1", "10.77.0.50"] {
        assert!(!answers(to), "{to}");
    }
    assert!(soon(|| answers("10.77.0.9")), "the host itself");
}

#[test]
fn what_the_host_forwards_for_a_peer_leaves_by_no_wire() {
    let Some(wire) = Wire::new() else { return };
    let Some(container) = wire.container(Port::Alone, [198, 51, 100]) else {
        return;
    };
    let Some(peers) = skip::namespace_or_skip() else {
        return;
    };
    wire.on_router(|| ip("route add 10.0.0.0/8 via 192.0.2.2"));
    // In the place of the client's interface, one by which others send what they like.
    let other_end = || {
        let thread = nix::unistd::gettid();
        wire.on_host(|| {
            let end = format!("type veth peer name eth0 netns {thread}");
            ip(&format!("link add mixline0 {end}"))
        });
        for line in [
            "link set lo up",
            "link set eth0 up",
            "address add 10.9.9.9/32 dev eth0",
            "route add default via 10.77.0.1 dev eth0 onlink",
        ] {
            ip(line);
        }
    };
    peers.run(other_end).unwrap();
    wire.on_host(|| {
        settle(&wanted());
        assert_eq!(left_to_do(&wanted()), []);
    });
    let router = wire.on_router(|| listen("192.0.2.1:5005"));
    let inner = container.run(|| listen("198.51.100.2:5005")).unwrap();
    let arrives = |at: &UdpSocket| {
        let to = at.local_addr().unwrap();
        let send = || drop(bind("10.9.9.9:0").send_to(b"forwarded", to));
        peers.run(send).unwrap();
        at.recv(&mut [0; 16]).is_ok()
    };
    // A container may serve peers under the host's address.
    assert!(soon(|| arrives(&inner)));
    assert!(!arrives(&router));
    // It is the filter that does it.
    wire.on_host(|| {
        let kernel = Kernel::open().unwrap();
        kernel.apply(&Action::RemoveFilter).unwrap();
    });
    assert!(soon(|| arrives(&router)));
}
