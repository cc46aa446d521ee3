//! Packets in batches.

use std::ops::Range;

/// Bytes of packets that a batch has room for, besides one packet of any length.
pub const BATCH_BYTES: usize = 192 * 1024;
/// A batch has at most so many packets.
pub const BATCH_PACKETS: usize = 256;
/// The longest IP packet, bytes.
pub const MAX_PACKET: usize = 65535;

/// Whole IP packets (IPv4 or IPv6, from the first byte of the IP header), in order.
///
/// One buffer holds them all and is used again and again, so that moving packets
/// allocates nothing. A batch takes at least one packet of any length, and at most
/// [`BATCH_PACKETS`] packets of some [`BATCH_BYTES`] in all.
pub struct PacketBatch {
    bytes: Box<[u8]>,
    used: usize,
    packets: Vec<Range<usize>>,
}

impl PacketBatch {
    /// An empty batch with all its room allocated.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BATCH_BYTES + MAX_PACKET].into_boxed_slice(),
            used: 0,
            packets: Vec::with_capacity(BATCH_PACKETS),
        }
    }

    /// Forgets the packets, keeps the room.
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets.clear();
    }

    /// How many packets it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether [`Self::push`] might refuse the next packet.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.packets.len() >= BATCH_PACKETS || self.used > BATCH_BYTES
    }

    /// Copies a packet to the end; false if the batch is full or the packet longer than
    /// [`MAX_PACKET`].
    pub fn push(&mut self, packet: &[u8]) -> bool {
        if self.is_full() || packet.len() > MAX_PACKET {
            return false;
        }
        self.bytes[self.used..self.used + packet.len()].copy_from_slice(packet);
        self.commit(0..packet.len());
        true
    }

    /// Room behind the last packet, to read packets into without a copy; empty if the batch is
    /// full, at least [`MAX_PACKET`] bytes otherwise. Then [`Self::commit`] what was read.
    #[must_use]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        if self.is_full() {
            return &mut [];
        }
        &mut self.bytes[self.used..]
    }

    /// Makes a packet of the bytes in `range` of [`Self::spare_mut`]. What stands before the
    /// range (a virtio header, say) is left out. Does nothing if the range is not within the
    /// spare room, or the batch is full.
    pub fn commit(&mut self, range: Range<usize>) {
        let (start, end) = (self.used + range.start, self.used + range.end);
        if self.is_full() || range.start > range.end || end > self.bytes.len() {
            return;
        }
        self.packets.push(start..end);
        self.used = end;
    }

    /// The packet at a position, if there is one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.packets
            .get(index)
            .map(|range| &self.bytes[range.clone()])
    }

    /// The packets, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.packets.iter().map(|range| &self.bytes[range.clone()])
    }
}

impl Default for PacketBatch {
    fn default() -> Self {
        Self::new()
    }
}
