//! Initiations from strangers in bulk: who still gets in, and what it costs.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::identity::{IdentityKey, X25519Secret};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::{
    CellKind, DatagramType, Initiator, LOAD_INITIATIONS_PER_SECOND, MAX_WAITING, MIN_EFFORT,
    REJECT_AFTER, Timestamp, datagram_type,
};
use mixline_protocol::random::OsRandom;
use mixline_relay::testing::{CONFIRM_WITHIN, MAX_UNCONFIRMED, MAX_UNPROVEN, SERVED};
use mixline_relay_engine::messages::Signal;

use super::node::{Client, Node, connects, exchange, pass, two};

/// Initiations under ever other keys at a rate, for a time; `source` of each. Whoever sends them sees no answer.
fn forge(
    node: &mut Node,
    now: &mut Instant,
    rate: f64,
    time: Duration,
    source: impl Fn(u32) -> SocketAddr,
) {
    let (begin, mut rng) = (*now, OsRandom::new());
    let end = begin + time;
    for n in 0.. {
        let at = begin + Duration::from_secs_f64(f64::from(n) / rate);
        if at > end {
            pass(node, now, end - *now);
            return node.sent.clear();
        }
        pass(node, now, at - *now);
        let secret = X25519Secret::generate(&mut rng);
        let key = node.descriptor.link;
        let stamp = Timestamp::from(SystemTime::now());
        let (_, datagram) = Initiator::start(&secret, &key, 1, stamp, None, &mut rng).unwrap();
        node.take(&datagram, source(n), at);
    }
}

/// An address in each of 10,000 networks.
fn anywhere(n: u32) -> SocketAddr {
    let network = n % 10_000;
    let [.., a, b] = network.to_be_bytes();
    SocketAddr::from(([20 + a, b, a ^ b, 9], 4000))
}

#[test]
fn forged_initiations_from_everywhere_keep_nobody_out() {
    let mut now = Instant::now();
    let (mut a, mut b) = two(now);
    let clients: Vec<_> = (0..8)
        .map(|n| Client::new(&format!("198.51.{n}.1:5")))
        .collect();
    for client in &clients {
        pass(&mut a, &mut now, Duration::from_millis(10));
        assert!(client.connect(&mut a, now).is_some());
    }
    for round in 0..3 {
        forge(&mut a, &mut now, 150.0, Duration::from_secs(10), anywhere);
        // The sessions of clients, and of what is forged no more than its bound.
        assert!(a.sessions.len() <= MAX_UNPROVEN + 3 * (clients.len() + round + 1));
        assert!(a.sessions.len() >= MAX_UNPROVEN, "no flood");
        for client in &clients {
            pass(&mut a, &mut now, Duration::from_millis(50));
            let session = client.connect(&mut a, now).unwrap();
            let said = client.say(&mut a, &session, &Control::Ping(5), now);
            assert_eq!(said, [Control::Pong(5)]);
        }
        // Also one that is new, whether it comes from where forged ones come from or not.
        for ip in [format!("203.0.{round}.1:5"), format!("20.7.7.{round}:5")] {
            assert!(Client::new(&ip).connect(&mut a, now).is_some(), "{ip}");
        }
    }
    assert_eq!(a.neighbours.census().clients, clients.len() + 6);
    // Links of relays come up from both ends.
    a.neighbours.signal(Signal::Want(b.short()), now);
    a.apply();
    exchange(&mut a, &mut b, now);
    assert!(a.link_to(&b).is_some());
    let mut other = Node::new("10.0.0.3:7000", now);
    let snapshot = [b.descriptor.clone(), other.descriptor.clone()];
    a.neighbours.set_relays(&snapshot, now);
    a.apply();
    assert!(connects(&mut other, &mut a, now));
    assert_eq!(a.neighbours.census().relays, 2);
    assert_eq!(a.neighbours.census().refused, 0);
    // What nobody has confirmed is gone seconds later.
    pass(&mut a, &mut now, CONFIRM_WITHIN + Duration::from_secs(1));
    assert!(a.sessions.len() <= 3 * (clients.len() + 8));
}

#[test]
fn forged_initiations_from_a_clients_network_do_not_keep_it_out() {
    let mut now = Instant::now();
    let victim = |n: u32| format!("192.0.2.77:{}", 1000 + n);
    for (rate, time) in [(2.2, 240), (190.0, 20)] {
        let mut node = Node::new("10.0.0.1:7000", now);
        let before = Client::new(&victim(0));
        assert!(before.connect(&mut node, now).is_some());
        let time = Duration::from_secs(time);
        // From each of its network's addresses, its own among them.
        forge(&mut node, &mut now, rate, time, |n| {
            SocketAddr::from(([192, 0, 2, n.to_be_bytes()[3]], 4000))
        });
        assert!(node.neighbours.census().clients <= 1);
        // It starts again, with another link key.
        for n in 1..5 {
            let again = Client::new(&victim(n));
            let session = again.connect(&mut node, now).unwrap();
            let said = again.say(&mut node, &session, &Control::Ping(5), now);
            assert_eq!(said, [Control::Pong(5)]);
        }
        assert_eq!(node.neighbours.census().refused, 0);
    }
}

#[test]
fn one_corner_does_not_fill_a_relay() {
    let mut now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    // They return cookies, so they are where they say, and confirm nothing.
    let mut held = 0;
    for n in 0..1900 {
        pass(&mut node, &mut now, Duration::from_millis(6));
        let client = Client::new(&format!("192.0.2.{}:{}", n % 250, n + 1));
        held += usize::from(client.half(&mut node, now).is_some());
    }
    assert!(held >= 700, "{held}");
    for ip in [
        "192.0.2.254:9",
        "192.0.3.1:9",
        "198.51.100.1:1",
        "[2001:db8::1]:1",
    ] {
        assert!(Client::new(ip).connect(&mut node, now).is_some(), "{ip}");
    }
    assert_eq!(node.neighbours.census().clients, 4);
    // When they are gone for good, nothing is left of them.
    pass(&mut node, &mut now, REJECT_AFTER + Duration::from_secs(61));
    assert_eq!(node.neighbours.census().clients, 0);
    assert!(node.sessions.is_empty() && node.links.is_empty());
    assert!(Client::new("192.0.2.1:1").connect(&mut node, now).is_some());
}

#[test]
fn under_load_a_source_proves_its_address_first() {
    let now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let mut cookies = 0;
    for n in 0..300 {
        let client = Client::new(&format!("10.{}.{}.1:5", n / 250, n % 250));
        let key = node.descriptor.link;
        let at = Timestamp::from(SystemTime::now());
        let (_, datagram) =
            Initiator::start(&client.secret, &key, 1, at, None, &mut OsRandom::new()).unwrap();
        node.take(&datagram, client.address, now);
        let (answer, to) = node.sent.pop().unwrap();
        assert_eq!(to, client.address);
        cookies += usize::from(datagram_type(&answer[..]) == Ok(DatagramType::Cookie));
    }
    assert_eq!(cookies, 100);
    // Nothing was kept of sources that got a cookie.
    assert_eq!(node.sessions.len(), 200);
}

/// A relay under load, and initiations with cookies of strangers from everywhere that wait: more than there is
/// room for.
fn overrun(now: Instant) -> Node {
    let mut node = Node::new("10.0.0.1:7000", now);
    let stranger = |n: u32| {
        let [.., a, b] = n.to_be_bytes();
        Client::new(&format!("30.{a}.{b}.1:5"))
    };
    // What makes a load; of these nobody returns a cookie.
    for n in 0..=LOAD_INITIATIONS_PER_SECOND {
        let (_, datagram) = stranger(n).initiation(&node, None, 0);
        node.neighbours
            .handshake(&datagram, stranger(n).address, now);
    }
    for n in 1000..1000 + MAX_WAITING as u32 + 100 {
        let client = stranger(n);
        let cookie = client.cookie(&mut node, now);
        let (_, datagram) = client.initiation(&node, Some(&cookie), 0);
        let costly = node.neighbours.handshake(&datagram, client.address, now);
        assert!(!costly);
    }
    node.apply();
    node.sent.clear();
    node
}

/// Serves as many as it may at this moment.
fn serve(node: &mut Node, now: Instant) -> usize {
    let served = (0..10_000)
        .take_while(|_| node.neighbours.serve(now))
        .count();
    node.apply();
    served
}

#[test]
fn under_load_those_are_served_first_who_have_made_an_effort() {
    let mut now = Instant::now();
    let mut node = overrun(now);
    serve(&mut node, now);
    // The relay notices within a second, and asks for more as long as those give way who have made so much.
    let mut asked = Vec::new();
    for effort in [0, 0, MIN_EFFORT] {
        node.neighbours.tick(now);
        for n in 0..400 {
            let client = Client::new(&format!("40.{}.{}.1:5", asked.len(), n % 250));
            let cookie = client.cookie(&mut node, now);
            let (_, datagram) = client.initiation(&node, Some(&cookie), effort);
            node.neighbours.handshake(&datagram, client.address, now);
        }
        node.apply();
        node.sent.clear();
        now += Duration::from_secs(1);
        node.neighbours.tick(now);
        asked.push(
            Client::new("198.51.100.1:5")
                .cookie(&mut node, now)
                .effort(),
        );
    }
    assert_eq!(asked, [MIN_EFFORT, MIN_EFFORT, 2 * MIN_EFFORT]);

    // Relays have a queue and places of their own, and are asked for none.
    let relay = Node::new("198.51.100.9:7000", now);
    node.neighbours
        .set_relays(std::slice::from_ref(&relay.descriptor), now);
    let from_there = Client::new("198.51.100.9:7000").cookie(&mut node, now);
    assert_eq!(from_there.effort(), 0);

    // One that makes it is served at once, whatever waits; one that makes none is not.
    let (pays, does_not) = (Client::new("198.51.100.2:5"), Client::new("198.51.100.3:5"));
    for (client, effort) in [(&does_not, 0), (&pays, 4 * MIN_EFFORT)] {
        let cookie = client.cookie(&mut node, now);
        let (_, datagram) = client.initiation(&node, Some(&cookie), effort);
        node.neighbours.handshake(&datagram, client.address, now);
    }
    node.apply();
    node.sent.clear();
    let served = serve(&mut node, now);
    assert!((1..=SERVED.burst as usize).contains(&served), "{served}");
    let first = node
        .sent
        .iter()
        .find(|(answer, _)| datagram_type(&answer[..]) == Ok(DatagramType::Response));
    assert_eq!(first.unwrap().1, pays.address);
    assert!(node.sent.iter().all(|(_, to)| *to != does_not.address));

    // Shown again, the same effort is none: others are served then.
    let repeats = Client::new("198.51.100.4:5");
    let cookie = repeats.cookie(&mut node, now);
    let (_, datagram) = repeats.initiation(&node, Some(&cookie), 4 * MIN_EFFORT);
    for _ in 0..3 {
        node.neighbours.handshake(&datagram, repeats.address, now);
    }
    node.apply();
    for is_first in [true, false, false] {
        node.sent.clear();
        now += SERVED.interval;
        assert_eq!(serve(&mut node, now), 1);
        let answered: Vec<_> = node.sent.iter().map(|(_, to)| *to).collect();
        assert_eq!(answered.len(), 1);
        assert_eq!(answered[0] == repeats.address, is_first);
    }

    // When it is quiet again, nobody is asked for anything.
    for _ in 0..60 {
        now += Duration::from_secs(1);
        serve(&mut node, now);
        node.neighbours.tick(now);
    }
    assert!(!node.neighbours.has_work());
    let (_, answer) = Client::new("198.51.100.9:5")
        .ask(&mut node, None, now)
        .unwrap();
    assert_eq!(datagram_type(&answer[..]), Ok(DatagramType::Response));
}

#[test]
fn under_load_relays_of_the_snapshot_have_their_turn_without_effort() {
    let now = Instant::now();
    let mut node = overrun(now);
    let mut other = Node::new("50.0.0.3:7000", now);
    let snapshot = [node.descriptor.clone(), other.descriptor.clone()];
    for node in [&mut node, &mut other] {
        node.neighbours.set_relays(&snapshot, now);
        node.apply();
    }
    other.neighbours.signal(Signal::Want(node.short()), now);
    other.apply();
    let later = now + 2 * SERVED.interval;
    for at in [now, later] {
        let (initiation, _) = other.sent.pop().unwrap();
        node.neighbours.handshake(&initiation, other.address, at);
        // One of two that are served is the relay's.
        serve(&mut node, at);
        for (answer, to) in std::mem::take(&mut node.sent) {
            if to == other.address {
                other.take(&answer, node.address, at);
            }
        }
    }
    assert!(other.link_to(&node).is_some());
}

#[test]
fn relays_of_one_network_leave_others_their_turn() {
    let mut now = Instant::now();
    let mut node = overrun(now);
    let mut other = Node::new("50.0.0.3:7000", now);
    let crowd: Vec<_> = (0..50)
        .map(|n| Node::new(&format!("60.0.{n}.1:7000"), now))
        .collect();
    let relays = [&node, &other].into_iter().chain(&crowd);
    let snapshot: Vec<_> = relays.map(|relay| relay.descriptor.clone()).collect();
    for node in [&mut node, &mut other] {
        node.neighbours.set_relays(&snapshot, now);
        node.apply();
    }
    // Each sends as much as a source may, under ever other keys.
    let mut waits = 0;
    for n in 0..20 * crowd.len() {
        let at = crowd[n % crowd.len()].address;
        let member = Client::new(&at.to_string());
        let cookie = member.cookie(&mut node, now);
        let (_, datagram) = member.initiation(&node, Some(&cookie), 0);
        node.neighbours.handshake(&datagram, at, now);
        node.apply();
        waits += usize::from(node.sent.is_empty());
        node.sent.clear();
    }
    assert!(
        (MAX_WAITING / 3..=MAX_WAITING / 2).contains(&waits),
        "{waits}"
    );
    // The one that comes then is served in its turn.
    other.neighbours.signal(Signal::Want(node.short()), now);
    other.apply();
    let cookie = (0..2).find(|_| {
        let (initiation, _) = other.sent.pop().unwrap();
        node.neighbours.handshake(&initiation, other.address, now);
        node.apply();
        for (answer, _) in std::mem::take(&mut node.sent) {
            other.take(&answer, node.address, now);
        }
        other.sent.is_empty()
    });
    assert_eq!(cookie, Some(1), "with a cookie it waits");
    for _ in 0..2 * MAX_WAITING {
        now += SERVED.interval;
        serve(&mut node, now);
        for (answer, to) in std::mem::take(&mut node.sent) {
            if to == other.address {
                other.take(&answer, node.address, now);
            }
        }
    }
    assert!(other.link_to(&node).is_some());
}

#[test]
fn who_repeats_what_a_relay_has_forgotten_keeps_nobody_out() {
    let mut now = Instant::now();
    let (rng, second) = (&mut OsRandom::new(), Duration::from_secs(1));
    let identity = IdentityKey::generate(rng);
    let link = X25519Secret::generate(rng);
    let node = Node::of(&identity, link.clone(), "10.0.0.1:7000", now);
    let client = Client::new("192.0.2.1:5");
    let old: Vec<_> = (0..20)
        .map(|_| client.initiation(&node, None, 0).1)
        .collect();
    // A relay that has just started remembers none of them, as one that was made to forget them.
    let mut node = Node::of(&identity, link, "10.0.0.1:7000", now);
    let elsewhere: SocketAddr = "203.0.113.1:5".parse().unwrap();
    for datagram in &old[..10] {
        node.take(datagram, elsewhere, now);
        now += second;
    }
    // Whoever repeats them is answered, and has a place that passes.
    assert!(!node.sent.is_empty() && node.sent.iter().all(|(_, to)| *to == elsewhere));
    node.sent.clear();
    assert_eq!(node.neighbours.census().clients, 0);
    let session = client.connect(&mut node, now).unwrap();
    let sessions = node.sessions.len();
    for datagram in &old {
        now += second;
        node.take(datagram, elsewhere, now);
        assert!(node.sent.is_empty());
        let said = client.say(&mut node, &session, &Control::Ping(5), now);
        assert_eq!(said, [Control::Pong(5)]);
    }
    assert!(node.sessions.len() <= sessions);
    assert_eq!(node.neighbours.census().clients, 1);
    assert!(client.connect(&mut node, now).is_some());
}

#[test]
fn who_has_made_less_effort_gives_way_before_it_has_said_anything() {
    let now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    // They return cookies and confirm nothing, from one network: it has its share.
    let mut moment = now;
    let mut n = 0;
    let refused = loop {
        moment += Duration::from_millis(2);
        n += 1;
        let client = Client::new(&format!("192.0.2.{}:{}", n % 250, n));
        let (initiator, answer) = client.half(&mut node, moment).unwrap();
        if datagram_type(&answer[..]) == Ok(DatagramType::Cookie) {
            break (client, initiator.open_cookie(&answer).unwrap());
        }
    };
    assert!(n > 700, "{n}");
    let sessions = node.sessions.len();
    // The one that found no place is told what gets it one.
    let (client, cookie) = refused;
    assert_eq!(cookie.effort(), MIN_EFFORT);
    let (mut initiator, response) = client.ask(&mut node, Some(&cookie), moment).unwrap();
    let session = initiator.finish(&response).unwrap();
    assert_eq!(node.sessions.len(), sessions);
    let said = {
        client.send(&mut node, &session, &[0; 1368], CellKind::Cover, moment);
        client.say(&mut node, &session, &Control::Ping(5), moment)
    };
    assert_eq!(said, [Control::Pong(5)]);
}

#[test]
fn strangers_that_pay_and_say_nothing_leave_a_place_to_who_pays_as_much() {
    let mut now = Instant::now();
    let mut node = overrun(now);
    // As many as are served, each from a network of its own, with what is suggested or more. None goes on.
    for n in 0..4000 {
        if n % 1000 == 0 {
            node.neighbours.tick(now);
        }
        now += SERVED.interval;
        let client = Client::new(&format!("{}.{}.0.1:5", 60 + n / 250, n % 250));
        let cookie = client.cookie(&mut node, now);
        let effort = cookie.effort().max(MIN_EFFORT);
        let (_, datagram) = client.initiation(&node, Some(&cookie), effort);
        node.take(&datagram, client.address, now);
        node.sent.clear();
    }
    assert!(node.sessions.len() >= MAX_UNCONFIRMED, "no flood");
    let newcomer = Client::new("203.0.113.1:5");
    now += 10 * SERVED.interval;
    assert!(newcomer.connect(&mut node, now).is_some());
    assert_eq!(node.neighbours.census().clients, 1);
}
