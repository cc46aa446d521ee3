//! Guards that take no mailboxes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::testing::relay::Malice;
use mixline_endpoint_engine::testing::*;

const SECOND: Duration = Duration::from_secs(1);

/// One guard of a service takes no mailboxes any more, for an hour in which clients come and go. They are
/// all served, and the guard is asked now and then.
fn an_hour_with(malice: Malice, seed: u64) -> World {
    let mut world = World::settled(8, seed);
    let service = world.service();
    world.run(5 * SECOND);
    let guard = world.status(service).guards[0].name.clone();
    let guard = world.relay_named(&guard);
    world.restart(guard);
    world.relays[guard].malice = malice;
    world.publish_snapshot();
    world.relays[guard].registrations.clear();
    for minute in 0..60 {
        if minute % 5 == 0 {
            world.publish_snapshot();
        }
        // Nobody's own guard refuses as well: that is another matter.
        let client = loop {
            let client = world.client(|_| {});
            world.run(3 * SECOND);
            let name = world.relays[guard].name.clone();
            if world.status(client).guards.iter().all(|it| it.name != name) {
                break client;
            }
            world.nodes[client].dead = true;
        };
        let (from, to) = (world.ipv4(client), world.ipv4(service));
        let packet = udp(from, to, (1, 1), b"hello");
        world.send(client, std::slice::from_ref(&packet));
        let came = world.run_until(5 * SECOND, |world| {
            !world.nodes[service].received.is_empty()
        });
        assert!(came, "minute {minute}: {:#?}", world.status(service));
        world.take(service);
        world.send(service, &[udp(to, from, (1, 1), b"welcome")]);
        let came = world.run_until(5 * SECOND, |world| !world.nodes[client].received.is_empty());
        assert!(came, "minute {minute}: {:#?}", world.status(service));
        world.nodes[client].dead = true;
        world.run(50 * SECOND);
    }
    world
}

#[test]
fn a_guard_that_refuses_all_mailboxes_is_left_alone() {
    let world = an_hour_with(Malice::RefuseMailboxes, 1);
    let service = 1;
    let guard = world.status(service).guards[0].clone();
    let at = world.relay_named(&guard.name);
    // A few at first, then one each ten minutes, and each is withdrawn.
    let asked = world.relays[at].registrations[&world.nodes[service].address];
    assert!(asked <= 120, "{asked} messages");
    assert_eq!(guard.mailboxes, 0);
    let status = world.status(service);
    assert!(
        status.problems.iter().any(|it| it.contains(&guard.name)),
        "{:?}",
        status.problems
    );
    assert_eq!(status.tails.public, 4);
}

#[test]
fn a_guard_that_says_nothing_about_mailboxes_starves_nobody() {
    let world = an_hour_with(Malice::IgnoreMailboxes, 2);
    let status = world.status(1);
    let at = world.relay_named(&status.guards[0].name);
    let asked = world.relays[at].registrations[&world.nodes[1].address];
    assert!(asked <= 600, "{asked} messages");
    assert_eq!(status.tails.public, 4);
    assert!(status.tails.spare >= 8, "{:?}", status.tails);
}

#[test]
fn a_guard_that_has_room_again_is_used_again() {
    let mut world = World::settled(8, 3);
    let service = world.service();
    world.run(5 * SECOND);
    let name = world.status(service).guards[0].name.clone();
    let guard = world.relay_named(&name);
    world.restart(guard);
    world.relays[guard].malice = Malice::RefuseMailboxes;
    world.publish_snapshot();
    world.run(60 * SECOND);
    assert_eq!(world.status(service).guards[0].mailboxes, 0);
    world.relays[guard].malice = Malice::None;
    // It is asked when its pause is over and a tail is needed.
    world.run(120 * SECOND);
    world.nodes[service].engine.replace_spares();
    world.run(5 * SECOND);
    let status = world.status(service);
    assert!(status.guards[0].mailboxes > 0, "{:?}", status.guards);
    assert!(!status.problems.iter().any(|it| it.contains(&name)));
}
