//! Path headers and published tails.

use std::sync::LazyLock;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use mixline_protocol::Error;
use mixline_protocol::identity::ShortId;
use mixline_protocol::path::{
    HeadSecrets, Hop, MailboxToken, Next, OnionSecret, PublishedTail, TailSecrets, build_head,
    build_tail, open_header,
};
use mixline_protocol::size::{CELL, Header, PATH_HEADER};

use super::{Target, fit, forge};

/// A header from anybody.
pub const HEADER: Target = Target {
    name: "path_header",
    seeds: header_seeds,
    run: header,
};

/// A header whose plain text, 248 bytes, its builder has chosen freely.
pub const SEALED_SLOT: Target = Target {
    name: "path_sealed_slot",
    seeds: || {
        [1, 2, 3]
            .map(|command| [&[command][..], &[7; 247]].concat())
            .into()
    },
    run: sealed_slot,
};

/// A published tail from anybody.
pub const TAIL: Target = Target {
    name: "path_tail",
    seeds: || vec![tail().encode().to_vec()],
    run: any_tail,
};

static ONION: LazyLock<OnionSecret> = LazyLock::new(|| OnionSecret::from_bytes([0x11; 32]));

fn hop() -> Hop {
    Hop {
        relay: ShortId([1; 8]),
        onion: ONION.public(),
    }
}

fn tail() -> PublishedTail {
    let secrets = TailSecrets {
        secret: [0x22; 32],
        filling: [0x33; 100],
        seed: [0x44; 16],
    };
    build_tail(&secrets, &[hop(), hop()], MailboxToken([5; 8]))
        .expect("a tail")
        .0
}

fn header_seeds() -> Vec<Vec<u8>> {
    let secrets = HeadSecrets {
        secret: [0x55; 32],
        rest: [0x66; 248],
    };
    let head = build_head(&secrets, &[hop(), hop()], &tail()).expect("a head");
    // All relays have one key here, so each stage of the path is a header for it.
    let mut seeds = vec![head.header().to_vec()];
    for _ in 0..3 {
        let last: Header = fit(seeds.last().expect("not empty"));
        let known = open_header(&ONION, &last).expect("a header");
        seeds.push(known.next_header().to_vec());
    }
    seeds
}

fn header(data: &[u8]) -> bool {
    let header: Header = fit(data);
    let Ok(path) = open_header(&ONION, &header) else {
        return false;
    };
    let mut cell = [0; CELL];
    cell[..PATH_HEADER].copy_from_slice(&header);
    let tag = path.peel(&mut cell);
    assert_eq!(cell[..PATH_HEADER], path.next_header()[..]);
    assert_eq!(cell[PATH_HEADER..PATH_HEADER + 16], tag.0);
    match path.next() {
        Next::Deliver(_) => assert_eq!(*path.next_header(), [0; PATH_HEADER]),
        Next::Forward(_) | Next::Junction(_) => assert_ne!(*path.next_header(), header),
    }
    true
}

fn sealed_slot(data: &[u8]) -> bool {
    static KEYS: LazyLock<([u8; 32], [u8; 128])> = LazyLock::new(|| {
        let secret = OnionSecret::from_bytes([0x77; 32]);
        let (alpha, onion) = (secret.public().0, ONION.public().0);
        let shared = x25519_dalek::x25519(*secret.to_bytes(), onion);
        let keys = forge::hkdf(b"mixline/v1/hop", &shared, &[&alpha, &onion]);
        (alpha, keys)
    });
    let (alpha, keys) = &*KEYS;
    let mut beta: [u8; 248] = fit(data);
    let command = beta[0];
    let stream: [u8; 32] = fit(&keys[32..]);
    ChaCha20::new(&stream.into(), &[0; 12].into()).apply_keystream(&mut beta);
    let gamma = forge::mac(&fit(keys), &beta);
    let sealed = [&alpha[..], &gamma, &beta].concat();
    match open_header(&ONION, &fit(&sealed)) {
        Ok(_) => {
            assert!((1..=3).contains(&command));
            header(&sealed)
        }
        Err(error) => {
            assert_eq!(error, Error::UnknownCommand(command));
            assert!(!(1..=3).contains(&command));
            false
        }
    }
}

fn any_tail(data: &[u8]) -> bool {
    let bytes: [u8; 172] = fit(data);
    let Ok(tail) = PublishedTail::decode(&bytes) else {
        return false;
    };
    assert_eq!(tail.encode(), bytes);
    // A sender builds with what the directory or a peer gives it.
    let secrets = HeadSecrets {
        secret: [0x55; 32],
        rest: [0x66; 248],
    };
    let head = build_head(&secrets, &[hop()], &tail).expect("a head");
    let known = open_header(&ONION, head.header()).expect("a header");
    assert_eq!(known.next(), Next::Junction(tail.first));
    let _ = open_header(&ONION, known.next_header());
    true
}
