//! What the figures are worth: the testbed's relay does forward, and says so if it does not.
#![allow(clippy::unwrap_used)]

use mixline_bench::baseline::Baseline;
use mixline_bench::testbed::{Testbed, header, path};

#[test]
fn datagrams_of_known_paths_are_forwarded() {
    let mut testbed = Testbed::new(4).unwrap();
    let onion = testbed.onion();
    let paths: Vec<_> = (0..3).map(|_| path(&onion).unwrap()).collect();
    let headers: Vec<_> = paths.iter().map(|path| path.header).collect();
    for path in paths {
        testbed.learn(path).unwrap();
    }
    let mut at = 0;
    for _ in 0..3 {
        let took = testbed.round(|| {
            at += 1;
            &headers[at % 3]
        });
        assert!(took.unwrap() > 0.0);
    }
    let unknown = header(&onion).unwrap();
    assert!(testbed.round(|| &unknown).is_err());
}

#[test]
fn the_baseline_opens_what_was_sealed() {
    let mut baseline = Baseline::new();
    assert!(baseline.round().unwrap() > 0.0);
    assert!(baseline.parts().unwrap().hctr2 > 0.0);
}
