//! UDP sockets for datagrams of one constant length.
//!
//! Every payload between two nodes has [`DATAGRAM`](mixline_protocol::size::DATAGRAM)
//! bytes, which is what the kernel's segmentation offloads want: on reception, a run of
//! datagrams of one flow arrives as one large buffer (UDP GRO) and is split in place; for
//! sending, datagrams to one destination are gathered into one message that the kernel
//! cuts (UDP GSO). Many of those go in one system call each way. Per datagram nothing is
//! copied and nothing is allocated.
//!
//! A wrong length never reaches the caller: it is counted and dropped here.
//!
//! Reception goes through `quinn-udp`, whose `recvmmsg` keeps its headers on the stack;
//! nix's reused `MultiHeaders` forget the room for control messages after the first
//! call, and so lose the segment size of GRO. Sending goes through nix's `sendmmsg`,
//! which gathers from several places. It needs no control message, since the segment
//! size is set once for the whole socket. A socket [with time stamps](BindOptions::stamps), for a
//! diagnosis, receives through nix with headers that are made anew for each call.

mod plan;
mod receive;
mod send;
mod socket;
mod stamped;

pub use receive::{MAX_MESSAGES, ReceiveRing, Received};
pub use send::{MAX_SEGMENTS, Outgoing, SEND_BATCH};
pub use socket::{BUFFER_BYTES, BatchSocket, BindOptions, Counters};
