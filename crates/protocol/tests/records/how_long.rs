//! How long a reader takes for the snapshot of a network of thousands.
//! `cargo test --release -p mixline-protocol --test records -- --ignored --nocapture how_long`

use std::time::Instant;

use mixline_protocol::identity::{IdentityKey, X25519Public};
use mixline_protocol::records::{ListedRelay, Snapshot};

use crate::records_common::NOW;
use crate::records_common::directories::Directories;
use crate::records_common::{listed, relay};

/// As many as a large network has.
const RELAYS: u32 = 6783;

fn numbered(n: u32, version: u64) -> ListedRelay {
    let mut seed = [33; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    let key = IdentityKey::from_seed(seed);
    let mut descriptor = relay(&key);
    descriptor.version += version;
    let mut relay = listed(descriptor.sign(&key).unwrap());
    // Four epochs of onion keys, as relays register them.
    relay.onion = (500_000..500_004)
        .map(|epoch| (epoch, X25519Public(seed)))
        .collect();
    relay
}

#[test]
#[ignore = "for a look at the time"]
fn how_long() {
    let directories = Directories::new(7);
    let make = |renewed: u32| {
        let mut snapshot = directories.snapshot(0);
        snapshot.relays = (0..RELAYS)
            .map(|n| numbered(n, u64::from(n < renewed)))
            .collect();
        let mut snapshot = snapshot.ordered().unwrap();
        directories.sign(&mut snapshot, 0..5);
        snapshot.encode()
    };
    // Descriptors are renewed when half of their 24 hours is over: one of 144 in a round of 300 s.
    let (first, next) = (make(0), make(RELAYS / 144));
    println!("{} bytes", first.len());
    for _ in 0..3 {
        let began = Instant::now();
        let held = Snapshot::decode_and_verify(&first, &directories.roster, NOW).unwrap();
        println!("{RELAYS} relays: {:?}", began.elapsed());
        let began = Instant::now();
        let roster = &directories.roster;
        Snapshot::decode_and_verify_after(&next, roster, NOW, Some(&held)).unwrap();
        println!("the next snapshot: {:?}", began.elapsed());
    }
}
