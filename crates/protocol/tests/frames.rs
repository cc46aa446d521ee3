//! Frames from packer to reassembly, over paths that reorder and lose cells, and against
//! peers that send what they like.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mixline_protocol::Error;
use mixline_protocol::frames::{
    COPY_FRAME, CellSink, Copy, Delivered, Fragment, FragmentIds, Frame, FrameWriter, MAX_MESSAGE,
    MAX_PARTIALS, MIN_FRAGMENT_SPACE, Packer, REASSEMBLY_MEMORY, REASSEMBLY_TIME, Reassembly,
    frames,
};
use mixline_protocol::size::FRAMES;
use proptest::prelude::*;

type Cell = [u8; FRAMES];

/// Cells in memory. A fresh one holds rubbish, as buffers that are used again do.
struct Cells {
    complete: Vec<Cell>,
    current: Cell,
}

const RUBBISH: Cell = [0xEE; FRAMES];

impl Cells {
    fn new() -> Self {
        Self {
            complete: Vec::new(),
            current: RUBBISH,
        }
    }
}

impl CellSink for Cells {
    fn cell(&mut self) -> &mut Cell {
        &mut self.current
    }

    fn complete(&mut self) {
        self.complete
            .push(std::mem::replace(&mut self.current, RUBBISH));
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    Packet(Vec<u8>),
    Message(Vec<u8>),
    Control(Vec<u8>),
}

fn pack(items: &[Item], flush_after: &[bool]) -> Vec<Cell> {
    let mut cells = Cells::new();
    let mut packer = Packer::new(FragmentIds::new());
    for (n, item) in items.iter().enumerate() {
        match item {
            Item::Packet(bytes) => packer.packet(bytes, &mut cells).unwrap(),
            Item::Message(bytes) => packer.message(bytes, &mut cells).unwrap(),
            Item::Control(bytes) => packer.control(bytes, &mut cells).unwrap(),
        }
        if flush_after.get(n).copied().unwrap_or(false) {
            packer.flush(&mut cells);
            assert!(packer.is_empty());
        }
    }
    packer.flush(&mut cells);
    cells.complete
}

fn deliver(reassembly: &mut Reassembly, cell: &Cell, now: Instant) -> Vec<Item> {
    let mut out = Vec::new();
    for frame in frames(cell) {
        match reassembly.accept(frame.unwrap(), now).unwrap() {
            Some(Delivered::Packet(bytes)) => out.push(Item::Packet(bytes.to_vec())),
            Some(Delivered::Message(bytes)) => out.push(Item::Message(bytes.to_vec())),
            Some(Delivered::Control(bytes)) => out.push(Item::Control(bytes.to_vec())),
            None => {}
        }
    }
    out
}

/// Contents that differ at each place and between items: a piece at a wrong offset, or of
/// another packet, shows.
fn contents(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add((n >> 8) as u8) ^ seed)
        .collect()
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = (0..10u8, 1..=9000usize, 1..=1000usize, any::<u8>()).prop_map(
        |(kind, length, short, seed)| match kind {
            0 => Item::Control(contents(short, seed)),
            1..=2 => Item::Message(contents(length, seed)),
            3..=6 => Item::Packet(contents(short, seed)),
            _ => Item::Packet(contents(length, seed)),
        },
    );
    prop::collection::vec(item, 0..40)
}

fn count(items: impl IntoIterator<Item = Item>) -> HashMap<Item, usize> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
}

proptest! {
    #[test]
    fn all_that_is_sent_arrives_in_any_order_of_cells(
        items in items(),
        flushes in prop::collection::vec(prop::bool::weighted(0.2), 0..40),
        order in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let mut cells = pack(&items, &flushes);
        shuffle(&mut cells, seed ^ order.index(usize::MAX) as u64);
        let mut reassembly = Reassembly::new();
        let now = Instant::now();
        let got = cells.iter().flat_map(|cell| deliver(&mut reassembly, cell, now));
        prop_assert_eq!(count(got.collect::<Vec<_>>()), count(items));
        prop_assert_eq!(reassembly.partials(), 0);
        prop_assert_eq!(reassembly.counters(), Default::default());
    }

    #[test]
    fn without_reordering_the_order_is_kept(items in items()) {
        let cells = pack(&items, &[]);
        let mut reassembly = Reassembly::new();
        let now = Instant::now();
        let got: Vec<_> =
            cells.iter().flat_map(|cell| deliver(&mut reassembly, cell, now)).collect();
        prop_assert_eq!(got, items);
    }

    #[test]
    fn what_is_delivered_despite_losses_and_duplicates_was_sent(
        items in items(),
        copies in prop::collection::vec(0..4u8, 0..400),
        seed in any::<u64>(),
    ) {
        let mut cells = pack(&items, &[]);
        let mut copies = copies.into_iter().chain(std::iter::repeat(1));
        let mut lost = 0;
        cells = cells
            .into_iter()
            .flat_map(|cell| {
                let copies = usize::from(copies.next().unwrap_or(1).min(2));
                lost += usize::from(copies == 0);
                std::iter::repeat_n(cell, copies)
            })
            .collect();
        shuffle(&mut cells, seed);
        let sent = count(items);
        let mut reassembly = Reassembly::new();
        let now = Instant::now();
        let mut got = Vec::new();
        for cell in &cells {
            got.extend(deliver(&mut reassembly, cell, now));
            prop_assert!(reassembly.memory() <= REASSEMBLY_MEMORY);
        }
        for item in got {
            prop_assert!(sent.contains_key(&item), "delivered, never sent");
        }
    }

    #[test]
    fn arbitrary_cells_do_no_harm(
        cells in prop::collection::vec(prop::collection::vec(any::<u8>(), FRAMES), 1..4),
        kind in 0..7u8,
        length in 0..1100u16,
    ) {
        let mut reassembly = Reassembly::new();
        for cell in cells {
            let mut cell: Cell = cell.try_into().unwrap();
            // So that not all fail at the first byte.
            cell[0] = kind;
            cell[1..3].copy_from_slice(&length.to_be_bytes());
            for frame in frames(&cell).flatten() {
                let _ = reassembly.accept(frame, Instant::now());
            }
        }
        prop_assert!(reassembly.memory() <= REASSEMBLY_MEMORY);
    }

    /// Fragments that contradict one another, as a malicious peer would send them: memory and
    /// entries stay bounded, and what is delivered consists of what was sent at those places.
    #[test]
    fn hostile_fragments_stay_bounded(
        pieces in prop::collection::vec(
            (0..4u32, any::<bool>(), any::<u16>(), any::<u16>(), 1..1029usize, any::<u8>()),
            1..500,
        ),
        pace in 0..200u64,
    ) {
        let mut reassembly = Reassembly::new();
        let mut now = Instant::now();
        for (id, message, offset, total, length, fill) in pieces {
            now += Duration::from_millis(pace);
            let data = vec![fill; length];
            let fragment = Fragment { id, offset, total, data: &data };
            let frame = if message {
                Frame::MessageFragment(fragment)
            } else {
                Frame::PacketFragment(fragment)
            };
            if let Ok(Some(Delivered::Message(whole))) = reassembly.accept(frame, now) {
                prop_assert!(whole.len() <= MAX_MESSAGE);
            }
            prop_assert!(reassembly.memory() <= REASSEMBLY_MEMORY);
            prop_assert!(reassembly.partials() <= MAX_PARTIALS);
        }
    }
}

/// Fisher and Yates, with a generator that is good enough to shuffle with.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed | 1;
    for n in (1..items.len()).rev() {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        items.swap(n, (state >> 33) as usize % (n + 1));
    }
}

fn fragment<'a>(id: u32, offset: u16, total: u16, data: &'a [u8]) -> Frame<'a> {
    Frame::PacketFragment(Fragment {
        id,
        offset,
        total,
        data,
    })
}

#[test]
fn cells_are_filled() {
    // A bulk transfer: 1500-byte packets must not waste what headers do not take.
    let packets: Vec<_> = (0..100).map(|n| Item::Packet(contents(1500, n))).collect();
    let cells = pack(&packets, &[]);
    let bytes = 100 * 1500;
    let overhead = cells.len() * FRAMES - bytes;
    assert!(
        overhead < bytes / 35,
        "{} cells, {overhead} bytes of overhead",
        cells.len()
    );
    for cell in &cells[..cells.len() - 1] {
        let used: usize = frames(cell)
            .map(|frame| match frame.unwrap() {
                Frame::Packet(data) => 3 + data.len(),
                Frame::PacketFragment(fragment) => 11 + fragment.data.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert!(FRAMES - used < MIN_FRAGMENT_SPACE, "{used} used");
    }
}

#[test]
fn small_packets_share_a_cell() {
    let packets: Vec<_> = (0..20).map(|n| Item::Packet(contents(49, n))).collect();
    assert_eq!(pack(&packets, &[]).len(), 1);
}

#[test]
fn no_fragment_starts_in_a_small_rest() {
    // 1040 - 3 - 980 = 57 bytes are left: the next goes whole into the next cell.
    let packets = [
        Item::Packet(contents(980, 1)),
        Item::Packet(contents(100, 2)),
    ];
    let cells = pack(&packets, &[]);
    assert_eq!(cells.len(), 2);
    assert!(frames(&cells[1]).all(|frame| matches!(frame, Ok(Frame::Packet(_)))));
    // One of 54 still fits.
    let packets = [
        Item::Packet(contents(980, 1)),
        Item::Packet(contents(54, 2)),
    ];
    assert_eq!(pack(&packets, &[]).len(), 1);
    // With 64 left, a fragment starts.
    let packets = [
        Item::Packet(contents(973, 1)),
        Item::Packet(contents(100, 2)),
    ];
    let cells = pack(&packets, &[]);
    assert!(matches!(
        frames(&cells[0]).last(),
        Some(Ok(Frame::PacketFragment(_)))
    ));
}

#[test]
fn nothing_of_an_older_cell_is_sent() {
    let cells = pack(&[Item::Packet(vec![1; 10])], &[]);
    assert_eq!(cells[0][..3], [1, 0, 10]);
    assert!(cells[0][13..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_packer_refuses_what_nobody_could_take() {
    let (mut packer, mut cells) = (Packer::new(FragmentIds::new()), Cells::new());
    let limit = |what| Err(Error::Limit { what });
    assert_eq!(packer.packet(&[], &mut cells), limit("packet length"));
    assert_eq!(
        packer.packet(&vec![0; 65536], &mut cells),
        limit("packet length")
    );
    assert_eq!(packer.message(&[], &mut cells), limit("message length"));
    assert_eq!(
        packer.message(&vec![0; MAX_MESSAGE + 1], &mut cells),
        limit("message length")
    );
    assert_eq!(
        packer.control(&[], &mut cells),
        limit("control frame length")
    );
    assert_eq!(
        packer.control(&[0; 1038], &mut cells),
        limit("control frame length")
    );
    assert!(packer.is_empty() && cells.complete.is_empty());
    packer.packet(&[1], &mut cells).unwrap();
    packer.control(&[0; 1037], &mut cells).unwrap();
    assert_eq!(
        cells.complete.len(),
        2,
        "the control frame has a cell of its own"
    );
}

#[test]
fn the_longest_packet_and_message() {
    for reverse in [false, true] {
        let items = [
            Item::Packet(contents(65535, 1)),
            Item::Message(contents(MAX_MESSAGE, 2)),
        ];
        let mut cells = pack(&items, &[]);
        if reverse {
            cells.reverse();
        }
        // Every second one first: as many separate pieces as there can be.
        let (even, odd): (Vec<_>, Vec<_>) = cells.iter().enumerate().partition(|(n, _)| n % 2 == 0);
        let mut reassembly = Reassembly::new();
        let mut got = Vec::new();
        for (_, cell) in even.into_iter().chain(odd) {
            got.extend(deliver(&mut reassembly, cell, Instant::now()));
        }
        assert_eq!(count(got), count(items));
    }
}

#[test]
fn sessions_number_across_packers() {
    let ids = FragmentIds::new();
    let mut cells = Cells::new();
    for n in 0..3 {
        let mut packer = Packer::new(ids.clone());
        packer.packet(&contents(2000, n), &mut cells).unwrap();
        packer.flush(&mut cells);
    }
    let mut seen: Vec<_> = cells
        .complete
        .iter()
        .flat_map(frames)
        .map(|frame| match frame.unwrap() {
            Frame::PacketFragment(fragment) => fragment.id,
            other => panic!("{other:?}"),
        })
        .collect();
    seen.dedup();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn contradictions_are_refused() {
    let now = Instant::now();
    let malformed = Err(Error::Malformed { what: "fragment" });
    let second = [
        ("another total", fragment(7, 20, 41, &[2; 20])),
        ("an overlap that differs", fragment(7, 19, 40, &[2; 21])),
        ("past the end", fragment(7, 21, 40, &[2; 20])),
    ];
    for (what, frame) in second {
        let mut reassembly = Reassembly::new();
        assert_eq!(
            reassembly.accept(fragment(7, 0, 40, &[1; 20]), now),
            Ok(None)
        );
        assert_eq!(reassembly.accept(frame, now), malformed, "{what}");
        assert_eq!(reassembly.partials(), 0, "{what}: all of it is gone");
        assert_eq!(reassembly.counters().refused, 1);
        // The rest of the first does not complete it.
        assert_eq!(
            reassembly.accept(fragment(7, 20, 40, &[2; 20]), now),
            Ok(None),
            "{what}"
        );
    }
}

#[test]
fn overlaps_that_agree_are_taken() {
    let (mut reassembly, now) = (Reassembly::new(), Instant::now());
    let bytes = contents(100, 3);
    for (from, to) in [(10, 30), (50, 70), (20, 60), (20, 60), (0, 15)] {
        let piece = fragment(1, from, 100, &bytes[from.into()..to]);
        assert_eq!(reassembly.accept(piece, now), Ok(None));
    }
    let last = reassembly.accept(fragment(1, 65, 100, &bytes[65..]), now);
    assert_eq!(last, Ok(Some(Delivered::Packet(&bytes))));
    assert_eq!(reassembly.partials(), 0);
}

#[test]
fn packets_and_messages_do_not_mix() {
    let (mut reassembly, now) = (Reassembly::new(), Instant::now());
    let piece = |offset, data| Fragment {
        id: 1,
        offset,
        total: 4,
        data,
    };
    let (front, back) = (piece(0, &b"ab"[..]), piece(2, &b"cd"[..]));
    assert_eq!(
        reassembly.accept(Frame::PacketFragment(front), now),
        Ok(None)
    );
    assert_eq!(
        reassembly.accept(Frame::MessageFragment(back), now),
        Ok(None)
    );
    assert_eq!(
        reassembly.accept(Frame::MessageFragment(front), now),
        Ok(Some(Delivered::Message(b"abcd")))
    );
}

#[test]
fn a_message_that_claims_too_much_is_refused() {
    let mut reassembly = Reassembly::new();
    let total = MAX_MESSAGE as u16 + 1;
    let frame = Frame::MessageFragment(Fragment {
        id: 1,
        offset: 0,
        total,
        data: b"x",
    });
    assert_eq!(
        reassembly.accept(frame, Instant::now()),
        Err(Error::Limit {
            what: "message length"
        })
    );
    assert_eq!(reassembly.memory(), 0);
}

#[test]
fn crumbs_are_refused() {
    let (mut reassembly, now) = (Reassembly::new(), Instant::now());
    let refused = (0..1000u16)
        .map(|n| {
            reassembly
                .accept(fragment(1, 2 * n, 60000, b"x"), now)
                .is_err()
        })
        .position(|refused| refused);
    assert_eq!(refused, Some(40));
}

#[test]
fn the_incomplete_expire() {
    let (mut reassembly, start) = (Reassembly::new(), Instant::now());
    reassembly
        .accept(fragment(1, 0, 40, &[1; 20]), start)
        .unwrap();
    let late = start + REASSEMBLY_TIME;
    assert_eq!(
        reassembly.accept(fragment(1, 20, 40, &[1; 20]), late),
        Ok(None)
    );
    assert_eq!(reassembly.counters().expired, 1);
    assert_eq!(reassembly.partials(), 1, "the late half begins anew");
    reassembly.expire(late + REASSEMBLY_TIME);
    assert_eq!(reassembly.partials(), 0);
    assert_eq!(reassembly.counters().expired, 2);
    assert_eq!(reassembly.memory(), 0, "an idle session holds no buffers");
}

#[test]
fn the_oldest_gives_way() {
    let (mut reassembly, now) = (Reassembly::new(), Instant::now());
    for id in 0..MAX_PARTIALS as u32 {
        assert_eq!(
            reassembly.accept(fragment(id, 0, 40, &[1; 20]), now),
            Ok(None)
        );
    }
    assert_eq!(
        (reassembly.partials(), reassembly.memory()),
        (MAX_PARTIALS, REASSEMBLY_MEMORY)
    );
    assert_eq!(reassembly.counters().evicted, 0);
    reassembly
        .accept(fragment(9999, 0, 40, &[1; 20]), now)
        .unwrap();
    assert_eq!(reassembly.counters().evicted, 1);
    // The second oldest is still there; the oldest is not.
    let rest = [1; 20];
    let complete = |reassembly: &mut Reassembly, id| {
        matches!(
            reassembly.accept(fragment(id, 20, 40, &rest), now),
            Ok(Some(_))
        )
    };
    assert!(complete(&mut reassembly, 1));
    assert!(!complete(&mut reassembly, 0));
    // Long packets push out as many as they need room for.
    for id in 20000..20016 {
        assert_eq!(
            reassembly.accept(fragment(id, 0, 65535, &[1; 20]), now),
            Ok(None)
        );
    }
    assert_eq!(
        (reassembly.partials(), reassembly.memory()),
        (16, REASSEMBLY_MEMORY)
    );
}

#[test]
fn a_frame_writer_and_the_packer_agree() {
    let packet = contents(300, 5);
    let mut by_hand = RUBBISH;
    let mut writer = FrameWriter::new(&mut by_hand);
    assert!(writer.push(&Frame::Control(b"probe")));
    assert!(writer.push(&Frame::Packet(&packet)));
    writer.finish();
    assert_eq!(
        pack(
            &[Item::Control(b"probe".to_vec()), Item::Packet(packet)],
            &[]
        ),
        [by_hand]
    );
}

/// Packers that leave the beginning of each cell to the caller never write there, and lose nothing.
#[test]
fn what_is_packed_behind_a_copy_frame_leaves_it_alone() {
    for length in [1, 900, 1031, 1032, 1033, 1040, 5000] {
        let mut cells = Cells::new();
        let mut packer = Packer::behind(FragmentIds::new(), COPY_FRAME);
        let packet = vec![7; length];
        packer.packet(&packet, &mut cells).unwrap();
        packer.control(&[1; 9], &mut cells).unwrap();
        packer.flush(&mut cells);
        let (mut memory, mut arrived) = (Reassembly::new(), Vec::new());
        for mut cell in cells.complete {
            assert_eq!(cell[..COPY_FRAME], RUBBISH[..COPY_FRAME], "{length}");
            let copy = Copy { index: 0, count: 2 }.frame();
            cell[..COPY_FRAME].copy_from_slice(&copy);
            for frame in frames(&cell) {
                let delivered = memory.accept(frame.unwrap(), Instant::now()).unwrap();
                if let Some(Delivered::Packet(packet)) = delivered {
                    arrived.push(packet.to_vec());
                }
            }
        }
        assert_eq!(arrived, [packet], "{length}");
    }
}
