//! The relays that are kept for the places next to the guards.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod networks;

use std::collections::HashSet;

use chacha20::ChaCha20Rng;
use mixline_endpoint_engine::Guards;
use mixline_endpoint_engine::testing::World;
use mixline_endpoint_engine::testing::internals::relays::{
    Network, Place, Plan, SECOND, THIRD, choose,
};
use mixline_protocol::identity::{RelayId, ShortId};
use mixline_protocol::time::UnixTime;
use networks::{START, Spec, id, network_at, now, plain, spec};
use proptest::prelude::*;
use rand_core::SeedableRng;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// What a client does about once a second.
fn update(guards: &mut Guards, network: &Network, seconds: u64, rng: &mut ChaCha20Rng) {
    update_for(guards, network, 3, false, seconds, rng);
}

fn update_for(
    guards: &mut Guards,
    network: &Network,
    length: usize,
    deep: bool,
    seconds: u64,
    rng: &mut ChaCha20Rng,
) {
    let at = now(seconds);
    guards.update(network, at, |_| true, |_| true, rng);
    guards.update_layers(network, length, deep, at.unix(), rng);
}

/// The members of a layer as they are stored: relay and end, the regular ones first.
fn stored(guards: &Guards, layer: &str) -> Vec<(String, u64)> {
    let file: serde_json::Value = serde_json::from_str(&guards.save()).unwrap();
    let members = file[layer].as_array().unwrap().iter();
    members
        .map(|it| {
            let relay = it["relay"].as_str().unwrap().to_owned();
            (relay, it["until"].as_u64().unwrap())
        })
        .collect()
}

fn relays(guards: &Guards) -> HashSet<String> {
    let members = stored(guards, "second_layer").into_iter();
    members.map(|(relay, _)| relay).collect()
}

fn all(specs: usize) -> Vec<Option<Spec>> {
    (0..specs)
        .map(|n| Some(plain(u8::try_from(n).unwrap())))
        .collect()
}

#[test]
fn members_stay_for_days_and_a_restart_changes_none() {
    let specs = all(60);
    let network = network_at(&specs, UnixTime(START));
    let mut lives = Vec::new();
    let mut third = Vec::new();
    for seed in 0..100 {
        let mut guards = Guards::new(3);
        update_for(&mut guards, &network, 4, true, 0, &mut rng(seed));
        let members = stored(&guards, "second_layer");
        assert_eq!(members.len(), SECOND.size);
        lives.extend(members.into_iter().map(|(_, until)| until - START));
        let members = stored(&guards, "third_layer");
        assert_eq!(members.len(), THIRD.size);
        third.extend(members.into_iter().map(|(_, until)| until - START));
        // Another run has the same.
        assert!(guards.has_changed());
        let text = guards.save();
        let mut again = Guards::load(3, &text).unwrap();
        update_for(&mut again, &network, 4, true, 1, &mut rng(seed + 1));
        assert_eq!(again.save(), text);
        assert!(!again.has_changed());
    }
    assert!(lives.iter().all(|life| (DAY..12 * DAY).contains(life)));
    assert!(third.iter().all(|life| (HOUR..48 * HOUR).contains(life)));
    // The larger of two uniform draws: two thirds of the way on average. 400 draws, 3.5 deviations.
    let mean = lives.iter().sum::<u64>() as f64 / lives.len() as f64 / DAY as f64;
    assert!(
        (mean - (1.0 + 11.0 * 2.0 / 3.0)).abs() < 0.45,
        "{mean} days"
    );
}

#[test]
fn members_change_one_by_one_as_they_end() {
    let specs = all(60);
    let mut guards = Guards::new(3);
    let mut rng = rng(1);
    let mut seen = HashSet::new();
    for hours in (0..60 * 24).step_by(6) {
        let network = network_at(&specs, now(hours * HOUR).unix());
        update(&mut guards, &network, hours * HOUR, &mut rng);
        assert_eq!(relays(&guards).len(), SECOND.size);
        seen.extend(relays(&guards));
    }
    // 60 days in places of 8.3 days each on average: 29 more.
    let more = seen.len() - SECOND.size;
    assert!((18..=42).contains(&more), "{more} replaced");
}

#[test]
fn who_takes_members_down_sees_a_bounded_number_of_others() {
    let mut specs = all(60);
    let mut guards = Guards::new(3);
    let mut rng = rng(2);
    let mut seen = HashSet::new();
    let guard = |guards: &Guards| guards.in_use().next().unwrap().0.short();
    // Every member is taken down as soon as it is known, for eighteen hours.
    for minutes in (0..18 * 60).step_by(5) {
        let seconds = minutes * 60;
        let network = network_at(&specs, now(seconds).unix());
        update(&mut guards, &network, seconds, &mut rng);
        seen.extend(relays(&guards));
        let kept = relays(&guards);
        for (number, spec) in specs.iter_mut().enumerate() {
            if kept.contains(&id(number).to_string()) {
                *spec = None;
            }
        }
    }
    assert_eq!(seen.len(), SECOND.size + SECOND.substitutes);
    // Nobody else stands in, and a person is told why.
    let network = network_at(&specs, now(18 * HOUR).unix());
    let beside = |guards: &Guards, network: &Network| {
        let at = now(18 * HOUR).unix();
        guards.layers(network, &guard(guards), 3, false, at)
    };
    assert_eq!(beside(&guards, &network), [vec![]]);
    let plan = Plan {
        guard: &guard(&guards),
        layers: &[vec![]],
        length: 3,
    };
    let at = now(18 * HOUR).unix();
    let shortage = choose(&network, plan, at, |_, _| Some(0), &mut rng).unwrap_err();
    assert!(shortage.to_string().contains("are kept"), "{shortage}");
    // Those that come back are used again, the regular ones alone.
    let back = network_at(&all(60), at);
    assert_eq!(beside(&guards, &back)[0].len(), SECOND.size);
    // Where they stay away, others take their places after a day.
    let later = 18 * HOUR + SECOND.gone;
    let network = network_at(&specs, now(later).unix());
    update(&mut guards, &network, later, &mut rng);
    assert!(relays(&guards).is_disjoint(&seen));
}

#[test]
fn substitutes_help_out_where_too_few_are_left() {
    let specs = all(60);
    let mut guards = Guards::new(3);
    let mut rng = rng(3);
    let network = network_at(&specs, UnixTime(START));
    update(&mut guards, &network, 0, &mut rng);
    let regular = relays(&guards);
    let guard = guards.in_use().next().unwrap().0.short();
    for left in (0..=SECOND.size).rev() {
        let mut without = specs.clone();
        let down: Vec<&String> = regular.iter().skip(left).collect();
        for (number, spec) in without.iter_mut().enumerate() {
            if down.contains(&&id(number).to_string()) {
                *spec = None;
            }
        }
        let network = network_at(&without, UnixTime(START));
        update(&mut guards, &network, 60, &mut rng);
        let beside = guards.layers(&network, &guard, 3, false, UnixTime(START));
        assert_eq!(beside[0].len(), left.max(2));
        assert_eq!(
            relays(&guards).len(),
            SECOND.size + 2_usize.saturating_sub(left)
        );
    }
}

#[test]
fn a_stored_layer_has_its_bounds() {
    let member = |n: usize| {
        let relay: RelayId = id(n);
        format!(
            "{{\"relay\":\"{relay}\",\"until\":{},\"missing_since\":null}}",
            u64::MAX
        )
    };
    let many: Vec<String> = (0..50).map(|n| member(n / 2)).collect();
    let text = format!(
        "{{\"version\":1,\"guards\":[],\"second_layer\":[{0}],\"third_layer\":[{0}]}}",
        many.join(",")
    );
    let guards = Guards::load(3, &text).unwrap();
    let (second, third) = (
        stored(&guards, "second_layer"),
        stored(&guards, "third_layer"),
    );
    assert_eq!(second.len(), SECOND.size + SECOND.substitutes);
    assert_eq!(third.len(), THIRD.size + THIRD.substitutes);
    assert_eq!(second.iter().collect::<HashSet<_>>().len(), second.len());
    // No end is further away than one that is drawn.
    let network = network_at(&all(60), UnixTime(START));
    let mut guards = Guards::load(3, &text).unwrap();
    update(&mut guards, &network, 0, &mut rng(1));
    for (_, until) in stored(&guards, "second_layer") {
        assert!(until <= START + 12 * DAY, "{until}");
    }
    // A file from before there were layers is as good.
    assert!(Guards::load(3, "{\"version\":1,\"guards\":[]}").is_ok());
    let wrong = "{\"version\":1,\"guards\":[],\"second_layer\":[{\"relay\":\"zz\"}]}";
    assert!(Guards::load(3, wrong).is_err());
}

#[test]
fn the_places_next_to_the_guard_are_kept_for_every_length() {
    let specs = all(60);
    let network = network_at(&specs, UnixTime(START));
    let mut rng = rng(4);
    let mut guards = Guards::new(3);
    update_for(&mut guards, &network, 4, true, 0, &mut rng);
    let guard = guards.in_use().next().unwrap().0.short();
    for length in 1..=4 {
        let mut places: Vec<HashSet<ShortId>> = vec![HashSet::new(); length];
        let deep = length == 4;
        let layers = guards.layers(&network, &guard, length, deep, UnixTime(START));
        let plan = Plan {
            guard: &guard,
            layers: &layers,
            length,
        };
        let penalty = |place, relay: &ShortId| Some(guards.speaks_against(place, relay));
        for _ in 0..300 {
            let chosen = choose(&network, plan, UnixTime(START), penalty, &mut rng).unwrap();
            for (place, hop) in places.iter_mut().zip(&chosen.hops) {
                place.insert(hop.relay);
            }
        }
        let sizes: Vec<usize> = places.iter().map(HashSet::len).collect();
        assert_eq!(sizes[0], 1);
        assert!(length < 2 || sizes[1] == SECOND.size, "{sizes:?}");
        match length {
            3 => assert!(sizes[2] > 40, "{sizes:?}"),
            4 => assert!(sizes[2] == THIRD.size && sizes[3] > 35, "{sizes:?}"),
            _ => {}
        }
        // A relay has no second place with this client while there are others.
        let kept = |relay: &ShortId| guards.speaks_against(Place::Free, relay) > 0;
        if let Some(free) = places.get(if deep { 3 } else { 2 }) {
            assert!(!free.iter().any(kept));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// What can be built at all can be built with what is kept.
    #[test]
    fn layers_make_no_network_too_small(
        specs in proptest::collection::vec(spec(), 1..12),
        length in 1usize..=4,
        deep: bool,
        seed: [u8; 32],
    ) {
        let specs: Vec<Option<Spec>> = specs.into_iter().map(Some).collect();
        let network = network_at(&specs, UnixTime(START));
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut guards = Guards::new(3);
        update_for(&mut guards, &network, length, deep, 0, &mut rng);
        let in_use: Vec<ShortId> = guards.in_use().map(|(id, _)| id.short()).collect();
        for guard in &in_use {
            let layers = guards.layers(&network, guard, length, deep, UnixTime(START));
            let free = Plan { guard, layers: &[], length };
            let kept = Plan { guard, layers: &layers, length };
            let built = |plan, rng: &mut ChaCha20Rng| {
                choose(&network, plan, UnixTime(START), |_, _| Some(0), rng)
            };
            let possible = built(free, &mut rng).is_ok();
            match built(kept, &mut rng) {
                Ok(chosen) => {
                    prop_assert_eq!(chosen.hops.len(), length);
                    if let Some(second) = chosen.hops.get(1) {
                        prop_assert!(layers[0].contains(&second.relay));
                    }
                }
                Err(shortage) => prop_assert!(!possible, "{}", shortage),
            }
        }
    }
}

#[test]
fn the_status_shows_layers_and_budgets() {
    let mut world = World::connected(31);
    let status = world.status(2);
    assert_eq!(status.layers.len(), 1);
    let second = &status.layers[0];
    assert_eq!(
        (second.layer.as_str(), second.relays.len()),
        ("second", SECOND.size)
    );
    let now = world.unix().0;
    for relay in &second.relays {
        assert!(relay.listed && !relay.substitute);
        assert!((now..now + SECOND.longest).contains(&relay.until));
        assert!(world.relays.iter().any(|it| it.name == relay.name));
    }
    let budget = status.budget;
    assert!(0 < budget.left && budget.left < budget.most, "{budget:?}");
    assert_eq!(budget.peers_used_up, 0);
    let gone = world.relay_named(&second.relays[0].name);
    world.relays[gone].unlisted = true;
    world.publish_snapshot();
    let relays = &world.status(2).layers[0].relays;
    assert!(relays.iter().any(|relay| !relay.listed));
}
