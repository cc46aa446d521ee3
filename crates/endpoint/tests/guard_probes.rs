//! Measuring the way to guards, with real sockets on loopback and paths that let through what the
//! test says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mixline_endpoint::status::GuardStatus;
use mixline_endpoint::{GuardTarget, GuardsProbed, NatKind, ProbeOptions, probe_guards};
use mixline_protocol::identity::X25519Public;
use mixline_protocol::link::probe::{ProbeResponder, lengthen};
use mixline_protocol::size::DATAGRAM;

/// What a path does.
#[derive(Clone, Copy)]
struct Path {
    /// Payloads up to this length pass on the way to the relay, and back.
    out: usize,
    back: usize,
    /// One in so many questions is lost; none if 0.
    loss: usize,
    /// Ports of the client's are shown as other ones, as behind a NAT: by how much.
    shift: u16,
    /// Whether an answer that comes a while after its question is let in.
    remembers: bool,
}

const CLEAR: Path = Path {
    out: DATAGRAM,
    back: DATAGRAM,
    loss: 0,
    shift: 0,
    remembers: true,
};

/// A relay that answers probes.
struct Relay {
    target: GuardTarget,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    fn start(name: &str, at: &str, path: Path) -> Self {
        let socket = UdpSocket::bind(at).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let link = X25519Public([9; 32]);
        let target = GuardTarget {
            status: GuardStatus {
                name: name.into(),
                ..GuardStatus::default()
            },
            link,
            addresses: vec![socket.local_addr().unwrap()],
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || answer(&socket, &link, path, &stopped));
        Self {
            target,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(socket: &UdpSocket, link: &X25519Public, path: Path, stop: &AtomicBool) {
    let mut responder = ProbeResponder::new(link, Instant::now());
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut buffer = [0; DATAGRAM];
        let mut answers = responder.due(Instant::now());
        answers.retain(|_| path.remembers);
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            count += 1;
            let lost = path.loss > 0 && count % path.loss == 0;
            if length < DATAGRAM {
                assert!(lengthen(&mut buffer, length));
            }
            let seen = SocketAddr::new(from.ip(), from.port().wrapping_add(path.shift));
            if length <= path.out && !lost {
                answers.extend(responder.respond(&buffer, seen, Instant::now()));
            }
        }
        for mut answer in answers {
            let port = answer.to.port().wrapping_sub(path.shift);
            answer.to.set_port(port);
            if answer.bytes.len() <= path.back {
                socket.send_to(&answer.bytes, answer.to).unwrap();
            }
        }
    }
}

fn measure(relays: &[Relay], options: &ProbeOptions) -> GuardsProbed {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let targets = relays.iter().map(|relay| relay.target.clone()).collect();
    runtime.block_on(probe_guards(targets, options))
}

fn quick() -> ProbeOptions {
    ProbeOptions {
        questions: 4,
        ..ProbeOptions::default()
    }
}

#[test]
fn a_clear_path_is_measured() {
    let relays = [
        Relay::start("one", "127.0.0.1:0", CLEAR),
        Relay::start("two", "[::1]:0", CLEAR),
    ];
    let probed = measure(&relays, &quick());
    assert_eq!(probed.guards.len(), 2);
    for (guard, (name, needed)) in probed.guards.iter().zip([("one", 1436), ("two", 1456)]) {
        assert_eq!(guard.guard.name, name);
        let [address] = &guard.addresses[..] else {
            panic!("{guard:?}");
        };
        assert_eq!((address.sent, address.answered), (4, 4));
        assert!(address.rtt_ms.unwrap().max_ms < 1000.0);
        assert_eq!(address.mtu_needed, needed);
        assert_eq!(
            (address.mtu_out, address.mtu_in),
            (Some(needed), Some(needed))
        );
        assert_eq!(address.seen_as, address.local);
        assert_eq!(address.error, None);
    }
    assert_eq!(probed.guards[0].addresses[0].mtu_known, Some(65535));
    assert_eq!(
        (probed.nat_v4.kind, probed.nat_v6.kind),
        (NatKind::None, NatKind::None)
    );
}

#[test]
fn a_narrow_path_is_found_in_each_direction() {
    for (out, back) in [
        (1372, 1408),
        (1408, 1372),
        (1300, 900),
        (65, 64),
        (1407, 1407),
    ] {
        let path = Path { out, back, ..CLEAR };
        let relays = [Relay::start("one", "127.0.0.1:0", path)];
        let probed = measure(&relays, &quick());
        let address = &probed.guards[0].addresses[0];
        let whole = |length: usize| Some(u16::try_from(length).unwrap() + 28);
        assert_eq!(address.mtu_out, whole(out));
        // An answer is never longer than its question.
        assert_eq!(address.mtu_in, whole(back.min(out)));
    }
}

#[test]
fn loss_is_counted_and_does_not_spoil_the_search() {
    let path = Path {
        out: 1380,
        loss: 4,
        ..CLEAR
    };
    let relays = [Relay::start("one", "127.0.0.1:0", path)];
    let options = ProbeOptions {
        questions: 12,
        ..ProbeOptions::default()
    };
    let probed = measure(&relays, &options);
    let address = &probed.guards[0].addresses[0];
    // The questions about the NAT are among those that the path counts.
    assert!((7..12).contains(&address.answered), "{address:?}");
    assert_eq!(address.mtu_out, Some(1408), "{address:?}");
    assert_eq!(address.mtu_in, Some(1408), "{address:?}");
}

#[test]
fn nobody_there_and_no_way_there_are_told_apart() {
    let mut relay = Relay::start("one", "127.0.0.1:0", CLEAR);
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
    relay.target.addresses = vec![
        closed.local_addr().unwrap(),
        "240.0.0.1:7000".parse().unwrap(),
    ];
    drop(closed);
    let probed = measure(&[relay], &quick());
    let [refused, unreachable] = &probed.guards[0].addresses[..] else {
        panic!("{probed:?}");
    };
    for address in [refused, unreachable] {
        assert_eq!(
            (address.answered, address.mtu_out),
            (0, None),
            "{address:?}"
        );
        assert_eq!(address.seen_as, None);
    }
    let why = refused.error.as_deref().unwrap_or_default();
    assert!(why.contains("refused"), "{refused:?}");
    assert_eq!(probed.nat_v4.kind, NatKind::Unknown);
}

#[test]
fn kinds_of_nat_are_told_apart() {
    let behind = |shifts: &[u16]| {
        let start = |shift: &u16| {
            let path = Path {
                shift: *shift,
                ..CLEAR
            };
            Relay::start("one", "127.0.0.1:0", path)
        };
        let relays: Vec<_> = shifts.iter().map(start).collect();
        let options = ProbeOptions {
            mtu: false,
            ..quick()
        };
        measure(&relays, &options).nat_v4.kind
    };
    assert_eq!(behind(&[0, 0]), NatKind::None);
    assert_eq!(behind(&[7]), NatKind::Some);
    assert_eq!(behind(&[7, 7, 7]), NatKind::EndpointIndependent);
    assert_eq!(behind(&[7, 8]), NatKind::AddressDependent);
}

#[test]
fn a_mapping_that_lives_is_seen_to() {
    let translated = Path { shift: 7, ..CLEAR };
    let relays = [Relay::start("one", "127.0.0.1:0", translated)];
    let options = ProbeOptions {
        mtu: false,
        mappings: vec![Duration::from_secs(1), Duration::from_secs(2)],
        ..quick()
    };
    let nat = measure(&relays, &options).nat_v4;
    assert_eq!((nat.mapping_lives_s, nat.mapping_gone_s), (Some(2), None));
}

#[test]
fn a_firewall_that_forgets_is_found_without_a_nat_and_looked_at_for_the_shortest_silence() {
    for (at, remembers, life) in [
        ("127.0.0.1:0", true, (Some(1), None)),
        ("[::1]:0", true, (Some(1), None)),
        ("[::1]:0", false, (None, Some(1))),
    ] {
        let path = Path { remembers, ..CLEAR };
        let relays = [Relay::start("one", at, path)];
        let options = ProbeOptions {
            mtu: false,
            mappings: vec![Duration::from_secs(60), Duration::from_secs(1)],
            ..quick()
        };
        let began = Instant::now();
        let probed = measure(&relays, &options);
        let nat = match at {
            "[::1]:0" => probed.nat_v6,
            _ => probed.nat_v4,
        };
        assert_eq!(nat.kind, NatKind::None, "{at}");
        assert_eq!((nat.mapping_lives_s, nat.mapping_gone_s), life, "{at}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
    // Who has time has all of them looked at.
    let relays = [Relay::start("one", "[::1]:0", CLEAR)];
    let options = ProbeOptions {
        mtu: false,
        mappings: vec![Duration::from_secs(1), Duration::from_secs(2)],
        all_without_nat: true,
        ..quick()
    };
    assert_eq!(measure(&relays, &options).nat_v6.mapping_lives_s, Some(2));
}
