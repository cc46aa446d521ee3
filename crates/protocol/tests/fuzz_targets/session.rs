//! What comes through a path: handshakes, data, control frames, packets.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mixline_protocol::effort::{Seed, Solution};
use mixline_protocol::frames::{
    Copy, Delivered, Fragment, Frame, FrameWriter, MAX_COPIES, MAX_MESSAGE, MAX_PARTIALS,
    REASSEMBLY_MEMORY, Reassembly, frames,
};
use mixline_protocol::identity::{IdentityKey, ShortId, X25519Secret};
use mixline_protocol::path::{PublishedTail, TailId};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::TailOffer;
use mixline_protocol::session::{
    Certificate, Control, Form, Initiation, SessionInitiator, SessionKeys, accept, effort,
};
use mixline_protocol::size::{FRAMES as FRAMES_LENGTH, PAYLOAD, Payload};
use mixline_protocol::time::UnixTime;
use mixline_protocol::wire::Writer;

use super::{Target, fit, forge};

/// A payload from anybody to a public tail.
pub const INITIATION: Target = Target {
    name: "session_initiation",
    seeds: || vec![start(Form::Public).1.to_vec()],
    run: initiation,
};

/// The sealed bytes of an initiation through a private tail, 976, or a public one, 952, of an initiator with a session key of its own.
pub const SEALED_INITIATION: Target = Target {
    name: "session_sealed_initiation",
    seeds: sealed_initiation_seeds,
    run: sealed_initiation,
};

/// The 1024 sealed bytes of a responder's answer.
pub const SEALED_RESPONSE: Target = Target {
    name: "session_sealed_response",
    seeds: || {
        let mut seeds = Vec::new();
        for count in 1..=4u8 {
            let mut said = Writer::new();
            said.u8(count);
            (0..count).for_each(|n| offer(n).write(&mut said));
            seeds.push(said.into_bytes());
        }
        seeds
    },
    run: sealed_response,
};

/// A payload to a private tail.
pub const DATA: Target = Target {
    name: "session_data",
    seeds: || vec![vec![0; PAYLOAD]],
    run: data,
};

/// The body of a control frame.
pub const CONTROL: Target = Target {
    name: "session_control",
    seeds: control_seeds,
    run: control,
};

/// The frames of several cells, each of 1040 bytes after a byte that says how much time
/// has passed.
pub const FRAMES: Target = Target {
    name: "frames",
    seeds: frame_seeds,
    run: packets,
};

const NOW_MS: u64 = 1_800_000_000_000;
const SEED: Seed = [0x1f; 16];

fn initiator_secret() -> X25519Secret {
    X25519Secret::from_bytes([0x31; 32])
}

fn responder_secret() -> X25519Secret {
    X25519Secret::from_bytes([0x53; 32])
}

fn responder_id() -> IdentityKey {
    IdentityKey::from_seed([0x75; 32])
}

fn offer(n: u8) -> TailOffer {
    TailOffer {
        tail: PublishedTail {
            first: ShortId([n; 8]),
            alpha: [9; 32],
            gamma: [n; 16],
            beta: [n; 100],
            seed: [n; 16],
        },
        expires: UnixTime(NOW_MS / 1000 + 600),
    }
}

fn certificate() -> Certificate {
    let key = IdentityKey::from_seed([0x97; 32]);
    let expires = UnixTime(NOW_MS / 1000 + 3600);
    Certificate::sign(&key, &initiator_secret().public(), expires, None).expect("a certificate")
}

fn start(form: Form) -> (SessionInitiator, Box<Payload>) {
    let (initiator, mut payload) = SessionInitiator::start(
        &initiator_secret(),
        &responder_secret().public(),
        &responder_id().anonymous_id(),
        form,
        &certificate(),
        &[offer(1), offer(2)],
        None,
        NOW_MS,
        &mut OsRandom::new(),
    )
    .expect("an initiation");
    if form == Form::Public {
        effort::write(&SEED, &Solution::default(), &mut payload);
    }
    (initiator, payload)
}

fn initiation(data: &[u8]) -> bool {
    let mut payload: Payload = fit(data);
    let id = responder_id().anonymous_id();
    let spent = effort::spent(&id, [&[1; 16], &SEED], &payload);
    // What is read is what anybody else would write.
    if let Some(0) = spent {
        let before = payload;
        effort::write(&SEED, &Solution::default(), &mut payload);
        assert_eq!(payload, before);
    }
    spent.is_some() & accept_payload(Form::Public, &payload).is_some()
}

fn accept_payload(form: Form, payload: &Payload) -> Option<Initiation> {
    let directory = IdentityKey::from_seed([0xb9; 32]).anonymous_id();
    let (secret, id) = (responder_secret(), responder_id().anonymous_id());
    let rng = &mut OsRandom::new();
    let initiation = accept(&secret, &id, &directory, form, payload, NOW_MS, rng).ok()?;
    assert!((1..=4).contains(&initiation.tails.len()));
    assert_eq!(initiation.certificate.session, initiator_secret().public());
    Some(initiation)
}

fn sealed_initiation_seeds() -> Vec<Vec<u8>> {
    let mut said = Writer::new();
    said.u8(1).u64(NOW_MS).bytes(&[9; 16]);
    certificate().write(&mut said);
    said.u8(1);
    offer(3).write(&mut said);
    vec![said.into_bytes()]
}

fn prologue() -> Vec<u8> {
    [&b"mixline/v1/session"[..], &responder_id().public()].concat()
}

fn sealed_initiation(data: &[u8]) -> bool {
    let (public, private): ([u8; 952], [u8; 976]) = (fit(data), fit(data));
    let one = sealed_as(Form::Public, effort::FRONT, &public);
    let two = sealed_as(Form::Private, 0, &private);
    one | two
}

fn sealed_as(form: Form, front: usize, plain: &[u8]) -> bool {
    let mut payload = [0; PAYLOAD];
    let public = responder_secret().public();
    let length = forge::initiator(&initiator_secret(), &public, &prologue())
        .write_message(plain, &mut payload[front..])
        .expect("a message");
    assert_eq!(length, PAYLOAD - front);
    accept_payload(form, &payload).is_some()
}

fn sealed_response(data: &[u8]) -> bool {
    let plain: [u8; 1024] = fit(data);
    let (mut initiator, initiation) = start(Form::Private);
    let mut noise = forge::responder(&responder_secret(), &prologue());
    let mut payload = [0; PAYLOAD];
    noise
        .read_message(&initiation[..], &mut [0; PAYLOAD])
        .expect("an initiation");
    let length = noise
        .write_message(&plain, &mut payload)
        .expect("a message");
    assert_eq!(length, PAYLOAD);
    let Ok((_, tails)) = initiator.finish(&payload) else {
        return false;
    };
    assert!((1..=4).contains(&tails.len()));
    true
}

fn data(data: &[u8]) -> bool {
    static KEYS: LazyLock<Mutex<(SessionKeys, SessionKeys)>> = LazyLock::new(|| {
        let (mut initiator, initiation) = start(Form::Private);
        let accepted = accept_payload(Form::Private, &initiation).expect("an initiation");
        let (theirs, response) = accepted.respond(&[offer(4)]).expect("a response");
        let (ours, _) = initiator.finish(&response).expect("a session");
        Mutex::new((ours, theirs))
    });
    let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut payload: Payload = fit(data);
    let before = payload;
    if keys.1.open.open(&mut payload).is_err() {
        // Nobody but the peer can mask a counter, so it was thrown away unchanged.
        assert_eq!(payload, before);
    }
    // The window has not been moved by what did not authenticate: the peer still comes through.
    let mut payload: Payload = fit(data);
    keys.0.seal.seal(&mut payload).expect("a payload");
    keys.1.open.open(&mut payload).expect("what was sealed");
    assert_eq!(payload[16..1056], before[16..1056]);
    true
}

fn control_seeds() -> Vec<Vec<u8>> {
    [
        Control::Tails {
            version: 1,
            tails: (0..4).map(offer).collect(),
        },
        Control::TailsAck { version: 2 },
        Control::TailBroken {
            tail: TailId([3; 8]),
        },
        Control::Probe { id: 4 },
        Control::ProbeAck { id: 5 },
        Control::Close { reason: 0 },
    ]
    .iter()
    .map(|control| control.encode().expect("a control frame"))
    .collect()
}

fn control(data: &[u8]) -> bool {
    let Ok(control) = Control::decode(data) else {
        return false;
    };
    assert_eq!(control.encode().expect("a control frame"), data);
    true
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let part = |offset, data| Fragment {
        id: 1,
        offset,
        total: 1500,
        data,
    };
    let copy = Copy { index: 1, count: 3 };
    let cells: [&[Frame<'_>]; 5] = [
        &[],
        &[Frame::Copy(copy), Frame::Control(&[5; 5])],
        &[
            Frame::Packet(&[0x45; 40]),
            Frame::Control(&[4; 5]),
            Frame::PacketFragment(part(0, &[1; 800])),
        ],
        &[
            Frame::PacketFragment(part(800, &[2; 700])),
            Frame::Message(&[3; 100]),
        ],
        &[Frame::MessageFragment(part(0, &[5; 1000]))],
    ];
    let mut all = Vec::new();
    for frames in cells {
        let mut cell = [0; FRAMES_LENGTH];
        let mut writer = FrameWriter::new(&mut cell);
        for frame in frames {
            assert!(writer.push(frame));
        }
        writer.finish();
        all.push(1);
        all.extend_from_slice(&cell);
    }
    vec![all.clone(), all[..1 + FRAMES_LENGTH].to_vec()]
}

fn packets(data: &[u8]) -> bool {
    let mut reassembly = Reassembly::new();
    let mut now = Instant::now();
    let mut sound = true;
    for cell in data.chunks(1 + FRAMES_LENGTH).take(64) {
        now += Duration::from_millis(u64::from(cell[0]) * 20);
        let cell: [u8; FRAMES_LENGTH] = fit(&cell[1..]);
        for frame in frames(&cell) {
            let Ok(frame) = frame else {
                sound = false;
                break;
            };
            if let Frame::Copy(copy) = &frame {
                for counter in [0, 7, u64::MAX] {
                    assert!(copy.others(counter).count() < usize::from(MAX_COPIES));
                    assert!(copy.others(counter).all(|other| other != counter));
                }
            }
            match reassembly.accept(frame, now) {
                Ok(Some(Delivered::Packet(packet))) => {
                    assert!((1..=usize::from(u16::MAX)).contains(&packet.len()));
                }
                Ok(Some(Delivered::Message(message))) => {
                    assert!((1..=MAX_MESSAGE).contains(&message.len()));
                }
                Ok(Some(Delivered::Control(body))) => assert!(!body.is_empty()),
                Ok(None) => {}
                Err(_) => sound = false,
            }
            assert!(reassembly.memory() <= REASSEMBLY_MEMORY);
            assert!(reassembly.partials() <= MAX_PARTIALS);
        }
        reassembly.expire(now);
    }
    reassembly.expire(now + Duration::from_secs(10));
    assert_eq!(reassembly.partials(), 0);
    sound
}
