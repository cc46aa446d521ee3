//! Places: what a neighbourhood gets, who keeps one, and what is remembered.

use super::live::Place;
use super::*;

/// Relay `n` at an address.
fn relay_at(n: u8, ip: [u8; 4], issued: UnixTime) -> RelayDescriptor {
    let mut moved = relay(n, issued);
    moved.addresses = vec![SocketAddr::from((ip, 7000))];
    moved.sign(&relay_key(n)).unwrap()
}

#[test]
fn an_address_has_a_few_relays_and_leaves_room_for_others() {
    let registry = registry();
    for n in 0..8 {
        register(&registry, relay_at(n, [45, 1, 1, 1], NOW), NOW).unwrap();
    }
    let more = relay_at(8, [45, 1, 1, 1], NOW);
    refused(
        register(&registry, more, NOW),
        RefusalCode::Full,
        "8 relays",
    );
    // Its neighbour is another, and those that are there are renewed.
    register(&registry, relay_at(8, [45, 1, 1, 2], NOW), NOW).unwrap();
    let later = NOW.plus(1);
    register(&registry, relay_at(1, [45, 1, 1, 1], later), later).unwrap();
    // One that moves away leaves its place, and there is none for it to come back to.
    register(&registry, relay_at(2, [45, 1, 1, 2], later), later).unwrap();
    register(&registry, relay_at(9, [45, 1, 1, 1], later), later).unwrap();
    let back = relay_at(2, [45, 1, 1, 1], later.plus(1));
    refused(
        register(&registry, back, later.plus(1)),
        RefusalCode::Full,
        "8 relays",
    );
    // Nobody takes the places of an address that is not its own.
    for n in 20..28 {
        let mut claims = relay(n, NOW);
        claims.addresses.push("46.1.1.1:7000".parse().unwrap());
        let claims = claims.sign(&relay_key(n)).unwrap();
        registry
            .register_relay(
                registration_of(claims, NOW),
                Some([45, n, 0, 2].into()),
                &session(),
                NOW,
            )
            .unwrap();
    }
    register(&registry, relay_at(30, [46, 1, 1, 1], NOW), NOW).unwrap();
    assert!(registry.has_relay_at([46, 1, 1, 1].into()));
    assert!(!registry.has_relay_at([46, 1, 1, 2].into()));
}

#[test]
fn those_who_come_at_once_are_no_more_than_there_is_room_for() {
    let limits = Limits {
        relays: 4,
        ..Limits::default()
    };
    let registry = open(Box::new(RedbStore::in_memory().unwrap()), limits);
    let start = std::sync::Barrier::new(16);
    let admitted = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let (registry, start) = (&registry, &start);
                scope.spawn(move || {
                    start.wait();
                    register(registry, relay(n, NOW), NOW).is_ok()
                })
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|t| t.join().ok())
            .filter(|ok| *ok)
            .count()
    });
    assert_eq!((admitted, registry.live_count()), (4, 4));
    // What was refused holds no place.
    registry.forget_silent(NOW.plus(61));
    let later = NOW.plus(62);
    for n in 0..4 {
        register(&registry, relay(n, later), later).unwrap();
    }
}

#[test]
fn a_relay_counts_after_a_restart_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let limits = Limits::default();
    let first = open(Box::new(RedbStore::open(&path).unwrap()), limits);
    // Its other address may be somebody else's.
    from(&first, 1, second_of(1), NOW).unwrap();
    let again = restarted(first, &path, limits);
    assert!(again.has_relay_at(second_of(1)));
    assert!(!again.has_relay_at([45, 1, 0, 2].into()));
}

#[test]
fn relays_are_not_silent_while_the_directory_is_away() {
    for (away, there) in [(300, 1), (601, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let first = open_at(
            Box::new(RedbStore::open(&path).unwrap()),
            Limits::default(),
            NOW.minus(5000),
        );
        let stopped = NOW.minus(away);
        for (n, at) in [
            (1, stopped),
            (2, stopped.minus(61)),
            (3, stopped.minus(3000)),
        ] {
            register(&first, relay(n, at), at).unwrap();
        }
        first.forget_silent(stopped);
        first.remember_time(stopped).unwrap();
        drop(first);
        let again = open(Box::new(RedbStore::open(&path).unwrap()), Limits::default());
        assert_eq!(again.live_count(), there);
        again.forget_silent(NOW.plus(60));
        assert_eq!(again.live_count(), there);
        // It is there without a gap, and those who had been silent before are not.
        let at = NOW.plus(60);
        for n in 1..=2 {
            register(&again, relay(n, at), at).unwrap();
        }
        let mut since: Vec<_> = again
            .live_relays()
            .iter()
            .map(|relay| relay.since)
            .collect();
        since.sort_unstable();
        assert_eq!(since, [if there > 0 { stopped } else { at }, at]);
        again.forget_silent(at.plus(61));
        assert_eq!(again.live_count(), 0);
    }
}

#[test]
fn whoever_had_a_place_has_it_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let limits = Limits {
        relays: 12,
        ..Limits::default()
    };
    let first = open(Box::new(RedbStore::open(&path).unwrap()), limits);
    // A neighbourhood takes what it gets, and then others come from elsewhere until nothing is free: in most
    // other orders the neighbourhood would not have got as many.
    let crowd =
        (0..20).filter(|n| register(&first, relay_at(*n, [46, 1, *n, 1], NOW), NOW).is_ok());
    assert_eq!(crowd.count(), 6);
    let others = (20..40).filter(|n| register(&first, relay(*n, NOW), NOW).is_ok());
    assert_eq!(others.count(), 6);
    let here = |registry: &Registry| {
        let live = registry.live_relays();
        let mut ids: Vec<_> = live.iter().map(|relay| relay.descriptor().id.0).collect();
        ids.sort_unstable();
        ids
    };
    let before = here(&first);
    let again = restarted(first, &path, limits);
    assert_eq!(here(&again), before);
    let more = relay(50, NOW);
    refused(register(&again, more, NOW), RefusalCode::Full, "12 relays");
    // They are heard from as before, and what the snapshot has no room for stays out.
    let later = NOW.plus(1);
    for n in 20..26 {
        register(&again, relay(n, later), later).unwrap();
    }
    let fewer = Limits {
        relays: 6,
        ..Limits::default()
    };
    let again = restarted(again, &path, fewer);
    let live = again.live_relays();
    assert_eq!(live.len(), 6);
}

#[test]
fn a_relay_of_two_networks_keeps_its_place_when_one_of_them_is_full() {
    let registry = registry();
    let from_first = |n, at| from(&registry, n, [45, n, 0, 2].into(), at);
    let from_second = |n, at| from(&registry, n, second_of(n), at);
    from_second(1, NOW).unwrap();
    for n in 100..108 {
        register(&registry, relay_at(n, [45, 1, 0, 2], NOW), NOW).unwrap();
    }
    // It is heard, and counts where it did.
    let later = NOW.plus(30);
    from_first(1, later).unwrap();
    assert!(registry.has_relay_at(second_of(1)));
    assert_eq!(registry.live_count(), 9);
    registry.forget_silent(NOW.plus(61));
    assert_eq!(registry.live_relays()[0].heard, later);
    assert_eq!(registry.live_count(), 1, "the others were silent");
    // Where there is room it moves to.
    let later = NOW.plus(62);
    from_first(1, later).unwrap();
    assert!(registry.has_relay_at([45, 1, 0, 2].into()));
    assert!(!registry.has_relay_at(second_of(1)));
}

#[test]
fn a_place_that_was_not_proven_for_a_day_is_not_kept() {
    let registry = registry();
    let admission = AdmissionPolicy {
        private_addresses: false,
        check_source: true,
    };
    registry.set_rules(admission, 3600);
    let from = |ip, at| from(&registry, 1, ip, at);
    from(second_of(1), NOW).unwrap();
    let others_first = |at: UnixTime| {
        for n in 100..108 {
            register(&registry, relay_at(n, [45, 1, 0, 2], at), at).unwrap();
        }
        from([45, 1, 0, 2].into(), at)
    };
    for n in 0..28 {
        others_first(NOW.plus(1 + 3000 * n)).unwrap();
    }
    let refusal = others_first(NOW.plus(24 * 3600 + 1));
    refused(refusal, RefusalCode::Full, "8 relays");
    from(second_of(1), NOW.plus(24 * 3600 + 2)).unwrap();
    others_first(NOW.plus(24 * 3600 + 3)).unwrap();
}

#[test]
fn new_identities_all_day_leave_room_to_others() {
    let limits = Limits {
        remembered_relays: 64,
        ..Limits::default()
    };
    let registry = open(Box::new(RedbStore::in_memory().unwrap()), limits);
    let cycle = |registry: &Registry, from: u8, to: u8| {
        (from..to)
            .filter(|n| {
                let at = NOW.plus(u64::from(*n) * 61);
                registry.forget_silent(at);
                register(registry, relay_at(*n, [46, 1, 1, 1], at), at).is_ok()
            })
            .count()
    };
    assert_eq!(cycle(&registry, 0, 50), 16);
    let at = NOW.plus(60 * 61);
    refused(
        register(&registry, relay_at(60, [46, 1, 1, 1], at), at),
        RefusalCode::Full,
        "silent",
    );
    register(&registry, relay(60, at), at).unwrap();
    // Those that it had are heard from again, and descriptors that have ended leave room.
    register(&registry, relay_at(1, [46, 1, 1, 1], at), at).unwrap();
    let ended = NOW.plus(61 * 61 + 3600);
    registry.sweep(ended).unwrap();
    let again = relay_at(61, [46, 1, 1, 1], ended);
    register(&registry, again, ended).unwrap();
}

#[test]
fn what_was_remembered_counts_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let limits = Limits {
        remembered_relays: 16,
        ..Limits::default()
    };
    let first = open(Box::new(RedbStore::open(&path).unwrap()), limits);
    for n in 0..4 {
        register(&first, relay_at(n, [46, 1, 1, 1], NOW), NOW).unwrap();
    }
    let again = restarted(first, &path, limits);
    refused(
        register(&again, relay_at(9, [46, 1, 1, 1], NOW), NOW),
        RefusalCode::Full,
        "46.1.1.1",
    );
    register(&again, relay(9, NOW), NOW).unwrap();
}

#[test]
fn a_relay_that_is_being_admitted_is_not_known_yet() {
    let mut live = Live::new(10);
    let ip: IpAddr = [45, 1, 0, 2].into();
    live.take(Place::Public(ip)).unwrap();
    assert!(!live.is_at(ip));
    live.give_back(Place::Public(ip));
    let registry = registry();
    register(&registry, relay(1, NOW), NOW).unwrap();
    assert!(registry.has_relay_at(ip));
    // One that moves is where it is, and one that is silent nowhere.
    register(
        &registry,
        relay_at(1, [45, 2, 0, 2], NOW.plus(1)),
        NOW.plus(1),
    )
    .unwrap();
    assert!(!registry.has_relay_at(ip));
    assert!(registry.has_relay_at([45, 2, 0, 2].into()));
    registry.forget_silent(NOW.plus(62));
    assert!(!registry.has_relay_at([45, 2, 0, 2].into()));
}

/// Relay `n` at 45.n.0.2 and at an IPv6 address of its own /32.
fn relay_of_two(n: u8, issued: UnixTime) -> RelayDescriptor {
    let mut two = relay(n, issued);
    two.addresses.push(SocketAddr::from((second_of(n), 7000)));
    two.sign(&relay_key(n)).unwrap()
}

fn second_of(n: u8) -> IpAddr {
    std::net::Ipv6Addr::new(0x2a00, n.into(), 0, 0, 0, 0, 0, 2).into()
}

/// Relay `n` of two networks registers from one of its addresses, which it says first.
fn from(registry: &Registry, n: u8, source: IpAddr, at: UnixTime) -> Decision<()> {
    let mut relay = relay_of_two(n, at);
    relay
        .addresses
        .sort_by_key(|address| address.ip() != source);
    registry.register_relay(registration_of(relay, at), Some(source), &session(), at)
}

fn restarted(registry: Registry, path: &std::path::Path, limits: Limits) -> Registry {
    registry.remember_time(NOW).unwrap();
    drop(registry);
    open(Box::new(RedbStore::open(path).unwrap()), limits)
}
