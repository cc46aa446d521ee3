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
//! | `NETWORKS`  | LRU hash                 | [`networks`]       | [`crate::bucket::Bucket`] |
//! | `PROBING`   | LRU hash                 | [`networks`]       | [`crate::bucket::Bucket`] |
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

/// The networks that a source is in: a /24 and a /16 of IPv4, a /48 and a /32 of IPv6. The last byte is the length of the
/// prefix, so that none of the four is another one's key.
#[inline(always)]
#[must_use]
pub const fn networks(source: &Address) -> [Address; 2] {
    let v4 = mapped([0; 4]);
    let mut i = 0;
    while i < 12 && source[i] == v4[i] {
        i += 1;
    }
    // Bytes that are kept, and the length of the prefix.
    let (narrow, wide) = if i == 12 {
        ((15, 24), (14, 16))
    } else {
        ((6, 48), (4, 32))
    };
    [prefix(source, narrow), prefix(source, wide)]
}

#[inline(always)]
const fn prefix(source: &Address, (kept, length): (usize, u8)) -> Address {
    let mut network = *source;
    let mut i = 0;
    while i < network.len() {
        if i >= kept {
            network[i] = 0;
        }
        i += 1;
    }
    network[15] = length;
    network
}

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
    /// Initiations of a network, narrow and wide ([`networks`]).
    pub per_network: [Limit; 2],
    /// Path probes of a network.
    pub probes_per_network: [Limit; 2],
}

/// Generations of the replay filter: the first half of `REPLAY` and the second.
pub const GENERATIONS: u32 = 2;
/// The most sources of handshakes whose buckets are kept; the least recently used makes room.
pub const MAX_SOURCES: u32 = 65_536;
/// The most networks of sources of handshakes whose buckets are kept, and of path probes.
pub const MAX_NETWORKS: u32 = 16_384;
/// The same as the most sources, of path probes.
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
    assert!(core::mem::size_of::<Settings>() == 120);
    assert!(core::mem::align_of::<Settings>() == 8);
    assert!(core::mem::offset_of!(Settings, mask) == 16);
    assert!(core::mem::offset_of!(Settings, per_source) == 32);
    assert!(core::mem::offset_of!(Settings, probes_per_source) == 48);
    assert!(core::mem::offset_of!(Settings, per_answer) == 64);
    assert!(core::mem::offset_of!(Settings, per_network) == 88);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_in_networks_of_their_own_family() {
        let [narrow, wide] = networks(&mapped([192, 0, 2, 77]));
        assert_eq!(narrow, mapped([192, 0, 2, 24]));
        assert_eq!(wide, mapped([192, 0, 0, 16]));
        assert_eq!(networks(&mapped([192, 0, 9, 1]))[1], wide);
        assert_ne!(networks(&mapped([192, 0, 0, 1]))[0], wide);

        let v6 = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        let [narrow, wide] = networks(&v6);
        let mut expected = [0; 16];
        expected[..6].copy_from_slice(&v6[..6]);
        expected[15] = 48;
        assert_eq!(narrow, expected);
        expected[5] = 0;
        expected[15] = 32;
        assert_eq!(wide, expected);
    }
}
