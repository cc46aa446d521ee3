//! The host's state in the real kernel, in network namespaces of its own: needs root, skips without
//! it unless `MIXLINE_REQUIRE_ROOT=1`.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use mixline_client::host::desired::{Place, Wanted, desired};
use mixline_client::host::kernel::Kernel;
use mixline_client::host::outside::Outside;
use mixline_client::host::plan::{Action, plan};
use mixline_client::host::reconcile::{Reconciler, Report};
use mixline_client::testing::Tun;
use mixline_protocol::address::VirtualNetwork;
use mixline_testnet::netns::{self, Namespace};
use mixline_testnet::skip;

const LEASE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const OWN: Ipv6Addr = Ipv6Addr::new(0xfd77, 1, 2, 3, 4, 5, 6, 7);

fn wanted() -> Wanted {
    Wanted {
        ipv6: Some(OWN),
        lease: Some(LEASE),
        resolver: Some(Place::Loopback),
        ..Wanted::closed("mixline0", VirtualNetwork::default())
    }
}

fn ip(arguments: &str) -> String {
    netns::ip_output(arguments).unwrap()
}

/// A host with a wire to a router, which is its way out.
struct Wire {
    host: Namespace,
    router: Namespace,
}

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

impl Wire {
    fn new() -> Option<Self> {
        let (host, router) = (skip::namespace_or_skip()?, skip::namespace_or_skip()?);
        let other_end = || {
            let thread = nix::unistd::gettid();
            host.run(|| {
                ip(&format!(
                    "link add eth0 type veth peer name host netns {thread}"
                ))
            })
            .unwrap();
            for line in [
                "link set lo up",
                "link set host up",
                "address add 192.0.2.1/24 dev host",
                "address add 2001:db8::1/64 dev host nodad",
            ] {
                ip(line);
            }
        };
        router.run(other_end).unwrap();
        let this_end = || {
            for line in [
                "link set lo up",
                "link set eth0 up",
                "address add 192.0.2.2/24 dev eth0",
                "address add 2001:db8::2/64 dev eth0 nodad",
                "route add default via 192.0.2.1",
                "-6 route add default via 2001:db8::1",
            ] {
                ip(line);
            }
        };
        host.run(this_end).unwrap();
        Some(Self { host, router })
    }

    fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host.run(work).unwrap()
    }

    fn on_router<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.router.run(work).unwrap()
    }

    /// Whether a datagram that the host sends to an address arrives at the router, which takes all.
    fn gets_out(&self, to: IpAddr) -> bool {
        let listening = self.on_router(|| {
            let _ = netns::ip_output(&format!("route replace local {} dev lo", host_route(to)));
            let any: IpAddr = match to {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = bind((any, 5000));
            socket.set_read_timeout(Some(WAIT)).unwrap();
            socket
        });
        self.on_host(|| {
            let any: SocketAddr = match to {
                IpAddr::V4(_) => "0.0.0.0:0".parse().unwrap(),
                IpAddr::V6(_) => "[::]:0".parse().unwrap(),
            };
            let _ = bind(any).send_to(b"out", (to, 5000));
        });
        listening.recv(&mut [0; 8]).is_ok()
    }

    /// Whether a datagram that the router sends over the wire to an address of the host arrives.
    fn gets_in(&self, to: IpAddr) -> bool {
        let listening = self.on_host(|| {
            let socket = bind((to, 5001));
            socket.set_read_timeout(Some(WAIT)).unwrap();
            socket
        });
        self.on_router(|| {
            // An IPv6 host answers its neighbours for the addresses of that wire alone.
            let hop = if to.is_ipv4() { "" } else { "via 2001:db8::2" };
            let route = format!("route replace {} {hop} dev host", host_route(to));
            let _ = netns::ip_output(&route);
            let any: SocketAddr = match to {
                IpAddr::V4(_) => "192.0.2.1:0".parse().unwrap(),
                IpAddr::V6(_) => "[2001:db8::1]:0".parse().unwrap(),
            };
            let socket = bind(any);
            let _ = socket.send_to(b"in", (to, 5001));
        });
        listening.recv(&mut [0; 8]).is_ok()
    }
}

/// How long a datagram may take that nobody sees.
const WAIT: Duration = Duration::from_millis(300);

/// Whether it is so at one of several tries: the first packets wait for neighbours.
fn soon(is_so: impl Fn() -> bool) -> bool {
    (0..20).any(|_| is_so())
}

/// Binds a socket. One of the same port that was closed just now may live on for a moment, in what
/// another test of this process is about to start.
fn bind(address: impl std::net::ToSocketAddrs + Copy) -> UdpSocket {
    let mut tries = (0..20).map(|_| {
        UdpSocket::bind(address).inspect_err(|_| std::thread::sleep(Duration::from_millis(50)))
    });
    tries.find_map(Result::ok).unwrap()
}

fn host_route(to: IpAddr) -> String {
    match to {
        IpAddr::V4(to) => format!("{to}/32"),
        IpAddr::V6(to) => format!("{to}/128"),
    }
}

fn settle(wanted: &Wanted) -> Report {
    Reconciler::open().unwrap().settle(wanted)
}

/// What the client would still do.
fn left_to_do(wanted: &Wanted) -> Vec<Action> {
    let observed = Kernel::open().unwrap().observe(wanted).unwrap();
    plan(&desired(wanted, &observed), &wanted.network, &observed)
}

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
fn what_the_host_forwards_to_networks_of_its_own_passes() {
    let Some(wire) = Wire::new() else { return };
    let Some(container) = skip::namespace_or_skip() else {
        return;
    };
    let inside = || {
        let thread = nix::unistd::gettid();
        wire.on_host(|| {
            ip(&format!(
                "link add inner0 type veth peer name eth0 netns {thread}"
            ));
            ip("link set inner0 up");
            ip("address add 10.88.0.1/24 dev inner0");
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        });
        ip("link set eth0 up");
        ip("address add 10.88.0.2/24 dev eth0");
        ip("route add default via 10.88.0.1");
    };
    container.run(inside).unwrap();
    let _tun = wire.on_host(|| Tun::create("mixline0", 1500).unwrap());
    let report = wire.on_host(|| settle(&wanted()));
    assert_eq!(report.others.len(), 1, "{report:?}");
    let socket = container
        .run(|| {
            let socket = bind("10.88.0.2:5002");
            socket.set_read_timeout(Some(WAIT)).unwrap();
            socket
        })
        .unwrap();
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
        let socket = bind("0.0.0.0:53");
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket
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
        let host = wire.on_host(|| {
            let socket = bind((HOST, 5003));
            socket.set_read_timeout(Some(WAIT)).unwrap();
            socket
        });
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
fn a_moved_virtual_network_leaves_nothing_of_the_former_one() {
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
        settle(&wanted());
        let shown = ip("address show dev lo");
        assert!(
            !shown.contains("10.96.0.53") && shown.contains("10.0.0.53/32"),
            "{shown}"
        );
    });
}

#[test]
fn a_question_for_a_name_of_ours_reaches_no_other_server() {
    let Some(wire) = Wire::new() else { return };
    let server = wire.on_router(|| {
        let socket = bind("192.0.2.1:53");
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket
    });
    let arrives = |name: &str| {
        wire.on_host(|| {
            let socket = bind((HOST, 0));
            let _ = socket.send_to(&question(name), "192.0.2.1:53");
        });
        server.recv(&mut [0; 512]).is_ok()
    };
    assert!(soon(|| arrives("freespeech.anon")));
    wire.on_host(|| {
        settle(&wanted());
        assert_eq!(
            left_to_do(&wanted()),
            [],
            "the kernel gives back what was asked for"
        );
    });
    let long = "a".repeat(60);
    for name in [
        "freespeech.anon",
        "www.freespeech.anon",
        "x.ANON",
        "anon",
        "freespeech.anon.corp.example",
        &format!("{long}.{long}.{long}.{long}.anon"),
    ] {
        assert!(!arrives(name), "{name}");
    }
    for name in [
        "example.org",
        "anon.example.org",
        "xanon",
        "anonymous",
        "a.anone",
    ] {
        assert!(soon(|| arrives(name)), "{name}");
    }
    // By TCP as well.
    let listener = wire.on_router(|| std::net::TcpListener::bind("192.0.2.1:53").unwrap());
    let arrives = |name: &str| {
        let mut to = wire.on_host(|| std::net::TcpStream::connect("192.0.2.1:53").unwrap());
        let message = question(name);
        let mut framed = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(message);
        let _ = to.write_all(&framed);
        let (mut from, _) = listener.accept().unwrap();
        from.set_read_timeout(Some(WAIT)).unwrap();
        from.read(&mut [0; 512]).is_ok()
    };
    assert!(arrives("example.org"));
    assert!(!arrives("freespeech.anon"));
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

/// A question of DNS for a name, as it stands in a datagram.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

#[test]
fn containers_ask_the_host_s_resolver_and_nothing_else_of_it() {
    let Some(wire) = Wire::new() else { return };
    let Some(container) = skip::namespace_or_skip() else {
        return;
    };
    let inside = || {
        let thread = nix::unistd::gettid();
        wire.on_host(|| {
            ip("link add inner0 type bridge");
            ip(&format!(
                "link add port0 master inner0 type veth peer name eth0 netns {thread}"
            ));
            ip("link set inner0 up");
            ip("link set port0 up");
            ip("address add 198.51.100.1/24 dev inner0");
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        });
        ip("link set lo up");
        ip("link set eth0 up");
        ip("address add 198.51.100.2/24 dev eth0");
        ip("route add default via 198.51.100.1");
    };
    container.run(inside).unwrap();
    wire.on_router(|| {
        ip("route add 198.51.100.0/24 via 192.0.2.2");
        ip("route add 10.0.0.53/32 via 192.0.2.2");
    });
    let server = |address: &str| {
        let socket = bind(address);
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket
    };
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

#[test]
fn the_resolver_s_link_outlives_the_client() {
    let Some(wire) = Wire::new() else { return };
    let resolver = Ipv4Addr::new(10, 0, 0, 53);
    let wanted = Wanted {
        resolver: Some(Place::Inside),
        ..wanted()
    };
    let link = || netns::ip_output("-o address show dev mixline-dns").unwrap_or_default();
    let mut tun = Some(wire.on_host(|| Tun::create("mixline0", 1500).unwrap()));
    let report = wire.on_host(|| settle(&wanted));
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.resolver, Some(resolver));
    let (index, name) = report.resolver_link.unwrap();
    assert_eq!((index, name.as_str()), (28159, "mixline-dns"));
    wire.on_host(|| {
        assert_eq!(left_to_do(&wanted), []);
        assert!(ip("link show mixline-dns").contains("LOWER_UP"));
        // Whoever lists the host's addresses comes to the leased one first.
        let all = ip("-o -4 address show scope global");
        let at = |address: &str| all.find(address).unwrap();
        assert!(at("10.77.0.1/32") < at("10.0.0.53/32"), "{all}");
    });
    // The wire does not reach it.
    assert!(!wire.gets_in(resolver.into()));
    for what in ["link set mixline-dns down", "link del mixline-dns"] {
        wire.on_host(|| {
            ip(what);
            let report = settle(&wanted);
            assert_eq!(report.resolver, Some(resolver), "after {what}");
            assert_eq!(left_to_do(&wanted), [], "after {what}");
        });
    }
    // One that goes on looking, as a client does.
    wire.on_host(|| {
        let reconciler = Reconciler::open().unwrap();
        for _ in 0..3 {
            assert!(reconciler.settle(&wanted).settled);
        }
    });
    tun.take();
    assert!(wire.on_host(link).contains("10.0.0.53/32"));
    // A client that starts wants no resolver yet: what there is stays.
    let starting = Wanted::closed("mixline0", VirtualNetwork::default());
    wire.on_host(|| settle(&starting));
    assert!(wire.on_host(link).contains("10.0.0.53/32"));
    wire.on_host(|| Reconciler::open().unwrap().remove(&starting).unwrap());
    assert_eq!(wire.on_host(link), "");
    assert!(!wire.on_host(|| ip("link show")).contains("mixline"));
}
