//! The bytes of one session's handshake and first cells, from written-down keys and randomness.
//!
//! `session.rs` has a handshake by another implementation of Noise; this file pins every byte,
//! so that nothing underneath can change one unseen.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;

use data_encoding::HEXLOWER;
use mixline_protocol::identity::{IdentityKey, ShortId, X25519Secret};
use mixline_protocol::path::PublishedTail;
use mixline_protocol::records::{Lease, TailOffer};
use mixline_protocol::session::{Certificate, Form, SessionInitiator, accept, effort};
use mixline_protocol::size::{FRAMES, PAYLOAD, Payload};
use mixline_protocol::time::UnixTime;
use rand_core::{TryCryptoRng, TryRng};
use ring::digest::{SHA256, digest};

const NOW: u64 = 1_800_000_000;

/// Bytes that count up.
struct Counting(u8);

impl TryRng for Counting {
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
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

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

fn sha256(payload: &Payload) -> String {
    HEXLOWER.encode(digest(&SHA256, payload).as_ref())
}

#[test]
fn every_byte_is_as_it_was_written_down() {
    assert_eq!(
        session_of(Form::Private),
        [
            "05c8bf0c5ec1ef71cc1d7d1ef6b499ab0014c70b179ae49ede4abf909595983a",
            "388249358ea8d8da7025f7867338ab8b268519a205a106a2aca8986cd2660591",
            "9ff6229fc60096fcf752dde5f88b9d5473549354a8ed596fed9bf461d07549bf",
            "60410cf9fb9af3e5726cadda8ce4895de23e4125edc703b020a16626bf7260fc",
        ]
    );
    assert_eq!(
        session_of(Form::Public),
        [
            "735b51c04f54e1b4e204e4df3068424f7e793faf454fbee64c737440a3023323",
            "75c71d36bf2f50661149ac07796c845517dde0bc2de3529fab178d5981351122",
            "e037daa33c7e47bdddbd4c885b14573d386dcf20a53ad197916ce742ee0c27c9",
            "67be660f88cfdbb04afa162ecd3a9b3aa36fe3261b93fc0c73cb690187161221",
        ]
    );
}

/// The hashes of both handshake messages, and of a cell in each direction.
fn session_of(form: Form) -> [String; 4] {
    let directory = IdentityKey::from_seed([1; 32]);
    let (client, service) = (
        IdentityKey::from_seed([2; 32]),
        IdentityKey::from_seed([3; 32]),
    );
    let (client_key, service_key) = (
        X25519Secret::from_bytes([4; 32]),
        X25519Secret::from_bytes([5; 32]),
    );
    let lease = Lease::grant(
        [10, 1, 2, 3].into(),
        client.anonymous_id(),
        UnixTime(NOW + 3000),
        &directory,
    );
    let expires = UnixTime(NOW + 3600);
    let certificate =
        Certificate::sign(&client, &client_key.public(), expires, Some(lease)).unwrap();

    let (mut initiator, mut initiation) = SessionInitiator::start(
        &client_key,
        &service_key.public(),
        &service.anonymous_id(),
        form,
        &certificate,
        &tails(7, 3),
        None,
        NOW * 1000 + 5,
        &mut Counting(100),
    )
    .unwrap();
    if form == Form::Public {
        let seed = [6; 16];
        let solution = effort::puzzle(&service.anonymous_id(), &seed, &initiation)
            .search(1 << 12, [0; 16])
            .go_on(1 << 20);
        effort::write(&seed, &solution.unwrap(), &mut initiation);
    }
    let (mut theirs, response) = accept(
        &service_key,
        &service.anonymous_id(),
        &directory.anonymous_id(),
        form,
        &initiation,
        NOW * 1000 + 500,
        &mut Counting(200),
    )
    .unwrap()
    .respond(&tails(9, 2))
    .unwrap();
    let (mut ours, offered) = initiator.finish(&response).unwrap();
    assert_eq!(offered, tails(9, 2));
    let (mut there, mut back) = ([0; PAYLOAD], [0; PAYLOAD]);
    for (i, byte) in there[16..16 + FRAMES].iter_mut().enumerate() {
        *byte = i as u8;
    }
    back[16..16 + FRAMES].fill(0xa5);
    ours.seal.seal(&mut there).unwrap();
    theirs.seal.seal(&mut back).unwrap();

    [&initiation, &response, &Box::new(there), &Box::new(back)].map(|it| sha256(it))
}
