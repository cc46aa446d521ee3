//! Relays that find each other by their IDs.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::identity::{IdentityKey, ShortId, X25519Secret};
use mixline_protocol::link::{InitiationTimes, REJECT_AFTER, Responder};
use mixline_protocol::random::OsRandom;
use mixline_protocol::time::UnixTime;
use mixline_relay_engine::messages::Signal;

use super::node::{Node, connects, exchange, pass, two};

#[test]
fn relays_connect_when_one_wants() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    assert!(a.link_to(&b).is_none());
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    assert_eq!(a.link_to(&b).unwrap().to, b.address);
    assert_eq!(b.link_to(&a).unwrap().to, a.address);
    let census = a.neighbours.census();
    assert_eq!((census.relays, census.clients), (1, 0));
    // Nobody makes a link to a relay that there is not.
    a.neighbours.signal(Signal::Want(ShortId([9; 8])), now);
    a.apply();
    assert!(a.sent.is_empty());
}

#[test]
fn a_relay_whose_clock_was_ahead_gets_its_links_after_a_restart() {
    let mut now = Instant::now();
    let mut rng = OsRandom::new();
    let (identity, link) = (
        IdentityKey::generate(&mut rng),
        X25519Secret::generate(&mut rng),
    );
    let mut start = |stored: Option<u64>| {
        now += Duration::from_secs(1);
        let mut a = Node::of(&identity, link.clone(), "10.0.0.1:7000", now);
        a.neighbours.set_times(InitiationTimes::new(stored));
        (a, now)
    };
    // Its clock is a year ahead at first: as if times up to then had been used.
    let year = UnixTime::from(SystemTime::now()).plus(365 * 24 * 3600).0;
    let (mut a, at) = start(Some(year));
    let mut b = Node::new("10.0.0.2:7000", at);
    assert!(connects(&mut a, &mut b, at));
    let stored = a.neighbours.time_to_store().unwrap();
    assert!(stored > year);
    // The clock is right again, and what was written down is lost: b refuses what is not newer.
    let (mut a, at) = start(None);
    assert!(!connects(&mut a, &mut b, at));
    // With it, the next time goes on from there, and so does the one after.
    let (mut a, at) = start(Some(stored));
    assert!(connects(&mut a, &mut b, at));
    let stored = a.neighbours.time_to_store().unwrap();
    let (mut a, at) = start(Some(stored));
    assert!(connects(&mut a, &mut b, at));
}

#[test]
fn relays_that_want_at_once_connect_too() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    let (a_short, b_short) = (a.short(), b.short());
    for (node, other) in [(&mut a, b_short), (&mut b, a_short)] {
        node.neighbours.signal(Signal::Want(other), now);
        node.apply();
    }
    exchange(&mut a, &mut b, now);
    let (to_b, to_a) = (a.link_to(&b).unwrap(), b.link_to(&a).unwrap());
    // Each receives under what the other sends under.
    assert!(b.sessions.contains_key(&to_b.seal.remote_index()));
    assert!(a.sessions.contains_key(&to_a.seal.remote_index()));
}

#[test]
fn an_unanswered_relay_is_tried_at_its_other_addresses() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    let other: SocketAddr = "[fd00::2]:7000".parse().unwrap();
    b.descriptor.addresses.push(other);
    a.neighbours.set_relays(&[b.descriptor.clone()], now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.neighbours.tick(now + Duration::from_secs(6));
    a.neighbours.tick(now + Duration::from_secs(12));
    a.apply();
    let tried: Vec<_> = a.sent.iter().map(|(_, to)| *to).collect();
    assert_eq!(tried, [b.address, other, b.address]);
}

#[test]
fn of_relays_with_one_link_key_none_is_linked_anew() {
    let now = Instant::now();
    let (mut a, mut honest) = (
        Node::new("10.0.0.1:7000", now),
        Node::new("10.0.0.2:7000", now),
    );
    let mut bad = Node::new("10.0.0.66:7000", now);
    bad.descriptor.link = honest.descriptor.link;
    let both = [honest.descriptor.clone(), bad.descriptor.clone()];
    a.neighbours.set_relays(&both, now);
    for relay in &both {
        a.neighbours.signal(Signal::Want(relay.short_id()), now);
    }
    a.neighbours.tick(now + Duration::from_secs(6));
    a.apply();
    assert!(a.sent.is_empty() && a.relays.is_empty());
    // A link that was there before stays, and nothing is sent where the other one says to be.
    a.neighbours.set_relays(&both[..1], now);
    a.neighbours.signal(Signal::Want(honest.short()), now);
    a.apply();
    exchange(&mut a, &mut honest, now);
    a.neighbours.set_relays(&both, now);
    a.apply();
    assert_eq!(a.link_to(&honest).unwrap().to, honest.address);
    assert!(!a.relays.contains_key(&bad.short()));
    for seconds in 7..200 {
        let later = now + Duration::from_secs(seconds);
        a.neighbours.signal(Signal::Want(bad.short()), later);
        a.neighbours.signal(Signal::Want(honest.short()), later);
        a.neighbours.tick(later);
        a.apply();
        assert!(a.sent.drain(..).all(|(_, to)| to == honest.address));
    }
}

#[test]
fn a_cookie_goes_back_where_it_is_from_and_keeps_nobody_from_the_other_address() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    let (secret, mut rng) = (
        X25519Secret::generate(&mut OsRandom::new()),
        OsRandom::new(),
    );
    b.descriptor.link = secret.public();
    let other: SocketAddr = "[fd00::2]:7000".parse().unwrap();
    b.descriptor.addresses.push(other);
    a.neighbours.set_relays(&[b.descriptor.clone()], now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    // Whoever sees the line to one of them forges a cookie each time.
    let mut tried = Vec::new();
    let mut later = now;
    while tried.len() < 5 {
        for (initiation, to) in std::mem::take(&mut a.sent) {
            tried.push(to);
            if to == b.address {
                let forger = Responder::new(&secret, later, &mut rng);
                let cookie = forger.cookie(&initiation, a.address).unwrap();
                a.take(&cookie, to, later);
            }
        }
        later += Duration::from_secs(1);
        a.neighbours.tick(later);
        a.apply();
    }
    assert_eq!(tried, [b.address, b.address, other, b.address, other]);
}

#[test]
fn a_relay_makes_the_effort_that_another_one_asks_for() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    let mut rng = OsRandom::new();
    let secret = X25519Secret::generate(&mut rng);
    b.descriptor.link = secret.public();
    a.neighbours.set_relays(&[b.descriptor.clone()], now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    let mut responder = Responder::new(&secret, now, &mut rng);
    responder.suggest(1 << 14);
    let (first, _) = a.sent.pop().unwrap();
    let cookie = responder.cookie(&first, a.address).unwrap();
    a.take(&cookie, b.address, now);
    // Without it first, since relays are served without.
    let (free, _) = a.sent.pop().unwrap();
    assert_eq!(responder.effort(&free, a.address), Some(0));
    let cookie = responder.cookie(&free, a.address).unwrap();
    a.take(&cookie, b.address, now);
    let mut later = now;
    while !a.neighbours.has_work() {
        later += Duration::from_secs(1);
        a.neighbours.tick(later);
        a.apply();
        assert!(later < now + Duration::from_secs(20));
    }
    // Not at once: a little of it at a time.
    assert!(a.sent.is_empty());
    while a.sent.is_empty() {
        later += Duration::from_millis(10);
        a.neighbours.solve(later);
        a.neighbours.solve(later);
        a.apply();
        assert!(later < now + Duration::from_secs(20));
    }
    assert!(!a.neighbours.has_work());
    let (second, to) = a.sent.pop().unwrap();
    assert_eq!(
        (responder.effort(&second, a.address), to),
        (Some(1 << 14), b.address)
    );
    let (_, response) = responder.respond(&second, 5, &mut rng).unwrap();
    a.take(&response, b.address, later);
    assert!(a.link_to(&b).is_some());
    // The one that it is solved for in vain is forgotten with its neighbour.
    a.neighbours.set_relays(&[], later);
    pass(&mut a, &mut later, REJECT_AFTER + Duration::from_secs(70));
    assert!(a.sessions.is_empty() && !a.neighbours.has_work());
}

#[test]
fn a_relay_that_leaves_the_snapshot_stays_while_it_is_linked() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    let stranger = Node::new("10.0.0.3:7000", now);
    a.neighbours
        .set_relays(&[b.descriptor.clone(), stranger.descriptor.clone()], now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    a.neighbours.set_relays(&[], now);
    a.apply();
    assert!(a.link_to(&b).is_some());
    assert!(!a.relays.contains_key(&stranger.short()));
    b.neighbours.close_all(now);
    b.apply();
    exchange(&mut a, &mut b, now);
    a.neighbours.set_relays(&[], now);
    a.apply();
    assert!(a.relays.is_empty());
}

#[test]
fn ever_new_relays_with_one_link_leave_one_behind() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    assert!(connects(&mut b, &mut a, now));
    for _ in 0..20 {
        let mut another = Node::new("10.0.0.2:7000", now).descriptor;
        another.link = b.descriptor.link;
        a.neighbours.set_relays(&[another], now);
        a.apply();
        assert!(a.relays.len() <= 2, "{}", a.relays.len());
    }
    assert!(a.link_to(&b).is_some());
}

#[test]
fn a_relay_with_a_new_link_key_is_another_neighbour() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    let mut changed = b.descriptor.clone();
    changed.link = X25519Secret::generate(&mut OsRandom::new()).public();
    a.neighbours.set_relays(&[changed], now);
    a.apply();
    // Nothing goes to the old key any more in the relay's name.
    assert_eq!(a.relays[&b.short()], None);
    a.neighbours.set_relays(&[], now);
    a.apply();
    assert!(a.relays.is_empty());
}

#[test]
fn links_end_with_their_time_and_with_close() {
    let now = Instant::now();
    let (mut a, mut b) = two(now);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    // Nothing goes over it: it is not renewed, and ends.
    let mut later = now;
    while later < now + REJECT_AFTER + Duration::from_secs(70) {
        later += Duration::from_secs(1);
        for node in [&mut a, &mut b] {
            node.neighbours.tick(later);
            node.apply();
        }
        exchange(&mut a, &mut b, later);
    }
    assert!(a.links.is_empty() && a.sessions.is_empty() && b.sessions.is_empty());
    assert_eq!(a.relays[&b.short()], None);
    // And comes again when wanted; and ends at once when the other one goes.
    a.neighbours.signal(Signal::Want(b.short()), later);
    a.apply();
    exchange(&mut a, &mut b, later);
    assert!(a.link_to(&b).is_some());
    b.neighbours.close_all(later);
    b.apply();
    exchange(&mut a, &mut b, later);
    assert!(a.link_to(&b).is_none() && a.sessions.is_empty());
}

#[test]
fn a_relay_that_leaves_the_snapshot_is_a_client_from_then_on() {
    let mut now = Instant::now();
    let (mut a, mut b) = two(now);
    assert!(connects(&mut b, &mut a, now));
    assert_eq!(a.neighbours.census().relays, 1);
    // It registers another link key: who has the former one is anybody.
    let mut changed = b.descriptor.clone();
    changed.link = X25519Secret::generate(&mut OsRandom::new()).public();
    a.neighbours.set_relays(&[changed.clone()], now);
    a.apply();
    let census = a.neighbours.census();
    assert_eq!((census.relays, census.clients), (0, 1));
    // A link that is not up is no link of anybody's.
    pass(&mut a, &mut now, REJECT_AFTER);
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.neighbours.set_relays(&[], now);
    a.apply();
    assert!(a.relays.is_empty() && a.links.is_empty());
}
