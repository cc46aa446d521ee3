//! What the figures are worth: the stand's relay does forward, and says so if it does not.
#![allow(clippy::unwrap_used)]

use mixline_bench::baseline::Floor;
use mixline_bench::testbed::{Stand, header, path};

#[test]
fn datagrams_of_known_paths_are_forwarded() {
    let mut stand = Stand::new(4).unwrap();
    let onion = stand.onion();
    let paths: Vec<_> = (0..3).map(|_| path(&onion).unwrap()).collect();
    let headers: Vec<_> = paths.iter().map(|path| path.header).collect();
    for path in paths {
        stand.learn(path).unwrap();
    }
    let mut at = 0;
    for _ in 0..3 {
        let took = stand.turn(|| {
            at += 1;
            &headers[at % 3]
        });
        assert!(took.unwrap() > 0.0);
    }
    let unknown = header(&onion).unwrap();
    assert!(stand.turn(|| &unknown).is_err());
}

#[test]
fn the_floor_opens_what_was_sealed() {
    let mut floor = Floor::new().unwrap();
    assert!(floor.turn().unwrap() > 0.0);
    assert!(floor.parts().unwrap().hctr2 > 0.0);
}
