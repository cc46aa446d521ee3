//! Path selection and guards on networks of any shape.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod networks;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use chacha20::ChaCha20Rng;
use mixline_endpoint_engine::Guards;
use mixline_endpoint_engine::testing::internals::relays::{
    GONE, MAX_FALLBACKS, PATIENCE, Place, Plan, RECOVERED, Relay, choose,
};
use mixline_protocol::epoch;
use mixline_protocol::identity::{RelayId, ShortId};
use mixline_protocol::time::UnixTime;
use networks::{START, Spec, id, network, network_at, now, plain, spec};
use proptest::prelude::*;
use rand_core::SeedableRng;

/// A head of so many relays of which only the guard is given.
fn free(guard: &ShortId, length: usize) -> Plan<'_> {
    Plan {
        guard,
        layers: &[],
        length,
    }
}

fn clash(a: &Spec, b: &Spec) -> bool {
    a.network == b.network
        || (a.network6.is_some() && a.network6 == b.network6)
        || (a.family.is_some() && a.family == b.family)
}

/// The most relays that go together with the first of `chosen`.
fn most(chosen: &mut Vec<usize>, specs: &[Spec], usable: &[usize]) -> usize {
    let mut best = chosen.len();
    let from = chosen
        .last()
        .copied()
        .filter(|_| chosen.len() > 1)
        .map_or(0, |last| last + 1);
    for at in usable.iter().copied().filter(|at| *at >= from) {
        if chosen
            .iter()
            .all(|other| *other != at && !clash(&specs[*other], &specs[at]))
        {
            chosen.push(at);
            best = best.max(most(chosen, specs, usable));
            chosen.pop();
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_is_chosen_goes_together_and_is_found_if_it_exists(
        specs in proptest::collection::vec(spec(), 1..10),
        length in 1usize..=4,
        penalties in proptest::collection::vec(0u8..5, 10),
        seed: [u8; 32],
    ) {
        let network = network(&specs);
        let mut rng = ChaCha20Rng::from_seed(seed);
        let at = |short: &ShortId| (0..specs.len()).find(|n| id(*n).short() == *short).unwrap();
        // Early in the epoch only the current key counts.
        let usable: Vec<usize> = (0..specs.len()).filter(|n| specs[*n].keys.0).collect();
        let guard = id(0).short();
        let penalty = |_: Place, short: &ShortId| Some(penalties[at(short)]);
        let result = choose(&network, free(&guard, length), UnixTime(START), penalty, &mut rng);
        let possible = if usable.contains(&0) {
            most(&mut vec![0], &specs, &usable)
        } else {
            0
        };
        match result {
            Ok(chosen) => {
                let numbers: Vec<usize> = chosen.hops.iter().map(|hop| at(&hop.relay)).collect();
                prop_assert_eq!(numbers.len(), length);
                prop_assert_eq!(numbers[0], 0);
                for (n, a) in numbers.iter().enumerate() {
                    prop_assert!(usable.contains(a));
                    for b in &numbers[..n] {
                        prop_assert!(a != b && !clash(&specs[*a], &specs[*b]));
                    }
                }
                let end = epoch::ends(epoch::current(UnixTime(START), 3600), 3600, 0);
                prop_assert_eq!(chosen.expires, end);
            }
            Err(shortage) => {
                prop_assert!(possible < length, "{shortage}");
                prop_assert_eq!(shortage.found, possible.min(length));
                prop_assert_eq!(shortage.listed, specs.len());
            }
        }
    }

    #[test]
    fn a_penalty_is_taken_only_without_choice(seed: [u8; 32], bad in 1usize..8) {
        let specs: Vec<Spec> = (0..8).map(plain).collect();
        let network = network(&specs);
        let mut rng = ChaCha20Rng::from_seed(seed);
        let guard = id(0).short();
        let penalty = |_: Place, short: &ShortId| Some(u8::from(*short == id(bad).short()));
        for _ in 0..20 {
            let chosen = choose(&network, free(&guard, 4), UnixTime(START), penalty, &mut rng).unwrap();
            prop_assert!(chosen.hops.iter().all(|hop| hop.relay != id(bad).short()));
        }
        // All but one are in the way: then it has to do.
        let penalty = |_: Place, short: &ShortId| Some(u8::from(*short != id(bad).short()));
        let chosen = choose(&network, free(&guard, 4), UnixTime(START), penalty, &mut rng).unwrap();
        prop_assert_eq!(chosen.hops.len(), 4);
    }
}

#[test]
fn capacity_weighs_and_does_not_buy_everything() {
    let mut specs: Vec<Spec> = (0..11).map(plain).collect();
    specs[1].capacity = 300;
    specs[2].capacity = u32::MAX;
    let network = network(&specs);
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut count: HashMap<ShortId, u32> = HashMap::new();
    for _ in 0..4000 {
        let guard = id(0).short();
        let chosen = choose(
            &network,
            free(&guard, 2),
            UnixTime(START),
            |_, _| Some(0),
            &mut rng,
        )
        .unwrap();
        *count.entry(chosen.hops[1].relay).or_default() += 1;
    }
    // Of 8 * 100 + 300 + 1000: the boaster counts for ten times the median.
    let share = |number: usize| f64::from(count[&id(number).short()]) / 4000.0;
    assert!((share(3) - 100.0 / 2100.0).abs() < 0.02, "{}", share(3));
    assert!((share(1) - 300.0 / 2100.0).abs() < 0.03, "{}", share(1));
    assert!((share(2) - 1000.0 / 2100.0).abs() < 0.04, "{}", share(2));
}

#[test]
fn the_next_epochs_keys_are_used_in_the_last_quarter() {
    let mut specs: Vec<Option<Spec>> = (0..4).map(|n| Some(plain(n))).collect();
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let at = |seconds: u64| UnixTime(START / 3600 * 3600 + seconds);
    let end = |n: u32| epoch::ends(epoch::current(at(0), 3600) + n, 3600, 0);
    let guard = id(0).short();
    let chosen = |specs: &[Option<Spec>], now, rng: &mut ChaCha20Rng| {
        choose(
            &network_at(specs, now),
            free(&guard, 4),
            now,
            |_, _| Some(0),
            rng,
        )
        .unwrap()
        .expires
    };
    assert_eq!(chosen(&specs, at(2600), &mut rng), end(0));
    assert_eq!(chosen(&specs, at(2800), &mut rng), end(1));
    // One relay that is late makes the whole end sooner.
    specs[3].as_mut().unwrap().keys = (true, false);
    assert_eq!(chosen(&specs, at(2800), &mut rng), end(0));
}

fn regular(guards: &Guards) -> Vec<RelayId> {
    guards
        .in_use()
        .filter(|(_, fallback)| !fallback)
        .map(|(id, _)| id)
        .collect()
}

#[test]
fn guards_are_chosen_once_and_kept() {
    let specs: Vec<Option<Spec>> = (0..12).map(|n| Some(plain(n % 8))).collect();
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let mut guards = Guards::new(3);
    let up = |_: &ShortId| true;
    guards.update(
        &network_at(&specs, now(0).unix()),
        now(0),
        up,
        |_| true,
        &mut rng,
    );
    let chosen = regular(&guards);
    assert_eq!(chosen.len(), 3);
    let networks: HashSet<usize> = chosen
        .iter()
        .map(|c| (0..12).find(|n| id(*n) == *c).unwrap() % 8)
        .collect();
    assert_eq!(networks.len(), 3, "in different networks");
    assert!(guards.has_changed());
    guards.set_unchanged();
    assert!(!guards.has_changed());

    // Stored and loaded they are the same, whatever else the network offers.
    let mut guards = Guards::load(3, &guards.save()).unwrap();
    let day = 24 * 3600;
    for days in 1..80 {
        let at = now(days * day);
        guards.update(&network_at(&specs, at.unix()), at, up, |_| true, &mut rng);
        assert_eq!(regular(&guards), chosen);
    }
    assert!(!guards.has_changed());

    // One is gone: it is missed for days before another takes its place.
    let mut without = specs.clone();
    let gone = (0..12).find(|n| id(*n) == chosen[1]).unwrap();
    without[gone] = None;
    let since = 80 * day;
    let update = |guards: &mut Guards, specs: &[Option<Spec>], seconds, rng: &mut ChaCha20Rng| {
        let at = now(seconds);
        guards.update(&network_at(specs, at.unix()), at, up, |_| true, rng);
    };
    update(&mut guards, &without, since, &mut rng);
    update(&mut guards, &without, since + GONE - 10, &mut rng);
    assert_eq!(regular(&guards), chosen);
    // Seen again in between, its time begins anew.
    update(&mut guards, &specs, since + GONE - 5, &mut rng);
    update(&mut guards, &without, since + GONE + 10, &mut rng);
    assert_eq!(regular(&guards), chosen);
    update(&mut guards, &without, since + 2 * GONE + 20, &mut rng);
    let after = regular(&guards);
    assert_eq!(after.len(), 3);
    assert!(!after.contains(&chosen[1]));
    assert!(after.contains(&chosen[0]) && after.contains(&chosen[2]));

    // After some months they change, one at a time.
    let mut last = after;
    let mut at = 0;
    for quarters in 0..4 * 160 {
        let seconds = since + 2 * GONE + quarters * 6 * 3600;
        update(&mut guards, &specs, seconds, &mut rng);
        let new = regular(&guards);
        let kept = new.iter().filter(|id| last.contains(id)).count();
        assert!(kept >= 2);
        at += 3 - kept;
        last = new;
    }
    assert!((3..=6).contains(&at), "{at} changes");
}

#[test]
fn fallbacks_help_out_and_are_few() {
    let specs: Vec<Option<Spec>> = (0..20).map(|n| Some(plain(n))).collect();
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let mut guards = Guards::new(3);
    let mut tried: HashSet<RelayId> = HashSet::new();
    let network = network_at(&specs, now(0).unix());
    // Somebody blocks every guard that this client has.
    let patience = PATIENCE.as_secs();
    for seconds in 0..600 {
        guards.update(&network, now(seconds), |_| false, |_| true, &mut rng);
        tried.extend(guards.in_use().map(|(id, _)| id));
        if seconds < patience {
            assert_eq!(guards.in_use().count(), 3);
        }
    }
    assert_eq!(guards.in_use().count(), 3 + MAX_FALLBACKS);
    assert_eq!(tried.len(), 3 + MAX_FALLBACKS, "not one more than those");
    // Starting again does not help him either.
    let mut guards = Guards::load(3, &guards.save()).unwrap();
    for seconds in 600..700 {
        guards.update(&network, now(seconds), |_| false, |_| true, &mut rng);
        tried.extend(guards.in_use().map(|(id, _)| id));
    }
    assert_eq!(tried.len(), 3 + MAX_FALLBACKS);
    // When the regular ones are back, the others are let go.
    for seconds in 700..=701 + RECOVERED.as_secs() {
        guards.update(&network, now(seconds), |_| true, |_| true, &mut rng);
    }
    assert_eq!(guards.in_use().count(), 3);
}

#[test]
fn guards_are_reachable_from_here() {
    let mut specs: Vec<Option<Spec>> = (0..6).map(|n| Some(plain(n))).collect();
    for (number, spec) in specs.iter_mut().enumerate() {
        spec.as_mut().unwrap().network6 =
            Some(u8::try_from(number).unwrap()).filter(|n| n % 2 == 0);
    }
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let network = network_at(&specs, now(0).unix());
    let mut guards = Guards::new(3);
    let v6 = |relay: &Relay| relay.addresses.iter().any(SocketAddr::is_ipv6);
    guards.update(&network, now(0), |_| true, v6, &mut rng);
    let chosen: HashSet<RelayId> = guards.in_use().map(|(id, _)| id).collect();
    assert_eq!(chosen, HashSet::from([id(0), id(2), id(4)]));
}

#[test]
fn a_damaged_file_is_refused() {
    for text in [
        "",
        "{}",
        "[]",
        "{\"version\":2,\"guards\":[]}",
        "{\"version\":1,\"guards\":[{\"relay\":\"zz\",\"until\":1,\"missing_since\":null,\"fallback\":false}]}",
        "{\"version\":1,\"guards\":[],\"more\":1}",
    ] {
        assert!(Guards::load(3, text).is_err(), "{text}");
    }
    // More than there may be are not believed.
    let many: Vec<String> = (0..20)
        .map(|n| {
            format!(
                "{{\"relay\":\"{}\",\"until\":{},\"missing_since\":null,\"fallback\":false}}",
                id(n),
                u64::MAX
            )
        })
        .collect();
    let text = format!("{{\"version\":1,\"guards\":[{}]}}", many.join(","));
    assert_eq!(Guards::load(3, &text).unwrap().in_use().count(), 3);
}
