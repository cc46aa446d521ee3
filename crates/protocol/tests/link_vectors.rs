//! The link's handshake against one written out by hand from its description, and against
//! `vectors/link.json`, from which another implementation can be checked.
//!
//! In the file all bytes are hexadecimal. `initiator_random` is the ephemeral secret and the
//! ML-KEM seed `d | z`, `responder_random` the ephemeral secret and the ML-KEM message `m`.
#![expect(clippy::unwrap_used, reason = "tests")]

use data_encoding::HEXLOWER;
use mixline_protocol::Error;
use mixline_protocol::effort::Solution;
use mixline_protocol::identity::{X25519Public, X25519Secret};
use mixline_protocol::link::{CellKind, Draft, Initiator, Responder, Timestamp};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram};
use ml_kem::kem::{Decapsulate, Encapsulate, KeyExport};
use ml_kem::{DecapsulationKey, EncapsulationKey, MlKem768};
use rand_core::{TryCryptoRng, TryRng};
use ring::{aead, digest, hmac};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::time::Instant;

/// Randomness that was written down before.
struct Script(VecDeque<u8>);

impl TryRng for Script {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            *byte = self.0.pop_front().unwrap();
        }
        Ok(())
    }
}

impl TryCryptoRng for Script {}

/// The symmetric state of Noise (revision 34, section 5.2) with AESGCM and SHA256.
struct Symmetric {
    chaining: [u8; 32],
    hash: [u8; 32],
    key: [u8; 32],
    nonce: u64,
}

impl Symmetric {
    fn new(prologue: &[u8], responder: &X25519Public) -> Self {
        let mut name = [0; 32];
        name[..28].copy_from_slice(b"Noise_IK_25519_AESGCM_SHA256");
        let mut state = Self {
            chaining: name,
            hash: name,
            key: [0; 32],
            nonce: 0,
        };
        state.mix_hash(prologue);
        state.mix_hash(&responder.0);
        state
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = sha256(&[&self.hash, data]);
    }

    fn mix_key(&mut self, secret: &[u8]) {
        let [chaining, key] = hkdf(&self.chaining, secret, b"");
        (self.chaining, self.key, self.nonce) = (chaining, key, 0);
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut bytes = plain.to_vec();
        aes(&self.key)
            .seal_in_place_append_tag(nonce(self.nonce), aead::Aad::from(self.hash), &mut bytes)
            .unwrap();
        self.nonce += 1;
        self.mix_hash(&bytes);
        bytes
    }

    fn open(&mut self, sealed: &[u8]) -> Vec<u8> {
        let (mut bytes, aad) = (sealed.to_vec(), aead::Aad::from(self.hash));
        let plain = aes(&self.key).open_in_place(nonce(self.nonce), aad, &mut bytes);
        let plain = plain.unwrap().to_vec();
        self.nonce += 1;
        self.mix_hash(sealed);
        plain
    }

    /// Initiator to responder, responder to initiator.
    fn link_keys(&self, kem: &[u8]) -> [[u8; 32]; 2] {
        let [k1, k2] = hkdf(&self.chaining, b"", b"");
        hkdf(
            &self.hash,
            &[k1.as_slice(), &k2, kem].concat(),
            b"mixline/v1/link keys",
        )
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    digest::digest(&digest::SHA256, &parts.concat())
        .as_ref()
        .try_into()
        .unwrap()
}

fn hmac256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, data).as_ref().try_into().unwrap()
}

/// HKDF-SHA256 (RFC 5869) to 64 bytes; with an empty info, that of Noise.
fn hkdf(salt: &[u8], secret: &[u8], info: &[u8]) -> [[u8; 32]; 2] {
    let extracted = hmac256(salt, secret);
    let first = hmac256(&extracted, &[info, &[1]].concat());
    let second = hmac256(&extracted, &[first.as_slice(), info, &[2]].concat());
    [first, second]
}

fn aes(key: &[u8]) -> aead::LessSafeKey {
    aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, key).unwrap())
}

fn nonce(counter: u64) -> aead::Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    aead::Nonce::assume_unique_for_key(bytes)
}

/// The label and the key that mac1 of an initiation, or of a response, is made with.
type Mac1<'a> = [&'a [u8]; 2];

fn to_responder(key: &X25519Public) -> Mac1<'_> {
    [b"mixline/v1/mac1", &key.0]
}

fn to_initiator(kem_key: &[u8]) -> Mac1<'_> {
    [b"mixline/v1/response", kem_key]
}

fn padded(mut bytes: Vec<u8>, mac1: &Mac1<'_>) -> Box<Datagram> {
    bytes.resize(DATAGRAM - 32, 0);
    bytes.extend(&hmac256(&sha256(mac1), &bytes)[..16]);
    bytes.resize(DATAGRAM, 0);
    bytes.into_boxed_slice().try_into().unwrap()
}

/// What both sides know or draw.
struct Inputs {
    initiator: X25519Secret,
    responder: X25519Secret,
    initiator_random: Vec<u8>,
    responder_random: Vec<u8>,
    timestamp: Timestamp,
    initiator_index: u32,
    responder_index: u32,
}

struct Outputs {
    initiation: Box<Datagram>,
    response: Box<Datagram>,
    keys: [[u8; 32]; 2],
}

impl Inputs {
    fn new(byte: u8) -> Self {
        let bytes = |n: u8, len: usize| (0..len).map(|i| byte ^ n ^ (i as u8)).collect::<Vec<_>>();
        let secret = |n| X25519Secret::from_bytes(bytes(n, 32).try_into().unwrap());
        Self {
            initiator: secret(1),
            responder: secret(2),
            initiator_random: bytes(3, 96),
            responder_random: bytes(4, 64),
            timestamp: Timestamp {
                seconds: 1_800_000_000,
                nanos: 123_456_789,
            },
            initiator_index: 0x0102_0304,
            responder_index: 0xa1a2_a3a4,
        }
    }

    /// The handshake, step by step.
    fn by_hand(&self, kem_key: Option<&[u8]>) -> Outputs {
        let (a, b) = (self.initiator.public(), self.responder.public());
        let ephemeral = |random: &[u8]| X25519Secret::from_bytes(random[..32].try_into().unwrap());
        let (ea, eb) = (
            ephemeral(&self.initiator_random),
            ephemeral(&self.responder_random),
        );
        let kem_seed: [u8; 64] = self.initiator_random[32..].try_into().unwrap();
        let kem = DecapsulationKey::<MlKem768>::from_seed(kem_seed.into());

        let mut initiation = vec![1, 0, 0, 0];
        initiation.extend(self.initiator_index.to_be_bytes());
        initiation.extend([0; 8]);
        let mut noise = Symmetric::new(&[b"mixline/v1/link", &initiation[..]].concat(), &b);
        initiation.extend(ea.public().0);
        noise.mix_hash(&ea.public().0);
        noise.mix_key(ea.exchange(&b).unwrap().as_ref());
        initiation.extend(noise.seal(&a.0));
        noise.mix_key(self.initiator.exchange(&b).unwrap().as_ref());
        let mut payload = kem_key.map_or_else(
            || kem.encapsulation_key().to_bytes().to_vec(),
            <[u8]>::to_vec,
        );
        payload.extend(self.timestamp.seconds.to_be_bytes());
        payload.extend(self.timestamp.nanos.to_be_bytes());
        initiation.extend(noise.seal(&payload));

        let m: [u8; 32] = self.responder_random[32..].try_into().unwrap();
        let (ciphertext, secret) = kem.encapsulation_key().encapsulate_deterministic(&m.into());
        assert_eq!(kem.decapsulate(&ciphertext), secret);
        let mut response = vec![2, 0, 0, 0];
        response.extend(self.initiator_index.to_be_bytes());
        response.extend([0; 8]);
        response.extend(eb.public().0);
        noise.mix_hash(&eb.public().0);
        noise.mix_key(eb.exchange(&ea.public()).unwrap().as_ref());
        noise.mix_key(eb.exchange(&a).unwrap().as_ref());
        let mut payload = ciphertext.to_vec();
        payload.extend(self.responder_index.to_be_bytes());
        response.extend(noise.seal(&payload));
        let keys = noise.link_keys(&secret);
        Outputs {
            initiation: padded(initiation, &to_responder(&b)),
            response: padded(response, &to_initiator(&kem.encapsulation_key().to_bytes())),
            keys,
        }
    }

    /// The handshake by the library, with the same randomness.
    fn by_library(&self) -> (Box<Datagram>, Box<Datagram>, Datagram, Datagram) {
        let script = |random: &[u8]| Script(random.iter().copied().collect());
        let (mut initiator, initiation) = Initiator::start(
            &self.initiator,
            &self.responder.public(),
            self.initiator_index,
            self.timestamp,
            None,
            &mut script(&self.initiator_random),
        )
        .unwrap();
        let mut responder = Responder::new(&self.responder, Instant::now(), &mut OsRandom::new());
        let (b, response) = responder
            .respond(
                &initiation,
                self.responder_index,
                &mut script(&self.responder_random),
            )
            .unwrap();
        let a = initiator.finish(&response).unwrap();
        let (mut to_b, mut to_a) = (cell(), cell());
        a.seal.seal(&mut to_b, CellKind::Cell).unwrap();
        b.seal.seal(&mut to_a, CellKind::Control).unwrap();
        (initiation, response, to_b, to_a)
    }
}

/// A datagram whose cell counts up.
fn cell() -> Datagram {
    let mut datagram = [0; DATAGRAM];
    for (i, byte) in datagram[CELL_OFFSET..DATAGRAM - 16].iter_mut().enumerate() {
        *byte = i as u8;
    }
    datagram
}

/// The first data datagram in one direction.
fn data_by_hand(key: &[u8; 32], index: u32, kind: u8) -> Vec<u8> {
    let mut header = vec![4, 0, 0, 0];
    header.extend(index.to_be_bytes());
    header.extend([0; 8]);
    let mut sealed = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    sealed.extend(&cell()[CELL_OFFSET..DATAGRAM - 16]);
    aes(key)
        .seal_in_place_append_tag(nonce(0), aead::Aad::from(&header), &mut sealed)
        .unwrap();
    header.extend(sealed);
    header
}

#[test]
fn the_library_does_what_the_description_says() {
    for byte in [0, 0x55, 0xf0] {
        let inputs = Inputs::new(byte);
        let hand = inputs.by_hand(None);
        let (initiation, response, to_b, to_a) = inputs.by_library();
        assert_eq!(initiation[..], hand.initiation[..]);
        assert_eq!(response[..], hand.response[..]);
        assert_eq!(
            to_b.to_vec(),
            data_by_hand(&hand.keys[0], inputs.responder_index, 0)
        );
        assert_eq!(
            to_a.to_vec(),
            data_by_hand(&hand.keys[1], inputs.initiator_index, 2)
        );
    }
}

#[test]
fn cookies_and_efforts_are_as_described() {
    let (inputs, rng) = (Inputs::new(7), &mut OsRandom::new());
    let key = inputs.responder.public();
    let mut responder = Responder::new(&inputs.responder, Instant::now(), rng);
    responder.suggest(2000);
    let mut draft = || Draft::new(&inputs.initiator, &key, 5, inputs.timestamp, rng).unwrap();
    let (initiator, without) = draft().finish(None, &Solution::default());
    let source = "192.0.2.1:7000".parse().unwrap();
    let answer = responder.cookie(&without, source).unwrap();
    let (unique, mac1) = (answer[16..28].try_into().unwrap(), &without[1376..1392]);
    let mut sealed = answer[28..64].to_vec();
    let opened = aes(&sha256(&[b"mixline/v1/cookie", &key.0])).open_in_place(
        aead::Nonce::assume_unique_for_key(unique),
        aead::Aad::from(mac1),
        &mut sealed,
    );
    let (cookie, suggested) = opened.unwrap().split_at(16);
    assert_eq!(suggested, 2000_u32.to_be_bytes());
    assert!(answer[64..].iter().all(|byte| *byte == 0));

    let draft = draft();
    let opened = initiator.open_cookie(&answer).unwrap();
    let mut search = draft.puzzle(&opened).search(2000, [9; 16]);
    let solution = search.go_on(u32::MAX).unwrap();
    let (_, initiation) = draft.finish(Some(&opened), &solution);
    assert_eq!(initiation[1308..1324], solution.nonce);
    assert_eq!(initiation[1324..1328], 2000_u32.to_be_bytes());
    let by_hand = padded(initiation[..1328].to_vec(), &to_responder(&key));
    assert_eq!(initiation[..1392], by_hand[..1392]);
    assert_eq!(
        initiation[1392..],
        hmac256(cookie, &initiation[..1392])[..16]
    );
    let digest = sha256(&[
        b"mixline/v1/link effort",
        &key.0,
        cookie,
        &initiation[..1308],
        &initiation[1324..1328],
        &initiation[1308..1324],
    ]);
    let value = u64::from_be_bytes(*digest.first_chunk().unwrap());
    assert!(value.checked_mul(2000).is_some());
    assert_eq!(responder.effort(&initiation, source), Some(2000));
}

#[test]
fn an_ml_kem_key_that_is_none_is_refused() {
    let inputs = Inputs::new(1);
    // Coefficients of 4095, beyond the modulus of 3329 (FIPS 203, section 7.2).
    let initiation = inputs.by_hand(Some(&[0xff; 1184])).initiation;
    let rng = &mut OsRandom::new();
    let mut responder = Responder::new(&inputs.responder, Instant::now(), rng);
    let refused = responder.respond(&initiation, 1, rng).err();
    assert_eq!(refused, Some(Error::Malformed { what: "ML-KEM key" }));
}

#[test]
fn a_time_of_more_nanoseconds_than_a_second_has_is_refused() {
    let inputs = Inputs {
        timestamp: Timestamp {
            seconds: 1,
            nanos: 1_000_000_000,
        },
        ..Inputs::new(1)
    };
    let initiation = inputs.by_hand(None).initiation;
    let rng = &mut OsRandom::new();
    let mut responder = Responder::new(&inputs.responder, Instant::now(), rng);
    let refused = responder.respond(&initiation, 1, rng).err();
    assert_eq!(
        refused,
        Some(Error::Malformed {
            what: "link initiation"
        })
    );
}

#[test]
fn the_file_agrees() {
    let file = include_str!("vectors/link.json");
    let vectors: Vec<HashMap<String, String>> = serde_json::from_str(file).unwrap();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let bytes = |name: &str| HEXLOWER.decode(vector[name].as_bytes()).unwrap();
        let word = |name: &str| u32::from_be_bytes(bytes(name).try_into().unwrap());
        let timestamp = bytes("timestamp");
        let inputs = Inputs {
            initiator: X25519Secret::from_bytes(bytes("initiator_static").try_into().unwrap()),
            responder: X25519Secret::from_bytes(bytes("responder_static").try_into().unwrap()),
            initiator_random: bytes("initiator_random"),
            responder_random: bytes("responder_random"),
            timestamp: Timestamp {
                seconds: u64::from_be_bytes(timestamp[..8].try_into().unwrap()),
                nanos: u32::from_be_bytes(timestamp[8..].try_into().unwrap()),
            },
            initiator_index: word("initiator_index"),
            responder_index: word("responder_index"),
        };
        let hand = inputs.by_hand(None);
        assert_eq!(bytes("initiator_to_responder"), hand.keys[0]);
        assert_eq!(bytes("responder_to_initiator"), hand.keys[1]);
        let (initiation, response, to_b, to_a) = inputs.by_library();
        assert_eq!(bytes("initiation"), *initiation);
        assert_eq!(bytes("response"), *response);
        assert_eq!(bytes("cell"), cell()[CELL_OFFSET..DATAGRAM - 16]);
        assert_eq!(bytes("cell_from_initiator"), to_b);
        assert_eq!(bytes("control_from_responder"), to_a);
    }
}

#[test]
fn the_other_side_by_hand_reads_what_the_library_writes() {
    // With real randomness: a responder written out reads the library's initiation.
    let rng = &mut OsRandom::new();
    let (a, b) = (X25519Secret::generate(rng), X25519Secret::generate(rng));
    let at = Timestamp {
        seconds: 77,
        nanos: 5,
    };
    let (mut initiator, initiation) = Initiator::start(&a, &b.public(), 3, at, None, rng).unwrap();
    let prologue = [b"mixline/v1/link".as_slice(), &initiation[..16]].concat();
    let mut noise = Symmetric::new(&prologue, &b.public());
    let ea = X25519Public(initiation[16..48].try_into().unwrap());
    noise.mix_hash(&ea.0);
    noise.mix_key(b.exchange(&ea).unwrap().as_ref());
    assert_eq!(noise.open(&initiation[48..96]), a.public().0);
    noise.mix_key(b.exchange(&a.public()).unwrap().as_ref());
    let payload = noise.open(&initiation[96..1308]);
    assert_eq!(
        payload[1184..],
        [77u64.to_be_bytes().as_slice(), &5u32.to_be_bytes()].concat()
    );
    let kem: [u8; 1184] = payload[..1184].try_into().unwrap();
    let kem = EncapsulationKey::<MlKem768>::new(&kem.into()).unwrap();
    let (ciphertext, secret) = kem.encapsulate_with_rng(rng);

    let eb = X25519Secret::generate(rng);
    let mut response = vec![2, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0];
    response.extend(eb.public().0);
    noise.mix_hash(&eb.public().0);
    noise.mix_key(eb.exchange(&ea).unwrap().as_ref());
    noise.mix_key(eb.exchange(&a.public()).unwrap().as_ref());
    response.extend(noise.seal(&[ciphertext.as_slice(), &9u32.to_be_bytes()].concat()));
    let response = padded(response, &to_initiator(&payload[..1184]));
    let established = initiator.finish(&response).unwrap();
    assert_eq!(established.remote_index, 9);
    let [i2r, r2i] = noise.link_keys(&secret);
    let mut sent = cell();
    established.seal.seal(&mut sent, CellKind::Cell).unwrap();
    assert_eq!(sent.to_vec(), data_by_hand(&i2r, 9, 0));
    let mut received: Datagram = data_by_hand(&r2i, 3, 1).try_into().unwrap();
    assert_eq!(established.open.open(&mut received), Ok(CellKind::Cover));
}
