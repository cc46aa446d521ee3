//! What an AF_XDP socket is made with.

/// What a socket is made with.
#[derive(Debug, Clone, Copy)]
pub struct SocketConfig {
    /// Frames in all; half of them wait in the fill ring. A power of two.
    pub frames: u32,
    /// How large each is.
    pub size: FrameBytes,
    /// Try zero-copy before copy mode.
    pub zero_copy: bool,
    /// Packets give the time stamps that the program has put in front of their frames.
    pub stamps: bool,
}

/// The size of a frame. The kernel keeps 256 bytes of it for itself (`XDP_PACKET_HEADROOM`); what
/// is left is what the driver tells the card to receive into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameBytes {
    /// 2048 bytes. A card whose buffers come in steps of 1024 bytes receives 1024 into it, and cuts
    /// our datagrams: `igb`, `igc`, and `ixgbe` for older cards.
    TwoKiB,
    /// 4096 bytes, which every driver takes.
    #[default]
    FourKiB,
}

impl Default for SocketConfig {
    /// 4096 frames of 4 KiB: 16 MiB a queue.
    fn default() -> Self {
        Self {
            frames: 4096,
            size: FrameBytes::default(),
            zero_copy: true,
            stamps: false,
        }
    }
}
