//! The link's handshake: what comes of it, and that nothing else is accepted for it.
#![expect(clippy::unwrap_used, reason = "tests")]

use mixline_protocol::Error;
use mixline_protocol::effort::Solution;
use mixline_protocol::identity::{X25519Public, X25519Secret};
use mixline_protocol::link::{
    Admission, COOKIE_LIFE, CellKind, Cookie, DatagramType, Draft, Established, Initiator,
    LoadMeter, MAX_EFFORT, MIN_EFFORT, Responder, SourceLimiter, Timestamp, counter, datagram_type,
    receiver_index,
};
use mixline_protocol::link::{LOAD_HOLD, LOAD_INITIATIONS_PER_SECOND, MAX_SOURCES, SOURCE_BURST};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram};
use ring::{digest, hmac};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const EFFORT_END: usize = 1328;
const MAC1: usize = DATAGRAM - 32;
const MAC2: usize = DATAGRAM - 16;

fn rng() -> OsRandom {
    OsRandom::new()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// Two neighbours.
struct Pair {
    a: X25519Secret,
    b: X25519Secret,
    responder: Responder,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let (a, b) = (
            X25519Secret::generate(&mut rng()),
            X25519Secret::generate(&mut rng()),
        );
        let now = Instant::now();
        let responder = Responder::new(&b, now, &mut rng());
        Self {
            a,
            b,
            responder,
            now,
        }
    }

    fn start(&self, seconds: u64) -> (Initiator, Box<Datagram>) {
        Initiator::start(&self.a, &self.b.public(), 7, at(seconds), None, &mut rng()).unwrap()
    }
}

/// mac1 made anew, as anybody can who knows the receiver's key.
fn fix_mac1(datagram: &mut Datagram, receiver: &X25519Public) {
    let key = [b"mixline/v1/mac1".as_slice(), &receiver.0].concat();
    let key = digest::digest(&digest::SHA256, &key);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
    let mac = hmac::sign(&key, &datagram[..MAC1]);
    datagram[MAC1..MAC2].copy_from_slice(&mac.as_ref()[..16]);
}

fn error<T>(result: Result<T, Error>) -> Error {
    result.err().unwrap()
}

/// What one seals, the other opens.
fn connected(one: &Established, other: &Established) {
    let mut datagram = [0; DATAGRAM];
    for n in 0..4 {
        datagram[CELL_OFFSET..DATAGRAM - 16].fill(n);
        one.seal.seal(&mut datagram, CellKind::Cell).unwrap();
        assert_eq!(counter(&datagram), u64::from(n));
        assert_eq!(receiver_index(&datagram), other.local_index);
        assert_eq!(other.open.open(&mut datagram).unwrap(), CellKind::Cell);
        assert!(datagram[CELL_OFFSET..DATAGRAM - 16].iter().all(|b| *b == n));
    }
}

#[test]
fn round_trip() {
    let mut pair = Pair::new();
    let (mut initiator, initiation) = pair.start(1);
    assert_eq!(
        datagram_type(initiation.as_slice()),
        Ok(DatagramType::Initiation)
    );
    assert_eq!((receiver_index(&initiation), counter(&initiation)), (7, 0));
    let (b, response) = pair.responder.respond(&initiation, 9, &mut rng()).unwrap();
    assert_eq!(
        datagram_type(response.as_slice()),
        Ok(DatagramType::Response)
    );
    assert_eq!((receiver_index(&response), counter(&response)), (7, 0));
    let a = initiator.finish(&response).unwrap();
    assert_eq!((a.remote, b.remote), (pair.b.public(), pair.a.public()));
    assert_eq!((a.local_index, a.remote_index), (7, 9));
    assert_eq!((b.local_index, b.remote_index), (9, 7));
    assert_eq!((a.initiated, b.initiated), (true, false));
    assert_eq!((a.timestamp, b.timestamp), (at(1), at(1)));
    connected(&a, &b);
    connected(&b, &a);
    // It is over: the same response makes no second session.
    assert!(initiator.finish(&response).is_err());
    // Directions have different keys: what a sealed does not open at a.
    let mut datagram = [0; DATAGRAM];
    a.seal.seal(&mut datagram, CellKind::Cell).unwrap();
    datagram[4..8].copy_from_slice(&7u32.to_be_bytes());
    assert!(a.open.open(&mut datagram).is_err());
}

#[test]
fn handshakes_hide_who_is_asking_and_repeat_nothing() {
    let pair = Pair::new();
    let (first, second) = (pair.start(1).1, pair.start(1).1);
    let public = pair.a.public().0;
    assert!(
        !first
            .windows(32)
            .any(|w| w == public || w == pair.b.public().0)
    );
    assert_ne!(first[16..48], second[16..48]);
    assert_ne!(first[48..1308], second[48..1308]);
}

#[test]
fn every_byte_of_an_initiation_counts() {
    let mut pair = Pair::new();
    let (_, initiation) = pair.start(1);
    let source: SocketAddr = "192.0.2.1:7000".parse().unwrap();
    for byte in 0..MAC2 {
        let mut bent = initiation.clone();
        bent[byte] ^= 1 << (byte % 8);
        let refused = pair.responder.check_macs(&bent, source, false);
        assert!(refused.is_err(), "byte {byte} is not covered by mac1");
    }
    // Anyone who knows the receiver's key can make mac1, and gets no further.
    for byte in (0..64).chain((64..MAC1).step_by(11)) {
        let mut bent = initiation.clone();
        bent[byte] ^= 1 << (byte % 8);
        fix_mac1(&mut bent, &pair.b.public());
        assert!(
            pair.responder.read(&bent, &mut rng()).is_err(),
            "byte {byte}"
        );
    }
    // None of these has touched the timestamps.
    assert!(matches!(
        pair.responder.check_macs(&initiation, source, false),
        Ok(Admission::Process)
    ));
    pair.responder.respond(&initiation, 1, &mut rng()).unwrap();
}

#[test]
fn every_byte_of_a_response_counts() {
    let mut pair = Pair::new();
    for (n, byte) in (0..64).chain((64..DATAGRAM).step_by(29)).enumerate() {
        let (mut initiator, initiation) = pair.start(1 + n as u64);
        let (_, response) = pair.responder.respond(&initiation, 9, &mut rng()).unwrap();
        let mut bent = response.clone();
        bent[byte] ^= 1 << (byte % 8);
        assert!(initiator.finish(&bent).is_err(), "byte {byte}");
        if byte < MAC1 {
            fix_mac1(&mut bent, &pair.a.public());
            assert!(
                initiator.finish(&bent).is_err(),
                "byte {byte} with mac1 made anew"
            );
        }
        // The true one is still awaited.
        initiator.finish(&response).unwrap();
    }
}

#[test]
fn a_response_for_another_handshake_is_refused() {
    let mut pair = Pair::new();
    let (mut first, initiation) = pair.start(1);
    let (mut second, _) =
        Initiator::start(&pair.a, &pair.b.public(), 8, at(2), None, &mut rng()).unwrap();
    let (_, response) = pair.responder.respond(&initiation, 9, &mut rng()).unwrap();
    assert_eq!(
        error(second.finish(&response)),
        Error::Malformed {
            what: "link response"
        }
    );
    let mut readdressed = response.clone();
    readdressed[4..8].copy_from_slice(&8u32.to_be_bytes());
    fix_mac1(&mut readdressed, &pair.a.public());
    assert!(matches!(
        error(second.finish(&readdressed)),
        Error::Authentication { .. }
    ));
    first.finish(&response).unwrap();
}

#[test]
fn forged_responses_end_no_handshake() {
    let mut pair = Pair::new();
    let (mut initiator, initiation) = pair.start(1);
    let (_, response) = pair.responder.respond(&initiation, 9, &mut rng()).unwrap();
    // By somebody who sees the handshake and knows both static keys.
    let mut bent = response.clone();
    bent[100] ^= 1;
    for receiver in [&pair.a, &pair.b] {
        fix_mac1(&mut bent, &receiver.public());
        for _ in 0..100 {
            assert!(matches!(
                error(initiator.finish(&bent)),
                Error::Authentication { .. }
            ));
        }
    }
    initiator.finish(&response).unwrap();
}

#[test]
fn the_wrong_static_key_gets_no_answer() {
    let mut pair = Pair::new();
    let other = X25519Secret::generate(&mut rng());
    let (_, to_other) =
        Initiator::start(&pair.a, &other.public(), 7, at(1), None, &mut rng()).unwrap();
    let source: SocketAddr = "192.0.2.1:7000".parse().unwrap();
    assert!(matches!(
        error(pair.responder.check_macs(&to_other, source, false)),
        Error::Authentication { .. }
    ));
    let mut to_other = to_other;
    fix_mac1(&mut to_other, &pair.b.public());
    assert!(matches!(
        error(pair.responder.read(&to_other, &mut rng())),
        Error::Authentication { .. }
    ));
    // A man in the middle answers with a key of his own.
    let (mut initiator, initiation) = pair.start(1);
    let mut middle = Responder::new(&other, pair.now, &mut rng());
    let mut readdressed = initiation.clone();
    fix_mac1(&mut readdressed, &other.public());
    assert!(middle.respond(&readdressed, 1, &mut rng()).is_err());
    let (_, own) = Initiator::start(&pair.a, &other.public(), 7, at(1), None, &mut rng()).unwrap();
    let (_, forged) = middle.respond(&own, 1, &mut rng()).unwrap();
    assert!(matches!(
        error(initiator.finish(&forged)),
        Error::Authentication { .. }
    ));
}

#[test]
fn points_of_low_order_are_refused() {
    let mut pair = Pair::new();
    let zero = X25519Public([0; 32]);
    let started = Initiator::start(&pair.a, &zero, 7, at(1), None, &mut rng());
    assert_eq!(error(started), Error::LowOrder);
    let (_, mut initiation) = pair.start(1);
    initiation[16..48].fill(0);
    fix_mac1(&mut initiation, &pair.b.public());
    assert_eq!(
        error(pair.responder.read(&initiation, &mut rng())),
        Error::LowOrder
    );
}

#[test]
fn replayed_initiations_are_refused() {
    let mut pair = Pair::new();
    let (_, first) = pair.start(5);
    let (_, second) = pair.start(6);
    pair.responder.respond(&first, 1, &mut rng()).unwrap();
    assert_eq!(
        error(pair.responder.respond(&first, 2, &mut rng())),
        Error::Replay
    );
    pair.responder.respond(&second, 3, &mut rng()).unwrap();
    assert_eq!(
        error(pair.responder.respond(&first, 4, &mut rng())),
        Error::Replay
    );
    // Somebody else's time is another matter.
    let other = X25519Secret::generate(&mut rng());
    let (_, older) =
        Initiator::start(&other, &pair.b.public(), 1, at(1), None, &mut rng()).unwrap();
    pair.responder.respond(&older, 5, &mut rng()).unwrap();
}

#[test]
fn under_load_a_source_first_proves_that_it_receives() {
    let mut pair = Pair::new();
    let here: SocketAddr = "192.0.2.1:7000".parse().unwrap();
    let elsewhere: [SocketAddr; 3] = [
        "192.0.2.2:7000".parse().unwrap(),
        "192.0.2.1:7001".parse().unwrap(),
        "[2001:db8::1]:7000".parse().unwrap(),
    ];
    let (initiator, without) = pair.start(1);
    let Ok(Admission::SendCookie(answer)) = pair.responder.check_macs(&without, here, true) else {
        panic!("admitted without a cookie");
    };
    assert_eq!(datagram_type(answer.as_slice()), Ok(DatagramType::Cookie));
    assert_eq!((receiver_index(&answer), counter(&answer)), (7, 0));
    let cookie = initiator.open_cookie(&answer).unwrap();

    let with_cookie = |seconds| {
        Initiator::start(
            &pair.a,
            &pair.b.public(),
            8,
            at(seconds),
            Some(&cookie),
            &mut rng(),
        )
        .unwrap()
    };
    let (mut second, initiation) = with_cookie(2);
    let admitted = |responder: &Responder, from: SocketAddr| {
        matches!(
            responder.check_macs(&initiation, from, true),
            Ok(Admission::Process)
        )
    };
    for from in elsewhere {
        assert!(
            !admitted(&pair.responder, from),
            "a cookie for another source was taken"
        );
    }
    assert!(admitted(&pair.responder, here));
    assert_eq!(pair.responder.effort(&initiation, here), Some(0));
    assert_eq!(pair.responder.effort(&initiation, elsewhere[0]), None);
    assert_eq!(pair.responder.effort(&without, here), None);
    // The same IPv4 address as a socket of both families shows it.
    assert!(admitted(
        &pair.responder,
        "[::ffff:192.0.2.1]:7000".parse().unwrap()
    ));
    for byte in MAC2..DATAGRAM {
        let mut bent = initiation.clone();
        bent[byte] ^= 1;
        assert!(matches!(
            pair.responder.check_macs(&bent, here, true),
            Ok(Admission::SendCookie(_))
        ));
    }
    // Another responder's cookies differ.
    let other = Responder::new(&pair.b, pair.now, &mut rng());
    assert!(!admitted(&other, here));

    // It lasts for one change of the secret, and not for two.
    pair.responder.tick(pair.now + COOKIE_LIFE, &mut rng());
    assert!(admitted(&pair.responder, here));
    pair.responder.tick(pair.now + COOKIE_LIFE, &mut rng());
    assert!(
        admitted(&pair.responder, here),
        "the secret changed twice at once"
    );
    pair.responder.tick(pair.now + 2 * COOKIE_LIFE, &mut rng());
    assert!(!admitted(&pair.responder, here));

    let (b, response) = pair.responder.respond(&initiation, 9, &mut rng()).unwrap();
    connected(&second.finish(&response).unwrap(), &b);
}

#[test]
fn an_old_secret_is_not_kept_over_a_long_sleep() {
    let mut pair = Pair::new();
    let here: SocketAddr = "192.0.2.1:7000".parse().unwrap();
    let (initiator, initiation) = pair.start(1);
    let Ok(Admission::SendCookie(answer)) = pair.responder.check_macs(&initiation, here, true)
    else {
        panic!("admitted without a cookie");
    };
    let cookie = initiator.open_cookie(&answer).unwrap();
    let (_, with_cookie) = Initiator::start(
        &pair.a,
        &pair.b.public(),
        8,
        at(2),
        Some(&cookie),
        &mut rng(),
    )
    .unwrap();
    pair.responder.tick(pair.now + 2 * COOKIE_LIFE, &mut rng());
    assert!(matches!(
        pair.responder.check_macs(&with_cookie, here, true),
        Ok(Admission::SendCookie(_))
    ));
}

#[test]
fn effort_is_for_one_initiation_of_one_source() {
    let mut pair = Pair::new();
    let here: SocketAddr = "192.0.2.1:7000".parse().unwrap();
    let elsewhere: SocketAddr = "192.0.2.1:7001".parse().unwrap();
    pair.responder.suggest(5000);
    let cookie = |source| {
        let (initiator, without) = pair.start(1);
        let answer = pair.responder.cookie(&without, source).unwrap();
        initiator.open_cookie(&answer).unwrap()
    };
    let (cookie, other_cookie) = (cookie(here), cookie(elsewhere));
    assert_eq!(cookie.effort(), 5000);
    let draft =
        |seconds| Draft::new(&pair.a, &pair.b.public(), 8, at(seconds), &mut rng()).unwrap();
    let solve = |draft: &Draft, cookie: &Cookie, effort| {
        let mut search = draft.puzzle(cookie).search(effort, [3; 16]);
        search.go_on(u32::MAX).unwrap()
    };
    let first = draft(2);
    let solution = solve(&first, &cookie, 5000);
    let (mut initiator, initiation) = first.finish(Some(&cookie), &solution);
    assert_eq!(pair.responder.effort(&initiation, here), Some(5000));
    assert_eq!(pair.responder.effort(&initiation, elsewhere), None);
    // Nor with the cookie of that source, nor for another initiation.
    let second = draft(3);
    let stolen = solve(&second, &cookie, 5000);
    let (_, for_elsewhere) = second.finish(Some(&other_cookie), &stolen);
    assert_eq!(pair.responder.effort(&for_elsewhere, elsewhere), Some(0));
    let (_, for_another) = draft(4).finish(Some(&cookie), &solution);
    assert_eq!(pair.responder.effort(&for_another, here), Some(0));
    // What is claimed and not done is none, and so is what is hardly any.
    let claimed = Solution {
        effort: 1 << 19,
        ..solution
    };
    let (_, claims) = draft(5).finish(Some(&cookie), &claimed);
    assert_eq!(pair.responder.effort(&claims, here), Some(0));
    let little = draft(6);
    let solution = solve(&little, &cookie, MIN_EFFORT - 1);
    let (_, little) = little.finish(Some(&cookie), &solution);
    assert_eq!(pair.responder.effort(&little, here), Some(0));
    // It is shown once.
    assert!(pair.responder.spend(&initiation) && pair.responder.spend(&little));
    assert!(!pair.responder.spend(&initiation));
    // No more is ever asked for than anybody makes.
    pair.responder.suggest(u32::MAX);
    let answer = pair.responder.cookie(&initiation, here).unwrap();
    assert_eq!(initiator.open_cookie(&answer).unwrap().effort(), MAX_EFFORT);
    let (b, response) = pair.responder.respond(&initiation, 9, &mut rng()).unwrap();
    connected(&initiator.finish(&response).unwrap(), &b);
    // Behind the effort there are zeros.
    let (_, bent) = draft(7).finish(None, &Solution::default());
    for byte in EFFORT_END..MAC1 {
        let mut bent = bent.clone();
        bent[byte] = 1;
        assert!(matches!(
            error(pair.responder.respond(&bent, 10, &mut rng())),
            Error::Malformed { .. }
        ));
    }
}

#[test]
fn forged_cookies_are_refused() {
    let pair = Pair::new();
    let here: SocketAddr = "192.0.2.1:7000".parse().unwrap();
    let (initiator, initiation) = pair.start(1);
    let (other, _) = pair.start(1);
    let Ok(Admission::SendCookie(answer)) = pair.responder.check_macs(&initiation, here, true)
    else {
        panic!("admitted without a cookie");
    };
    for byte in 0..DATAGRAM {
        let mut bent = answer.clone();
        bent[byte] ^= 1 << (byte % 8);
        assert!(initiator.open_cookie(&bent).is_err(), "byte {byte}");
    }
    // Bound to mac1: no use for another initiation with the same index.
    assert!(matches!(
        error(other.open_cookie(&answer)),
        Error::Authentication { .. }
    ));
    assert!(initiator.open_cookie(&answer).is_ok());
}

#[test]
fn types_are_told_apart_strictly() {
    for length in [0, 1, 15, 1407, 1409] {
        assert!(matches!(
            datagram_type(&vec![4; length]),
            Err(Error::Length { .. })
        ));
    }
    for kind in 0..=255u8 {
        let mut datagram = [0; DATAGRAM];
        datagram[0] = kind;
        assert_eq!(datagram_type(&datagram).is_ok(), (1..=5).contains(&kind));
        for byte in 1..4 {
            let mut bent = datagram;
            bent[byte] = 1;
            assert!(datagram_type(&bent).is_err());
        }
    }
}

#[test]
fn a_handshake_of_one_type_is_not_read_as_another() {
    let mut pair = Pair::new();
    let (mut initiator, initiation) = pair.start(1);
    let (_, response) = pair.responder.respond(&initiation, 9, &mut rng()).unwrap();
    assert!(initiator.finish(&initiation).is_err());
    assert!(initiator.open_cookie(&response).is_err());
    assert!(pair.responder.read(&response, &mut rng()).is_err());
}

#[test]
fn load_is_noticed_and_passes() {
    let (mut meter, start) = (LoadMeter::new(), Instant::now());
    for second in 0..5 {
        for _ in 0..LOAD_INITIATIONS_PER_SECOND {
            assert!(!meter.observe(start + Duration::from_secs(second)));
        }
    }
    let last = start + Duration::from_secs(4);
    assert!(meter.observe(last));
    assert!(meter.observe(last + LOAD_HOLD - Duration::from_millis(1)));
    assert!(!meter.observe(last + LOAD_HOLD));
}

#[test]
fn one_source_does_not_take_everything() {
    let (mut limiter, now) = (SourceLimiter::new(), Instant::now());
    let source: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let other_port: SocketAddr = "192.0.2.1:2".parse().unwrap();
    for n in 0..SOURCE_BURST {
        assert!(limiter.allow(if n % 2 == 0 { source } else { other_port }, now));
    }
    assert!(!limiter.allow(source, now));
    assert!(!limiter.allow(other_port, now));
    assert!(limiter.allow("192.0.2.2:1".parse().unwrap(), now));
    assert!(limiter.allow(source, now + Duration::from_millis(100)));
    assert!(!limiter.allow(source, now + Duration::from_millis(100)));
    // One /64 is one source.
    for n in 0..SOURCE_BURST {
        assert!(limiter.allow(format!("[2001:db8::{n:x}]:1").parse().unwrap(), now));
    }
    assert!(!limiter.allow("[2001:db8::ffff]:1".parse().unwrap(), now));
    assert!(limiter.allow("[2001:db8:0:1::1]:1".parse().unwrap(), now));
}

#[test]
fn sources_are_bounded() {
    let (mut limiter, now) = (SourceLimiter::new(), Instant::now());
    let source = |n: usize| SocketAddr::from((((n as u32) << 16).to_be_bytes(), 1));
    // All of one /16 leave some for others.
    let neighbour = |n: usize| SocketAddr::from((((n as u32) + 0xff00_0000).to_be_bytes(), 1));
    let neighbours = (0..1 << 16)
        .filter(|n| limiter.allow(neighbour(*n), now))
        .count();
    assert!(neighbours <= MAX_SOURCES / 2, "{neighbours}");
    let allowed = (0..2 * MAX_SOURCES)
        .filter(|n| limiter.allow(source(*n), now))
        .count();
    assert_eq!(neighbours + allowed, MAX_SOURCES);
    // They recover.
    assert!(limiter.allow(source(3 * MAX_SOURCES), now + Duration::from_secs(1)));
}
