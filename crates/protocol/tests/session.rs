//! The session from both of its ends, and what is refused.
#![expect(clippy::unwrap_used, reason = "tests")]

use mixline_protocol::Error;
use mixline_protocol::authorisation::Authorisation;
use mixline_protocol::identity::{AnonymousId, IdentityKey, ShortId, X25519Public, X25519Secret};
use mixline_protocol::path::{PublishedTail, TailId};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{Lease, TailOffer};
use mixline_protocol::session::{
    Certificate, Control, Form, Initiation, SESSION_WINDOW, SessionInitiator, SessionKeys,
    TIMESTAMP_TOLERANCE_MS, accept, close,
};
use mixline_protocol::size::{FRAMES, PAYLOAD, Payload};
use mixline_protocol::time::UnixTime;
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW * 1000 + 123;

struct Party {
    key: IdentityKey,
    session: X25519Secret,
}

impl Party {
    fn new() -> Self {
        let rng = &mut OsRandom::new();
        Self {
            key: IdentityKey::generate(rng),
            session: X25519Secret::generate(rng),
        }
    }

    fn id(&self) -> AnonymousId {
        self.key.anonymous_id()
    }

    fn certificate(&self, lease: Option<Lease>) -> Certificate {
        let expires = UnixTime(NOW + 3600);
        Certificate::sign(&self.key, &self.session.public(), expires, lease).unwrap()
    }
}

struct World {
    form: Form,
    directory: IdentityKey,
    client: Party,
    service: Party,
}

impl World {
    fn new() -> Self {
        Self::of(Form::Private)
    }

    fn of(form: Form) -> Self {
        let directory = IdentityKey::generate(&mut OsRandom::new());
        Self {
            form,
            directory,
            client: Party::new(),
            service: Party::new(),
        }
    }

    fn lease(&self, of: AnonymousId, expires: u64) -> Lease {
        Lease::grant([10, 1, 2, 3].into(), of, UnixTime(expires), &self.directory)
    }

    fn start(&self, certificate: &Certificate) -> (SessionInitiator, Box<Payload>) {
        self.start_as(None, certificate)
    }

    fn start_as(
        &self,
        authorisation: Option<&Authorisation>,
        certificate: &Certificate,
    ) -> (SessionInitiator, Box<Payload>) {
        SessionInitiator::start(
            &self.client.session,
            &self.service.session.public(),
            &self.service.id(),
            self.form,
            certificate,
            &tails(1, 4),
            authorisation,
            NOW_MS,
            &mut OsRandom::new(),
        )
        .unwrap()
    }

    fn accept(&self, payload: &Payload, now_ms: u64) -> Result<Initiation, Error> {
        let (own, directory) = (&self.service, self.directory.anonymous_id());
        accept(
            &own.session,
            &own.id(),
            &directory,
            self.form,
            payload,
            now_ms,
            &mut OsRandom::new(),
        )
    }

    fn session(&self) -> (SessionKeys, SessionKeys) {
        let (mut initiator, first) = self.start(&self.client.certificate(None));
        let (theirs, second) = self
            .accept(&first, NOW_MS)
            .unwrap()
            .respond(&tails(2, 1))
            .unwrap();
        (initiator.finish(&second).unwrap().0, theirs)
    }
}

fn tails(seed: u8, count: u8) -> Vec<TailOffer> {
    (0..count)
        .map(|n| TailOffer {
            tail: PublishedTail {
                first: ShortId([n; 8]),
                alpha: [seed; 32],
                gamma: [n; 16],
                beta: [seed ^ n; 100],
                seed: [seed + n; 16],
            },
            expires: UnixTime(NOW + 60 * u64::from(n)),
        })
        .collect()
}

fn refused(result: Result<Initiation, Error>) -> Error {
    result.err().expect("refused")
}

#[test]
fn an_initiation_says_which_client_of_the_list_it_is_of() {
    // Not even with a lease and the effort does it become too long.
    let world = World::of(Form::Public);
    let rng = &mut OsRandom::new();
    let secrets = [(); 3].map(|()| X25519Secret::generate(rng));
    let of = |secret| Authorisation::of_client(secret, &world.service.id()).unwrap();
    let list: Vec<Authorisation> = secrets[..2]
        .iter()
        .map(|it| Authorisation::of_service(&world.service.key, &it.public()).unwrap())
        .collect();
    let lease = world.lease(world.client.id(), NOW + 3000);
    let certificate = world.client.certificate(Some(lease));
    let client_of = |authorisation: Option<&Authorisation>| {
        let (_, payload) = world.start_as(authorisation, &certificate);
        world.accept(&payload, NOW_MS).unwrap().client_of(&list)
    };
    assert_eq!(client_of(Some(&of(&secrets[0]))), Some(secrets[0].public()));
    assert_eq!(client_of(Some(&of(&secrets[1]))), Some(secrets[1].public()));
    assert_eq!(client_of(Some(&of(&secrets[2]))), None, "not on the list");
    assert_eq!(client_of(None), None, "nobody's");
    let elsewhere = Authorisation::of_client(&secrets[0], &world.client.id()).unwrap();
    assert_eq!(client_of(Some(&elsewhere)), None, "for another service");
}

#[test]
fn handshake_and_data_both_ways() {
    for form in [Form::Public, Form::Private] {
        handshake_and_data(form);
    }
}

fn handshake_and_data(form: Form) {
    let world = World::of(form);
    let lease = world.lease(world.client.id(), NOW + 10);
    for (certificate, theirs, ours) in [
        (world.client.certificate(None), 1, 4),
        (world.client.certificate(Some(lease)), 4, 1),
    ] {
        let (offered, answered) = (tails(1, theirs), tails(9, ours));
        let (mut initiator, first) = SessionInitiator::start(
            &world.client.session,
            &world.service.session.public(),
            &world.service.id(),
            world.form,
            &certificate,
            &offered,
            None,
            NOW_MS,
            &mut OsRandom::new(),
        )
        .unwrap();
        let initiation = world.accept(&first, NOW_MS + 500).unwrap();
        assert_eq!(initiation.certificate, certificate);
        assert_eq!(initiation.tails, offered);
        assert_eq!(initiation.timestamp_ms, NOW_MS);
        let (mut service, second) = initiation.respond(&answered).unwrap();
        let (mut client, got) = initiator.finish(&second).unwrap();
        assert_eq!(got, answered);
        for n in 0..3 {
            exchange(&mut client, &mut service, n);
            exchange(&mut service, &mut client, n);
        }
    }
}

fn exchange(from: &mut SessionKeys, to: &mut SessionKeys, n: u64) {
    let frames: [u8; FRAMES] = std::array::from_fn(|i| i as u8 ^ n as u8);
    let mut payload = [0xAA; PAYLOAD];
    payload[16..1056].copy_from_slice(&frames);
    assert_eq!(from.seal.seal(&mut payload), Ok(n));
    assert_ne!(payload[16..1056], frames);
    assert_eq!(to.open.open(&mut payload), Ok(n));
    assert_eq!(payload[16..1056], frames);
}

#[test]
fn a_change_anywhere_in_the_initiation_is_refused() {
    let world = World::new();
    let (_, first) = world.start(&world.client.certificate(None));
    // The ephemeral key, the static key and its tag, what is said, its padding, its tag.
    for at in (0..PAYLOAD)
        .step_by(37)
        .chain([0, 31, 32, 63, 64, 79, 80, 1055, 1056, 1071])
    {
        let mut bent = first.clone();
        bent[at] ^= 1;
        let error = refused(world.accept(&bent, NOW_MS));
        assert!(
            matches!(error, Error::Authentication { .. }),
            "byte {at}: {error}"
        );
    }
    world.accept(&first, NOW_MS).unwrap();
}

#[test]
fn one_form_is_not_taken_for_the_other() {
    for [made, read] in [[Form::Public, Form::Private], [Form::Private, Form::Public]] {
        let mut world = World::of(made);
        let (_, first) = world.start(&world.client.certificate(None));
        world.form = read;
        let error = refused(world.accept(&first, NOW_MS));
        assert!(matches!(error, Error::Authentication { .. }), "{error}");
    }
}

#[test]
fn a_change_anywhere_in_the_response_is_refused_and_the_right_one_still_works() {
    let world = World::new();
    let (mut initiator, first) = world.start(&world.client.certificate(None));
    let initiation = world.accept(&first, NOW_MS).unwrap();
    let (mut service, second) = initiation.respond(&tails(1, 2)).unwrap();
    for at in (0..PAYLOAD)
        .step_by(37)
        .chain([0, 31, 32, 1055, 1056, 1071])
    {
        let mut bent = second.clone();
        bent[at] ^= 0x80;
        let error = initiator.finish(&bent).err().expect("refused");
        assert!(
            matches!(error, Error::Authentication { .. }),
            "byte {at}: {error}"
        );
    }
    let (mut client, _) = initiator.finish(&second).unwrap();
    exchange(&mut client, &mut service, 0);
    exchange(&mut service, &mut client, 0);
    assert!(initiator.finish(&second).is_err(), "once is enough");
}

#[test]
fn the_wrong_responder_reads_nothing() {
    let world = World::new();
    let (mut initiator, first) = world.start(&world.client.certificate(None));
    let (other, directory) = (Party::new(), world.directory.anonymous_id());
    let rng = &mut OsRandom::new();
    // Another key; the right key under another ID; another ID's key under the right ID.
    for (key, id) in [
        (&other.session, other.id()),
        (&world.service.session, other.id()),
        (&other.session, world.service.id()),
    ] {
        let error = refused(accept(
            key, &id, &directory, world.form, &first, NOW_MS, rng,
        ));
        assert_eq!(
            error,
            Error::Authentication {
                what: "session initiation"
            }
        );
    }
    // A response of a handshake with somebody else.
    let (_, elsewhere) = world.start(&world.client.certificate(None));
    let (_, response) = world
        .accept(&elsewhere, NOW_MS)
        .unwrap()
        .respond(&tails(1, 1))
        .unwrap();
    assert!(initiator.finish(&response).is_err());
}

#[test]
fn a_certificate_for_another_session_key_is_refused() {
    let world = World::new();
    let other = Party::new();
    // The initiator itself does not begin with it ...
    let mine = other.certificate(None);
    let start = SessionInitiator::start(
        &world.client.session,
        &world.service.session.public(),
        &world.service.id(),
        world.form,
        &mine,
        &tails(1, 1),
        None,
        NOW_MS,
        &mut OsRandom::new(),
    );
    assert_eq!(
        start.err(),
        Some(Error::Malformed {
            what: "certificate"
        })
    );
    // ... and a malicious one, which writes the other's certificate into its initiation, is
    // found out by the key that Noise has authenticated.
    let first = initiation_saying(&world, |said| {
        let mut to = mixline_protocol::wire::Writer::new();
        mine.write(&mut to);
        said.splice(CERTIFICATE..CERTIFICATE + 137, to.into_bytes());
    });
    let error = refused(world.accept(&first, NOW_MS));
    assert_eq!(
        error,
        Error::Authentication {
            what: "session key of the certificate"
        }
    );
}

/// The initiation of a client that says what it likes: the plaintext of the right one is
/// handed to `change`, then cut or filled to its length.
fn initiation_saying(world: &World, change: impl FnOnce(&mut Vec<u8>)) -> Box<Payload> {
    by_the_book(world, change).1
}

/// Where the certificate begins in what an initiation says.
const CERTIFICATE: usize = 1 + 8 + 16;

/// The initiator as one would write it from the documentation, with none of the project's code
/// but for the encoding of certificate and tails.
fn by_the_book(
    world: &World,
    change: impl FnOnce(&mut Vec<u8>),
) -> (snow::HandshakeState, Box<Payload>) {
    let mut to = mixline_protocol::wire::Writer::new();
    to.u8(1).u64(NOW_MS).bytes(&[0x77; 16]);
    world.client.certificate(None).write(&mut to);
    to.u8(1);
    tails(1, 1)[0].write(&mut to);
    let mut said = to.into_bytes();
    change(&mut said);
    said.resize(976, 0);
    let prologue = [b"mixline/v1/session", &world.service.id().0[..]].concat();
    let mut noise = snow::Builder::new("Noise_IK_25519_AESGCM_SHA256".parse().unwrap())
        .local_private_key(world.client.session.to_bytes().as_ref())
        .and_then(|builder| builder.prologue(&prologue))
        .unwrap()
        .remote_public_key(&world.service.session.public().0)
        .and_then(snow::Builder::build_initiator)
        .unwrap();
    let mut payload = Box::new([0; PAYLOAD]);
    assert_eq!(
        noise.write_message(&said, payload.as_mut()).unwrap(),
        PAYLOAD
    );
    (noise, payload)
}

struct Bytes(usize);

impl ring::hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

#[test]
fn response_and_keys_are_the_documented_ones() {
    use aes::cipher::{BlockCipherEncrypt, KeyInit};
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    let world = World::new();
    let (mut noise, first) = by_the_book(&world, |_| ());
    let initiation = world.accept(&first, NOW_MS).unwrap();
    let (mut service, second) = initiation.respond(&tails(6, 2)).unwrap();
    let mut said = [0; 1024];
    assert_eq!(
        noise.read_message(second.as_ref(), &mut said).unwrap(),
        1024
    );
    let mut to = mixline_protocol::wire::Writer::new();
    to.u8(2);
    tails(6, 2).iter().for_each(|offer| offer.write(&mut to));
    assert_eq!(said[..353], to.into_bytes());
    assert_eq!(said[353..], [0; 1024 - 353]);

    let (one, two) = noise.dangerously_get_raw_split();
    let mut keys = [0; 128];
    ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, noise.get_handshake_hash())
        .extract(&[one, two].concat())
        .expand(&[b"mixline/v1/session keys"], Bytes(128))
        .and_then(|okm| okm.fill(&mut keys))
        .unwrap();
    // A cell from the initiator with counter 5.
    let mut cell = [0xCD; PAYLOAD];
    let mut masked = [0; 16];
    masked[7] = 5;
    let mask = aes::Aes256::new_from_slice(&keys[64..96]).unwrap();
    mask.encrypt_block((&mut masked).into());
    cell[..16].copy_from_slice(&masked);
    let nonce = Nonce::assume_unique_for_key([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    let tag = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &keys[..32]).unwrap())
        .seal_in_place_separate_tag(nonce, Aad::from(masked), &mut cell[16..1056])
        .unwrap();
    cell[1056..].copy_from_slice(tag.as_ref());
    assert_eq!(service.open.open(&mut cell), Ok(5));
    assert_eq!(cell[16..1056], [0xCD; FRAMES]);
}

#[test]
fn an_initiation_made_by_the_book_is_accepted() {
    // So that the tests of malicious ones show what they say, and the layout is pinned.
    let world = World::new();
    let initiation = world
        .accept(&initiation_saying(&world, |_| ()), NOW_MS)
        .unwrap();
    assert_eq!(initiation.certificate, world.client.certificate(None));
    assert_eq!(initiation.tails, tails(1, 1));
}

#[test]
fn malformed_initiations_are_refused() {
    let world = World::new();
    let what = "session initiation";
    type Change = fn(&mut Vec<u8>);
    let cases: [(Change, Error); 6] = [
        (|said| said[0] = 2, Error::Version { what }),
        (
            |said| said[CERTIFICATE + 136] = 2,
            Error::Malformed { what },
        ),
        (
            |said| said[CERTIFICATE + 137] = 0,
            Error::Limit {
                what: "tails offered",
            },
        ),
        (
            |said| said[CERTIFICATE + 137] = 5,
            Error::Limit {
                what: "tails offered",
            },
        ),
        (|said| said.push(1), Error::Malformed { what }),
        (
            |said| said[CERTIFICATE] ^= 1,
            Error::Authentication {
                what: "mixline/v1/certificate",
            },
        ),
    ];
    for (change, want) in cases {
        let first = initiation_saying(&world, change);
        assert_eq!(refused(world.accept(&first, NOW_MS)), want);
    }
}

#[test]
fn a_lease_of_another_id_is_refused() {
    let world = World::new();
    let other = Party::new();
    let lease = world.lease(other.id(), NOW + 100);
    let own = Certificate::sign(
        &world.client.key,
        &world.client.session.public(),
        UnixTime(NOW + 100),
        Some(lease),
    );
    assert_eq!(
        own.err(),
        Some(Error::Malformed {
            what: "lease of another ID"
        })
    );
    // Written into a certificate all the same, it is read as a lease of the certificate's ID,
    // and the directory never signed that.
    let first = initiation_saying(&world, |said| {
        let mut to = mixline_protocol::wire::Writer::new();
        to.flag(true);
        lease.write_grant(&mut to);
        said.splice(CERTIFICATE + 136..CERTIFICATE + 137, to.into_bytes());
    });
    assert!(matches!(
        refused(world.accept(&first, NOW_MS)),
        Error::Authentication { .. }
    ));
}

#[test]
fn a_lease_of_another_directory_is_refused() {
    let mut world = World::new();
    let lease = world.lease(world.client.id(), NOW + 100);
    let certificate = world.client.certificate(Some(lease));
    let (_, first) = world.start(&certificate);
    world.accept(&first, NOW_MS).unwrap();
    world.directory = IdentityKey::generate(&mut OsRandom::new());
    assert!(matches!(
        refused(world.accept(&first, NOW_MS)),
        Error::Authentication { .. }
    ));
}

#[test]
fn what_has_expired_is_refused() {
    let world = World::new();
    let certificate = |expires| {
        let (key, session) = (&world.client.key, world.client.session.public());
        Certificate::sign(key, &session, UnixTime(expires), None).unwrap()
    };
    let (_, first) = world.start(&certificate(NOW));
    let error = refused(world.accept(&first, NOW_MS));
    assert_eq!(
        error,
        Error::Expired {
            what: "certificate",
            at: NOW
        }
    );
    let (_, first) = world.start(&certificate(NOW + 1));
    assert!(world.accept(&first, NOW_MS).is_ok());

    let lease = world.lease(world.client.id(), NOW);
    let (_, first) = world.start(&world.client.certificate(Some(lease)));
    let error = refused(world.accept(&first, NOW_MS));
    assert!(
        matches!(error, Error::Expired { what: "lease", .. }),
        "{error}"
    );
}

#[test]
fn timestamps_are_near_the_responders_clock() {
    let world = World::new();
    let (_, first) = world.start(&world.client.certificate(None));
    let what = "session initiation";
    let late = NOW_MS + TIMESTAMP_TOLERANCE_MS;
    assert!(world.accept(&first, late).is_ok());
    let error = refused(world.accept(&first, late + 1));
    assert_eq!(error, Error::Expired { what, at: NOW });
    let early = NOW_MS - TIMESTAMP_TOLERANCE_MS;
    assert!(world.accept(&first, early).is_ok());
    let error = refused(world.accept(&first, early - 1));
    assert_eq!(error, Error::NotYetValid { what, from: NOW });
}

#[test]
fn no_session_without_tails_or_with_too_many() {
    let world = World::new();
    let limit = Some(Error::Limit {
        what: "tails offered",
    });
    for count in [0, 5] {
        let start = SessionInitiator::start(
            &world.client.session,
            &world.service.session.public(),
            &world.service.id(),
            world.form,
            &world.client.certificate(None),
            &tails(1, count),
            None,
            NOW_MS,
            &mut OsRandom::new(),
        );
        assert_eq!(start.err(), limit);
        let (_, first) = world.start(&world.client.certificate(None));
        let initiation = world.accept(&first, NOW_MS).unwrap();
        assert_eq!(initiation.respond(&tails(1, count)).err(), limit);
    }
}

#[test]
fn a_remote_key_of_low_order_is_refused() {
    let world = World::new();
    let start = SessionInitiator::start(
        &world.client.session,
        &X25519Public([0; 32]),
        &world.service.id(),
        world.form,
        &world.client.certificate(None),
        &tails(1, 1),
        None,
        NOW_MS,
        &mut OsRandom::new(),
    );
    assert_eq!(start.err(), Some(Error::LowOrder));
}

#[test]
fn handshakes_and_cells_are_all_different() {
    let world = World::new();
    let certificate = world.client.certificate(None);
    let (a, b) = (world.start(&certificate).1, world.start(&certificate).1);
    assert_ne!(a[..32], b[..32], "a retry has a fresh ephemeral key");
    let (mut client, _) = world.session();
    let (mut one, mut two) = ([0; PAYLOAD], [0; PAYLOAD]);
    client.seal.seal(&mut one).unwrap();
    client.seal.seal(&mut two).unwrap();
    let same = one.iter().zip(&two).filter(|(a, b)| a == b).count();
    assert!(same < 40, "{same} bytes of two cells are the same");
}

#[test]
fn a_change_anywhere_in_a_cell_is_refused() {
    let (mut client, mut service) = World::new().session();
    let mut cell = [3; PAYLOAD];
    client.seal.seal(&mut cell).unwrap();
    for at in 0..PAYLOAD {
        let mut bent = cell;
        bent[at] ^= 1 << (at % 8);
        let error = service.open.open(&mut bent).expect_err("bent");
        let want = if at < 16 {
            Error::Malformed {
                what: "session counter",
            }
        } else {
            Error::Authentication {
                what: "session payload",
            }
        };
        assert_eq!(error, want, "byte {at}");
    }
    assert_eq!(
        service.open.open(&mut cell),
        Ok(0),
        "forgeries do not use the counter up"
    );
}

#[test]
fn cells_of_another_session_are_known_and_untouched() {
    let world = World::new();
    let ((mut a, mut old), (_, mut new)) = (world.session(), world.session());
    let mut cell = [3; PAYLOAD];
    a.seal.seal(&mut cell).unwrap();
    let before = cell;
    assert_eq!(
        new.open.open(&mut cell),
        Err(Error::Malformed {
            what: "session counter"
        })
    );
    assert_eq!(cell, before);
    assert_eq!(old.open.open(&mut cell), Ok(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn reordered_within_the_window_each_cell_is_taken_once(
        order in prop::collection::vec(0..400usize, 1..800),
    ) {
        let (mut client, mut service) = World::new().session();
        let cells: Vec<Payload> = (0..400u32)
            .map(|n| {
                let mut cell = [0; PAYLOAD];
                cell[16..20].copy_from_slice(&n.to_be_bytes());
                client.seal.seal(&mut cell).unwrap();
                cell
            })
            .collect();
        let mut seen = std::collections::HashSet::new();
        for n in order {
            let mut cell = cells[n];
            let opened = service.open.open(&mut cell);
            if seen.insert(n) {
                prop_assert_eq!(opened, Ok(n as u64));
                prop_assert_eq!(&cell[16..20], (n as u32).to_be_bytes());
            } else {
                prop_assert_eq!(opened, Err(Error::Replay));
            }
        }
    }

    /// A tail whose alpha is all zeros is refused, so no seed is zero.
    #[test]
    fn control_frames_round_trip(
        kind in 0..6u8, version: u32, id: [u8; 8], seed in 1..200u8, count in 1..=4u8,
    ) {
        let control = match kind {
            0 => Control::Tails { version, tails: tails(seed, count) },
            1 => Control::TailsAck { version },
            2 => Control::TailBroken { tail: TailId(id) },
            3 => Control::Probe { id: version },
            4 => Control::ProbeAck { id: version },
            _ => Control::Close { reason: close::STOPPING },
        };
        let bytes = control.encode().unwrap();
        prop_assert_eq!(Control::decode(&bytes), Ok(control));
        prop_assert!(Control::decode(&bytes[..bytes.len() - 1]).is_err());
        prop_assert!(Control::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), PAYLOAD),
        control in prop::collection::vec(any::<u8>(), 0..800),
        kind in 0..8u8,
    ) {
        let world = World::new();
        let mut payload: Payload = bytes.try_into().unwrap();
        prop_assert!(world.accept(&payload, NOW_MS).is_err());
        let (mut initiator, _) = world.start(&world.client.certificate(None));
        prop_assert!(initiator.finish(&payload).is_err());
        let (mut keys, _) = world.session();
        prop_assert!(keys.open.open(&mut payload).is_err());
        if let Ok(read) = Control::decode(&[&[kind], &control[..]].concat()) {
            prop_assert_eq!(read.encode(), Ok([&[kind], &control[..]].concat()));
        }
    }
}

#[test]
fn no_tails_and_too_many_are_no_control_frame() {
    for count in [0, 5] {
        let control = Control::Tails {
            version: 1,
            tails: tails(1, count),
        };
        assert_eq!(
            control.encode(),
            Err(Error::Limit {
                what: "tails offered"
            })
        );
    }
    assert!(Control::decode(&[1, 0, 0, 0, 1, 0]).is_err());
    assert!(Control::decode(&[0]).is_err());
    assert!(Control::decode(&[]).is_err());
}

#[test]
fn the_window_moves_on_with_the_newest() {
    let (mut client, mut service) = World::new().session();
    let mut first = [0; PAYLOAD];
    client.seal.seal(&mut first).unwrap();
    let mut newest = [0; PAYLOAD];
    for _ in 0..SESSION_WINDOW + 64 {
        client.seal.seal(&mut newest).unwrap();
    }
    service.open.open(&mut newest).unwrap();
    assert_eq!(service.open.open(&mut first), Err(Error::Replay));
}
