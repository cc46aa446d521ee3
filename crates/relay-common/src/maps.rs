//! The maps that the XDP program and the relay share: names, keys and values.
//!
//! | map         | kind                     | key                | value              |
//! |-------------|--------------------------|--------------------|--------------------|
//! | `SETTINGS`  | array of 1               | 0                  | [`Settings`]       |
//! | `ADDRESSES` | hash                     | [`Address`]        | 1                  |
//! | `SESSIONS`  | hash                     | index, host order  | 1                  |
//! | `REPLAY`    | array, mapped by the relay | block number     | [`crate::tag_filter::Block`] |
//! | `ASKED`     | hash                     | index, host order  | [`crate::bucket::Bucket`] |
//! | `SOURCES`   | LRU hash                 | [`Address`]        | [`crate::bucket::Bucket`] |
//! | `PROBERS`   | LRU hash                 | [`Address`]        | [`crate::bucket::Bucket`] |
//! | `UNREAD`    | LRU hash                 | [`Address`]        | [`crate::bucket::Bucket`] |
//! | `TOTALS`    | array of 3               | [`HANDSHAKES`], [`PROBES`], [`UNREAD`] | [`crate::bucket::Bucket`] |
//! | `VERDICTS`  | per-CPU array            | [`crate::verdict::counter`] | `u64`     |
//! | `SOCKETS`   | XSK map                  | queue              | socket             |

use crate::bucket::Limit;

/// An IP address as 16 bytes: IPv6 as it is, IPv4 mapped (RFC 4291, section 2.5.5.2).
pub type Address = [u8; 16];

/// The mapped form of an IPv4 address.
#[inline(always)]
#[must_use]
pub const fn mapped(v4: [u8; 4]) -> Address {
    [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3],
    ]
}

/// Data of live sessions goes to the queue's AF_XDP socket.
pub const MODE_REDIRECT: u32 = 0;
/// Data of live sessions passes to the kernel's socket: the program is a filter.
pub const MODE_FILTER: u32 = 1;

/// What user space tells the program; written before it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Settings {
    /// The secret of the replay filter.
    pub key: [u64; 2],
    /// Blocks of one generation of the replay filter, less one; a power of two less one.
    pub mask: u32,
    /// [`MODE_REDIRECT`] or [`MODE_FILTER`].
    pub mode: u32,
    /// Our UDP port, host order.
    pub port: u32,
    /// Not zero: datagrams that the kernel has merged (GRO, or GSO of a neighbour on the same
    /// machine) pass to the kernel's socket, which takes them apart. Generic XDP sees those; in
    /// the driver there are none.
    pub merged: u32,
    /// Initiations of one source (IPv4 address, IPv6 /64).
    pub per_source: Limit,
    /// Initiations of all sources.
    pub total: Limit,
    /// Path probes of one source. They have buckets of their own, and take nothing from handshakes.
    pub probes_per_source: Limit,
    /// Path probes of all sources.
    pub probes_total: Limit,
    /// Answers to one handshake of ours, wherever they come from. Whoever floods us with initiations, in
    /// whatever name, keeps no answer out.
    pub per_answer: Limit,
    /// What is to our port and cannot be read, of one source.
    pub unread_per_source: Limit,
    /// The same of all sources.
    pub unread_total: Limit,
}

/// Generations of the replay filter: the first half of `REPLAY` and the second.
pub const GENERATIONS: u32 = 2;
/// The most sources of handshakes whose buckets are kept; the least recently used makes room.
pub const MAX_SOURCES: u32 = 65_536;
/// The same of path probes.
pub const MAX_PROBERS: u32 = 4_096;
/// The same of what cannot be read.
pub const MAX_UNREAD: u32 = 4_096;
/// Where `TOTALS` has the bucket of all initiations.
pub const HANDSHAKES: u32 = 0;
/// Where `TOTALS` has the bucket of all path probes.
pub const PROBES: u32 = 1;
/// Where `TOTALS` has the bucket of all that cannot be read.
pub const UNREAD: u32 = 2;
/// The most sessions and handshakes in flight.
pub const MAX_SESSIONS: u32 = 262_144;
/// The most handshakes of our own in flight: one for each relay of a network, and for those that have
/// just left it.
pub const MAX_ASKED: u32 = 16_384;
/// At most this many local addresses.
pub const MAX_ADDRESSES: u32 = 64;
/// One interface has at most this many queues.
pub const MAX_QUEUES: u32 = 64;

const _: () = {
    assert!(core::mem::size_of::<Settings>() == 88);
    assert!(core::mem::align_of::<Settings>() == 8);
    assert!(core::mem::offset_of!(Settings, mask) == 16);
    assert!(core::mem::offset_of!(Settings, per_source) == 32);
    assert!(core::mem::offset_of!(Settings, probes_per_source) == 48);
    assert!(core::mem::offset_of!(Settings, per_answer) == 64);
};
