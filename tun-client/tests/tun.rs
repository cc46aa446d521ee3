//! Real interfaces in network namespaces of their own: needs root, skips without it
//! unless `MIXLINE_REQUIRE_ROOT=1`.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use mixline_client::Error;
use mixline_client::host::desired::{Place, Wanted};
use mixline_client::host::kernel::Kernel;
use mixline_client::host::plan::Action;
use mixline_client::host::reconcile::{Reconciler, Report};
use mixline_client::testing::{DnsServer, Tun};
use mixline_endpoint::{PacketBatch, PacketDevice};
use mixline_protocol::address::VirtualNetwork;
use mixline_testnet::{netns, skip};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::mpsc;

/// Runs a test in a network namespace of its own.
fn in_namespace(test: impl FnOnce() + Send) {
    if let Some(namespace) = skip::namespace_or_skip() {
        namespace.run(test).unwrap();
    }
}

fn ip(arguments: &str) -> String {
    netns::ip_output(arguments).unwrap()
}

fn ipv6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 1, 2, 3, 4, 5, 6, host)
}

fn ipv4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

fn wanted(name: &str, host: u8) -> Wanted {
    Wanted {
        ipv6: Some(ipv6(host.into())),
        lease: Some(ipv4(host)),
        resolver: Some(Place::Loopback),
        ..Wanted::closed(name, VirtualNetwork::default())
    }
}

/// Has the host look as is wanted.
fn settle(wanted: &Wanted) -> Report {
    Reconciler::open().unwrap().settle(wanted)
}

fn interface(name: &str, host: u8, mtu: u16) -> Tun {
    let tun = Tun::create(name, mtu).unwrap();
    let report = settle(&wanted(name, host));
    assert!(report.ipv4 && report.ipv6, "{report:?}");
    tun
}

/// Moves packets between this thread's interface and the other namespace's, while `work`
/// uses the network on a blocking thread of its own namespace.
fn exchange(
    name: &'static str,
    host: u8,
    mtu: u16,
    out: mpsc::UnboundedSender<PacketBatch>,
    mut into: mpsc::UnboundedReceiver<PacketBatch>,
    work: impl FnOnce() + Send + 'static,
) {
    let tun = interface(name, host, mtu);
    let mut device = tun.into_device();
    // A thread inherits the namespace of the one that starts it.
    let worker = thread::spawn(work);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async move {
        device.attach().unwrap();
        let mut batch = PacketBatch::new();
        let mut finished = false;
        loop {
            tokio::select! {
                biased;
                received = device.receive(&mut batch) => {
                    received.unwrap();
                    for packet in batch.iter() {
                        assert!(packet.len() <= mtu.into(), "{} bytes", packet.len());
                    }
                    let full = std::mem::take(&mut batch);
                    if out.send(full).is_err() {
                        break;
                    }
                }
                packets = into.recv() => match packets {
                    Some(mut packets) => device.send(&mut packets).await.unwrap(),
                    None => break,
                },
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    // Its last packets, such as a FIN, are moved before the loop ends.
                    if finished {
                        break;
                    }
                    finished = worker.is_finished();
                }
            }
        }
        worker.join().unwrap();
    });
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 7) as u8)
        .collect()
}

fn pair(
    mtu: u16,
    server: impl FnOnce() + Send + 'static,
    client: impl FnOnce() + Send + 'static,
) -> bool {
    let (to_server, from_client) = mpsc::unbounded_channel();
    let (to_client, from_server) = mpsc::unbounded_channel();
    let (Some(one), Some(other)) = (skip::namespace_or_skip(), skip::namespace_or_skip()) else {
        return false;
    };
    thread::scope(|scope| {
        let server = move || exchange("mixsrv", 1, mtu, to_client, from_client, server);
        let client = move || exchange("mixcli", 2, mtu, to_server, from_server, client);
        scope.spawn(move || one.run(server).unwrap());
        other.run(client).unwrap();
    });
    true
}

#[test]
fn bulk_tcp_crosses_whole_both_ways_over_both_families() {
    const LENGTH: usize = 20_000_000;
    for (mtu, address) in [
        (1500, IpAddr::V4(ipv4(1))),
        (1280, ipv6(1).into()),
        (9000, ipv4(1).into()),
    ] {
        let (listening, is_listening) = blocking::channel();
        let server = move || {
            let listener = TcpListener::bind((address, 8080)).unwrap();
            listening.send(()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = vec![0; LENGTH];
            stream.read_exact(&mut got).unwrap();
            assert!(got == pattern(LENGTH));
            stream.write_all(&got).unwrap();
            // Until the other side has it all.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        };
        let client = move || {
            is_listening.recv().unwrap();
            let stream = TcpStream::connect((address, 8080)).unwrap();
            let mut reader = stream.try_clone().unwrap();
            let sender = thread::spawn(move || (&stream).write_all(&pattern(LENGTH)).unwrap());
            let mut got = vec![0; LENGTH];
            reader.read_exact(&mut got).unwrap();
            sender.join().unwrap();
            assert!(got == pattern(LENGTH));
        };
        if !pair(mtu, server, client) {
            return;
        }
    }
}

#[test]
fn datagrams_and_their_fragments_cross() {
    let (listening, is_listening) = blocking::channel();
    let server = move || {
        let socket = UdpSocket::bind((ipv4(1), 5000)).unwrap();
        listening.send(()).unwrap();
        let mut buffer = vec![0; 65535];
        loop {
            let (length, source) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(source.ip(), ipv4(2));
            socket.send_to(&buffer[..length], source).unwrap();
            if length == 1 {
                break;
            }
        }
    };
    let client = move || {
        is_listening.recv().unwrap();
        let socket = UdpSocket::bind((ipv4(2), 0)).unwrap();
        for length in [100, 1472, 1473, 20_000, 65_507, 1] {
            let sent = pattern(length);
            socket.send_to(&sent, (ipv4(1), 5000)).unwrap();
            let mut got = vec![0; 65535];
            let (count, _) = socket.recv_from(&mut got).unwrap();
            assert!(got[..count] == sent, "{length} bytes");
        }
    };
    pair(1500, server, client);
}

/// Whether this kernel's interfaces have segmentation of UDP: since Linux 6.2.
fn has_datagram_offload() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(2))
}

#[test]
fn datagrams_that_leave_together_arrive_together() {
    const SEGMENT: usize = 1200;
    for (server_at, client_at) in [
        (IpAddr::V4(ipv4(1)), IpAddr::V4(ipv4(2))),
        (ipv6(1).into(), ipv6(2).into()),
    ] {
        let (listening, is_listening) = blocking::channel();
        let server = move || {
            let socket = UdpSocket::bind((server_at, 5000)).unwrap();
            listening.send(()).unwrap();
            let mut request = [0; 1];
            let (_, source) = socket.recv_from(&mut request).unwrap();
            // One superpacket of 41 datagrams, the last one short.
            setsockopt(&socket, sockopt::UdpGsoSegment, &(SEGMENT as i32)).unwrap();
            socket.send_to(&pattern(40 * SEGMENT + 7), source).unwrap();
            // Once more, for a socket that takes single datagrams.
            let (_, source) = socket.recv_from(&mut request).unwrap();
            socket.send_to(&pattern(40 * SEGMENT + 7), source).unwrap();
        };
        let client = move || {
            is_listening.recv().unwrap();
            let socket = UdpSocket::bind((client_at, 0)).unwrap();
            let receive = |longest: usize| {
                socket.send_to(&[1], (server_at, 5000)).unwrap();
                let (mut got, mut reads) = (Vec::new(), 0);
                let mut buffer = vec![0; 65535];
                while got.len() < 40 * SEGMENT + 7 {
                    let length = socket.recv(&mut buffer).unwrap();
                    assert!(length <= longest);
                    got.extend_from_slice(&buffer[..length]);
                    reads += 1;
                }
                assert!(got == pattern(40 * SEGMENT + 7));
                reads
            };
            assert_eq!(receive(SEGMENT), 41);
            setsockopt(&socket, sockopt::UdpGroSegment, &true).unwrap();
            if has_datagram_offload() {
                assert_eq!(receive(65535), 1);
            } else {
                receive(65535);
            }
        };
        if !pair(1500, server, client) {
            return;
        }
    }
}

#[test]
fn addresses_and_routes() {
    in_namespace(|| {
        let tun = interface("mixaddr", 1, 1400);
        let addresses = ip("-o addr show dev mixaddr");
        for expected in ["10.77.0.1/32", "fd77:1:2:3:4:5:6:1/128"] {
            assert!(addresses.contains(expected), "{addresses}");
        }
        // The resolver's is where no program takes it for the host's address.
        assert!(!addresses.contains("10.0.0.53"), "{addresses}");
        assert!(ip("-o addr show dev lo").contains("10.0.0.53/32"));
        // None of the kernel's own making: it would chatter.
        assert!(!addresses.contains("fe80"), "{addresses}");
        assert!(ip("link show dev mixaddr").contains("mtu 1400"));
        assert!(ip("link show dev mixaddr").contains("qlen 1000"));
        // The leased address is where packets come from, not the resolver's.
        assert!(ip("route get 10.200.1.1").contains("src 10.77.0.1"));
        assert!(ip("route get fd12::1").contains("src fd77:1:2:3:4:5:6:1"));
        assert_eq!(ip("route show default"), "");

        let mut moved = wanted("mixaddr", 1);
        moved.lease = Some(Ipv4Addr::new(10, 78, 0, 9));
        settle(&moved);
        let addresses = ip("-o addr show dev mixaddr");
        assert!(addresses.contains("10.78.0.9/32") && !addresses.contains("10.77.0.1"));
        assert!(ip("route get 10.200.1.1").contains("src 10.78.0.9"));

        // The name is taken while the first has it, and free again afterwards.
        assert!(matches!(
            Tun::create("mixaddr", 1500),
            Err(Error::InterfaceTaken { .. })
        ));
        drop(tun);
        // Another test's child may hold the descriptor between its fork and its exec.
        while ip("-o link show").contains("mixaddr") {
            thread::sleep(Duration::from_millis(10));
        }
        Tun::create("mixaddr", 1500).unwrap();
    });
}

#[test]
fn without_ipv6_there_is_ipv4() {
    in_namespace(|| {
        // Of this thread's namespace: /proc/sys/net follows the one who opens it.
        for interfaces in ["all", "default"] {
            let setting = format!("/proc/sys/net/ipv6/conf/{interfaces}/disable_ipv6");
            std::fs::write(setting, "1").unwrap();
        }
        let _tun = Tun::create("mixno6", 1500).unwrap();
        let report = settle(&wanted("mixno6", 1));
        assert!(report.ipv4 && !report.ipv6, "{report:?}");
        assert_eq!(report.problems.len(), 1, "{report:?}");
        assert!(
            report.problems[0].contains("disabled in the kernel"),
            "{report:?}"
        );
    });
}

/// A named namespace beside the test's own; it goes with this.
struct Neighbour(String);

impl Neighbour {
    fn new() -> Self {
        let name = format!("mixline-test-{}", std::process::id());
        netns::add(&name).unwrap();
        Self(name)
    }

    fn ip(&self, line: &str) {
        netns::ip_in(&self.0, &format!("{line}\n")).unwrap();
    }

    /// Whether a TCP connection from there to the resolver's address is taken.
    fn reaches(&self, resolver: SocketAddr) -> bool {
        let script = format!(
            "timeout 2 bash -c 'exec 3<>/dev/tcp/{}/{}'",
            resolver.ip(),
            resolver.port()
        );
        netns::said(netns::command(&self.0, "bash").args(["-c", &script])).is_ok()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = netns::delete(&self.0);
    }
}

#[test]
fn the_responder_answers_this_host_alone() {
    in_namespace(|| {
        ip("link set lo up");
        let neighbour = Neighbour::new();
        ip(&format!(
            "link add wire0 type veth peer name wire1 netns {}",
            neighbour.0
        ));
        ip("addr add 192.0.2.1/24 dev wire0");
        ip("link set wire0 up");
        neighbour.ip("addr add 192.0.2.2/24 dev wire1");
        neighbour.ip("link set wire1 up");
        neighbour.ip("route add 10.0.0.53 via 192.0.2.1");
        let _tun = interface("mixdns", 1, 1500);

        let resolver: SocketAddr = "10.0.0.53:53".parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(DnsServer::bind(resolver, "lo")).unwrap();
        assert_eq!(server.address().unwrap(), resolver);
        assert!(runtime.block_on(DnsServer::bind(resolver, "lo")).is_err());
        TcpStream::connect(resolver).unwrap();
        assert!(
            !neighbour.reaches(resolver),
            "a neighbour on the wire is answered"
        );
        // The filter and the socket keep it out, each alone.
        let filters = Kernel::open().unwrap();
        filters.apply(&Action::RemoveFilter).unwrap();
        assert!(!neighbour.reaches(resolver), "without the filter");
        settle(&wanted("mixdns", 1));
        drop(server);
        let _open = TcpListener::bind(resolver).unwrap();
        assert!(
            !neighbour.reaches(resolver),
            "with a socket that hears every interface"
        );
        filters.apply(&Action::RemoveFilter).unwrap();
        assert!(neighbour.reaches(resolver), "the test shows nothing");
    });
}

#[test]
fn who_came_in_is_answered_though_a_neighbourhood_has_its_network() {
    const WAIT: Duration = Duration::from_secs(20);
    let (listening, is_listening) = blocking::channel();
    let server = move || {
        // The peer's address is a neighbour's as well, who would hear the answers.
        for line in [
            "link add eth0 type veth peer name neighbour",
            "link set eth0 up",
            "link set neighbour up",
            "address add 10.77.0.9/24 dev eth0",
            "address add fd77:1:2:3::9/64 dev eth0 nodad",
        ] {
            ip(line);
        }
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
        let report = settle(&wanted("mixsrv", 1));
        assert_eq!(report.problems.len(), 2, "{report:?}");
        assert!(ip("route get 10.77.0.2").contains("dev eth0"));
        let stream = TcpListener::bind("[::]:8080").unwrap();
        stream.set_nonblocking(true).unwrap();
        let datagrams = UdpSocket::bind("0.0.0.0:5000").unwrap();
        listening.send(()).unwrap();
        for _ in 0..2 {
            let mut tries = (0..200).map(|_| {
                thread::sleep(Duration::from_millis(100));
                stream.accept()
            });
            let (mut stream, _) = tries.find_map(Result::ok).unwrap();
            stream.write_all(b"answer").unwrap();
        }
        // A datagram's answer would have the source that leads to the neighbour.
        datagrams
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        assert!(datagrams.recv_from(&mut [0; 8]).is_err());
    };
    let client = move || {
        is_listening.recv().unwrap();
        let datagrams = UdpSocket::bind((ipv4(2), 0)).unwrap();
        datagrams.send_to(b"question", (ipv4(1), 5000)).unwrap();
        for address in [IpAddr::V4(ipv4(1)), ipv6(1).into()] {
            let mut stream = TcpStream::connect_timeout(&(address, 8080).into(), WAIT).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"answer", "{address}");
        }
    };
    pair(1500, server, client);
}
