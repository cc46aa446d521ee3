//! Data over a link: sealing and opening, the window, control messages.
#![expect(clippy::unwrap_used, reason = "tests")]

use mixline_protocol::Error;
use mixline_protocol::identity::X25519Secret;
use mixline_protocol::link::control::{Control, MAX_TOKENS};
use mixline_protocol::link::{
    CellKind, Established, Initiator, MAX_COUNTER, OpenKey, Responder, SealKey, SlidingWindow,
    Timestamp, Window, counter,
};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{CELL, CELL_OFFSET, DATAGRAM, Datagram};
use proptest::prelude::*;
use std::collections::HashSet;
use std::time::Instant;

fn pair() -> (Established, Established) {
    let mut rng = OsRandom::new();
    let (a, b) = (
        X25519Secret::generate(&mut rng),
        X25519Secret::generate(&mut rng),
    );
    let mut responder = Responder::new(&b, Instant::now(), &mut rng);
    let (mut initiator, initiation) = Initiator::start(
        &a,
        &b.public(),
        7,
        Timestamp::default().next(),
        None,
        &mut rng,
    )
    .unwrap();
    let (b, response) = responder.respond(&initiation, 9, &mut rng).unwrap();
    (initiator.finish(&response).unwrap(), b)
}

fn sealed(key: &SealKey, kind: CellKind, byte: u8) -> Datagram {
    let mut datagram = [byte; DATAGRAM];
    key.seal(&mut datagram, kind).unwrap();
    datagram
}

#[test]
fn keys_are_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<SealKey>();
    shared::<OpenKey>();
}

#[test]
fn every_kind_arrives_and_any_order_is_opened() {
    let (a, b) = pair();
    let kinds = [CellKind::Cell, CellKind::Cover, CellKind::Control];
    let mut datagrams: Vec<_> = (0..30)
        .map(|n| (n, kinds[n % 3], sealed(&a.seal, kinds[n % 3], n as u8)))
        .collect();
    datagrams.reverse();
    for (n, kind, mut datagram) in datagrams {
        assert_eq!(counter(&datagram), n as u64);
        assert_eq!(b.open.open(&mut datagram), Ok(kind));
        assert_eq!(datagram[CELL_OFFSET..DATAGRAM - 16], [n as u8; CELL]);
    }
    assert_eq!((a.seal.sent(), a.seal.sent_data()), (30, 20));
}

#[test]
fn equal_cells_look_different_each_time() {
    let (a, _) = pair();
    let (one, two) = (
        sealed(&a.seal, CellKind::Cell, 1),
        sealed(&a.seal, CellKind::Cell, 1),
    );
    assert_ne!(one[16..], two[16..]);
    // Cover cannot be told from a cell either.
    assert_eq!(one[..8], sealed(&a.seal, CellKind::Cover, 1)[..8]);
}

#[test]
fn any_bit_flipped_anywhere_is_refused() {
    let (a, b) = pair();
    let datagram = sealed(&a.seal, CellKind::Cell, 5);
    for bit in 0..DATAGRAM * 8 {
        let mut bent = datagram;
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(b.open.open(&mut bent).is_err(), "bit {bit}");
    }
    assert!(b.open.open(&mut { datagram }).is_ok());
}

#[test]
fn counters_end() {
    let (a, b) = pair();
    a.seal.skip_to(MAX_COUNTER - 1);
    let mut last = sealed(&a.seal, CellKind::Cell, 5);
    assert!(b.open.open(&mut last).is_ok());
    let mut datagram = [3; DATAGRAM];
    for _ in 0..3 {
        assert_eq!(
            a.seal.seal(&mut datagram, CellKind::Cell),
            Err(Error::Limit {
                what: "link counter"
            })
        );
        assert_eq!(datagram, [3; DATAGRAM]);
    }
    assert_eq!(a.seal.sent(), MAX_COUNTER);
    let mut beyond = last;
    beyond[8..16].copy_from_slice(&MAX_COUNTER.to_be_bytes());
    assert_eq!(
        b.open.open(&mut beyond),
        Err(Error::Limit {
            what: "link counter"
        })
    );
}

#[test]
fn threads_never_use_a_counter_twice() {
    let (a, b) = pair();
    let seen: HashSet<u64> = std::thread::scope(|scope| {
        let work = || -> Vec<u64> {
            let seal = |_| {
                let mut datagram = sealed(&a.seal, CellKind::Cell, 9);
                let counter = counter(&datagram);
                assert!(b.open.open(&mut datagram).is_ok());
                counter
            };
            (0..2000).map(seal).collect()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(seen.len(), 8000);
    assert_eq!(a.seal.sent(), 8000);
}

/// What a window should do, without its cleverness.
#[derive(Default)]
struct Model {
    seen: HashSet<u64>,
    top: Option<u64>,
}

impl Model {
    fn accept(&mut self, counter: u64, width: u64) -> bool {
        if self.top.is_some_and(|top| counter + width <= top) || !self.seen.insert(counter) {
            return false;
        }
        self.top = Some(self.top.map_or(counter, |top| top.max(counter)));
        true
    }
}

fn agrees<const WORDS: usize>(counters: &[u64]) {
    let (mut window, mut model) = (SlidingWindow::<WORDS>::new(), Model::default());
    for counter in counters {
        let expected = model.accept(*counter, SlidingWindow::<WORDS>::WIDTH);
        assert_eq!(window.check(*counter), expected, "{counter}");
        assert_eq!(window.accept(*counter).is_ok(), expected, "{counter}");
        assert!(!window.check(*counter));
    }
}

/// Counters that wander: steps back and forth around the edges of words and of the window.
fn wandering() -> impl Strategy<Value = Vec<u64>> {
    let step = prop_oneof![
        8 => -3i64..4,
        4 => -70i64..71,
        2 => -9000i64..9000,
        1 => 8180i64..8260,
        1 => -8260i64..-8120,
        1 => 0i64..100_000,
    ];
    prop::collection::vec(step, 1..400).prop_map(|steps| {
        let mut at = 0i64;
        let mut walk = |step: i64| {
            at = (at + step).max(0);
            at as u64
        };
        steps.into_iter().map(&mut walk).collect()
    })
}

/// Failing cases are printed and not written to a file.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn the_window_does_what_the_model_does(counters in wandering()) {
        agrees::<129>(&counters);
        agrees::<3>(&counters);
        agrees::<2>(&counters);
    }
}

#[test]
fn edges_of_the_window() {
    assert_eq!(Window::WIDTH, 8192);
    let mut window = Window::new();
    window.accept(0).unwrap();
    window.accept(8191).unwrap();
    assert!(!window.check(0));
    assert!(window.check(1));
    window.accept(8192).unwrap();
    // 0 has left, 1 is the oldest that is still in.
    assert!(window.check(1));
    assert_eq!(window.accept(0), Err(Error::Replay));
    window.accept(1).unwrap();
    window.accept(8193).unwrap();
    assert_eq!(window.accept(1), Err(Error::Replay));
    // A leap clears everything.
    window.accept(1 << 40).unwrap();
    assert!(window.check((1 << 40) - 8191));
    assert!(!window.check((1 << 40) - 8192));
    // The last of all counters has no successor.
    assert!(window.accept(u64::MAX).is_err());
    window.accept(u64::MAX - 1).unwrap();
    agrees::<129>(&(0..40_000).rev().collect::<Vec<_>>());
}

fn control() -> impl Strategy<Value = Control> {
    let token = any::<[u8; 8]>().prop_map(MailboxToken);
    let tokens = prop::collection::vec((token.clone(), any::<u32>()), 0..=MAX_TOKENS);
    let refused = prop::collection::vec(token, 0..=MAX_TOKENS);
    prop_oneof![
        (any::<u32>(), tokens).prop_map(|(request, tokens)| Control::Register { request, tokens }),
        (any::<u32>(), refused)
            .prop_map(|(request, refused)| Control::Registered { request, refused }),
        any::<u64>().prop_map(Control::Ping),
        any::<u64>().prop_map(Control::Pong),
        Just(Control::Close),
    ]
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn control_round_trip(message in control(), junk: u8) {
        let mut cell = [junk; CELL];
        message.encode_into(&mut cell).unwrap();
        prop_assert_eq!(Control::decode(&cell), Ok(message));
    }

    #[test]
    fn control_of_anything_is_refused_or_the_same_again(
        front in prop::collection::vec(any::<u8>(), 0..40), kind in 0u8..8,
    ) {
        let mut cell = [0; CELL];
        cell[1..=front.len()].copy_from_slice(&front);
        cell[0] = kind;
        if let Ok(message) = Control::decode(&cell) {
            let mut again = [0xff; CELL];
            message.encode_into(&mut again).unwrap();
            prop_assert_eq!(again, cell);
        }
    }
}

#[test]
fn control_bounds() {
    let tokens = vec![(MailboxToken([1; 8]), 1); MAX_TOKENS + 1];
    let mut cell = [7; CELL];
    let too_many = Control::Register { request: 1, tokens }.encode_into(&mut cell);
    assert!(matches!(too_many, Err(Error::Limit { .. })));
    assert_eq!(cell, [7; CELL]);
    let mut cell = [0; CELL];
    cell[0] = 1;
    cell[5] = MAX_TOKENS as u8 + 1;
    assert!(matches!(Control::decode(&cell), Err(Error::Limit { .. })));
    for kind in (0..=255u8).filter(|kind| !(1..=5).contains(kind)) {
        cell = [0; CELL];
        cell[0] = kind;
        assert!(matches!(
            Control::decode(&cell),
            Err(Error::Malformed { .. })
        ));
    }
    // What a message does not use is zero.
    Control::Close.encode_into(&mut cell).unwrap();
    cell[CELL - 1] = 1;
    assert!(matches!(
        Control::decode(&cell),
        Err(Error::Malformed { .. })
    ));
}
