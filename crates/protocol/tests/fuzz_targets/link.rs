//! Datagrams between neighbours.

use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use mixline_protocol::identity::X25519Secret;
use mixline_protocol::link::control::{Control, MAX_TOKENS};
use mixline_protocol::link::probe::{self, Probe, ProbeResponder, SentProbe};
use mixline_protocol::link::{
    Admission, CellKind, Cookie, DatagramType, Draft, Established, Initiator, MAX_EFFORT,
    MIN_EFFORT, Responder, Timestamp, counter, datagram_type,
};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{CELL, Cell, DATAGRAM as LENGTH, Datagram};

use super::{Target, fit, forge};

/// A UDP payload from anybody, to whatever may be expecting one.
pub const DATAGRAM: Target = Target {
    name: "link_datagram",
    seeds: datagram_seeds,
    run: datagram,
};

/// The 1196 sealed bytes of an initiation: ML-KEM key and timestamp.
pub const SEALED_INITIATION: Target = Target {
    name: "link_sealed_initiation",
    seeds: || {
        let (_, initiation) = start();
        let plain = open_initiation(&initiation);
        vec![plain]
    },
    run: sealed_initiation,
};

/// A control message of a neighbour.
pub const CONTROL: Target = Target {
    name: "link_control",
    seeds: control_seeds,
    run: control,
};

const INITIATOR: [u8; 32] = [0x21; 32];
const RESPONDER: [u8; 32] = [0x43; 32];
const AT: Timestamp = Timestamp {
    seconds: 1_800_000_000,
    nanos: 5,
};

fn secret(bytes: [u8; 32]) -> X25519Secret {
    X25519Secret::from_bytes(bytes)
}

fn start() -> (Initiator, Box<Datagram>) {
    let public = secret(RESPONDER).public();
    let rng = &mut OsRandom::new();
    Initiator::start(&secret(INITIATOR), &public, 7, AT, None, rng).expect("an initiation")
}

/// A session as its two sides have it, and one that waits for its response.
struct World {
    waiting: Mutex<Initiator>,
    responder: Responder,
    answered: Established,
    seeds: Vec<Vec<u8>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let rng = &mut OsRandom::new();
    let (mut initiator, initiation) = start();
    let mut responder = Responder::new(&secret(RESPONDER), Instant::now(), rng);
    let (answered, response) = responder.respond(&initiation, 9, rng).expect("a response");
    let established = initiator.finish(&response).expect("a session");
    let mut data = [3; LENGTH];
    established
        .seal
        .seal(&mut data, CellKind::Cell)
        .expect("data");
    let cookie = match responder.check_macs(&initiation, source(), true) {
        Ok(Admission::SendCookie(cookie)) => cookie,
        _ => panic!("no cookie under load"),
    };
    let (asking, without) = start();
    let opened = responder
        .cookie(&without, source())
        .and_then(|cookie| asking.open_cookie(&cookie));
    let effortful = effortful(&opened.expect("a cookie"));
    assert_eq!(responder.effort(&effortful, source()), Some(MIN_EFFORT));
    World {
        seeds: [
            &initiation[..],
            &effortful[..],
            &response[..],
            &data,
            &cookie[..],
            &whole_probe().bytes,
        ]
        .map(<[u8]>::to_vec)
        .into(),
        waiting: Mutex::new(start().0),
        responder,
        answered,
    }
});

/// An initiation with a cookie and an effort.
fn effortful(cookie: &Cookie) -> Box<Datagram> {
    let public = secret(RESPONDER).public();
    let rng = &mut OsRandom::new();
    let draft = Draft::new(&secret(INITIATOR), &public, 7, AT, rng).expect("a draft");
    let mut search = draft.puzzle(cookie).search(MIN_EFFORT, [0; 16]);
    let solution = search.go_on(u32::MAX).expect("a solution");
    draft.finish(Some(cookie), &solution).1
}

fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 7000))
}

fn datagram_seeds() -> Vec<Vec<u8>> {
    WORLD.seeds.clone()
}

fn datagram(data: &[u8]) -> bool {
    if probe::is_short_probe(data) {
        let mut slot: Datagram = fit(data);
        assert!(probe::lengthen(&mut slot, data.len()));
        return probed(&slot);
    }
    let Ok(kind) = datagram_type(data) else {
        return false;
    };
    let datagram: Datagram = fit(data);
    match kind {
        DatagramType::Probe => probed(&datagram),
        DatagramType::Initiation => {
            let admitted = WORLD
                .responder
                .check_macs(&datagram, source(), false)
                .is_ok();
            let shown = WORLD.responder.effort(&datagram, source());
            assert!(shown.is_none_or(|effort| effort <= MAX_EFFORT));
            let under_load = WORLD.responder.check_macs(&datagram, source(), true);
            assert_eq!(under_load.is_ok(), admitted);
            // Also behind the MACs, where only who knows the relay's key comes.
            let rng = &mut OsRandom::new();
            let mut responder = Responder::new(&secret(RESPONDER), Instant::now(), rng);
            let read = responder.respond(&datagram, 11, rng).is_ok();
            admitted && read
        }
        DatagramType::Response => {
            let mut waiting = WORLD.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // Not for this handshake, which has keys of its own.
            assert!(waiting.finish(&datagram).is_err());
            true
        }
        DatagramType::Cookie => {
            let waiting = WORLD.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(waiting.open_cookie(&datagram).is_err());
            true
        }
        DatagramType::Data => WORLD.answered.open.open(&mut { datagram }).is_ok(),
    }
}

/// A probe as it came to a relay, or what says it is one; and any bytes as an answer.
fn probed(datagram: &Datagram) -> bool {
    let now = Instant::now();
    let relay = secret(RESPONDER).public();
    let sent = whole_probe();
    assert!(sent.answered(datagram).is_err());
    let answer = ProbeResponder::new(&relay, now).respond(datagram, source(), now);
    if let Some(answer) = &answer {
        // Nothing is amplified.
        let said = usize::try_from(counter(datagram)).expect("a length");
        let length = if said == 0 { datagram.len() } else { said };
        assert!(answer.bytes.len() <= length && answer.to == source());
    }
    answer.is_some()
}

fn whole_probe() -> SentProbe {
    let question = Probe {
        number: 1,
        answer: 64,
        delay: 0,
    };
    let relay = secret(RESPONDER).public();
    question.encode(LENGTH, &relay).expect("a probe")
}

fn prologue(initiation: &[u8]) -> Vec<u8> {
    [b"mixline/v1/link", &initiation[..16]].concat()
}

/// The bytes that an honest initiation seals.
fn open_initiation(initiation: &Datagram) -> Vec<u8> {
    let mut noise = forge::responder(&secret(RESPONDER), &prologue(initiation));
    let mut plain = vec![0; LENGTH];
    let length = noise
        .read_message(&initiation[16..1308], &mut plain)
        .expect("an initiation");
    plain.truncate(length);
    plain
}

fn sealed_initiation(data: &[u8]) -> bool {
    let plain: [u8; 1196] = fit(data);
    let mut datagram = [0; LENGTH];
    datagram[0] = 1;
    datagram[7] = 7;
    let public = secret(RESPONDER).public();
    let mut noise = forge::initiator(&secret(INITIATOR), &public, &prologue(&datagram));
    let length = noise
        .write_message(&plain, &mut datagram[16..])
        .expect("a message");
    assert_eq!(length, 1292);
    let key = forge::sha256(&[b"mixline/v1/mac1", &public.0]);
    let mac1 = forge::mac(&key, &datagram[..1376]);
    datagram[1376..1392].copy_from_slice(&mac1);
    assert!(
        WORLD
            .responder
            .check_macs(&datagram, source(), false)
            .is_ok()
    );
    let rng = &mut OsRandom::new();
    let mut responder = Responder::new(&secret(RESPONDER), Instant::now(), rng);
    let Ok((established, _)) = responder.respond(&datagram, 13, rng) else {
        return false;
    };
    assert_eq!(established.remote_index, 7);
    assert_eq!(
        established.timestamp.seconds.to_be_bytes(),
        plain[1184..1192]
    );
    assert!(established.timestamp.nanos < 1_000_000_000);
    true
}

fn control_seeds() -> Vec<Vec<u8>> {
    let tokens = |n: usize| (0..n).map(|n| (MailboxToken([n as u8; 8]), 600)).collect();
    [
        Control::Register {
            request: 1,
            tokens: tokens(3),
        },
        Control::Register {
            request: 2,
            tokens: tokens(MAX_TOKENS),
        },
        Control::Registered {
            request: 3,
            refused: vec![MailboxToken([9; 8])],
        },
        Control::Ping(4),
        Control::Pong(5),
        Control::Close,
    ]
    .iter()
    .map(|message| {
        let mut cell = [0; CELL];
        message.encode_into(&mut cell).expect("a message");
        cell.to_vec()
    })
    .collect()
}

fn control(data: &[u8]) -> bool {
    let cell: Cell = fit(data);
    let Ok(message) = Control::decode(&cell) else {
        return false;
    };
    let mut again = [0xff; CELL];
    message.encode_into(&mut again).expect("a message");
    assert_eq!(again, cell);
    true
}
