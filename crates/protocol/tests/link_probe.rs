//! Questions about the path: what is answered, to whom, and how much.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mixline_protocol::Error;
use mixline_protocol::identity::X25519Public;
use mixline_protocol::link::probe::{
    Answer, MAX_DELAY, MAX_WAITING, MAX_WAITING_OF_ONE, MIN_PROBE, Probe, ProbeResponder,
    SOURCE_BURST, SentProbe, TOTAL_BURST, answer_number, is_short_probe, lengthen,
};
use mixline_protocol::size::{DATAGRAM, Datagram};
use proptest::prelude::*;

const RELAY: X25519Public = X25519Public([7; 32]);

fn from(number: u32) -> SocketAddr {
    let [a, b, c, d] = (0x0a00_0000 + number).to_be_bytes();
    SocketAddr::from(([a, b, c, d], 4321))
}

/// A UDP payload as a relay's program has it.
fn arrived(bytes: &[u8]) -> Datagram {
    let mut slot = [0xee; DATAGRAM];
    slot[..bytes.len()].copy_from_slice(bytes);
    if bytes.len() < DATAGRAM {
        assert!(lengthen(&mut slot, bytes.len()));
    }
    slot
}

fn probe(number: u32, length: usize, answer: usize, delay: u16) -> SentProbe {
    let answer = u16::try_from(answer).unwrap();
    let probe = Probe {
        number,
        answer,
        delay,
    };
    probe.encode(length, &RELAY).unwrap()
}

fn ask(responder: &mut ProbeResponder, sent: &SentProbe, now: Instant) -> Option<Answer> {
    responder.respond(&arrived(&sent.bytes), from(1), now)
}

proptest! {
    #[test]
    fn each_length_is_answered_by_what_was_asked_for(
        number: u32,
        length in MIN_PROBE..=DATAGRAM,
        share in 0.0..=1.0f64,
        source: SocketAddr,
    ) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let answer = MIN_PROBE + ((length - MIN_PROBE) as f64 * share) as usize;
        let now = Instant::now();
        let sent = probe(number, length, answer, 0);
        prop_assert_eq!(sent.bytes.len(), length);
        let mut responder = ProbeResponder::new(&RELAY, now);
        let got = responder.respond(&arrived(&sent.bytes), source, now).unwrap();
        prop_assert_eq!((got.bytes.len(), got.to), (answer, source));
        prop_assert_eq!(answer_number(&got.bytes), Some(number));
        let said = sent.answered(&got.bytes).unwrap();
        prop_assert_eq!(usize::from(said.length), length);
        prop_assert_eq!(said.seen.port(), source.port());
        prop_assert_eq!(said.seen.ip(), source.ip().to_canonical());
    }

    #[test]
    fn a_changed_bit_is_not_answered_and_a_changed_answer_not_taken(
        at in 0usize..100 * 8,
        short in 0usize..64 * 8,
    ) {
        let now = Instant::now();
        let mut responder = ProbeResponder::new(&RELAY, now);
        let sent = probe(9, 100, 64, 0);
        let answer = ask(&mut responder, &sent, now).unwrap();
        let mut bad = sent.bytes.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let mut slot = [0; DATAGRAM];
        slot[..100].copy_from_slice(&bad);
        if lengthen(&mut slot, 100) {
            prop_assert_eq!(responder.respond(&slot, from(1), now), None);
        }
        let mut bad = answer.bytes.clone();
        bad[short / 8] ^= 1 << (short % 8);
        prop_assert!(sent.answered(&bad).is_err());
    }

    #[test]
    fn bytes_from_outside_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..DATAGRAM + 9)) {
        let now = Instant::now();
        let mut responder = ProbeResponder::new(&RELAY, now);
        let sent = probe(1, 64, 64, 0);
        prop_assert!(sent.answered(&bytes).is_err());
        let _ = (is_short_probe(&bytes), answer_number(&bytes));
        let mut slot = [0; DATAGRAM];
        let length = bytes.len().min(DATAGRAM);
        slot[..length].copy_from_slice(&bytes[..length]);
        slot[..4].copy_from_slice(&[5, 0, 0, 0]);
        prop_assert_eq!(responder.respond(&slot, from(1), now), None);
        lengthen(&mut slot, bytes.len());
    }
}

#[test]
fn who_does_not_know_the_key_is_not_answered() {
    let now = Instant::now();
    let mut other = ProbeResponder::new(&X25519Public([8; 32]), now);
    assert_eq!(ask(&mut other, &probe(1, 200, 64, 0), now), None);
}

#[test]
fn an_answer_belongs_to_its_probe() {
    let now = Instant::now();
    let mut responder = ProbeResponder::new(&RELAY, now);
    let (one, other) = (probe(1, 200, 64, 0), probe(1, 201, 64, 0));
    let answer = ask(&mut responder, &one, now).unwrap();
    assert!(one.answered(&answer.bytes).is_ok());
    assert!(matches!(
        other.answered(&answer.bytes),
        Err(Error::Authentication { .. })
    ));
}

#[test]
fn nothing_is_amplified() {
    let encode = |length, answer| {
        let probe = Probe {
            number: 1,
            answer,
            delay: 0,
        };
        probe.encode(length, &RELAY).map(drop)
    };
    assert!(encode(100, 100).is_ok());
    for (length, answer) in [(100, 101), (63, 63), (64, 63), (DATAGRAM + 1, 64)] {
        assert!(encode(length, answer).is_err(), "{length}, {answer}");
    }
    // Made by hand: what this program does not encode is not answered either.
    let now = Instant::now();
    let mut responder = ProbeResponder::new(&RELAY, now);
    let mut long = probe(1, 100, 100, 0).bytes;
    long[17] += 1;
    assert_eq!(responder.respond(&arrived(&long), from(1), now), None);
}

#[test]
fn sources_have_their_measure_and_all_of_them_together() {
    let now = Instant::now();
    let mut responder = ProbeResponder::new(&RELAY, now);
    let sent = probe(1, 64, 64, 0);
    let datagram = arrived(&sent.bytes);
    let mut answered =
        |source, at: Instant| responder.respond(&datagram, from(source), at).is_some();
    let of_one = (0..1000).filter(|_| answered(1, now)).count();
    assert_eq!(of_one, SOURCE_BURST as usize);
    let of_all = (2..5000).filter(|source| answered(*source, now)).count();
    assert_eq!(of_one + of_all, TOTAL_BURST as usize);
    let later = now + Duration::from_secs(1);
    assert_eq!((0..1000).filter(|_| answered(1, later)).count(), 50);
}

#[test]
fn later_answers_are_few() {
    let now = Instant::now();
    let mut responder = ProbeResponder::new(&RELAY, now);
    for source in 0..40 {
        for _ in 0..20 {
            let datagram = arrived(&probe(source, 64, 64, 30).bytes);
            let at = now + Duration::from_secs(source.into());
            assert_eq!(responder.respond(&datagram, from(source), at), None);
        }
    }
    assert!(responder.due(now + Duration::from_secs(29)).is_empty());
    let first = responder.due(now + Duration::from_secs(30));
    assert_eq!(first.len(), MAX_WAITING_OF_ONE);
    let rest = responder.due(now + Duration::from_secs(100));
    // Neighbours leave some for others.
    let neighbours = first.len() + rest.len();
    assert!(neighbours <= MAX_WAITING / 2, "{neighbours}");
    let datagram = arrived(&probe(0, 64, 64, 30).bytes);
    for network in 0..2 * MAX_WAITING as u32 {
        let at = now + Duration::from_secs(101 + u64::from(network) / 20);
        let elsewhere = SocketAddr::from(((network << 16).to_be_bytes(), 1));
        assert_eq!(responder.respond(&datagram, elsewhere, at), None);
    }
    let all = responder.due(now + Duration::from_secs(200));
    assert_eq!(all.len(), MAX_WAITING);
    let sent = probe(0, 64, 64, 30);
    assert!(
        first
            .iter()
            .any(|answer| sent.answered(&answer.bytes).is_ok())
    );
    let long = Probe {
        number: 1,
        answer: 64,
        delay: u16::try_from(MAX_DELAY.as_secs()).unwrap() + 1,
    };
    assert!(long.encode(64, &RELAY).is_err());
}

#[test]
fn a_datagram_that_says_another_length_than_it_has_is_none() {
    let now = Instant::now();
    let mut responder = ProbeResponder::new(&RELAY, now);
    let sent = probe(1, 100, 64, 0);
    for length in [0u64, 15, 16, 63, 99, 101, 1409, u64::MAX] {
        let mut datagram = arrived(&sent.bytes);
        datagram[8..16].copy_from_slice(&length.to_be_bytes());
        assert_eq!(responder.respond(&datagram, from(1), now), None, "{length}");
    }
}

/// Made by another implementation: Python's `hmac` and `hashlib`.
#[test]
fn vectors() {
    let key = X25519Public(std::array::from_fn(|at| u8::try_from(at).unwrap()));
    let sent = Probe {
        number: 0x0102_0304,
        answer: 80,
        delay: 7,
    };
    let sent = sent.encode(100, &key).unwrap();
    assert_eq!(hex(&sent.bytes), PROBE);
    let now = Instant::now();
    let mut responder = ProbeResponder::new(&key, now);
    let source = SocketAddr::from(([192, 0, 2, 7], 4321));
    assert_eq!(responder.respond(&arrived(&sent.bytes), source, now), None);
    let answers = responder.due(now + Duration::from_secs(7));
    assert_eq!(hex(&answers[0].bytes), ANSWER);
}

const PROBE: &str = "05000000010203040000000000000000005000070000000000000000000000000000000000000000\
        00000000000000000000000000000000000000000000000000000000000000000000000000000000\
        000000009f369a54e668128acaa7e7a06036a6c3";
const ANSWER: &str = "06000000010203040000000000000000006400000000000000000000ffffc000020710e100000000\
        000000000000000000000000000000000000000000000000526546815739b00405ce42333187407c";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
