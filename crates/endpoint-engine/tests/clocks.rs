//! A host's clock is in nothing that its IDs say.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::command::Question;
use mixline_endpoint_engine::testing::internals::bounds::{MOST_BEHIND, Pseudonym, UNIT};
use mixline_endpoint_engine::testing::*;
use mixline_protocol::identity::IdentityKey;

const SECOND: Duration = Duration::from_secs(1);
/// Throw-away IDs say the time in steps of this, milliseconds.
const MINUTE: u64 = 60_000;

/// By how much what a host with such a clock says is behind, milliseconds: the issue and the version of its
/// records, and the initiations of each ID.
fn said(seed: u64, clock: i64) -> (Vec<u64>, Vec<(Pseudonym, u64)>) {
    let mut world = World::settled(8, seed);
    let other = world.service();
    let mut own = [7; 32];
    own[..8].copy_from_slice(&seed.to_be_bytes());
    let host = world.add(IdentityKey::from_seed(own), |config| {
        config.accept_sessions = true;
        config.publish = true;
    });
    world.nodes[host].clock = clock * 1000;
    world.run(5 * SECOND);
    let id = world.nodes[other].id;
    world.ask(host, Question::LookupId(id)).expect("an answer");
    let (from, to) = (world.ipv6(host), world.ipv6(other));
    world.send(host, &[udp(from, to, (1, 1), b"hello")]);
    world.run(SECOND);
    assert_eq!(world.take(other).len(), 1);
    let right = world.now.unix_ms;
    let descriptor = world.nodes[host].descriptor.clone().unwrap();
    // All of this was said in the last seven seconds.
    let behind = |at: u64| (right - at).saturating_sub(7000);
    let initiations = world.nodes[host].engine.last_initiations();
    let initiations = initiations.into_iter().map(|(of, at)| (of, behind(at)));
    (
        vec![
            behind(descriptor.issued.0 * 1000),
            behind(descriptor.version),
        ],
        initiations.collect(),
    )
}

#[test]
fn two_ids_of_a_host_with_a_skewed_clock_have_nothing_in_common() {
    let mut differences = Vec::new();
    for seed in 0..10 {
        let right = said(seed, 0);
        for clock in [187, -240, 55] {
            let (records, initiations) = said(seed, clock);
            // The own ID says what it would have said under a clock that is right ...
            for (one, other) in records.iter().zip(&right.0) {
                assert!(one.abs_diff(*other) <= UNIT, "{clock} s: {one} {other}");
            }
            // ... and none says more than that it is one of the IDs that there are.
            assert_eq!(initiations.len(), 3);
            assert!(
                initiations
                    .iter()
                    .all(|(_, at)| *at <= MOST_BEHIND + MINUTE)
            );
            let of =
                |wanted: Pseudonym| initiations.iter().find(|(it, _)| *it == wanted).unwrap().1;
            differences.push(of(Pseudonym::Own).abs_diff(of(Pseudonym::Asking)));
            differences.push(of(Pseudonym::Publishing).abs_diff(of(Pseudonym::Asking)));
        }
    }
    // Two independent draws of sixty seconds differ by twenty on average, by up to thirty in steps of a minute.
    let average = differences.iter().sum::<u64>() / differences.len() as u64;
    assert!((12_000..40_000).contains(&average), "{average} ms");
}
