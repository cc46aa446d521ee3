//! Relays: verified, fresh, reachable, unique, and gone when silent.

use super::*;

#[test]
fn relays_are_verified() {
    let registry = registry();
    let mut forged = registration(1, NOW);
    forged.record.descriptor.capacity += 1;
    refused(
        register_as(&registry, forged, NOW),
        RefusalCode::BadSignature,
        "signature",
    );
    let expired = register(&registry, relay(1, NOW.minus(7200)), NOW);
    refused(expired, RefusalCode::Expired, "60 minutes ago");
    assert_eq!(registry.live_count(), 0);
    register(&registry, relay(1, NOW), NOW).unwrap();
    assert_eq!(registry.live_relays()[0].descriptor().id, relay(1, NOW).id);
}

#[test]
fn a_wrong_clock_is_told_whose_it_is() {
    let registry = registry();
    let ahead = register_as(&registry, registration(1, NOW.plus(3600)), NOW);
    refused(
        ahead,
        RefusalCode::NotYetValid,
        "your clock is 60 minutes ahead of the directory's",
    );
    let behind = register_as(&registry, registration(1, NOW.minus(1200)), NOW);
    refused(
        behind,
        RefusalCode::Expired,
        "your clock is 20 minutes behind the directory's",
    );
    // What clocks usually are apart is nobody's concern.
    register_as(&registry, registration(1, NOW.minus(CLOCK_SKEW)), NOW).unwrap();
    let ahead = registered(record(2, NOW), NOW.plus(3 * CLOCK_SKEW));
    register_as(&registry, ahead, NOW).unwrap();
}

#[test]
fn an_older_version_is_refused() {
    let registry = registry();
    register(&registry, relay(1, NOW), NOW).unwrap();
    refused(
        register(&registry, relay(1, NOW.minus(9)), NOW),
        RefusalCode::Older,
        "newer",
    );
    // The same one again does no harm; another one of the same version is refused.
    register(&registry, relay(1, NOW), NOW.plus(1)).unwrap();
    let mut twin = relay(1, NOW);
    twin.capacity += 1;
    refused(register(&registry, twin, NOW), RefusalCode::Older, "newer");
    register(&registry, relay(1, NOW.plus(1)), NOW.plus(1)).unwrap();
}

#[test]
fn what_is_repeated_keeps_nobody_alive() {
    let registry = registry();
    let said = registration(1, NOW);
    register_as(&registry, said.clone(), NOW).unwrap();
    register_as(&registry, said.clone(), NOW.plus(50)).unwrap();
    registry.forget_silent(NOW.plus(61));
    assert_eq!(registry.live_count(), 0);
    // It does not bring one back either.
    let late = register_as(&registry, said, NOW.plus(62));
    refused(late, RefusalCode::Older, "newer");
    register(&registry, relay(1, NOW), NOW.plus(63)).unwrap();
    assert_eq!(registry.live_relays()[0].since, NOW.plus(63));
}

#[test]
fn a_heartbeat_keeps_a_relay_alive_and_a_farewell_ends_it() {
    let registry = registry();
    let from = || Some([45, 1, 0, 2].into());
    let hear = |beat: &Heartbeat, at| registry.hear(beat, from(), &session(), at);
    // One that nobody knows is to register, and so is one that says another record.
    assert_eq!(hear(&beat(1, NOW, NOW, 5), NOW), Ok(Heard::Unknown));
    register(&registry, relay(1, NOW), NOW).unwrap();
    let other = beat(1, NOW.plus(1), NOW.plus(2), 5);
    assert_eq!(hear(&other, NOW.plus(2)), Ok(Heard::Unknown));
    for seconds in [50, 100, 150] {
        let at = NOW.plus(seconds);
        assert_eq!(hear(&beat(1, NOW, at, 5), at), Ok(Heard::Yes));
        registry.forget_silent(at.plus(30));
        assert_eq!(
            (registry.live_count(), registry.live_relays()[0].load),
            (1, 5)
        );
    }
    // What was heard is not heard again, and what another one says is refused.
    let again = hear(&beat(1, NOW, NOW.plus(150), 5), NOW.plus(160));
    assert_eq!(again.unwrap_err().code, RefusalCode::Older);
    let mut forged = beat(2, NOW, NOW.plus(160), 5);
    (forged.relay, forged.record) = (relay_key(1).relay_id(), record(1, NOW).digest());
    let decision = hear(&forged, NOW.plus(160));
    assert_eq!(decision.unwrap_err().code, RefusalCode::BadSignature);
    let elsewhere = Some([45, 9, 9, 9].into());
    let decision = registry.hear(
        &beat(1, NOW, NOW.plus(160), 5),
        elsewhere,
        &session(),
        NOW.plus(160),
    );
    assert_eq!(decision.unwrap_err().code, RefusalCode::NotAllowed);

    let keys = (&link(1), &session().public());
    let at = NOW.plus(170);
    let (id, digest) = (relay_key(1).relay_id(), record(1, NOW).digest());
    let farewell = Heartbeat::new(id, at.0 * 1000, (0, true), digest, keys).unwrap();
    assert_eq!(hear(&farewell, at), Ok(Heard::Yes));
    assert_eq!(registry.live_count(), 0);
}

#[test]
fn a_short_id_is_one_relays() {
    // Two keys with one short ID take 2^32 tries to find: the store says that another relay
    // has relay 1's already.
    let store = RedbStore::in_memory().unwrap();
    let short = relay(1, NOW).short_id();
    let held = Transaction::new().put(Table::ShortIds, short.0, [7; 32], NOW.plus(100));
    assert_eq!(store.commit(held).unwrap(), Outcome::Committed);
    let registry = open(Box::new(store), Limits::default());
    let clash = register(&registry, relay(1, NOW), NOW);
    refused(clash, RefusalCode::Taken, &short.to_string());
    // When the other one's descriptor has ended, it is free.
    register(&registry, relay(1, NOW.plus(100)), NOW.plus(100)).unwrap();
}

#[test]
fn relays_must_be_where_they_can_be_reached() {
    let registry = registry();
    let at = |text: &str| {
        let mut moved = relay(1, NOW);
        moved.addresses = vec![text.parse().unwrap()];
        moved.sign(&relay_key(1)).unwrap()
    };
    for private in [
        "172.21.0.2:7000",
        "127.0.0.1:7000",
        "[::1]:7000",
        "[3fff:1::2]:7000",
    ] {
        let decision = register(&registry, at(private), NOW);
        refused(decision, RefusalCode::NotAllowed, "allow_private_addresses");
    }
    for nowhere in [
        "10.1.2.3:7000",
        "[fd00::1]:7000",
        "[fe80::1]:7000",
        "169.254.1.1:7000",
    ] {
        let lenient = open(Box::new(RedbStore::in_memory().unwrap()), Limits::default());
        let admission = AdmissionPolicy {
            private_addresses: true,
            check_source: true,
        };
        lenient.set_rules(admission, 60);
        let decision = register(&lenient, at(nowhere), NOW);
        assert_eq!(
            decision.unwrap_err().code,
            RefusalCode::NotAllowed,
            "{nowhere}"
        );
    }
}

#[test]
fn one_link_key_is_one_relays() {
    let registry = registry();
    register(&registry, relay(1, NOW), NOW).unwrap();
    let with_link = |n, of: u8, at| {
        let mut copy = relay(n, at);
        copy.link = relay(of, at).link;
        copy.sign(&relay_key(n)).unwrap()
    };
    let decision = register(&registry, with_link(2, 1, NOW), NOW);
    refused(decision, RefusalCode::Taken, "link key");
    // Who has it goes on, and may have another one, which makes the first one free.
    let later = NOW.plus(1);
    register(&registry, relay(1, later), later).unwrap();
    let (a, b) = (NOW.plus(2), NOW.plus(3));
    register(&registry, with_link(1, 9, a), a).unwrap();
    register(&registry, with_link(2, 1, a), a).unwrap();
    let decision = register(&registry, with_link(1, 1, b), b);
    refused(decision, RefusalCode::Taken, "link key");
    // So does its silence.
    let gone = NOW.plus(100);
    registry.forget_silent(gone);
    register(&registry, with_link(3, 1, gone), gone).unwrap();
}

#[test]
fn relays_register_from_their_own_addresses() {
    let registry = registry();
    let elsewhere: IpAddr = [45, 9, 9, 9].into();
    let decision = registry.register_relay(registration(1, NOW), Some(elsewhere), &session(), NOW);
    refused(decision, RefusalCode::NotAllowed, "check_source");
    // One of its addresses, and not the first: that is said to be its own.
    let mut second = relay(1, NOW);
    second.addresses.push((elsewhere, 7000).into());
    let second = registration_of(second, NOW);
    let decision = registry.register_relay(second, Some(elsewhere), &session(), NOW);
    refused(
        decision,
        RefusalCode::NotAllowed,
        "again with 45.9.9.9 first",
    );
    let mapped: IpAddr = Ipv4Addr::new(45, 1, 0, 2).to_ipv6_mapped().into();
    registry
        .register_relay(registration(1, NOW), Some(mapped), &session(), NOW)
        .unwrap();
    let admission = AdmissionPolicy {
        private_addresses: false,
        check_source: false,
    };
    registry.set_rules(admission, 60);
    registry
        .register_relay(registration(2, NOW), Some(elsewhere), &session(), NOW)
        .unwrap();
}

#[test]
fn a_full_network_refuses_newcomers_and_keeps_the_rest() {
    let limits = Limits {
        relays: 2,
        remembered_relays: 3,
        ..Limits::default()
    };
    let registry = open(Box::new(RedbStore::in_memory().unwrap()), limits);
    for n in [1, 2] {
        register(&registry, relay(n, NOW), NOW).unwrap();
    }
    refused(
        register(&registry, relay(3, NOW), NOW),
        RefusalCode::Full,
        "2 relays",
    );
    register(&registry, relay(1, NOW.plus(1)), NOW.plus(1)).unwrap();
    // Relay 2 falls silent: room for one, and still for one that nobody knows.
    let later = NOW.plus(61);
    registry.forget_silent(later);
    register(&registry, relay(3, later), later).unwrap();
    registry.forget_silent(NOW.plus(100));
    let silent = register(&registry, relay(4, NOW.plus(100)), NOW.plus(100));
    refused(silent, RefusalCode::Full, "silent");
    register(&registry, relay(2, NOW.plus(100)), NOW.plus(100)).unwrap();
}

#[test]
fn relays_are_still_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let first = open_at(
        Box::new(RedbStore::open(&path).unwrap()),
        Limits::default(),
        NOW.minus(200),
    );
    register(&first, relay(1, NOW.minus(40)), NOW.minus(40)).unwrap();
    register(&first, relay(2, NOW.minus(100)), NOW.minus(100)).unwrap();
    register(&first, relay(1, NOW.minus(20)), NOW.minus(20)).unwrap();
    first.forget_silent(NOW.minus(1));
    first.remember_time(NOW.minus(1)).unwrap();
    drop(first);
    let again = open(Box::new(RedbStore::open(&path).unwrap()), Limits::default());
    let live = again.live_relays();
    assert_eq!(live.len(), 1, "the silent one is not live");
    assert_eq!((live[0].heard, live[0].since), (NOW, NOW.minus(40)));
    // And versions are remembered.
    refused(
        register(&again, relay(1, NOW.minus(30)), NOW),
        RefusalCode::Older,
        "newer",
    );
}

#[test]
fn only_what_builders_see_is_a_change() {
    let registry = registry();
    register(&registry, relay(1, NOW), NOW).unwrap();
    let before = registry.changes();
    register(&registry, relay(1, NOW.plus(1)), NOW.plus(1)).unwrap();
    assert_eq!(registry.changes(), before, "a newer time and load");
    let rekeyed = record(1, NOW.plus(2));
    let onion = [(500_001, X25519Public([9; 32]))].into_iter().collect();
    let rekeyed = RelayRecord::sign(rekeyed.descriptor, 1, onion, &relay_key(1)).unwrap();
    register_as(&registry, registered(rekeyed, NOW.plus(2)), NOW.plus(2)).unwrap();
    assert!(registry.changes() > before);
}

#[test]
fn of_those_who_come_at_once_with_one_link_key_one_is_listed() {
    let registry = registry();
    for round in 0..8 {
        let link = link(100 + round).public();
        let start = std::sync::Barrier::new(8);
        let admitted: Vec<bool> = std::thread::scope(|scope| {
            let register = |n: u8| {
                let number = 10 * round + n;
                let mut same = relay(number, NOW);
                same.link = link;
                let same = same.sign(&relay_key(number)).unwrap();
                let (registry, start) = (&registry, &start);
                scope.spawn(move || {
                    start.wait();
                    register(registry, same, NOW).is_ok()
                })
            };
            let threads: Vec<_> = (0..8).map(register).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(admitted.iter().filter(|ok| **ok).count(), 1, "{round}");
        let all = registry.live_relays();
        let with_key = all.iter().filter(|live| live.descriptor().link == link);
        assert_eq!(with_key.count(), 1);
    }
    // Who was refused holds no key.
    registry.forget_silent(NOW.plus(61));
    let later = NOW.plus(62);
    let mut alone = relay(99, later);
    alone.link = link(100).public();
    register(&registry, alone.sign(&relay_key(99)).unwrap(), later).unwrap();
}
