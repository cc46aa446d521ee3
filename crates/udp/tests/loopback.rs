//! Real sockets on the loopback interface.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mixline_protocol::size::{DATAGRAM, Datagram};
use mixline_udp::{BatchSocket, BindOptions, Outgoing, ReceiveRing};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

fn open(address: &str, options: &BindOptions) -> BatchSocket {
    BatchSocket::bind(address.parse().unwrap(), options).unwrap()
}

fn numbered(number: usize) -> Datagram {
    let mut datagram = [0; DATAGRAM];
    datagram[..8].copy_from_slice(&(number as u64).to_be_bytes());
    datagram[DATAGRAM - 1] = number as u8;
    datagram
}

fn number(datagram: &Datagram) -> usize {
    assert_eq!(datagram[DATAGRAM - 1], datagram[7]);
    u64::from_be_bytes(datagram[..8].try_into().unwrap()) as usize
}

fn wait(socket: &BatchSocket) {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut fds, PollTimeout::from(5000_u16)).unwrap(),
        1,
        "nothing came"
    );
}

/// Receives `count` datagrams, `batch` at a time: their numbers and sources.
fn receive(socket: &BatchSocket, count: usize, batch: usize) -> Vec<(usize, SocketAddr)> {
    let mut ring = ReceiveRing::new(8);
    let mut out = Vec::new();
    while out.len() < count {
        wait(socket);
        match socket.receive(&mut ring) {
            Ok(n) => assert_eq!(n, ring.left()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        while ring.left() > 0 {
            let left = ring.left();
            let taken: Vec<_> = ring
                .take(batch)
                .map(|r| (number(r.datagram), r.source))
                .collect();
            assert_eq!(taken.len(), left.min(batch));
            assert_eq!(ring.left(), left - taken.len());
            out.extend(taken);
        }
    }
    out
}

fn burst(address: &str, sending: &BindOptions, receiving: &BindOptions) {
    let (from, to) = (open(address, sending), open(address, receiving));
    let datagrams: Vec<_> = (0..300).map(numbered).collect();
    let mut out: Vec<_> = datagrams
        .iter()
        .map(|d| Outgoing::new(d, to.local_address()))
        .collect();
    assert_eq!(from.send(&mut out).unwrap(), 300);
    assert!(out.iter().all(Outgoing::is_done));
    assert_eq!(
        from.send(&mut out).unwrap(),
        0,
        "what is done does not go twice"
    );
    let got = receive(&to, 300, 64);
    assert_eq!(
        got,
        (0..300)
            .map(|n| (n, from.local_address()))
            .collect::<Vec<_>>()
    );
    assert_eq!(to.counters().wrong_length, 0);
}

#[test]
fn bursts_keep_their_order() {
    let on = BindOptions::default();
    for address in [V4, V6] {
        burst(address, &on, &on);
    }
}

#[test]
fn stamps_say_when_the_kernel_received() {
    let with = BindOptions {
        stamps: true,
        ..BindOptions::default()
    };
    // What the clocks of a conversion may differ by, which are not read at once.
    let slack = Duration::from_millis(100);
    for address in [V4, V6] {
        // The order, the sources and the runs are what they are without.
        burst(address, &BindOptions::default(), &with);
        let (from, to) = (open(address, &BindOptions::default()), open(address, &with));
        let datagrams: Vec<_> = (0..40).map(numbered).collect();
        // The kernel begins to stamp some time after the first socket wants it, and until then gives the time
        // of reading.
        let is_stamped = (0..20).any(|_| {
            let before = Instant::now();
            let mut out: Vec<_> = datagrams
                .iter()
                .map(|d| Outgoing::new(d, to.local_address()))
                .collect();
            assert_eq!(from.send(&mut out).unwrap(), 40);
            wait(&to);
            let there = Instant::now();
            // What lies in the socket's buffer grows older.
            std::thread::sleep(2 * slack);
            let mut ring = ReceiveRing::new(8);
            assert_eq!(to.receive(&mut ring).unwrap(), 40, "a run is one message");
            let arrivals: Vec<_> = ring.arrivals().collect();
            assert_eq!(arrivals.len(), 40);
            assert!(arrivals.iter().all(|at| *at == arrivals[0]));
            // Those that are left have theirs.
            assert_eq!(ring.take(30).count(), 30);
            assert_eq!(ring.arrivals().count(), 10);
            let arrived = arrivals[0].unwrap();
            assert!(arrived + slack >= before);
            arrived <= there + slack
        });
        assert!(is_stamped, "all times are those of reading");
    }
    let mut ring = ReceiveRing::new(8);
    let (from, to) = (open(V4, &with), open(V4, &BindOptions::default()));
    let datagram = numbered(1);
    from.send(&mut [Outgoing::new(&datagram, to.local_address())])
        .unwrap();
    wait(&to);
    to.receive(&mut ring).unwrap();
    assert_eq!(ring.arrivals().collect::<Vec<_>>(), [None]);
}

#[test]
fn without_offloads() {
    let on = BindOptions::default();
    let off = BindOptions {
        gro: false,
        gso: false,
        ..on.clone()
    };
    for address in [V4, V6] {
        burst(address, &off, &on);
        burst(address, &on, &off);
        burst(address, &off, &off);
    }
    assert!(!open(V4, &off).gso());
    assert!(open(V4, &on).gso());
}

#[test]
fn offloads_make_runs() {
    // One message each way carries many datagrams: otherwise the offloads are not used.
    let options = BindOptions::default();
    let (from, to) = (open(V4, &options), open(V4, &options));
    let datagrams: Vec<_> = (0..44).map(numbered).collect();
    let mut out: Vec<_> = datagrams
        .iter()
        .map(|d| Outgoing::new(d, to.local_address()))
        .collect();
    from.send(&mut out).unwrap();
    wait(&to);
    let mut one_message = ReceiveRing::new(1);
    assert_eq!(to.receive(&mut one_message).unwrap(), 44);
}

#[test]
fn mixed_destinations() {
    let options = BindOptions::default();
    let from = open(V4, &options);
    let to: Vec<_> = (0..7).map(|_| open(V4, &options)).collect();
    let datagrams: Vec<_> = (0..200).map(numbered).collect();
    let mut out: Vec<_> = datagrams
        .iter()
        .enumerate()
        .map(|(at, d)| Outgoing::new(d, to[at % 7].local_address()))
        .collect();
    assert_eq!(from.send(&mut out).unwrap(), 200);
    for (at, socket) in to.iter().enumerate() {
        let wanted: Vec<_> = (0..200).filter(|n| n % 7 == at).collect();
        let got: Vec<_> = receive(socket, wanted.len(), 5)
            .into_iter()
            .map(|(number, _)| number)
            .collect();
        assert_eq!(got, wanted);
    }
}

/// A probe of the link protocol, numbered like other datagrams.
fn probe(number: u32, length: usize) -> Vec<u8> {
    let mut probe = vec![0; length];
    probe[0] = 5;
    probe[4..8].copy_from_slice(&number.to_be_bytes());
    probe[length - 1] = 9;
    probe
}

#[test]
fn probes_may_be_short_alone_and_in_runs() {
    for address in [V4, V6] {
        let to = open(address, &BindOptions::default());
        let from = open(address, &BindOptions::default());
        let lengths = [64, 100, 64, 64, 1407, DATAGRAM, 700, 700, 700, 64];
        for (number, length) in (0..).zip(lengths) {
            from.send_short(&probe(number, length), to.local_address())
                .unwrap();
        }
        let plain = UdpSocket::bind(address).unwrap();
        for length in [63, DATAGRAM + 1] {
            plain
                .send_to(&probe(0, length), to.local_address())
                .unwrap();
        }
        let mut got = Vec::new();
        let mut ring = ReceiveRing::new(8);
        while got.len() < lengths.len() {
            wait(&to);
            let _ = to.receive(&mut ring);
            got.extend(ring.take(64).map(|received| *received.datagram));
        }
        for (number, length) in (0u8..).zip(lengths) {
            let datagram = got[usize::from(number)];
            assert_eq!((datagram[0], datagram[7]), (5, number));
            let said = u64::from_be_bytes(datagram[8..16].try_into().unwrap());
            let is = if length == DATAGRAM { 0 } else { length as u64 };
            assert_eq!(said, is);
            assert_eq!(datagram[length - 1], 9);
            assert!(datagram[length..].iter().all(|byte| *byte == 0));
        }
        let _ = to.receive(&mut ring);
        assert_eq!(to.counters().wrong_length, 2);
    }
}

#[test]
fn a_run_of_probes_that_the_kernel_merged_is_taken_apart() {
    // What the kernel sends as one message arrives as one: three of the same length, and a rest.
    let to = open(V4, &BindOptions::default());
    let plain = UdpSocket::bind(V4).unwrap();
    nix::sys::socket::setsockopt(&plain, nix::sys::socket::sockopt::UdpGsoSegment, &200).unwrap();
    let run: Vec<u8> = (0..4)
        .flat_map(|number| probe(number, if number < 3 { 200 } else { 70 }))
        .collect();
    plain.send_to(&run, to.local_address()).unwrap();
    // The same with whole ones.
    nix::sys::socket::setsockopt(&plain, nix::sys::socket::sockopt::UdpGsoSegment, &1408).unwrap();
    let run: Vec<u8> = [probe(4, DATAGRAM), probe(5, DATAGRAM), probe(6, 90)].concat();
    plain.send_to(&run, to.local_address()).unwrap();
    let mut got = Vec::new();
    let mut ring = ReceiveRing::new(8);
    while got.len() < 7 {
        wait(&to);
        let _ = to.receive(&mut ring);
        got.extend(ring.take(64).map(|received| *received.datagram));
    }
    let seen: Vec<(u8, u64)> = got
        .iter()
        .map(|d| (d[7], u64::from_be_bytes(d[8..16].try_into().unwrap())))
        .collect();
    let is = [
        (0, 200),
        (1, 200),
        (2, 200),
        (3, 70),
        (4, 0),
        (5, 0),
        (6, 90),
    ];
    assert_eq!(seen, is);
    assert_eq!(to.counters().wrong_length, 0);
}

#[test]
fn wrong_lengths_are_dropped_and_counted() {
    for address in [V4, V6] {
        let to = open(address, &BindOptions::default());
        let plain = UdpSocket::bind(address).unwrap();
        let wrong = [
            0,
            1,
            16,
            700,
            704,
            704,
            704,
            DATAGRAM - 1,
            DATAGRAM + 1,
            2 * DATAGRAM,
        ];
        for length in wrong {
            plain.send_to(&vec![1; length], to.local_address()).unwrap();
        }
        plain.send_to(&numbered(7), to.local_address()).unwrap();
        let got = receive(&to, 1, 64);
        assert_eq!(got, [(7, plain.local_addr().unwrap())]);
        assert_eq!(to.counters().wrong_length, wrong.len() as u64);
    }
}

#[test]
fn a_refused_destination_does_not_stop_the_others() {
    let options = BindOptions::default();
    let (from, to) = (open(V4, &options), open(V4, &options));
    // Broadcast needs a permission that the socket does not ask for.
    let forbidden: SocketAddr = "255.255.255.255:9".parse().unwrap();
    let other_family: SocketAddr = "[::1]:9".parse().unwrap();
    let datagrams: Vec<_> = (0..12).map(numbered).collect();
    let mut out: Vec<_> = datagrams
        .iter()
        .enumerate()
        .map(|(at, d)| {
            let to = match at % 3 {
                0 => forbidden,
                1 => to.local_address(),
                _ => other_family,
            };
            Outgoing::new(d, to)
        })
        .collect();
    assert_eq!(from.send(&mut out).unwrap(), 4);
    // What is of the other family is left to another socket.
    let left = out.iter().filter(|datagram| !datagram.is_done());
    assert!(left.map(|datagram| datagram.to).eq([other_family; 4]));
    assert_eq!(from.counters().unsendable, 4);
    let got: Vec<_> = receive(&to, 4, 64)
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    assert_eq!(got, [1, 4, 7, 10]);
}

#[test]
fn a_full_buffer_blocks_and_goes_on() {
    // With a tiny send buffer, and a receiver that takes what it can.
    let small = BindOptions {
        buffer_bytes: 1,
        ..BindOptions::default()
    };
    let (from, to) = (open(V4, &small), open(V4, &BindOptions::default()));
    let datagrams: Vec<_> = (0..64).map(numbered).collect();
    let mut out: Vec<_> = datagrams
        .iter()
        .map(|d| Outgoing::new(d, to.local_address()))
        .collect();
    let mut got = Vec::new();
    while got.len() < 64 {
        match from.send(&mut out) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        got.extend(receive(&to, 1, 64));
    }
    let numbers: Vec<_> = got.into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, (0..64).collect::<Vec<_>>());
}

#[test]
fn an_address_in_use_is_refused() {
    let socket = open(V4, &BindOptions::default());
    let address = socket.local_address();
    let again = BatchSocket::probe(address).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AddrInUse);
    drop(socket);
    BatchSocket::probe(address).unwrap();
    // Those that ask for it share.
    let shared = BindOptions {
        reuse_port: true,
        ..BindOptions::default()
    };
    let first = BatchSocket::bind(address, &shared).unwrap();
    let _second = BatchSocket::bind(address, &shared).unwrap();
    assert_eq!(first.local_address(), address);
    assert_eq!(
        BatchSocket::probe(address).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
}

#[test]
fn sockets_that_share_an_address_get_their_indices() {
    for address in [V4, V6] {
        let shared = BindOptions {
            reuse_port: true,
            ..BindOptions::default()
        };
        let first = open(address, &shared);
        let all = [
            BatchSocket::bind(first.local_address(), &shared).unwrap(),
            BatchSocket::bind(first.local_address(), &shared).unwrap(),
        ];
        let all = [&first, &all[0], &all[1]];
        first.steer_by_index(64).unwrap();
        let from = open(
            address,
            &BindOptions {
                gso: false,
                ..BindOptions::default()
            },
        );
        let datagrams: Vec<_> = (0..3_u8)
            .flat_map(|worker| (0..10).map(move |high| (high << 6) | worker))
            .map(|low_byte| {
                let mut datagram = numbered(0);
                datagram[7] = low_byte;
                datagram[DATAGRAM - 1] = low_byte;
                datagram
            })
            .collect();
        let mut out: Vec<_> = datagrams
            .iter()
            .map(|d| Outgoing::new(d, first.local_address()))
            .collect();
        assert_eq!(from.send(&mut out).unwrap(), 30);
        for (worker, socket) in all.iter().enumerate() {
            let got = receive(socket, 10, 64);
            assert!(
                got.iter().all(|(number, _)| number % 64 == worker),
                "{worker}: {got:?}"
            );
        }
    }
    assert!(open(V4, &BindOptions::default()).steer_by_index(3).is_err());
}

#[test]
fn both_families_have_the_same_port() {
    let v4 = open("0.0.0.0:0", &BindOptions::default());
    let v6: SocketAddr = format!("[::]:{}", v4.local_address().port())
        .parse()
        .unwrap();
    BatchSocket::bind(v6, &BindOptions::default()).unwrap();
}

#[test]
fn sockets_go_to_other_threads() {
    fn moves<T: Send + Sync>(_: &T) {}
    moves(&open(V4, &BindOptions::default()));
    moves(&ReceiveRing::new(1));
}
