//! Packets that wait for the directory, and how many there may be.

use crate::packets::held::Held;

/// Addresses that are being looked up for packets at once.
pub const MAX_LOOKUPS: usize = 64;
/// Lookups for packets in a second, and at once: a scan of the virtual network must not
/// become a flood of questions.
pub const LOOKUPS_PER_SECOND: u32 = 20;
/// See [`LOOKUPS_PER_SECOND`].
pub const LOOKUPS_BURST: u32 = 64;

/// Packets that wait for the directory to say whose address it is.
#[derive(Default)]
pub struct Lookup {
    /// The packets.
    pub held: Held,
    /// None waits: the peer was unreachable a moment ago, and is tried again.
    pub background: bool,
}
