//! What the programs and the benchmarks agree on; both compile this file.

/// Bytes of a frame: Ethernet, IPv4, UDP, and one datagram.
pub const FRAME: usize = 14 + 20 + 8 + 1408;
/// Where a frame's remark is, which is not sent.
pub const REMARK: usize = FRAME;
/// Bytes of a frame in a map: the frame and its remark, in whole words.
pub const ROOM: usize = 1456;
/// A frame in a map.
pub type Frame = [u8; ROOM];

/// A remark: send the frame from another address each time.
pub const SPOOF: u8 = 1;
/// The network that such frames come from: its first byte, of four; the others are random.
pub const SPOOFED: u8 = 20;
/// The network that all real neighbours are in: its first two bytes.
pub const NETWORK: [u8; 2] = [10, 77];

/// What the generator is told.
pub type Settings = [u64; 5];
/// The index of the device that frames are sent over.
pub const DEVICE: usize = 0;
/// Nanoseconds between two honest frames.
pub const INTERVAL: usize = 1;
/// How many honest frames there are; each is sent once.
pub const HONEST: usize = 2;
/// How many frames of a flood there are, which are sent over and over while no honest frame is
/// due; none is no flood.
pub const FLOOD: usize = 3;
/// Whether datagrams that come back go on to the sockets of this namespace instead of being counted.
pub const LET_THROUGH: usize = 4;

/// How far the generator has come.
pub type State = [u64; 4];
/// The next honest frame.
pub const NEXT: usize = 0;
/// When it is due, in nanoseconds of the kernel's monotonic clock; 0: now.
pub const DUE: usize = 1;
/// How many frames of the flood were sent.
pub const FLOODED: usize = 2;

/// At most so many honest frames are sent in a row after the generator was held up.
pub const BACKLOG: u64 = 64;

/// Relays that can be told apart, by the third byte of the neighbour's address.
pub const RELAYS: u32 = 8;
/// Neighbours that can be told apart, by the low bits of the last byte.
pub const NEIGHBOURS: u32 = 64;
