//! Guards under load: cookies, effort, and somebody who forges cookies.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use mixline_endpoint_engine::testing::*;

const SECOND: Duration = Duration::from_secs(1);

/// How long a new client takes to have a link, and the efforts that it has made.
fn join(change: impl Fn(&mut SimRelay)) -> (Duration, Vec<u32>) {
    let mut world = World::settled(8, 1);
    for relay in &mut world.relays {
        relay.efforts.clear();
        change(relay);
    }
    let began = world.now.instant;
    let node = world.client(|_| {});
    let up = |world: &World| {
        world
            .status(node)
            .guards
            .iter()
            .any(|guard| guard.state == "up")
    };
    assert!(
        world.run_until(90 * SECOND, up),
        "{:#?}",
        world.status(node)
    );
    let efforts = world.relays.iter().flat_map(|relay| relay.efforts.clone());
    (world.now.instant - began, efforts.collect())
}

#[test]
fn a_quiet_guard_costs_nothing() {
    let (took, efforts) = join(|_| {});
    assert!(took < SECOND, "{took:?}");
    assert!(!efforts.is_empty() && efforts.iter().all(|effort| *effort == 0));
}

#[test]
fn a_client_makes_the_effort_that_a_busy_guard_asks_for() {
    let (took, efforts) = join(|relay| relay.busy = Some(1 << 14));
    assert!(took < 5 * SECOND, "{took:?}");
    assert!(efforts.iter().all(|effort| *effort == 1 << 14));
}

#[test]
fn a_cookie_is_used_at_the_address_that_it_is_from() {
    let (took, _) = join(|relay| {
        relay.busy = Some(0);
        let SocketAddr::V4(first) = relay.addresses[0] else {
            panic!("an IPv6 address");
        };
        let [_, network, ..] = first.ip().octets();
        let second = [0x2a00 + u16::from(network), 0, 0, 0, 0, 0, 0, 2];
        relay.addresses.push(SocketAddr::from((second, 7000)));
    });
    assert!(took < SECOND, "{took:?}");
}

#[test]
fn who_answers_first_with_cookies_of_his_own_keeps_no_client_out() {
    for forged in [1, 2] {
        let (took, _) = join(|relay| {
            relay.busy = Some(1 << 11);
            relay.forged_cookies = forged;
        });
        assert!(took < 60 * SECOND, "{took:?}");
    }
}
