//! What a replay filter takes of the machine's memory. One test, so that nothing runs beside it.
#![expect(clippy::unwrap_used, reason = "tests")]

use mixline_protocol::replay::ReplayFilter;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Resident bytes of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        * 1024
}

#[test]
fn an_idle_filter_takes_none() {
    let now = Instant::now();
    let before = resident();
    let filter = ReplayFilter::new(256 * MIB, [1; 16], now).unwrap();
    filter.set_life(Duration::from_secs(1));
    for n in 0..10 {
        assert!(filter.check_and_set(&[n; 16]));
    }
    // Two rotations look at every word of both generations.
    assert!(filter.rotate(now + Duration::from_secs(2)));
    assert!(filter.rotate(now + Duration::from_secs(4)));
    let used = resident().saturating_sub(before);
    println!("{} KiB resident", used / 1024);
    // Ten pages, or ten huge ones.
    assert!(used < 32 * MIB, "{} MiB of 512", used / MIB);
}
