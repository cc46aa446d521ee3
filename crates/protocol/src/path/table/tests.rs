//! Tests of the table.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::size::PATH_HEADER;

/// A lookup in all its steps.
fn lookup<V>(table: &mut Table<V>, header: &Header, now: Instant) -> Option<u32> {
    let hash = table.locate(header);
    table.prefetch(hash);
    table.lookup(hash, header, now)
}

const IDLE: Duration = Duration::from_secs(10);

fn header(name: u16) -> Header {
    let mut header = [0; PATH_HEADER];
    header[..2].copy_from_slice(&name.to_be_bytes());
    header
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u16, u32),
    Lookup(u16),
    Wait(u8),
    RemoveKey(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..200u16, 0..3u32).prop_map(|(name, key)| Step::Insert(name, key)),
        8 => (0..200u16).prop_map(Step::Lookup),
        4 => (0..8u8).prop_map(Step::Wait),
        1 => (0..3u32).prop_map(Step::RemoveKey),
    ];
    proptest::collection::vec(step, 1..400)
}

proptest! {
    /// Beside a plain map of all that was inserted: nothing is found wrongly, nothing is
    /// lost unless it was idle, nothing is refused unless all the rest is live.
    #[test]
    fn agrees_with_a_map(steps in steps(), capacity in 1usize..150) {
        let mut table = Table::new(capacity, [7; 16]);
        let mut model = HashMap::<u16, (u32, u32, Instant)>::new();
        let mut now = Instant::now();
        let (idle, lag) = (IDLE, Duration::from_secs(1));
        for (count, step) in (0u32..).zip(steps) {
            match step {
                Step::Wait(seconds) => now += Duration::from_secs(u64::from(seconds)),
                Step::RemoveKey(key) => {
                    table.retain(|of| of != key);
                    model.retain(|_, (_, of, _)| *of != key);
                }
                Step::Lookup(name) => match lookup(&mut table, &header(name), now) {
                    Some(at) => {
                        let entry = model.get_mut(&name).unwrap();
                        prop_assert_eq!(table.get(at), Some(&entry.0));
                        entry.2 = now;
                    }
                    None => prop_assert!(!model.contains_key(&name)),
                },
                Step::Insert(name, key) => {
                    let known = model.contains_key(&name);
                    let full = !known && model.len() == capacity;
                    match table.insert(&header(name), count, key, now, idle) {
                        Some(at) => {
                            prop_assert_eq!(table.get(at), Some(&count));
                            if full {
                                // One idle entry had to go; the table chose which.
                                let gone: Vec<u16> = model
                                    .keys()
                                    .copied()
                                    .filter(|name| table.find(table.hash(&header(*name)), &header(*name)).is_none())
                                    .collect();
                                prop_assert_eq!(gone.len(), 1);
                                let (_, _, used) = model.remove(&gone[0]).unwrap();
                                prop_assert!(now - used >= idle);
                            }
                            model.insert(name, (count, key, now));
                        }
                        None => {
                            prop_assert!(full);
                            // It has looked at some only, and at all of a small table.
                            let live = model.values().filter(|(.., used)| now - *used <= idle + lag).count();
                            prop_assert!(live >= SEARCHED.min(capacity));
                        }
                    }
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
        for (name, (value, ..)) in model {
            let at = lookup(&mut table, &header(name), now);
            prop_assert_eq!(at.and_then(|at| table.get(at)), Some(&value));
        }
    }
}

/// Paths that are in use stand together, as they came, and so do those that are not.
#[test]
fn what_is_idle_is_found_wherever_it_stands() {
    const LIVE: u16 = 3 * SEARCHED as u16;
    const IDLE_ONES: u16 = 20;
    let mut table = Table::new(usize::from(LIVE + IDLE_ONES), [3; 16]);
    let start = Instant::now();
    for name in 0..LIVE + IDLE_ONES {
        table.insert(&header(name), name, 0, start, IDLE).unwrap();
    }
    let later = start + IDLE + Duration::from_secs(2);
    for name in 0..LIVE {
        lookup(&mut table, &header(name), later).unwrap();
    }
    let mut insert = |name| table.insert(&header(name), name, 0, later, IDLE);
    // Three times only live ones are looked at, then each takes the place of an idle one, with
    // nothing in between, until there are none.
    for name in 1000..1003 {
        assert_eq!(insert(name), None);
    }
    for name in 1003..1003 + IDLE_ONES {
        assert!(insert(name).is_some(), "{name}");
    }
    for name in 2000..2010 {
        assert_eq!(insert(name), None);
    }
    assert!((0..LIVE).all(|name| lookup(&mut table, &header(name), later).is_some()));
}

#[test]
fn the_whole_header_counts() {
    let mut table = Table::new(4, [0; 16]);
    let now = Instant::now();
    table.insert(&header(1), (), 0, now, IDLE).unwrap();
    for byte in 0..PATH_HEADER {
        let mut other = header(1);
        other[byte] ^= 0x80;
        assert_eq!(lookup(&mut table, &other, now), None);
    }
    assert!(lookup(&mut table, &header(1), now).is_some());
}

#[test]
fn hashes_depend_on_the_key() {
    let hashes = |key| Table::<()>::new(1, key).hash(&header(1));
    assert_ne!(hashes([0; 16]), hashes([1; 16]));
}

#[test]
fn entries_stay_where_they_are_and_chunks_come_as_needed() {
    let mut table = Table::new(10 * CHUNK, [0; 16]);
    let now = Instant::now();
    assert!(table.entries.is_empty());
    let first = table.insert(&header(0), 0, 0, now, IDLE).unwrap();
    let address = std::ptr::from_ref(table.get(first).unwrap());
    assert_eq!(table.entries.len(), 1);
    for name in 1..10 * CHUNK as u16 {
        table
            .insert(&header(name), i32::from(name), 0, now, IDLE)
            .unwrap();
    }
    assert_eq!(table.entries.len(), 10);
    assert_eq!(std::ptr::from_ref(table.get(first).unwrap()), address);
    assert_eq!(table.insert(&header(9999), 0, 0, now, IDLE), None);
}
