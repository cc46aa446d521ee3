//! What is sent to addresses where a relay has not answered yet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mixline_protocol::rate_limit::Rate;
use mixline_protocol::records::RelayDescriptor;
use mixline_relay::testing::{OF_ONE_NETWORK, TO_ONE_ADDRESS, TO_ONE_FIRST, TO_ONE_NETWORK};
use mixline_relay_engine::messages::Signal;

use super::node::{Node, connects, exchange, two};

/// A relay that says it is there.
fn claiming(addresses: &[SocketAddr], now: Instant) -> RelayDescriptor {
    let mut descriptor = Node::new("10.0.0.9:7000", now).descriptor;
    descriptor.addresses = addresses.to_vec();
    descriptor
}

/// For so many minutes, wants a link to each of these relays; what is sent to whom in each minute. Nobody
/// answers.
fn want_all(a: &mut Node, relays: &[RelayDescriptor], minutes: u64) -> Vec<Vec<SocketAddr>> {
    let start = Instant::now();
    a.neighbours.set_relays(relays, start);
    let minute = |minute: u64| {
        for second in minute * 60..(minute + 1) * 60 {
            let now = start + Duration::from_secs(second);
            for relay in relays {
                a.neighbours.signal(Signal::Want(relay.short_id()), now);
            }
            a.neighbours.tick(now);
        }
        a.apply();
        let sent = std::mem::take(&mut a.sent).into_iter();
        sent.map(|(_, to)| to).collect()
    };
    (0..minutes).map(minute).collect()
}

#[test]
fn little_is_sent_to_an_address_that_never_answered_whoever_names_it() {
    let now = Instant::now();
    let mut a = Node::new("10.0.0.1:7000", now);
    // Sixty relays, each at an address of its own that it registers from, and at ports of one address.
    let own = |n| SocketAddr::from(([192, 0, n, 2], 7000));
    let victim = |port| SocketAddr::from(([203, 0, 113, 7], port));
    let relays: Vec<_> = (0..60)
        .map(|n| {
            let port = 1000 + u16::from(n);
            claiming(&[own(n), victim(port), victim(port + 1000)], now)
        })
        .collect();
    let per_minute = |rate: Rate| {
        (
            60_000 / rate.interval.as_millis() as usize,
            rate.burst as usize,
        )
    };
    let sent = want_all(&mut a, &relays, 4);
    let to_victim = |sent: &[SocketAddr]| {
        let to = sent.iter().filter(|to| to.ip() == victim(1).ip());
        to.count()
    };
    // All are of one network.
    let (a_minute, burst) = per_minute(OF_ONE_NETWORK);
    let first = to_victim(&sent[0]);
    assert!((burst..=burst + a_minute).contains(&first), "{first}");
    for later in &sent[1..] {
        let later = to_victim(later);
        assert!((1..=a_minute).contains(&later), "{later}");
    }

    // Nor where relays of many networks name it.
    let mut a = Node::new("10.0.0.1:7000", now);
    let relays: Vec<_> = (0..60)
        .map(|n| {
            claiming(
                &[SocketAddr::from(([20 + n, 7, 0, 2], 7000)), victim(1)],
                now,
            )
        })
        .collect();
    let sent = want_all(&mut a, &relays, 2);
    let (a_minute, burst) = per_minute(TO_ONE_ADDRESS);
    let (first, second) = (to_victim(&sent[0]), to_victim(&sent[1]));
    assert!((burst..=burst + a_minute).contains(&first), "{first}");
    assert!((1..=a_minute).contains(&second), "{second}");

    // Nor where it is the first address, as with a directory that does not check: more, but not without end.
    let mut a = Node::new("10.0.0.1:7000", now);
    let relays: Vec<_> = (0..200)
        .map(|n| claiming(&[victim(1000 + n)], now))
        .collect();
    let sent = want_all(&mut a, &relays, 2);
    let (a_minute, burst) = per_minute(TO_ONE_FIRST);
    let (first, second) = (to_victim(&sent[0]), to_victim(&sent[1]));
    assert!((burst..=burst + a_minute).contains(&first), "{first}");
    assert!((1..=a_minute).contains(&second), "{second}");

    // Nor to a network: here all of its addresses are named.
    let mut a = Node::new("10.0.0.1:7000", now);
    let relays: Vec<_> = (0..=255)
        .map(|n| claiming(&[SocketAddr::from(([198, 51, 100, n], 7000))], now))
        .collect();
    let sent = want_all(&mut a, &relays, 2);
    let (a_minute, burst) = per_minute(TO_ONE_NETWORK);
    let (first, second) = (sent[0].len(), sent[1].len());
    assert!((burst + 1..=burst + a_minute).contains(&first), "{first}");
    assert!((1..=a_minute).contains(&second), "{second}");
}

#[test]
fn who_answers_is_not_held_up_by_others_who_name_the_address() {
    let now = Instant::now();
    let (mut a, mut honest) = two(now);
    a.neighbours.signal(Signal::Want(honest.short()), now);
    a.apply();
    exchange(&mut a, &mut honest, now);
    assert!(a.link_to(&honest).is_some());
    // Others name its address; their initiations are nothing that it answers.
    let names: Vec<_> = (0..20)
        .map(|_| claiming(&[honest.address], now))
        .chain([honest.descriptor.clone()])
        .collect();
    a.neighbours.set_relays(&names, now);
    // It restarts again and again, and each time gets its link at the first initiation.
    let mut later = now;
    for _ in 0..30 {
        later += Duration::from_secs(1);
        honest.neighbours.close_all(later);
        honest.apply();
        exchange(&mut a, &mut honest, later);
        assert!(a.link_to(&honest).is_none());
        later += Duration::from_secs(7);
        for relay in &names {
            a.neighbours.signal(Signal::Want(relay.short_id()), later);
        }
        a.apply();
        exchange(&mut a, &mut honest, later);
        assert!(a.link_to(&honest).is_some());
    }
    // Also at the very first time, when they have used up what may be sent to its address.
    let (mut a, mut honest) = (
        Node::new("10.0.0.1:7000", now),
        Node::new("10.0.0.2:7000", now),
    );
    let mut names: Vec<_> = (0..=200)
        .map(|n| {
            let own = SocketAddr::from(([192, 0, n, 2], 7000));
            claiming(&[own, honest.address, own], now)
        })
        .collect();
    want_all(&mut a, &names, 1);
    names.push(honest.descriptor.clone());
    a.neighbours.set_relays(&names, now);
    let at = Instant::now() + Duration::from_secs(61);
    a.neighbours.signal(Signal::Want(honest.short()), at);
    a.apply();
    a.sent.retain(|(_, to)| *to == honest.address);
    exchange(&mut a, &mut honest, at);
    assert!(a.link_to(&honest).is_some());
    // One with an address of somebody else is reached at its own.
    let (mut a, mut other) = (
        Node::new("10.0.0.1:7000", now),
        Node::new("10.0.0.3:7000", now),
    );
    let silent: SocketAddr = "203.0.113.7:1".parse().unwrap();
    let relays: Vec<_> = (0..20).map(|_| claiming(&[silent], now)).collect();
    want_all(&mut a, &relays, 1);
    let mut both = other.descriptor.clone();
    both.addresses.push(silent);
    a.neighbours.set_relays(&[both], now);
    let at = now + Duration::from_secs(61);
    a.neighbours.signal(Signal::Want(other.short()), at);
    a.apply();
    a.sent.retain(|(_, to)| *to != silent);
    exchange(&mut a, &mut other, at + Duration::from_secs(6));
    for _ in 0..2 {
        a.neighbours.tick(at + Duration::from_secs(6));
        a.apply();
        a.sent.retain(|(_, to)| *to != silent);
        exchange(&mut a, &mut other, at + Duration::from_secs(6));
    }
    assert_eq!(a.link_to(&other).unwrap().to, other.address);
}

#[test]
fn an_answer_vouches_for_nobody_else_and_for_no_other_address() {
    let now = Instant::now();
    let (mut a, mut honest) = two(now);
    assert!(connects(&mut a, &mut honest, now));
    // Others of one network name its address too: that it has answered there is nothing that they have done.
    let bad: Vec<_> = (0..20)
        .map(|n| {
            let own = SocketAddr::from(([192, 0, n, 2], 7000));
            claiming(&[own, honest.address], now)
        })
        .collect();
    let sent = want_all(&mut a, &bad, 2);
    let to_honest = sent[1].iter().filter(|to| **to == honest.address).count();
    assert!(to_honest <= 2, "{to_honest}");

    // One that answers, and says that it does so from a victim's address, has not shown that it is there.
    let (mut a, mut liar) = two(now);
    let victim: SocketAddr = "203.0.113.7:1".parse().unwrap();
    liar.descriptor.addresses.push(victim);
    a.neighbours.set_relays(&[liar.descriptor.clone()], now);
    a.neighbours.signal(Signal::Want(liar.short()), now);
    a.apply();
    let (initiation, _) = a.sent.pop().unwrap();
    liar.take(&initiation, a.address, now);
    let (response, _) = liar.sent.pop().unwrap();
    a.take(&response, victim, now);
    assert!(a.link_to(&liar).is_some());
    for (datagram, _) in std::mem::take(&mut a.sent) {
        liar.take(&datagram, a.address, now);
    }
    // It goes away, and is wanted for minutes.
    liar.neighbours.close_all(now);
    liar.apply();
    for (datagram, _) in std::mem::take(&mut liar.sent) {
        a.take(&datagram, victim, now);
    }
    assert!(a.link_to(&liar).is_none());
    a.sent.clear();
    for second in 1..240 {
        let later = now + Duration::from_secs(second);
        a.neighbours.signal(Signal::Want(liar.short()), later);
        a.neighbours.tick(later);
    }
    a.apply();
    let to_victim = a.sent.iter().filter(|(_, to)| *to == victim).count();
    assert!((1..=11).contains(&to_victim), "{to_victim}");
}

#[test]
fn a_second_address_comes_up_however_many_relays_of_a_network_name_it() {
    // A host with IPv6 only: the relays' first addresses are of no use to it.
    let now = Instant::now();
    let mut a = Node::with_families("[2001:db8::1]:7000", (false, true), now);
    let mut honest = Node::new("10.0.0.2:7000", now);
    let second: SocketAddr = "[2001:db8:1::2]:7000".parse().unwrap();
    honest.descriptor.addresses.push(second);
    // A hundred relays of three networks.
    let bad = (0..100).map(|n| {
        let own = SocketAddr::from(([192, n % 3, n, 2], 7000));
        claiming(&[own, second], now)
    });
    let all: Vec<_> = bad.chain([honest.descriptor.clone()]).collect();
    a.neighbours.set_relays(&all, now);
    honest.neighbours.set_relays(&[a.descriptor.clone()], now);
    for second_of_time in 0..180 {
        let later = now + Duration::from_secs(second_of_time);
        // Those of the others come first.
        for relay in &all {
            a.neighbours.signal(Signal::Want(relay.short_id()), later);
        }
        a.neighbours.tick(later);
        a.apply();
        for (datagram, to) in std::mem::take(&mut a.sent) {
            assert_eq!(to, second);
            honest.take(&datagram, a.address, later);
        }
        for (datagram, _) in std::mem::take(&mut honest.sent) {
            a.take(&datagram, second, later);
        }
        if a.link_to(&honest).is_some() {
            return;
        }
    }
    panic!("no link in three minutes");
}
