//! Namespaces behind the host, for which it forwards.

use std::net::UdpSocket;

use mixline_client::testing::Tun;
use mixline_testnet::netns::Namespace;
use mixline_testnet::skip;

use crate::names::question;
use crate::wire::{HOST, Wire, bind, ip, left_to_do, listen, settle, soon, wanted};

impl Wire {
    /// A namespace behind the host, which forwards for it: `inner0` has the first address of a /24, and
    /// the namespace's `eth0` the second.
    pub fn container(&self, port: Port, network: [u8; 3]) -> Option<Namespace> {
        let container = skip::namespace_or_skip()?;
        let [a, b, c] = network;
        let inside = || {
            let thread = nix::unistd::gettid();
            let end = format!("type veth peer name eth0 netns {thread}");
            self.on_host(|| {
                match port {
                    Port::Alone => ip(&format!("link add inner0 {end}")),
                    Port::OfABridge => {
                        ip("link add inner0 type bridge");
                        ip(&format!("link add port0 master inner0 {end}"));
                        ip("link set port0 up")
                    }
                };
                ip("link set inner0 up");
                ip(&format!("address add {a}.{b}.{c}.1/24 dev inner0"));
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            });
            ip("link set lo up");
            ip("link set eth0 up");
            ip(&format!("address add {a}.{b}.{c}.2/24 dev eth0"));
            ip(&format!("route add default via {a}.{b}.{c}.1"));
        };
        container.run(inside).unwrap();
        Some(container)
    }
}

/// What the host has towards a container.
#[derive(Clone, Copy)]
pub enum Port {
    /// One end of a pair of interfaces.
    Alone,
    /// A bridge with that end in it.
    OfABridge,
}

#[test]
fn what_the_host_forwards_to_networks_of_its_own_passes() {
    let Some(wire) = Wire::new() else { return };
    let Some(container) = wire.container(Port::Alone, [10, 88, 0]) else {
        return;
    };
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    let report = wire.on_host(|| settle(&wanted()));
    assert_eq!(report.others.len(), 1, "{report:?}");
    let socket = container.run(|| listen("10.88.0.2:5002")).unwrap();
    wire.on_router(|| ip("route add 10.88.0.0/24 via 192.0.2.2"));
    let arrives = |from: &str| {
        wire.on_router(|| {
            let sender = bind((from, 0));
            let _ = sender.send_to(b"in", "10.88.0.2:5002");
        });
        socket.recv(&mut [0; 8]).is_ok()
    };
    assert!(soon(|| arrives("192.0.2.1")));
    // What the host sends itself, with whatever source, as through a tunnel of somebody else's.
    let reaches = || {
        wire.on_host(|| {
            let sender = bind((HOST, 0));
            let _ = sender.send_to(b"in", "10.88.0.2:5002");
        });
        socket.recv(&mut [0; 8]).is_ok()
    };
    assert!(soon(reaches));
    // But nobody on the wire has a virtual address.
    wire.on_router(|| ip("address add 10.9.9.9/32 dev host"));
    assert!(!arrives("10.9.9.9"));
}

#[test]
fn containers_ask_the_host_s_resolver_and_nothing_else_of_it() {
    let Some(wire) = Wire::new() else { return };
    let Some(container) = wire.container(Port::OfABridge, [198, 51, 100]) else {
        return;
    };
    wire.on_router(|| {
        ip("route add 198.51.100.0/24 via 192.0.2.2");
        ip("route add 10.0.0.53/32 via 192.0.2.2");
    });
    let server = |address: &str| listen(address);
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    let report = wire.on_host(|| settle(&wanted()));
    assert_eq!(report.inner.len(), 1, "{report:?}");
    wire.on_host(|| assert_eq!(left_to_do(&wanted()), []));
    let ask = |from: &Namespace, to: &UdpSocket, name: &str| {
        let at = to.local_addr().unwrap();
        from.run(|| {
            let socket = bind("0.0.0.0:0");
            let _ = socket.send_to(&question(name), at);
        })
        .unwrap();
        to.recv(&mut [0; 512]).is_ok()
    };
    let outside = wire.on_router(|| server("192.0.2.1:53"));
    let behind = container.run(|| server("198.51.100.2:53")).unwrap();
    let [resolver, other_port, lease] =
        ["10.0.0.53:53", "10.0.0.53:54", "10.77.0.1:53"].map(|at| wire.on_host(|| server(at)));
    assert!(soon(|| ask(&container, &resolver, "example.org")));
    assert!(soon(|| ask(&container, &resolver, "x.anon")));
    let answered = || {
        let at = "198.51.100.2:5300";
        let socket = container.run(|| server(at)).unwrap();
        wire.on_host(|| {
            let _ = resolver.send_to(b"an answer", at);
        });
        socket.recv(&mut [0; 512]).is_ok()
    };
    assert!(soon(answered));
    // The wire asks nobody, and a container nothing else.
    assert!(!ask(&wire.router, &resolver, "example.org"));
    assert!(!ask(&container, &other_port, "example.org"));
    assert!(!ask(&container, &lease, "example.org"));
    // What a container asks of servers of its own does not leave, as from the host itself.
    assert!(soon(|| ask(&container, &outside, "example.org")));
    assert!(!ask(&container, &outside, "x.anon"));
    // But the host may have its name server in a container.
    assert!(soon(|| ask(&wire.host, &behind, "x.anon")));
    // A bridge with something else in it is a wire for this.
    wire.on_host(|| {
        ip("link add far0 type ifb");
        ip("link set far0 master inner0");
        let report = settle(&wanted());
        assert!(report.inner.is_empty(), "{report:?}");
    });
    assert!(!ask(&container, &resolver, "example.org"));
}
