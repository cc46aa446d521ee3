//! Where the fields of a datagram stand that the XDP program looks at.

/// Bytes of every UDP payload between two nodes; any other length is dropped.
pub const DATAGRAM_LENGTH: usize = 1408;
/// Bytes of the link header at the front.
pub const LINK_HEADER_LENGTH: usize = 16;
/// Where the message type stands; three zero bytes follow.
pub const TYPE_OFFSET: usize = 0;
/// Where the receiver index (32 bits, big-endian) stands.
pub const INDEX_OFFSET: usize = 4;
/// Where the counter (64 bits, big-endian) stands.
pub const COUNTER_OFFSET: usize = 8;
/// Bytes of the authentication tag at the end, a keyed hash of the whole message.
pub const TAG_LENGTH: usize = 16;
/// Where the authentication tag stands.
pub const TAG_OFFSET: usize = DATAGRAM_LENGTH - TAG_LENGTH;

/// Message type: handshake initiation.
pub const TYPE_INITIATION: u8 = 1;
/// Message type: handshake response.
pub const TYPE_RESPONSE: u8 = 2;
/// Message type: cookie.
pub const TYPE_COOKIE: u8 = 3;
/// Message type: data.
pub const TYPE_DATA: u8 = 4;
/// Message type: a question about the path, the only message that may be shorter than
/// [`DATAGRAM_LENGTH`].
pub const TYPE_PROBE: u8 = 5;
/// Message type: the answer to it, as short as the question asks.
pub const TYPE_PROBE_ANSWER: u8 = 6;
/// Bytes of the shortest question, and of the shortest answer.
pub const MIN_PROBE_LENGTH: usize = 64;
