//! Questions for names, which reach the client's resolver and no other server.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};

use mixline_client::host::desired::{Place, Wanted};
use mixline_client::host::reconcile::Reconciler;
use mixline_client::testing::Tun;
use mixline_protocol::address::VirtualNetwork;
use mixline_testnet::netns;

use crate::wire::{HOST, WAIT, Wire, bind, ip, left_to_do, listen, settle, soon, wanted};

impl Wire {
    /// A name server on the router: whether a question that the host asks of it arrives.
    fn another_name_server(&self) -> impl Fn(&str) -> bool + '_ {
        let server = self.on_router(|| listen("192.0.2.1:53"));
        move |name| {
            self.on_host(|| {
                let socket = bind((HOST, 0));
                let _ = socket.send_to(&question(name), "192.0.2.1:53");
            });
            server.recv(&mut [0; 512]).is_ok()
        }
    }
}

/// Whether a question that the host asks by TCP arrives at the router.
fn arrives_by_tcp(wire: &Wire, listener: &std::net::TcpListener, name: &str) -> bool {
    let mut to = wire.on_host(|| std::net::TcpStream::connect("192.0.2.1:53").unwrap());
    let message = question(name);
    let mut framed = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    framed.extend(message);
    let _ = to.write_all(&framed);
    let (mut from, _) = listener.accept().unwrap();
    from.set_read_timeout(Some(WAIT)).unwrap();
    from.read(&mut [0; 512]).is_ok()
}

/// A question of DNS for a name, as it stands in a datagram.
pub fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

#[test]
fn a_question_for_a_name_of_ours_reaches_no_other_server() {
    let Some(wire) = Wire::new() else { return };
    let arrives = wire.another_name_server();
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
    let arrives = |name: &str| arrives_by_tcp(&wire, &listener, name);
    assert!(arrives("example.org"));
    assert!(!arrives("freespeech.anon"));
}

#[test]
fn a_question_for_the_name_of_a_virtual_address_reaches_no_other_server() {
    let Some(wire) = Wire::new() else { return };
    let arrives = wire.another_name_server();
    let reverse = |address: &str| -> String {
        let name: hickory_proto::rr::Name = address.parse::<IpAddr>().unwrap().into();
        name.to_ascii().trim_end_matches('.').to_owned()
    };
    let [virtual4, virtual6] = ["10.77.3.4", "fd77:1:2:3:4:5:6:8"].map(reverse);
    assert!(soon(|| arrives(&virtual4)) && soon(|| arrives(&virtual6)));
    let closed = |wanted: &Wanted| {
        wire.on_host(|| {
            settle(wanted);
            assert_eq!(left_to_do(wanted), [], "the kernel gives it back");
        });
    };
    closed(&wanted());
    for name in [
        &virtual4,
        &virtual6,
        &virtual4.to_uppercase(),
        &virtual6.to_uppercase(),
        &reverse("10.0.0.1"),
        &reverse("10.255.255.255"),
        "3.77.10.in-addr.arpa",
        "7.7.d.f.ip6.arpa",
        &format!("{virtual4}.corp.example"),
        &format!("{virtual6}.corp.example"),
        "lb._dns-sd._udp.0.0.77.10.in-addr.arpa",
        &format!("b._dns-sd._udp.{virtual6}"),
    ] {
        assert!(!arrives(name), "{name}");
    }
    for name in [
        &reverse("192.0.2.10"),
        &reverse("11.0.0.10"),
        &reverse("110.0.0.1"),
        &reverse("1.10.10.1"),
        &reverse("fc00::1"),
        &reverse("2001:db8::fd"),
        "10.example.org",
        "in-addr.arpa",
    ] {
        assert!(soon(|| arrives(name)), "{name}");
    }
    // A neighbourhood inside the virtual networks has names of its own.
    wire.on_host(|| {
        ip("address add 10.1.0.7/16 dev eth0");
        ip("address add 10.200.17.7/20 dev eth0");
        ip("address add fd12:3456:789a::7/48 dev eth0 nodad");
    });
    let told: IpAddr = "10.1.0.9".parse().unwrap();
    let wanted = Wanted {
        told: [told].into(),
        ..wanted()
    };
    closed(&wanted);
    for address in ["10.1.0.1", "10.1.255.255", "10.200.16.1", "10.200.31.255"] {
        assert!(soon(|| arrives(&reverse(address))), "{address}");
    }
    assert!(soon(|| arrives(&reverse("fd12:3456:789a:ffff::1"))));
    assert!(soon(|| arrives("1.10.in-addr.arpa")));
    for address in [
        "10.1.0.9",
        "10.2.0.1",
        "10.11.0.1",
        "10.200.15.1",
        "10.200.32.1",
        "fd12:3456:789b::1",
    ] {
        assert!(!arrives(&reverse(address)), "{address}");
    }
    assert!(!arrives("x.anon.1.10.in-addr.arpa"));
    // By TCP as well.
    let listener = wire.on_router(|| std::net::TcpListener::bind("192.0.2.1:53").unwrap());
    let arrives = |name: &str| arrives_by_tcp(&wire, &listener, name);
    assert!(arrives(&reverse("10.1.0.1")));
    assert!(arrives(&reverse("fd12:3456:789a:ffff::1")));
    assert!(!arrives(&reverse("10.1.0.9")));
    assert!(!arrives(&virtual4));
    assert!(!arrives(&virtual6));
}

#[test]
fn names_of_a_virtual_network_that_ends_inside_an_octet_are_told_apart() {
    let Some(wire) = Wire::new() else { return };
    let asked = wire.another_name_server();
    let network = VirtualNetwork {
        prefix: Ipv4Addr::new(100, 64, 0, 0),
        length: 10,
    };
    let wanted = Wanted::closed("mixline0", network);
    wire.on_host(|| {
        settle(&wanted);
        assert_eq!(left_to_do(&wanted), []);
    });
    let arrives = |second: u8| asked(&format!("4.3.{second}.100.in-addr.arpa"));
    for outside in [0, 6, 9, 63, 128, 255] {
        assert!(soon(|| arrives(outside)), "{outside}");
    }
    for inside in [64, 70, 99, 100, 127] {
        assert!(!arrives(inside), "{inside}");
    }
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
