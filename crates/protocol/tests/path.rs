//! Paths from end to end: built, peeled by each relay, unwrapped; and what must be refused.
#![allow(clippy::unwrap_used)]

use mixline_protocol::Error;
use mixline_protocol::identity::{ShortId, X25519Public};
use mixline_protocol::path::{
    Head, HeadSecrets, Hop, MAX_SEGMENT, MailboxToken, Next, OnionSecret, PathCache, PublishedTail,
    ReplayTag, TailKeys, TailSecrets, build_head, build_tail, open_header,
};
use mixline_protocol::size::{CELL, Cell, Header, PATH_HEADER, PAYLOAD, Payload};
use proptest::prelude::*;
use std::collections::HashSet;
use std::time::Instant;

/// Everybody on a path.
struct Path {
    hops: Vec<Hop>,
    onions: Vec<OnionSecret>,
    tail: PublishedTail,
    keys: TailKeys,
    head: Head,
    head_length: usize,
}

/// Randomness of a test: bytes of a counter, spread by ChaCha20 so that proptest may shrink.
fn bytes<const N: usize>(seed: u64, label: u8) -> [u8; N] {
    use chacha20::cipher::{KeyIvInit, StreamCipher};
    let mut key = [label; 32];
    key[..8].copy_from_slice(&seed.to_be_bytes());
    let mut out = [0; N];
    chacha20::ChaCha20::new(&key.into(), &[0; 12].into()).apply_keystream(&mut out);
    out
}

const TOKEN: MailboxToken = MailboxToken(*b"mailbox!");

impl Path {
    fn new(head_length: usize, tail_length: usize, seed: u64) -> Self {
        let onions: Vec<OnionSecret> = (0..head_length + tail_length)
            .map(|i| OnionSecret::from_bytes(bytes(seed, i as u8)))
            .collect();
        let hops: Vec<Hop> = onions
            .iter()
            .zip(0u64..)
            .map(|(onion, i)| Hop {
                relay: ShortId(i.to_be_bytes()),
                onion: onion.public(),
            })
            .collect();
        let secrets = TailSecrets {
            secret: bytes(seed, 100),
            filling: bytes(seed, 101),
            seed: bytes(seed, 102),
        };
        let (tail, keys) = build_tail(&secrets, &hops[head_length..], TOKEN).unwrap();
        let secrets = HeadSecrets {
            secret: bytes(seed, 103),
            rest: bytes(seed, 104),
        };
        let head = build_head(&secrets, &hops[..head_length], &tail).unwrap();
        Self {
            hops,
            onions,
            tail,
            keys,
            head,
            head_length,
        }
    }

    /// The cell that the sender sends.
    fn cell(&self, message: &Payload) -> Cell {
        let mut payload = *message;
        self.head.wrap(&mut payload);
        let mut cell = [0; CELL];
        cell[..PATH_HEADER].copy_from_slice(self.head.header());
        cell[PATH_HEADER..].copy_from_slice(&payload);
        cell
    }

    /// Peels at relay `i`.
    fn peel(&self, i: usize, cell: &mut Cell) -> Result<(Next, ReplayTag), Error> {
        let path = open_header(&self.onions[i], &header(cell))?;
        Ok((path.next(), path.peel(cell)))
    }

    fn expected(&self, i: usize) -> Next {
        match self.hops.get(i + 1) {
            None => Next::Deliver(TOKEN),
            Some(hop) if i + 1 == self.head_length => Next::Junction(hop.relay),
            Some(hop) => Next::Forward(hop.relay),
        }
    }
}

fn header(cell: &Cell) -> Header {
    cell[..PATH_HEADER].try_into().unwrap()
}

fn payload(cell: &Cell) -> Payload {
    cell[PATH_HEADER..].try_into().unwrap()
}

fn shape() -> impl Strategy<Value = (usize, usize)> {
    (1..=MAX_SEGMENT, 1..=MAX_SEGMENT)
}

#[test]
fn every_shape_delivers() {
    for head_length in 1..=MAX_SEGMENT {
        for tail_length in 1..=MAX_SEGMENT {
            let path = Path::new(head_length, tail_length, 1);
            assert_eq!(path.head.first(), path.hops[0].relay);
            assert_eq!(path.tail.first, path.hops[head_length].relay);
            let message = bytes(1, 200);
            let mut cell = path.cell(&message);
            let mut tags = HashSet::new();
            for i in 0..path.onions.len() {
                let before = cell;
                let (next, tag) = path.peel(i, &mut cell).unwrap();
                assert_eq!(
                    next,
                    path.expected(i),
                    "{head_length} + {tail_length}, relay {i}"
                );
                assert_eq!(tag.0, cell[PATH_HEADER..PATH_HEADER + 16]);
                assert!(tags.insert(tag));
                // Nothing on the way out is on the way in: no byte run of it.
                let seen: HashSet<&[u8]> = before.windows(8).collect();
                let delivered = i + 1 == path.onions.len();
                let visible = if delivered {
                    &cell[PATH_HEADER..]
                } else {
                    &cell[..]
                };
                assert!(visible.windows(8).all(|run| !seen.contains(run)));
            }
            assert_eq!(cell[..PATH_HEADER], [0; PATH_HEADER]);
            let mut payload = payload(&cell);
            assert_ne!(payload, message);
            path.keys.unwrap(&mut payload);
            assert_eq!(payload, message);
        }
    }
}

/// Every bit of the header, not a sample: 2368 of them at each relay of a path.
#[test]
fn each_flipped_header_bit_is_refused() {
    let path = Path::new(2, 1, 2);
    let mut cell = path.cell(&bytes(2, 200));
    for i in 0..path.onions.len() {
        let good = header(&cell);
        for bit in 0..PATH_HEADER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            // The highest bit of alpha is not part of the point (RFC 7748, section 5), but the
            // keys are bound to the bytes.
            let result = open_header(&path.onions[i], &bad).map(|path| path.next());
            assert_eq!(
                result,
                Err(Error::Authentication {
                    what: "path header"
                }),
                "relay {i}, bit {bit}"
            );
        }
        path.peel(i, &mut cell).unwrap();
    }
}

/// Anyone who changes a published tail gets no further than its first relay.
#[test]
fn each_flipped_tail_bit_is_refused() {
    let path = Path::new(1, 2, 3);
    let encoded = path.tail.encode();
    let secrets = HeadSecrets {
        secret: [3; 32],
        rest: [4; 248],
    };
    // The first 64 bits name the first relay; they are not the cell's but the junction's.
    for bit in (64..encoded.len() * 8).step_by(5) {
        let mut bad = encoded;
        bad[bit / 8] ^= 1 << (bit % 8);
        let bad = PublishedTail::decode(&bad).unwrap();
        let head = build_head(&secrets, &path.hops[..1], &bad).unwrap();
        let mut cell = [0; CELL];
        cell[..PATH_HEADER].copy_from_slice(head.header());
        path.peel(0, &mut cell).unwrap();
        assert_eq!(
            path.peel(1, &mut cell).err(),
            Some(Error::Authentication {
                what: "path header"
            }),
            "bit {bit}"
        );
    }
}

#[test]
fn tails_of_low_order_are_refused() {
    let path = Path::new(1, 1, 4);
    let mut encoded = path.tail.encode();
    for first in [0, 1] {
        encoded[8..40].fill(0);
        encoded[8] = first;
        assert_eq!(PublishedTail::decode(&encoded), Err(Error::LowOrder));
    }
    // Built without decoding, it is refused by the tail's first relay.
    let mut tail = path.tail;
    tail.alpha = [0; 32];
    let secrets = HeadSecrets {
        secret: [3; 32],
        rest: [4; 248],
    };
    let head = build_head(&secrets, &path.hops[..1], &tail).unwrap();
    let mut cell = [0; CELL];
    cell[..PATH_HEADER].copy_from_slice(head.header());
    path.peel(0, &mut cell).unwrap();
    assert_eq!(path.peel(1, &mut cell).err(), Some(Error::LowOrder));
}

#[test]
fn wrong_lengths_and_keys_are_refused() {
    let onion = OnionSecret::from_bytes([1; 32]);
    let hop = Hop {
        relay: ShortId([0; 8]),
        onion: onion.public(),
    };
    let none = Hop {
        onion: X25519Public([0; 32]),
        ..hop
    };
    let tail_secrets = TailSecrets {
        secret: [1; 32],
        filling: [2; 100],
        seed: [3; 16],
    };
    let head_secrets = HeadSecrets {
        secret: [1; 32],
        rest: [2; 248],
    };
    let (tail, _) = build_tail(&tail_secrets, &[hop], TOKEN).unwrap();
    let limit = Some(Error::Limit {
        what: "relays in a path segment",
    });
    for hops in [&[][..], &[hop; MAX_SEGMENT + 1]] {
        assert_eq!(build_tail(&tail_secrets, hops, TOKEN).err(), limit);
        assert_eq!(build_head(&head_secrets, hops, &tail).err(), limit);
    }
    for hops in [&[none][..], &[hop, none], &[none, hop]] {
        assert_eq!(
            build_tail(&tail_secrets, hops, TOKEN).err(),
            Some(Error::LowOrder)
        );
        assert_eq!(
            build_head(&head_secrets, hops, &tail).err(),
            Some(Error::LowOrder)
        );
    }
}

/// Segments of any length look alike: what is published and what is sent has one length and
/// no byte in common beyond chance.
#[test]
fn fillings_hide_the_length() {
    for length in 1..=MAX_SEGMENT {
        let path = Path::new(length, length, 5);
        let zeros = |bytes: &[u8]| bytes.windows(4).filter(|run| *run == [0; 4]).count();
        assert_eq!(zeros(&path.tail.encode()[8..]), 0);
        assert_eq!(zeros(path.head.header()), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip((head_length, tail_length) in shape(), seed: u64) {
        let path = Path::new(head_length, tail_length, seed);
        let message = bytes(seed, 200);
        let mut cell = path.cell(&message);
        for i in 0..path.onions.len() {
            prop_assert_eq!(path.peel(i, &mut cell).unwrap().0, path.expected(i));
        }
        let mut payload = payload(&cell);
        path.keys.unwrap(&mut payload);
        prop_assert_eq!(payload, message);
    }

    #[test]
    fn published_tails_encode((_, length) in shape(), seed: u64) {
        let tail = Path::new(1, length, seed).tail;
        prop_assert_eq!(PublishedTail::decode(&tail.encode()), Ok(tail));
        prop_assert_eq!(&tail.id().0, &tail.gamma[..8]);
    }

    #[test]
    fn any_tail_encodes_to_itself(bytes in proptest::collection::vec(any::<u8>(), 172)) {
        let bytes: [u8; 172] = bytes.try_into().unwrap();
        if let Ok(tail) = PublishedTail::decode(&bytes) {
            prop_assert_eq!(tail.encode(), bytes);
        }
    }

    /// A changed payload becomes noise at once and all over, so a mark put on it anywhere
    /// does not survive to be recognised.
    #[test]
    fn a_flipped_payload_bit_randomises_all(seed: u64, at in 0..4usize, bit in 0..PAYLOAD * 8) {
        let path = Path::new(2, 2, seed);
        let mut cell = path.cell(&bytes(seed, 200));
        for i in 0..at {
            path.peel(i, &mut cell).unwrap();
        }
        let mut other = cell;
        other[PATH_HEADER + bit / 8] ^= 1 << (bit % 8);
        let (_, tag) = path.peel(at, &mut cell).unwrap();
        let (_, other_tag) = path.peel(at, &mut other).unwrap();
        prop_assert_ne!(tag, other_tag);
        prop_assert_eq!(header(&cell), header(&other));
        let same = payload(&cell).iter().zip(&payload(&other)).filter(|(a, b)| a == b).count();
        prop_assert!(same < 40, "{} bytes unchanged", same);
    }

    #[test]
    fn the_wrong_onion_key_is_refused(seed: u64, secret: [u8; 32]) {
        let path = Path::new(1, 1, seed);
        let result = open_header(&OnionSecret::from_bytes(secret), path.head.header());
        prop_assert_eq!(result.err(), Some(Error::Authentication { what: "path header" }));
    }

    /// Cells of one path under another's header come out as noise.
    #[test]
    fn a_payload_stays_with_its_header(seed: u64) {
        let (path, other) = (Path::new(1, 1, seed), Path::new(1, 1, seed.wrapping_add(1)));
        let message = bytes(seed, 200);
        let mut cell = path.cell(&message);
        cell[..PATH_HEADER].copy_from_slice(other.head.header());
        for i in 0..2 {
            other.peel(i, &mut cell).unwrap();
        }
        let mut payload = payload(&cell);
        other.keys.unwrap(&mut payload);
        let same = payload.iter().zip(&message).filter(|(a, b)| a == b).count();
        prop_assert!(same < 40, "{} bytes survived", same);
    }

    #[test]
    fn arbitrary_headers_are_refused(secret: [u8; 32], filling: u64, alpha in 0..3u8) {
        let mut header: Header = bytes(filling, 0);
        if alpha == 0 {
            header[..32].fill(0);
        }
        prop_assert!(open_header(&OnionSecret::from_bytes(secret), &header).is_err());
    }
}

/// The relay's use of it: an unknown header is opened once, then found.
#[test]
fn known_paths_are_found_by_their_header() {
    let mut cache = PathCache::new(10, [9; 16]);
    let now = Instant::now();
    let paths: Vec<Path> = (0..5).map(|seed| Path::new(1, 1, seed)).collect();
    for (path, epoch) in paths.iter().zip(0..) {
        let header = path.head.header();
        assert_eq!(cache.lookup(header, now), None);
        let known = open_header(&path.onions[0], header).unwrap();
        cache.insert(header, known, epoch % 2, now).unwrap();
    }
    assert_eq!((cache.len(), cache.capacity()), (5, 10));
    for (path, number) in paths.iter().zip(0..) {
        let slot = cache.lookup(path.head.header(), now).unwrap();
        let known = cache.get(slot);
        let message = bytes(number, 200);
        let mut cell = path.cell(&message);
        known.peel(&mut cell);
        let mut expected = path.cell(&message);
        path.peel(0, &mut expected).unwrap();
        assert_eq!(cell, expected);
    }
    // Whatever has been kept of their keys since: many in a row, and in turns.
    for (message, at) in [0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 2, 3, 4]
        .into_iter()
        .enumerate()
    {
        let path = &paths[at];
        let slot = cache.lookup(path.head.header(), now).unwrap();
        let message = bytes(message as u64, 30);
        let (mut cell, mut expected) = (path.cell(&message), path.cell(&message));
        let (known, tag) = cache.peel(slot, &mut cell);
        assert_eq!(known.next_header()[..], cell[..PATH_HEADER]);
        assert_eq!(known.peel(&mut expected), tag);
        assert_eq!(cell, expected);
    }
    let unknown = [0; PATH_HEADER];
    let headers = [paths[3].head.header(), &unknown, paths[0].head.header()];
    let located = headers.map(|header| cache.locate(header));
    located.iter().for_each(|located| cache.prefetch(*located));
    for ((header, located), of) in headers
        .into_iter()
        .zip(located)
        .zip([Some(3), None, Some(0)])
    {
        let found = cache.find(located, header, now);
        let next = found.map(|slot| *cache.get(slot).next_header());
        let opened = of.map(|of: usize| open_header(&paths[of].onions[0], header).unwrap());
        assert_eq!(next, opened.map(|known| *known.next_header()));
    }
    cache.retain(|key| key != 1);
    assert_eq!(cache.len(), 3);
    for (path, number) in paths.iter().zip(0..) {
        assert_eq!(
            cache.lookup(path.head.header(), now).is_some(),
            number % 2 == 0
        );
    }
}

/// More paths than there are places for keys that are ready, one after the other, in runs, and at random.
#[test]
fn keys_that_are_kept_are_those_of_the_path() {
    let one = Path::new(1, 1, 1);
    let opened = open_header(&one.onions[0], one.head.header()).unwrap();
    let mut cache = PathCache::new(3000, [9; 16]);
    let now = Instant::now();
    let of = |path: usize| -> ([u8; 32], Header) { (bytes(path as u64, 1), bytes(path as u64, 2)) };
    for path in 0..3000 {
        let (key, header) = of(path);
        cache.insert(&header, opened.beside(&key), 1, now).unwrap();
    }
    let at_random = (0..6000usize).map(|n| n * 7919 % 3000 / (n % 3 + 1));
    let in_runs = (0..4000).map(|n| n / 8 * 512 % 3000);
    for (number, path) in (0..3000).chain(in_runs).chain(at_random).enumerate() {
        let (_, header) = of(path);
        let mut cell = bytes(number as u64, 3);
        let mut expected = cell;
        let slot = cache.lookup(&header, now).unwrap();
        let (known, tag) = cache.peel(slot, &mut cell);
        assert_eq!(known.peel(&mut expected), tag, "path {path}");
        assert_eq!(cell, expected, "path {path}");
    }
}

/// A path that comes to the position of one that is gone has a key of its own.
#[test]
fn who_comes_to_the_position_of_a_busy_path_has_not_its_key() {
    let one = Path::new(1, 1, 1);
    let opened = open_header(&one.onions[0], one.head.header()).unwrap();
    let mut cache = PathCache::new(1, [9; 16]);
    let mut now = Instant::now();
    for path in 0..5u64 {
        let (key, header) = (bytes(path, 1), bytes(path, 2));
        cache.insert(&header, opened.beside(&key), 1, now).unwrap();
        for number in 0..10 {
            let mut cell = bytes(number, 3);
            let mut expected = cell;
            let slot = cache.lookup(&header, now).unwrap();
            let (known, tag) = cache.peel(slot, &mut cell);
            assert_eq!(known.peel(&mut expected), tag);
            assert_eq!(cell, expected, "path {path}");
        }
        // It is idle, and makes room.
        now += std::time::Duration::from_secs(20);
    }
}
