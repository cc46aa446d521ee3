//! From packets to datagrams: packing, sealing, wrapping, in whole batches.
//!
//! A *lane* is a cell that is being filled, and where it goes: one path, the next path
//! in rotation, or copies over several. At the end of a batch all lanes are flushed, so no packet
//! waits for another. In the steady state nothing is allocated.

use mixline_protocol::frames::{COPY_FRAME, CellSink, Copy, FragmentIds, MAX_COPIES, Packer};
use mixline_protocol::link::CellKind;
use mixline_protocol::session::SessionSeal;
use mixline_protocol::size::{COUNTER, FRAMES, PATH_HEADER, Payload};

use std::time::Instant;

use arrayvec::ArrayVec;

use crate::guard_links::{Links, cell_mut};
use crate::outbox::Outbox;
use crate::policy::MAX_DUPLICATES;
use crate::session::Session;
use crate::session::lanes::{CONTROL_COPIES, Lane, Route};
use crate::session::paths::Paths;
use crate::status::Counters;

/// Copies of them while no path is known to work.
pub const MORE_COPIES: usize = 6;
/// With so many lanes, one more replaces those whose cells are empty.
const MAX_LANES: usize = 16;

/// What turns the frames of a session's cells into datagrams.
pub struct Wire<'a> {
    /// The session's key.
    pub seal: &'a mut SessionSeal,
    /// The session's paths.
    pub paths: &'a mut Paths,
    /// Links to the guards.
    pub links: &'a Links,
    /// Where the datagrams go.
    pub outbox: &'a mut Outbox,
    /// Counts cells.
    pub counters: &'a mut Counters,
    /// The time.
    pub now: Instant,
}

impl Wire<'_> {
    /// Seals frames and sends them where the route says; each copy is sealed by itself.
    pub fn send(&mut self, frames: &[u8; FRAMES], route: Route) {
        match route {
            Route::Path(id) if self.paths.get(id).is_some() => self.single(frames, id),
            Route::Path(_) | Route::NextPath => match self.paths.next_path(self.now) {
                Some(id) => self.single(frames, id),
                None => self.counters.overflow += 1,
            },
            Route::Copies(copies) => self.copies(frames, copies),
        }
    }

    /// In place, in the outbox.
    fn single(&mut self, frames: &[u8; FRAMES], id: u32) {
        let seal = &mut *self.seal;
        let sealed = |payload: &mut Payload| {
            payload[COUNTER..COUNTER + FRAMES].copy_from_slice(frames);
            seal.seal(payload).is_ok()
        };
        over_path(
            self.paths,
            id,
            self.links,
            self.outbox,
            self.counters,
            sealed,
        );
    }

    /// Sealed for each path, under counters that follow one another: were the copies equal, relays on
    /// different paths could tell that these are the same sender's. The receiver knows by the counters
    /// whether it has another copy.
    fn copies(&mut self, frames: &[u8; FRAMES], copies: usize) {
        let paths: ArrayVec<u32, MORE_COPIES> = self.paths.apart(copies, self.now);
        if paths.is_empty() {
            self.counters.overflow += 1;
            return;
        }
        let count = u8::try_from(paths.len()).unwrap_or(MAX_COPIES);
        for (index, id) in (0..count).zip(paths) {
            let seal = &mut *self.seal;
            let mut sealed = false;
            // In place, in the outbox.
            let copied = |payload: &mut Payload| {
                sealed = true;
                let (front, rest) = payload[COUNTER..COUNTER + FRAMES].split_at_mut(COPY_FRAME);
                front.copy_from_slice(&Copy { index, count }.frame());
                rest.copy_from_slice(&frames[COPY_FRAME..]);
                seal.seal(payload).is_ok()
            };
            over_path(
                self.paths,
                id,
                self.links,
                self.outbox,
                self.counters,
                copied,
            );
            // A path that fails takes its counter with it.
            if !sealed {
                self.seal.skip();
            }
        }
    }
}

/// Makes one datagram for a path; `fill` writes the sealed payload.
fn over_path(
    paths: &mut Paths,
    id: u32,
    links: &Links,
    outbox: &mut Outbox,
    counters: &mut Counters,
    fill: impl FnOnce(&mut Payload) -> bool,
) {
    let Some(path) = paths.get_mut(id) else {
        return;
    };
    let Some((link, to)) = links.route(&path.guard()) else {
        counters.overflow += 1;
        return;
    };
    let Some(datagram) = outbox.push(to) else {
        counters.overflow += 1;
        return;
    };
    let filled = cell_mut(datagram).is_some_and(|cell| {
        let Some((header, payload)) = cell.split_first_chunk_mut::<PATH_HEADER>() else {
            return false;
        };
        let Ok(payload) = <&mut Payload>::try_from(payload) else {
            return false;
        };
        *header = *path.head.header();
        fill(payload) && {
            path.head.wrap(payload);
            true
        }
    });
    if filled && link.seal(datagram, CellKind::Cell).is_ok() {
        path.cells += 1;
        counters.cells_out += 1;
    } else {
        outbox.retract();
    }
}

/// One lane's cells on their way to the wire.
struct Sink<'a, 'w> {
    frames: &'a mut [u8; FRAMES],
    route: Route,
    wire: &'a mut Wire<'w>,
}

impl CellSink for Sink<'_, '_> {
    fn cell(&mut self) -> &mut [u8; FRAMES] {
        self.frames
    }

    fn complete(&mut self) {
        self.wire.send(self.frames, self.route);
    }
}

/// What is packed.
#[derive(Debug, Clone, Copy)]
pub enum Load<'a> {
    /// An IP packet.
    Packet(&'a [u8]),
    /// A message.
    Message(&'a [u8]),
    /// A control frame.
    Control(&'a [u8]),
}

/// The context in which a session sends.
pub struct Sender<'a> {
    /// Links to the guards.
    pub links: &'a Links,
    /// Where the datagrams go.
    pub outbox: &'a mut Outbox,
    /// Counts cells.
    pub counters: &'a mut Counters,
    /// The time.
    pub now: Instant,
}

const _: () = assert!(MORE_COPIES <= MAX_COPIES as usize);
const _: () = assert!(MORE_COPIES >= MAX_DUPLICATES && MORE_COPIES >= CONTROL_COPIES);

impl Session {
    /// Over how many paths control frames and messages go.
    #[must_use]
    pub fn control_route(&self, now: Instant) -> Route {
        let alive = self.paths.any_alive(now);
        Route::Copies(if alive { CONTROL_COPIES } else { MORE_COPIES })
    }

    /// Packs something into the lane of a route. False if the session cannot send yet, or the
    /// thing is too long.
    pub fn pack(&mut self, load: Load<'_>, route: Route, sender: &mut Sender<'_>) -> bool {
        let Some(keys) = &mut self.keys.current else {
            return false;
        };
        let at = match self.lanes.iter().position(|lane| lane.route == route) {
            Some(at) => at,
            None => {
                if self.lanes.len() >= MAX_LANES {
                    // Lanes of paths that are gone; all are empty but within a batch.
                    self.lanes.retain(|lane| !lane.packer.is_empty());
                }
                self.lanes.push(Lane {
                    route,
                    packer: Packer::behind(FragmentIds::clone(&self.ids), route.reserved()),
                    frames: Box::new([0; FRAMES]),
                });
                self.lanes.len() - 1
            }
        };
        let lane = &mut self.lanes[at];
        let mut wire = Wire {
            seal: &mut keys.seal,
            paths: &mut self.paths,
            links: sender.links,
            outbox: sender.outbox,
            counters: sender.counters,
            now: sender.now,
        };
        let mut sink = Sink {
            frames: &mut lane.frames,
            route,
            wire: &mut wire,
        };
        match load {
            Load::Packet(bytes) => lane.packer.packet(bytes, &mut sink),
            Load::Message(bytes) => lane.packer.message(bytes, &mut sink),
            Load::Control(bytes) => lane.packer.control(bytes, &mut sink),
        }
        .is_ok()
    }

    /// Sends all lanes as they are.
    pub fn flush(&mut self, sender: &mut Sender<'_>) {
        let Some(keys) = &mut self.keys.current else {
            return;
        };
        let mut wire = Wire {
            seal: &mut keys.seal,
            paths: &mut self.paths,
            links: sender.links,
            outbox: sender.outbox,
            counters: sender.counters,
            now: sender.now,
        };
        for lane in &mut self.lanes {
            let mut sink = Sink {
                frames: &mut lane.frames,
                route: lane.route,
                wire: &mut wire,
            };
            lane.packer.flush(&mut sink);
        }
    }
}
