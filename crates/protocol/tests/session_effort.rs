//! The effort in front of an initiation: what counts as spent, and what does not.
#![expect(clippy::unwrap_used, reason = "tests")]

use mixline_protocol::effort::{Effort, Seed, Solution};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::session::effort::{FRONT, name, puzzle, spent, write};
use mixline_protocol::size::{PAYLOAD, Payload};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};

const ID: AnonymousId = AnonymousId([3; 32]);
const SEEDS: [Seed; 2] = [[1; 16], [2; 16]];

/// An initiation as far as its effort goes: the rest is any bytes.
fn initiation(filled: u8) -> Payload {
    let mut payload = [filled; PAYLOAD];
    payload[..FRONT].fill(0);
    payload
}

fn solve(seed: &Seed, effort: Effort, payload: &mut Payload) {
    let mut search = puzzle(&ID, seed, payload).search(effort, [0xf0; 16]);
    let solution = search.go_on(effort.saturating_mul(64)).unwrap();
    write(seed, &solution, payload);
}

#[test]
fn what_was_spent_is_shown_under_each_seed_that_is_good() {
    for (effort, seed) in [(1 << 10, 0), (1 << 12, 1)] {
        let mut payload = initiation(4);
        solve(&SEEDS[seed], effort, &mut payload);
        assert_eq!(spent(&ID, &SEEDS, &payload), Some(effort));
        assert_eq!(spent(&ID, &SEEDS[1 - seed..2 - seed], &payload), None);
        assert_eq!(spent(&AnonymousId([4; 32]), &SEEDS, &payload), None);
    }
}

#[test]
fn no_effort_has_one_form() {
    let mut payload = initiation(4);
    write(&SEEDS[0], &Solution::default(), &mut payload);
    assert_eq!(spent(&ID, &SEEDS, &payload), Some(0));
    for at in 0..FRONT {
        let mut bent = payload;
        bent[at] ^= 0x80;
        assert_eq!(spent(&ID, &SEEDS, &bent), None, "byte {at}");
    }
    assert_eq!(spent(&ID, &SEEDS, &initiation(4)), None, "no front at all");
}

/// Whoever has made the keys can seal anything under them. A solution is for one payload all the same.
#[test]
fn a_solution_is_for_one_payload() {
    let mut payload = initiation(4);
    solve(&SEEDS[0], 1 << 12, &mut payload);
    // The ephemeral key has a mask of its own; then the static key, what is sealed, and the tag.
    for at in [FRONT, FRONT + 31, FRONT + 32, FRONT + 80, 600, PAYLOAD - 1] {
        let mut other = payload;
        other[at] ^= 1;
        assert_eq!(spent(&ID, &SEEDS, &other), None, "byte {at}");
    }
    let front: [u8; FRONT] = payload[..FRONT].try_into().unwrap();
    let mut elsewhere = initiation(5);
    elsewhere[..FRONT].copy_from_slice(&front);
    assert_eq!(spent(&ID, &SEEDS, &elsewhere), None);
}

#[test]
fn claims_are_not_believed() {
    let mut payload = initiation(4);
    for effort in [1 << 14, u32::MAX] {
        let nonce = [7; 16];
        write(&SEEDS[0], &Solution { nonce, effort }, &mut payload);
        assert_eq!(spent(&ID, &SEEDS, &payload), None);
    }
}

#[test]
fn the_front_is_the_documented_one() {
    let mut payload = initiation(4);
    let nonce = [7; 16];
    write(&SEEDS[0], &Solution { nonce, effort: 1 }, &mut payload);
    let label = b"mixline/v1/session effort mask";
    let mask = digest(&SHA256, &[label, &[1; 16][..], &[4; 32]].concat());
    let plain: Vec<u8> = payload
        .iter()
        .zip(mask.as_ref())
        .take(24)
        .map(|(a, b)| a ^ b)
        .collect();
    assert_eq!(plain, [&[7; 16][..], &[0, 0, 0, 1], &[0; 4]].concat());
    assert_eq!(name(&payload), digest(&SHA256, &payload).as_ref()[..8]);

    // The smallest nonce for an effort of 1000, by the book.
    let solution = puzzle(&ID, &SEEDS[0], &payload)
        .search(1000, [0; 16])
        .go_on(1 << 20)
        .unwrap();
    let solved = |nonce: u128| {
        let effort = 1000_u32.to_be_bytes();
        let label = b"mixline/v1/session effort";
        let (rest, nonce) = (&payload[24..], nonce.to_be_bytes());
        let text = [label, &[3; 32][..], &[1; 16], rest, &effort, &nonce].concat();
        let value = digest(&SHA256, &text);
        let first = u64::from_be_bytes(value.as_ref()[..8].try_into().unwrap());
        first.checked_mul(1000).is_some()
    };
    let found = (0..1 << 20).find(|nonce| solved(*nonce)).unwrap();
    assert_eq!(solution.nonce, found.to_be_bytes());
}

proptest! {
    /// One payload that shows no effort is made of each.
    #[test]
    fn what_is_read_is_what_is_written(
        bytes in prop::collection::vec(any::<u8>(), PAYLOAD),
        seeds: [Seed; 2],
    ) {
        let mut payload: Payload = bytes.try_into().unwrap();
        prop_assert_eq!(spent(&ID, &seeds, &payload), None);
        write(&seeds[1], &Solution::default(), &mut payload);
        prop_assert_eq!(spent(&ID, &seeds, &payload), Some(0));
    }
}
