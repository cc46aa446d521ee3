//! Floods: what they may take is bounded, and others keep their part.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{Neighbour, TestRelay, path};
use mixline_protocol::identity::ShortId;
use mixline_protocol::link::CellKind;
use mixline_protocol::link::control::Control;
use mixline_protocol::path::Hop;
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{Cell, DATAGRAM, Datagram};
use mixline_relay_engine::link_sessions::index;
use mixline_relay_engine::messages::Command;
use mixline_relay_engine::outcome::Outcome;
use mixline_relay_engine::slow_path::{Opened, open};
use mixline_relay_engine::testing::{
    ANSWERS, HANDOVERS, HANDSHAKES, HELD_CELLS, MESSAGES, OPENING_PATHS, PROBES, RELAYS_HANDSHAKES,
    SLOW_WINDOW, held, opening,
};
use rand_core::Rng;

const NEXT: ShortId = ShortId([2; 8]);
const DOWN: ShortId = ShortId([3; 8]);

/// A cell of a path that is none.
fn garbage(from: &Neighbour) -> (Datagram, SocketAddr) {
    let mut cell: Cell = [0; 1368];
    OsRandom::new().fill_bytes(&mut cell[..60]);
    (from.seal(&cell, CellKind::Cell), from.address)
}

#[test]
fn new_paths_of_one_neighbour_neither_starve_nor_evict_others() {
    let mut relay = TestRelay::new(1);
    let (bad, good, next) = (relay.neighbour(), relay.neighbour(), relay.neighbour());
    relay.relays(&[(NEXT, Some(next.number))]);
    let to = Hop {
        relay: NEXT,
        onion: relay.onion.public(),
    };
    let known = path(&[relay.hop()], &[to], 1);
    let first = good.seal(&known.cell(1), CellKind::Cell);
    assert_eq!(relay.relay(&[(first, good.address)]).len(), 1);

    // Many headers that open under no key, and the slow path does not get to them.
    let flood: Vec<_> = (0..3000).map(|_| garbage(&bad)).collect();
    assert!(relay.process(&flood).is_empty());
    assert!(opening(&relay.common) <= OPENING_PATHS / 2);
    assert!(held(&relay.common) <= HELD_CELLS / 2);
    assert_eq!(relay.jobs.len(), SLOW_WINDOW);
    assert!(relay.count(Outcome::NewPathLimit) >= 3000 - OPENING_PATHS as u64 / 2);

    // A known path does not notice.
    let cell = good.seal(&known.cell(2), CellKind::Cell);
    assert_eq!(relay.process(&[(cell, good.address)]).len(), 1);

    // A new path of another neighbour is let in, and goes to the slow path after what that
    // has already, and one more of the flood.
    let new = path(&[relay.hop()], &[to], 2);
    let cell = good.seal(&new.cell(1), CellKind::Cell);
    assert!(relay.process(&[(cell, good.address)]).is_empty());
    let mut opened = 0;
    while let Ok(job) = relay.jobs.try_recv() {
        let path = open(&relay.keyring, &job.header);
        let done = path.is_some();
        let answer = Opened {
            header: job.header,
            path,
        };
        relay.pipeline.take_opened(answer, relay.now);
        if done {
            break;
        }
        opened += 1;
    }
    assert!(
        opened <= SLOW_WINDOW + 1,
        "{opened} of the flood went before"
    );
    assert_eq!(relay.again().len(), 1);

    // It all passes.
    relay.slow_path();
    assert_eq!((opening(&relay.common), held(&relay.common)), (0, 0));
    assert_eq!(relay.pipeline.known().1, 2);
}

#[test]
fn cells_of_one_new_path_are_bounded() {
    let mut relay = TestRelay::new(1);
    let (from, next) = (relay.neighbour(), relay.neighbour());
    relay.relays(&[(NEXT, Some(next.number))]);
    let to = Hop {
        relay: NEXT,
        onion: relay.onion.public(),
    };
    let path = path(&[relay.hop()], &[to], 1);
    let cells: Vec<_> = (0..1000)
        .map(|n| (from.seal(&path.cell(n), CellKind::Cell), from.address))
        .collect();
    assert!(relay.process(&cells).is_empty());
    let held = held(&relay.common);
    assert!((100..=256).contains(&held), "{held}");
    assert_eq!(relay.slow_path().len(), held);
}

#[test]
fn a_relay_that_does_not_answer_holds_little() {
    let mut relay = TestRelay::new(1);
    let from = relay.neighbour();
    let silent: Vec<_> = (0..100).map(|n| ShortId([n + 10; 8])).collect();
    relay.relays(
        &silent
            .iter()
            .map(|short| (*short, None))
            .collect::<Vec<_>>(),
    );
    for (number, short) in (0..).zip(&silent) {
        let to = Hop {
            relay: *short,
            onion: relay.onion.public(),
        };
        let path = path(&[relay.hop()], &[to], number);
        let cells: Vec<_> = (0..100)
            .map(|n| (from.seal(&path.cell(n), CellKind::Cell), from.address))
            .collect();
        assert!(relay.relay(&cells).is_empty());
    }
    assert!(held(&relay.common) <= HELD_CELLS / 2);
    let refused = relay.count(Outcome::LinkDown) + relay.count(Outcome::NewPathLimit);
    assert!(refused >= 10_000 - HELD_CELLS as u64 / 2, "{refused}");
    // Another neighbour still finds room.
    let other = relay.neighbour();
    let to = Hop {
        relay: silent[0],
        onion: relay.onion.public(),
    };
    let path = path(&[relay.hop()], &[to], 1000);
    let before = held(&relay.common);
    relay.relay(&[(other.seal(&path.cell(1), CellKind::Cell), other.address)]);
    assert_eq!(held(&relay.common), before + 1);
}

#[test]
fn handshakes_and_control_messages_are_bounded() {
    let mut relay = TestRelay::new(1);
    let (bad, good) = (relay.neighbour(), relay.neighbour());
    let mut initiation = [7; DATAGRAM];
    initiation[..16].copy_from_slice(&[1, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    let flood = vec![(initiation, bad.address); 1000];
    relay.process(&flood);
    // What one address has.
    assert_eq!(relay.control.handshakes.len(), HANDSHAKES / 4);
    let refused = 1000 - HANDSHAKES as u64 / 4;
    assert_eq!(relay.count(Outcome::ControlLimit), refused);

    let ping = |from: &Neighbour| {
        let mut cell = [0; 1368];
        Control::Ping(1).encode_into(&mut cell).unwrap();
        (from.seal(&cell, CellKind::Control), from.address)
    };
    let flood: Vec<_> = (0..1000).map(|_| ping(&bad)).collect();
    relay.process(&flood);
    assert_eq!(relay.control.messages.len(), MESSAGES / 2);
    relay.process(&[ping(&good)]);
    assert_eq!(relay.control.messages.len(), MESSAGES / 2 + 1);
    // What has been worked off makes room.
    while relay.control.messages.pop().is_some() {}
    relay.process(&[ping(&bad)]);
    assert_eq!(relay.control.messages.len(), 1);
}

#[test]
fn a_flood_of_probes_keeps_no_handshake_out() {
    let mut relay = TestRelay::new(1);
    let (bad, good) = (relay.neighbour(), relay.neighbour());
    let of_type = |kind| {
        let mut datagram = [0; DATAGRAM];
        datagram[0] = kind;
        datagram
    };
    relay.process(&vec![(of_type(5), bad.address); 1000]);
    assert_eq!(relay.control.probes.len(), PROBES);
    assert_eq!(relay.count(Outcome::Probe), PROBES as u64);
    assert_eq!(relay.count(Outcome::ControlLimit), 1000 - PROBES as u64);
    relay.process(&vec![(of_type(1), good.address); HANDSHAKES / 4]);
    assert_eq!(relay.control.handshakes.len(), HANDSHAKES / 4);
    assert_eq!(relay.count(Outcome::Handshake), HANDSHAKES as u64 / 4);
}

#[test]
fn initiations_of_a_network_leave_room_for_others_and_from_everywhere_for_relays() {
    let mut relay = TestRelay::new(1);
    let mut initiation = [0; DATAGRAM];
    initiation[0] = 1;
    let from = |bits: u32| SocketAddr::from((bits.to_be_bytes(), 4000));
    let relays = |n: u32| 0x0909_0001 + (n << 16);
    let addresses = (0..20).map(|n| from(relays(n)).ip()).collect();
    relay
        .pipeline
        .apply(Command::RelayAddresses(Arc::new(addresses)));
    // From all addresses of a /16, again and again.
    let network: Vec<_> = (0..100_000_u32)
        .map(|n| (initiation, from(0xc000_0000 + n * 257 % 65_536)))
        .collect();
    relay.process(&network);
    let held = relay.control.handshakes.len();
    assert!((HANDSHAKES / 4..=HANDSHAKES / 2).contains(&held), "{held}");
    // Others get in, but for the few that share a counter with it.
    for other in 0..20 {
        relay.process(&network[..1000]);
        relay.process(&[(initiation, from(0x1400_0001 + (other << 16)))]);
    }
    let others = relay.control.handshakes.len() - held;
    assert!((16..=20).contains(&others), "{others}");
    // From a network after the other, until there is no room.
    let everywhere: Vec<_> = (1000..21_000_u32)
        .map(|n| (initiation, from(n << 16)))
        .collect();
    relay.process(&everywhere);
    assert_eq!(relay.control.handshakes.len(), HANDSHAKES);
    // Relays have room of their own, of which those of one network leave some to the others.
    relay.process(&vec![(initiation, from(relays(0))); 1000]);
    let one = relay.control.handshakes.len() - HANDSHAKES;
    assert!((1..=RELAYS_HANDSHAKES / 2).contains(&one), "{one}");
    for n in 1..20 {
        relay.process(&everywhere[..1000]);
        relay.process(&[(initiation, from(relays(n)))]);
    }
    let others = relay.control.handshakes.len() - HANDSHAKES - one;
    assert!((16..=19).contains(&others), "{others}");
    let queue = &relay.control.handshakes;
    while queue.pop().is_some() {}
    // What has been worked off has its place no more.
    relay.process(&[(initiation, from(0xc000_0001))]);
    assert_eq!(relay.control.handshakes.len(), 1);
}

#[test]
fn a_flood_of_initiations_keeps_no_answer_out() {
    let mut relay = TestRelay::new(1);
    let (bad, good) = (relay.neighbour(), relay.neighbour());
    let of_type = |kind| {
        let mut datagram = [0; DATAGRAM];
        datagram[0] = kind;
        datagram
    };
    relay.process(&vec![(of_type(1), bad.address); 1000]);
    assert_eq!(relay.control.handshakes.len(), HANDSHAKES / 4);
    let answers = [(of_type(2), good.address), (of_type(3), good.address)];
    relay.process(&answers);
    assert_eq!(relay.control.answers.len(), answers.len());
    // Nor does a flood of answers keep initiations out.
    while relay.control.handshakes.pop().is_some() {}
    relay.process(&vec![(of_type(2), bad.address); 1000]);
    assert_eq!(relay.control.answers.len(), ANSWERS);
    relay.process(&[(of_type(1), good.address)]);
    assert_eq!(relay.control.handshakes.len(), 1);
}

#[test]
fn datagrams_for_another_worker_are_bounded() {
    let mut relay = TestRelay::new(1);
    let from = relay.neighbour();
    let mut datagram = from.seal(&[0; 1368], CellKind::Cell);
    datagram[7] = datagram[7] & 0xc0 | 1;
    relay.process(&vec![(datagram, from.address); 2000]);
    let other = &relay.common.workers[1];
    let held = other.handovers.len();
    assert_eq!(held, HANDOVERS / 2);
    assert_eq!(relay.count(Outcome::HandoverLimit), 2000 - held as u64);
    // Those of other sessions find room.
    for position in 1..65 {
        datagram[4..8].copy_from_slice(&index(1, position, 3).to_be_bytes());
        relay.process(&[(datagram, from.address)]);
    }
    let other = &relay.common.workers[1];
    assert!(other.handovers.len() >= held + 50);
    // And with what is taken out there is room again.
    while other.handovers.pop().is_some() {}
    datagram[4..8].copy_from_slice(&index(1, 70, 3).to_be_bytes());
    relay.process(&vec![(datagram, from.address); 2000]);
    assert_eq!(relay.common.workers[1].handovers.len(), HANDOVERS / 2);
}

#[test]
fn cells_that_lead_nowhere_make_the_relay_forget_nothing() {
    // A generation has room for 1024 tags.
    let mut relay = TestRelay::of_filter(1, 4096);
    let (bad, good, next) = (relay.neighbour(), relay.neighbour(), relay.neighbour());
    relay.relays(&[(NEXT, Some(next.number)), (DOWN, None)]);
    let to = |relay: &TestRelay, short| Hop {
        relay: short,
        onion: relay.onion.public(),
    };
    let known = path(&[relay.hop()], &[to(&relay, NEXT)], 1);
    let recorded = known.cell(1);
    let sent = good.seal(&recorded, CellKind::Cell);
    assert_eq!(relay.relay(&[(sent, good.address)]).len(), 1);

    // To a relay that there is not, to one that is down, and to a mailbox that nobody has.
    let ways = [
        path(&[relay.hop()], &[to(&relay, ShortId([77; 8]))], 2),
        path(&[relay.hop()], &[to(&relay, DOWN)], 3),
        path(&[relay.hop()], &[relay.hop()], 4),
    ];
    let outcomes = [
        Outcome::UnknownRelay,
        Outcome::LinkDown,
        Outcome::UnknownMailbox,
    ];
    for (way, outcome) in ways.iter().zip(outcomes) {
        for n in 0..3000 {
            let cell = bad.seal(&way.cell(n), CellKind::Cell);
            assert!(relay.relay(&[(cell, bad.address)]).is_empty());
            relay.replay.rotate(relay.now);
        }
        assert!(relay.count(outcome) > 900, "{outcome:?}");
    }
    assert!(relay.replay.fill() < 0.01);
    let again = bad.seal(&recorded, CellKind::Cell);
    assert!(relay.relay(&[(again, bad.address)]).is_empty());
    assert_eq!(relay.count(Outcome::Replay), 1);

    // What was not sent is new when it can be, and only once.
    let cells = [0, 1, 0].map(|n| bad.seal(&ways[2].cell(n), CellKind::Cell));
    let datagrams = cells.map(|cell| (cell, bad.address));
    relay.mailbox(ways[2].token, Some(next.number));
    assert_eq!(relay.relay(&datagrams).len(), 2);
    assert_eq!(relay.count(Outcome::Replay), 2);
}
