//! What the pipeline does with each kind of datagram, on plain buffers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use common::{KEY, Neighbour, TestPath, TestRelay, path};
use mixline_protocol::identity::ShortId;
use mixline_protocol::link::CellKind;
use mixline_protocol::link::control::Control;
use mixline_protocol::path::Next;
use mixline_protocol::size::{CELL_OFFSET, Cell, DATAGRAM, Datagram, PATH_HEADER};
use mixline_relay_engine::allowance::Rate;
use mixline_relay_engine::link_sessions::index;
use mixline_relay_engine::messages::{Command, Handover, Signal};
use mixline_relay_engine::outcome::Outcome;
use mixline_relay_engine::pipeline::{Action, Behaviour, Honest};
use mixline_relay_engine::slow_path::LiveKeys;
use mixline_relay_engine::testing::{HOLD_FOR, held, opening, pooled};

/// Six relays in a row, a sender before the first and a receiver behind the last.
struct Chain {
    relays: Vec<TestRelay>,
    /// For each relay, what it knows the one before as.
    before: Vec<Neighbour>,
    /// For each relay, what it knows the one behind as.
    behind: Vec<Neighbour>,
}

impl Chain {
    fn new(length: usize) -> Self {
        let mut relays: Vec<_> = (0..length).map(|n| TestRelay::new(n as u8 + 1)).collect();
        let before = relays.iter_mut().map(TestRelay::neighbour).collect();
        let behind: Vec<_> = relays.iter_mut().map(TestRelay::neighbour).collect();
        for at in 0..length - 1 {
            let next = relays[at + 1].short;
            let number = behind[at].number;
            relays[at].relays(&[(next, Some(number))]);
        }
        Self {
            relays,
            before,
            behind,
        }
    }

    /// Sends cells in at the front; the cells that come out behind.
    fn send(&mut self, cells: &[Cell]) -> Vec<Cell> {
        let mut cells = cells.to_vec();
        for (at, relay) in self.relays.iter_mut().enumerate() {
            let before = &self.before[at];
            let datagrams: Vec<_> = cells
                .iter()
                .map(|cell| (before.seal(cell, CellKind::Cell), before.address))
                .collect();
            let sent = relay.relay(&datagrams);
            let behind = &self.behind[at];
            assert!(sent.iter().all(|(_, to)| *to == behind.address));
            cells = sent
                .iter()
                .map(|(datagram, _)| behind.open(datagram).1)
                .collect();
        }
        cells
    }

    /// A path through all relays, whose mailbox is the receiver's.
    fn path(&mut self, head: usize, token: u64) -> TestPath {
        let hops: Vec<_> = self.relays.iter().map(TestRelay::hop).collect();
        let path = path(&hops[..head], &hops[head..], token);
        let number = self.behind.last().unwrap().number;
        self.relays
            .last_mut()
            .unwrap()
            .mailbox(path.token, Some(number));
        path
    }
}

/// One relay, a neighbour that sends and one that is the next relay.
struct One {
    relay: TestRelay,
    from: Neighbour,
    next: Neighbour,
    path: TestPath,
}

const NEXT: ShortId = ShortId([2; 8]);

impl One {
    fn new() -> Self {
        Self::of(TestRelay::new(1))
    }

    fn of(mut relay: TestRelay) -> Self {
        let (from, next) = (relay.neighbour(), relay.neighbour());
        relay.relays(&[(NEXT, Some(next.number))]);
        let mut path_hops = TestRelay::new(2).hop();
        path_hops.relay = NEXT;
        let path = path(&[relay.hop()], &[path_hops], 77);
        Self {
            relay,
            from,
            next,
            path,
        }
    }

    fn datagram(&self, message: u64) -> (Datagram, SocketAddr) {
        (
            self.from.seal(&self.path.cell(message), CellKind::Cell),
            self.from.address,
        )
    }
}

#[test]
fn through_head_junction_and_tail() {
    for (head, length) in [(3, 6), (1, 2), (4, 8)] {
        let mut chain = Chain::new(length);
        let path = chain.path(head, 5);
        // The first goes the slow way at each relay, the others the fast way.
        for round in 0..3 {
            let cells: Vec<_> = (0..10).map(|n| path.cell(round * 100 + n)).collect();
            let out = chain.send(&cells);
            let messages: Vec<_> = out.iter().map(|cell| path.message(cell)).collect();
            assert_eq!(
                messages,
                (0..10).map(|n| round * 100 + n).collect::<Vec<_>>()
            );
        }
        for relay in &chain.relays {
            assert_eq!(relay.pipeline.known().1, 1);
        }
        let last = chain.relays.last().unwrap();
        assert_eq!(last.count(Outcome::Delivered), 30);
        assert_eq!(chain.relays[0].count(Outcome::Forwarded), 30);
    }
}

#[test]
fn a_new_path_waits_and_then_is_known() {
    let mut one = One::new();
    let first = [one.datagram(1), one.datagram(2)];
    assert!(one.relay.process(&first).is_empty());
    // One header, though two cells wait.
    assert_eq!(one.relay.jobs.len(), 1);
    let sent = one.relay.slow_path();
    assert_eq!(sent.len(), 2);
    assert_eq!(held(&one.relay.common), 0);
    assert_eq!(opening(&one.relay.common), 0);
    let second = [one.datagram(3)];
    assert_eq!(one.relay.process(&second).len(), 1);
    assert!(one.relay.jobs.is_empty());
    assert_eq!(one.relay.count(Outcome::Forwarded), 3);
}

#[test]
fn a_relay_that_leaves_goes_on_with_known_paths_and_opens_none() {
    let mut one = One::new();
    one.relay.relay(&[one.datagram(1)]);
    one.relay.pipeline.apply(Command::NewPaths(false));
    assert_eq!(one.relay.process(&[one.datagram(2)]).len(), 1);
    let mut hop = TestRelay::new(2).hop();
    hop.relay = NEXT;
    let new = path(&[one.relay.hop()], &[hop], 78);
    let cell = |message| {
        let datagram = one.from.seal(&new.cell(message), CellKind::Cell);
        (datagram, one.from.address)
    };
    let cells = [cell(1), cell(2), cell(3)];
    assert!(one.relay.process(&cells[..2]).is_empty());
    assert!(one.relay.jobs.is_empty());
    assert_eq!(one.relay.count(Outcome::PathRefused), 2);
    one.relay.pipeline.apply(Command::NewPaths(true));
    assert_eq!(one.relay.relay(&cells[2..]).len(), 1);
}

#[test]
fn what_is_over_the_rate_is_dropped_and_counted() {
    let mut one = One::new();
    one.relay.relay(&[one.datagram(0)]);
    one.relay.common.allowance.set(Rate::Nothing);
    let more: Vec<_> = (1..100).map(|message| one.datagram(message)).collect();
    let sent: usize = more
        .chunks(10)
        .map(|some| one.relay.process(some).len())
        .sum();
    // What was taken before is sent.
    assert_eq!(sent, 15);
    assert_eq!(one.relay.count(Outcome::BandwidthLimit), 84);
    one.relay.common.allowance.set(Rate::Unlimited);
    assert_eq!(one.relay.process(&[one.datagram(100)]).len(), 1);
}

#[test]
fn a_replayed_message_is_dropped_under_fresh_encryption() {
    let mut one = One::new();
    let datagrams = [one.datagram(1)];
    assert_eq!(one.relay.relay(&datagrams).len(), 1);
    // The same cell, sealed again by a neighbour that misbehaves.
    let again = [one.datagram(1), one.datagram(2), one.datagram(2)];
    assert_eq!(one.relay.relay(&again).len(), 1);
    assert_eq!(one.relay.count(Outcome::Replay), 2);
    // Also when the path was forgotten meanwhile.
    one.relay
        .pipeline
        .apply(Command::OnionKeys(LiveKeys::new([], KEY + 1)));
    assert_eq!(one.relay.pipeline.known().1, 0);
}

#[test]
fn a_replayed_datagram_is_dropped() {
    let mut one = One::new();
    let datagram = one.datagram(1);
    assert_eq!(one.relay.relay(&[datagram]).len(), 1);
    assert!(one.relay.relay(&[datagram, datagram]).is_empty());
    assert_eq!(one.relay.count(Outcome::LinkReplay), 2);
}

#[test]
fn a_changed_datagram_is_dropped() {
    let mut one = One::new();
    let good = one.datagram(1);
    for at in [4, 8, 15, 16, CELL_OFFSET, 500, DATAGRAM - 1] {
        let mut bad = good;
        bad.0[at] ^= 1;
        assert!(one.relay.relay(&[bad]).is_empty(), "{at}");
    }
    // None of them used up the true one's counter.
    assert_eq!(one.relay.relay(&[good]).len(), 1);
    let dropped = one.relay.count(Outcome::LinkAuthentication)
        + one.relay.count(Outcome::UnknownIndex)
        + one.relay.count(Outcome::LinkReplay);
    assert_eq!(dropped, 7);
}

#[test]
fn a_changed_header_is_dropped_and_a_changed_payload_is_noise() {
    let mut chain = Chain::new(2);
    let path = chain.path(1, 5);
    for at in [0, 40, 60, PATH_HEADER - 1] {
        let mut cell = path.cell(1);
        cell[at] ^= 1;
        assert!(chain.send(&[cell]).is_empty(), "{at}");
    }
    assert_eq!(chain.relays[0].count(Outcome::BadHeader), 4);
    let mut cell = path.cell(2);
    cell[PATH_HEADER + 700] ^= 1;
    let out = chain.send(&[cell]);
    let mut payload = *out[0][PATH_HEADER..].first_chunk().unwrap();
    path.tail.unwrap(&mut payload);
    let kept = payload[8..].iter().filter(|byte| **byte == 3).count();
    assert!(kept < 30, "{kept} bytes survived");
}

#[test]
fn what_is_not_ours_is_dropped() {
    let mut one = One::new();
    let from = one.from.address;
    let mut unknown_type = one.datagram(1).0;
    unknown_type[0] = 9;
    let mut not_zero = one.datagram(1).0;
    not_zero[2] = 1;
    assert!(
        one.relay
            .relay(&[(unknown_type, from), (not_zero, from)])
            .is_empty()
    );
    assert_eq!(one.relay.count(Outcome::Malformed), 2);
    for stranger in [index(0, 9, 9), index(0, 0, 8), index(5, 0, 9)] {
        let mut datagram = one.datagram(1).0;
        datagram[4..8].copy_from_slice(&stranger.to_be_bytes());
        assert!(one.relay.relay(&[(datagram, from)]).is_empty());
    }
    assert_eq!(one.relay.count(Outcome::UnknownIndex), 3);
}

#[test]
fn handshakes_go_to_the_control_plane() {
    let mut one = One::new();
    let mut datagrams = Vec::new();
    for kind in [1, 2, 3] {
        let mut datagram = [0; DATAGRAM];
        datagram[0] = kind;
        datagrams.push((datagram, one.from.address));
    }
    assert!(one.relay.relay(&datagrams).is_empty());
    assert_eq!(one.relay.count(Outcome::Handshake), 3);
    for (datagram, source) in datagrams {
        let control = &one.relay.control;
        let queue = if datagram[0] == 1 {
            &control.handshakes
        } else {
            &control.answers
        };
        let handshake = queue.pop().unwrap();
        assert_eq!((*handshake.datagram, handshake.source), (datagram, source));
    }
}

#[test]
fn control_and_cover() {
    let mut one = One::new();
    let mut cell = [0; 1368];
    Control::Ping(99).encode_into(&mut cell).unwrap();
    let address = one.from.address;
    let datagrams = [
        (one.from.seal(&[0; 1368], CellKind::Cover), address),
        (one.from.seal(&cell, CellKind::Control), address),
    ];
    assert!(one.relay.relay(&datagrams).is_empty());
    assert_eq!(one.relay.count(Outcome::Cover), 1);
    assert_eq!(one.relay.count(Outcome::Control), 1);
    let message = one.relay.control.messages.pop().unwrap();
    let bytes = message.datagram[CELL_OFFSET..].first_chunk().unwrap();
    assert_eq!(Control::decode(bytes), Ok(Control::Ping(99)));
    assert_eq!(message.index, one.from.index);
    // The first of a session is told, and the first that is not cover.
    assert_eq!(
        [
            one.relay.control.signals.pop(),
            one.relay.control.signals.pop()
        ],
        [
            Some(Signal::Heard(one.from.index, CellKind::Cover)),
            Some(Signal::Heard(one.from.index, CellKind::Control))
        ]
    );
    assert_eq!(one.relay.control.signals.pop(), None);
}

#[test]
fn a_neighbour_that_moves_is_told_once_and_only_by_its_newest_datagram() {
    let mut one = One::new();
    let elsewhere: SocketAddr = "192.0.2.7:9".parse().unwrap();
    let (old, new, newer) = (one.datagram(1), one.datagram(2), one.datagram(3));
    one.relay.relay(&[
        (new.0, elsewhere),
        (newer.0, elsewhere),
        (old.0, one.from.address),
    ]);
    let mut signals = std::iter::from_fn(|| one.relay.control.signals.pop());
    assert_eq!(
        signals.next(),
        Some(Signal::Heard(one.from.index, CellKind::Cell))
    );
    assert_eq!(
        signals.next(),
        Some(Signal::Moved(one.from.index, elsewhere))
    );
    assert_eq!(signals.next(), None);
}

#[test]
fn another_workers_datagram_goes_to_its_owner() {
    let mut one = One::new();
    let mut datagram = one.datagram(1);
    datagram.0[4..8].copy_from_slice(&index(1, 3, 9).to_be_bytes());
    assert!(one.relay.relay(&[datagram]).is_empty());
    let other = &one.relay.common.workers[1];
    let handed = other.handovers.pop().unwrap();
    assert_eq!((*handed.datagram, handed.source), datagram);
    assert_eq!((handed.since, handed.worker), (one.relay.now, 0));
    // Whose it is nobody knows yet.
    assert_eq!(one.relay.control.signals.pop(), None);
    // The worker that gets it does what it would have done with its own.
    let own = one.datagram(2);
    let mut forged = own;
    forged.0[1407] ^= 1;
    for (datagram, source) in [forged, own] {
        assert_eq!(one.relay.control.signals.pop(), None);
        let handover = Handover {
            datagram: pooled(&one.relay.common, &datagram).unwrap(),
            source,
            since: one.relay.now,
            worker: 5,
            permit: None,
        };
        one.relay.pipeline.take_over(handover);
        assert!(one.relay.again().is_empty());
    }
    assert_eq!(one.relay.count(Outcome::LinkAuthentication), 1);
    assert_eq!(one.relay.slow_path().len(), 1);
    // Only what has authenticated says where datagrams of this session come to.
    let signals: Vec<_> = std::iter::from_fn(|| one.relay.control.signals.pop()).collect();
    let index = one.from.index;
    assert!(signals.contains(&Signal::Strayed(index, 5)));
    assert!(signals.contains(&Signal::Heard(index, CellKind::Cell)));
}

#[test]
fn what_was_held_says_since_when_through_all_that_held_it() {
    let mut one = One::new();
    one.relay.relays(&[(NEXT, None)]);
    let came = one.relay.now;
    let datagram = one.datagram(1);
    assert!(one.relay.process(&[datagram]).is_empty());
    // First for its path, then for the link to the next relay.
    one.relay.now += Duration::from_millis(20);
    assert!(one.relay.slow_path().is_empty());
    one.relay.now += Duration::from_millis(20);
    one.relay
        .pipeline
        .apply(Command::Relay(NEXT, Some(one.next.number)));
    let mut since = Vec::new();
    one.relay.pipeline.process_again(one.relay.now, |batch| {
        assert_eq!(batch.order.len(), 1);
        since.extend(batch.slots.iter().map(|slot| slot.since));
    });
    assert_eq!(since, [Some(came)]);
}

#[test]
fn mailboxes() {
    let mut chain = Chain::new(2);
    let path = chain.path(1, 5);
    let cells = [path.cell(1)];
    assert_eq!(chain.send(&cells).len(), 1);
    let last = chain.relays.last_mut().unwrap();
    let number = chain.behind.last().unwrap().number;
    last.mailbox(path.token, None);
    assert!(chain.send(&[path.cell(2)]).is_empty());
    let last = chain.relays.last_mut().unwrap();
    assert_eq!(last.count(Outcome::UnknownMailbox), 1);
    last.mailbox(path.token, Some(number));
    last.pipeline.apply(Command::Link(number, None));
    assert!(chain.send(&[path.cell(3)]).is_empty());
    assert_eq!(chain.relays.last().unwrap().count(Outcome::LinkDown), 1);
}

#[test]
fn cells_wait_for_a_link() {
    let mut one = One::new();
    // The relay is known, and no neighbour yet.
    one.relay.relays(&[(NEXT, None)]);
    let datagrams: Vec<_> = (0..5).map(|n| one.datagram(n)).collect();
    assert!(one.relay.relay(&datagrams).is_empty());
    assert_eq!(held(&one.relay.common), 5);
    let signals: Vec<_> = std::iter::from_fn(|| one.relay.control.signals.pop()).collect();
    assert_eq!(
        signals.iter().filter(|s| **s == Signal::Want(NEXT)).count(),
        1
    );
    one.relay
        .pipeline
        .apply(Command::Relay(NEXT, Some(one.next.number)));
    let sent = one.relay.again();
    assert_eq!(sent.len(), 5);
    assert_eq!(held(&one.relay.common), 0);
    // In their order.
    let mut other = TestRelay::new(2);
    other.keyring.clear();
    let first: Vec<_> = sent.iter().map(|(d, _)| one.next.open(d).1).collect();
    assert_eq!(first.len(), 5);
}

#[test]
fn cells_do_not_wait_forever() {
    let mut one = One::new();
    one.relay.relays(&[(NEXT, None)]);
    let datagrams = [one.datagram(1)];
    one.relay.relay(&datagrams);
    let due = one.relay.pipeline.wake_at().unwrap();
    assert_eq!(due, one.relay.now + HOLD_FOR);
    one.relay.pipeline.tick(due - Duration::from_millis(1));
    assert_eq!(one.relay.count(Outcome::HeldTooLong), 0);
    one.relay.pipeline.tick(due);
    assert_eq!(one.relay.count(Outcome::HeldTooLong), 1);
    assert_eq!(held(&one.relay.common), 0);
    assert_eq!(one.relay.pipeline.wake_at(), None);
    // The same for a header that the slow path does not answer for.
    let mut one = One::new();
    let datagrams = [one.datagram(1)];
    one.relay.process(&datagrams);
    one.relay.pipeline.tick(one.relay.now + HOLD_FOR);
    assert_eq!(one.relay.count(Outcome::HeldTooLong), 1);
    assert!(one.relay.slow_path().is_empty());
}

#[test]
fn a_relay_that_nobody_knows() {
    let mut one = One::new();
    one.relay.relays(&[]);
    let datagrams = [one.datagram(1)];
    assert!(one.relay.relay(&datagrams).is_empty());
    assert_eq!(one.relay.count(Outcome::UnknownRelay), 1);
}

#[test]
fn a_path_that_visits_a_relay_twice_in_a_row() {
    let mut relay = TestRelay::new(1);
    let (from, to) = (relay.neighbour(), relay.neighbour());
    // The head's last relay is the tail's first.
    let twice = path(&[relay.hop()], &[relay.hop()], 5);
    relay.mailbox(twice.token, Some(to.number));
    for message in 0..4 {
        let datagram = from.seal(&twice.cell(message), CellKind::Cell);
        let sent = relay.relay(&[(datagram, from.address)]);
        assert_eq!(sent.len(), 1);
        assert_eq!(twice.message(&to.open(&sent[0].0).1), message);
    }
    // More often nobody needs.
    let often = path(&[relay.hop(), relay.hop()], &[relay.hop(), relay.hop()], 6);
    relay.mailbox(often.token, Some(to.number));
    for message in 0..4 {
        let datagram = from.seal(&often.cell(message), CellKind::Cell);
        relay.relay(&[(datagram, from.address)]);
    }
    assert!(relay.count(Outcome::Loop) > 0);
}

#[test]
fn an_onion_key_that_is_erased_takes_its_paths_along() {
    let mut one = One::new();
    let datagrams = [one.datagram(1)];
    assert_eq!(one.relay.relay(&datagrams).len(), 1);
    // A header is with the slow path when the key is erased: its answer is too late.
    let other = path(&[one.relay.hop()], &[one.relay.hop()], 9);
    let late = one.from.seal(&other.cell(1), CellKind::Cell);
    one.relay.process(&[(late, one.from.address)]);
    one.relay
        .pipeline
        .apply(Command::OnionKeys(LiveKeys::new([KEY + 1], KEY + 2)));
    assert_eq!(one.relay.pipeline.known().1, 0);
    assert!(one.relay.slow_path().is_empty());
    one.relay.keyring.clear();
    let datagrams = [one.datagram(2)];
    assert!(one.relay.relay(&datagrams).is_empty());
    assert_eq!(one.relay.count(Outcome::BadHeader), 2);
    assert_eq!(one.relay.pipeline.known().1, 0);
}

#[test]
fn paths_of_later_keys_are_taken_whatever_came_before() {
    let mut one = One::new();
    let hops = [one.relay.hop()];
    let send = |one: &mut One, number: u32| {
        // Each key has paths of its own: the relay is asked under the key in its keyring.
        one.relay.keyring[0].0 = number;
        let path = path(&hops, &[TestRelay::new(2).hop()], number.into());
        let datagram = one.from.seal(&path.cell(1), CellKind::Cell);
        one.relay.relay(&[(datagram, one.from.address)]);
        one.relay.pipeline.known().1
    };
    let keys = |live: &[u32], next| Command::OnionKeys(LiveKeys::new(live.iter().copied(), next));
    // A key that the worker has not heard of yet is taken for one that lives.
    assert_eq!(send(&mut one, 100), 1);
    one.relay.pipeline.apply(keys(&[100, 101], 102));
    assert_eq!(send(&mut one, 101), 2);
    // A clock went far ahead, and back: all that was is gone, and what comes works.
    one.relay.pipeline.apply(keys(&[102, 103], 104));
    assert_eq!(one.relay.pipeline.known().1, 0);
    assert_eq!(send(&mut one, 101), 0);
    assert_eq!(one.relay.count(Outcome::BadHeader), 1);
    one.relay.pipeline.apply(keys(&[104, 105], 106));
    assert_eq!(send(&mut one, 104), 1);
    assert_eq!(send(&mut one, 103), 1);
    assert_eq!(one.relay.count(Outcome::BadHeader), 2);
}

#[test]
fn a_full_cache_keeps_its_live_paths_and_still_forwards() {
    let mut one = One::of(TestRelay::with(1, Honest, 8, None));
    let hops = [one.path.head.first()].len();
    assert_eq!(hops, 1);
    let next = mixline_protocol::path::Hop {
        relay: NEXT,
        onion: one.relay.onion.public(),
    };
    let paths: Vec<_> = (0..20)
        .map(|n| path(&[one.relay.hop()], &[next], n))
        .collect();
    let send = |one: &mut One, path: &TestPath, message| {
        let datagram = one.from.seal(&path.cell(message), CellKind::Cell);
        one.relay.relay(&[(datagram, one.from.address)]).len()
    };
    for path in &paths {
        assert_eq!(send(&mut one, path, 1), 1);
    }
    assert_eq!(one.relay.pipeline.known().1, 8);
    // The first ones are known still: they go without the slow path.
    for path in &paths[..8] {
        let datagram = one.from.seal(&path.cell(2), CellKind::Cell);
        assert_eq!(one.relay.process(&[(datagram, one.from.address)]).len(), 1);
    }
    // The others are not, and arrive all the same.
    assert_eq!(send(&mut one, &paths[19], 3), 1);
}

#[test]
fn batches_are_shuffled_and_paths_are_not() {
    let mut one = One::new();
    let next = mixline_protocol::path::Hop {
        relay: NEXT,
        onion: one.relay.onion.public(),
    };
    let paths: Vec<_> = (0..8)
        .map(|n| path(&[one.relay.hop()], &[next], n))
        .collect();
    let mut orders: HashMap<Vec<usize>, u32> = HashMap::new();
    for round in 0..20_u64 {
        let datagrams: Vec<_> = (0..64_usize)
            .map(|n| {
                let cell = paths[n % 8].cell(round * 100 + n as u64);
                (one.from.seal(&cell, CellKind::Cell), one.from.address)
            })
            .collect();
        let sent = one.relay.relay(&datagrams);
        assert_eq!(sent.len(), 64);
        if round == 0 {
            continue;
        }
        // What goes out in which order is seen by the headers, which are a path's own.
        let mut headers: Vec<Vec<u8>> = Vec::new();
        let order: Vec<usize> = sent
            .iter()
            .map(|(datagram, _)| {
                let header = one.next.open(datagram).1[..PATH_HEADER].to_vec();
                headers
                    .iter()
                    .position(|known| *known == header)
                    .unwrap_or_else(|| {
                        headers.push(header);
                        headers.len() - 1
                    })
            })
            .collect();
        assert_eq!(headers.len(), 8);
        *orders.entry(order).or_default() += 1;
    }
    // 64! / (8!)^8 orders: twice the same does not happen.
    assert_eq!(orders.len(), 19);
}

#[test]
fn delays_hold_cells_back() {
    let mean = Duration::from_millis(50);
    let relay = TestRelay::with(1, Honest, 64, Some(mean));
    let mut one = One::of(relay);
    let datagrams: Vec<_> = (0..100).map(|n| one.datagram(n)).collect();
    assert!(one.relay.relay(&datagrams).is_empty());
    assert_eq!(held(&one.relay.common), 100);
    let mut sent = 0;
    let mut times = 0;
    while let Some(at) = one.relay.pipeline.wake_at() {
        one.relay.now = at;
        one.relay.pipeline.tick(at);
        sent += one.relay.again().len();
        times += 1;
    }
    assert_eq!((sent, held(&one.relay.common)), (100, 0));
    assert!(times > 50, "{times} different times");
    // A relay that stops does not wait.
    let datagrams = [one.datagram(1000)];
    assert!(one.relay.relay(&datagrams).is_empty());
    one.relay.pipeline.flush();
    assert_eq!(one.relay.again().len(), 1);
}

/// Of copies that each drew a time, the first one due would be sent: after next to none.
#[test]
fn copies_of_a_cell_draw_no_delays_of_their_own() {
    let relay = TestRelay::with(1, Honest, 64, Some(Duration::from_millis(50)));
    let mut one = One::of(relay);
    // What leads nowhere takes no time, and no place in the memory.
    one.relay.relays(&[]);
    assert!(one.relay.relay(&[one.datagram(1)]).is_empty());
    assert_eq!(one.relay.count(Outcome::UnknownRelay), 1);
    assert_eq!(held(&one.relay.common), 0);
    one.relay.relays(&[(NEXT, Some(one.next.number))]);

    let copies: Vec<_> = (0..200).map(|_| one.datagram(1)).collect();
    assert!(one.relay.relay(&copies).is_empty());
    assert_eq!(held(&one.relay.common), 1);
    assert_eq!(one.relay.count(Outcome::Replay), 199);
    one.relay.now = one.relay.pipeline.wake_at().unwrap();
    one.relay.pipeline.tick(one.relay.now);
    assert_eq!(one.relay.again().len(), 1);
    // Nor afterwards.
    assert!(one.relay.relay(&[one.datagram(1)]).is_empty());
    assert_eq!(one.relay.count(Outcome::Replay), 200);
    assert_eq!(held(&one.relay.common), 0);
}

/// Drops every third cell, doubles every third, and changes every third.
struct Rogue(u32);

impl Behaviour for Rogue {
    fn decide(&mut self, cell: &mut Cell, _next: &Next) -> Action {
        self.0 += 1;
        match self.0 % 3 {
            0 => Action::Drop,
            1 => Action::ForwardTwice,
            _ => {
                cell[700] ^= 1;
                Action::Forward
            }
        }
    }
}

#[test]
fn a_rogue_relay_misbehaves_under_valid_links_and_the_next_one_notices() {
    let mut rogue = TestRelay::with(1, Rogue(0), 64, None);
    let mut next = TestRelay::new(2);
    let (from, to_next) = (rogue.neighbour(), rogue.neighbour());
    let (before, client) = (next.neighbour(), next.neighbour());
    rogue.relays(&[(next.short, Some(to_next.number))]);
    let path = path(&[rogue.hop()], &[next.hop()], 5);
    next.mailbox(path.token, Some(client.number));
    let datagrams: Vec<_> = (0..30)
        .map(|n| (from.seal(&path.cell(n), CellKind::Cell), from.address))
        .collect();
    let sent = rogue.relay(&datagrams);
    assert_eq!(sent.len(), 30);
    assert_eq!(rogue.count(Outcome::Misbehaved), 10);
    let forwarded: Vec<_> = sent
        .iter()
        .map(|(datagram, _)| {
            (
                before.seal(&to_next.open(datagram).1, CellKind::Cell),
                before.address,
            )
        })
        .collect();
    assert_eq!(next.relay(&forwarded).len(), 20);
    assert_eq!(next.count(Outcome::Replay), 10);
}
