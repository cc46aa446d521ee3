//! The maps that the XDP program and the relay share: names, keys and values.
//!
//! | map         | kind                     | key                | value              |
//! |-------------|--------------------------|--------------------|--------------------|
//! | `SETTINGS`  | array of 1               | 0                  | [`Settings`]       |
//! | `ADDRESSES` | hash                     | [`Address`]        | 1                  |
//! | `SESSIONS`  | hash                     | index, host order  | 1                  |
//! | `REPLAY`    | array, mapped by the relay | block number     | [`crate::tag_filter::Block`] |
//! | `SOURCES`   | LRU hash                 | [`Address`]        | [`crate::bucket::Bucket`] |
//! | `TOTAL`     | array of 1               | 0                  | [`crate::bucket::Bucket`] |
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
    /// Handshake messages of one source (IPv4 address, IPv6 /64).
    pub per_source: Limit,
    /// Handshake messages of all sources.
    pub total: Limit,
}

/// Generations of the replay filter: the first half of `REPLAY` and the second.
pub const GENERATIONS: u32 = 2;
/// The most sources whose buckets are kept; the least recently used makes room.
pub const MAX_SOURCES: u32 = 65_536;
/// The most sessions and handshakes in flight.
pub const MAX_SESSIONS: u32 = 262_144;
/// At most this many local addresses.
pub const MAX_ADDRESSES: u32 = 64;
/// One interface has at most this many queues.
pub const MAX_QUEUES: u32 = 64;

const _: () = {
    assert!(core::mem::size_of::<Settings>() == 48);
    assert!(core::mem::align_of::<Settings>() == 8);
    assert!(core::mem::offset_of!(Settings, mask) == 16);
    assert!(core::mem::offset_of!(Settings, per_source) == 32);
};
