//! Rounds of several directories in random orders: what is delivered when, what is lost, who dies and comes
//! back, whose clock is wrong, who lies.
//!
//! Signatures are pretended, so that there is time for many. Two things hold however it goes: no honest directory signs two snapshots
//! of a round, and no round has two snapshots that a quorum could have signed. With a network and clocks that
//! keep to the schedule, and no more than `f` who do not, every round has a snapshot.
//!
//! `MIXLINE_MODEL_RUNS` says how many orders are tried of each kind; a number after a failure is its seed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod dice;
mod pretended;
mod world;

use world::{Nature, World};

/// How many orders are tried where nothing else is said.
const RUNS: u64 = 400;

fn runs() -> u64 {
    let asked = std::env::var("MIXLINE_MODEL_RUNS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(RUNS)
}

fn seeds() -> impl Iterator<Item = u64> {
    let first: u64 = std::env::var("MIXLINE_MODEL_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    first..first + runs()
}

#[test]
fn never_two_snapshots_of_a_round() {
    let mut published = 0;
    for seed in seeds() {
        let directories = if seed % 4 == 3 { 7 } else { 4 };
        let mut world = World::new(seed, directories, Nature::hostile(seed, directories));
        world.run(3);
        published += world.published();
    }
    // Not because nothing is ever published.
    assert!(published > runs() as usize / 4, "{published}");
}

#[test]
fn every_round_has_a_snapshot_while_few_fail() {
    for seed in seeds() {
        let directories = if seed % 4 == 3 { 7 } else { 4 };
        let mut world = World::new(seed, directories, Nature::orderly(seed, directories));
        world.run(3);
        world.all_published(3);
    }
}

#[test]
fn who_was_away_catches_up() {
    for seed in seeds().step_by(4) {
        let mut world = World::new(seed, 4, Nature::quiet(seed));
        world.run(2);
        world.kill(3);
        world.run(3);
        world.revive(3);
        world.run(3);
        world.all_have_one_log();
    }
}

#[test]
fn lies_are_proven_at_all_honest_directories() {
    let mut proven = 0;
    for seed in seeds() {
        let mut world = World::new(seed, 4, Nature::lying(seed));
        world.run(2);
        proven += world.proofs_are_everywhere();
    }
    assert!(proven > runs() as usize / 4, "{proven}");
}

#[test]
fn more_liars_than_can_be_borne_are_noticed_by_the_model() {
    let mut broken = 0;
    for seed in seeds() {
        let nature = Nature {
            liars: 2,
            conspire: true,
            ..Nature::lying(seed)
        };
        let mut world = World::new(seed, 4, nature);
        world.tolerate_forks();
        world.run(3);
        broken += world.forks();
    }
    assert!(broken > 0, "the model sees nothing");
}
