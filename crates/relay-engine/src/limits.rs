//! The bounds on what a relay keeps outside of batches.

use std::time::Duration;

/// How long a cell is held: one handshake may be lost, and its repetition still helps.
pub const HOLD_FOR: Duration = Duration::from_secs(6);
/// Cells held for one path, or for one relay.
pub const HELD_PER_QUEUE: usize = 256;
/// Cells held for paths and links, over all workers: 6 MiB.
pub const HELD_CELLS: usize = 4096;
/// Cells that wait for their time, over all workers of a relay that delays: 22 MiB.
pub const DELAYED_CELLS: usize = 16_384;
/// New paths that wait until their headers are opened, over all workers.
pub const OPENING_PATHS: usize = 1024;
/// Headers that one worker may have on the slow path.
pub const SLOW_WINDOW: usize = 16;
/// Datagrams on their way to the worker that owns their session, per worker.
pub const HANDOVERS: usize = 1024;
/// Initiations that wait for the control plane, which networks share by where they say that they are from. At some
/// 300 µs each, this is 300 ms of its work; under load, where a MAC and a cookie are looked at first, it is what comes
/// at 13,000 a second while the control plane has no core for 80 ms.
pub const HANDSHAKES: usize = 1024;
/// The same from the first addresses of relays of the snapshot.
pub const RELAYS_HANDSHAKES: usize = 64;
/// Answers to handshakes, ours or forged, that wait for the control plane. They have a queue of their
/// own, so that a flood of initiations keeps none out.
pub const ANSWERS: usize = 256;
/// Path probes that wait for the control plane. They have a queue of their own, so that a flood of them
/// keeps no handshake out.
pub const PROBES: usize = 64;
/// Control messages that wait for the control plane.
pub const MESSAGES: usize = 256;
