//! What a relay has stored of its replay filter.

use std::time::Instant;

use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::time::UnixTime;

use super::{Target, forge};

/// What a relay has stored of its replay filter, without its checksum.
pub const MEMORY: Target = Target {
    name: "replay_memory",
    seeds: replay_seeds,
    run: replay_memory,
};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn replay_seeds() -> Vec<Vec<u8>> {
    let now = Instant::now();
    let filter = ReplayFilter::new(4096, [1; 16], now).expect("a filter");
    let saved = |filter: &ReplayFilter| {
        let mut bytes = filter.save(now, NOW);
        bytes.truncate(bytes.len() - 32);
        bytes
    };
    let empty = saved(&filter);
    for tag in 0..5u8 {
        assert!(filter.check_and_set(&[tag; 16]));
    }
    vec![empty, saved(&filter)]
}

fn replay_memory(data: &[u8]) -> bool {
    let mut data = data.to_vec();
    // The number of blocks stands at 25; a filter may be of many gigabytes, which are not
    // wanted here.
    if let Some(front) = data.get_mut(25..30) {
        front.fill(0);
    }
    let bytes = [&data[..], &forge::sha256(&[&data])].concat();
    let Ok(filter) = ReplayFilter::load(&bytes, Instant::now(), NOW) else {
        return false;
    };
    let _ = filter.contains(&[3; 16]);
    let _ = filter.check_and_set(&[99; 16]);
    assert!(filter.fill().is_finite());
    true
}
