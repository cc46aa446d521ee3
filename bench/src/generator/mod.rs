//! A generator of datagrams in the kernel, and what it feeds: relays in network namespaces of
//! their own, each at the other end of a veth pair.
//!
//! `BPF_PROG_TEST_RUN` with live frames runs an XDP program that copies frames from a map, made
//! in advance, into pages of the kernel and sends them over the generator's end of a wire, on a
//! core of its own. What comes back is counted there by another program, and ends.
//!
//! Namespaces have no names: they end with the processes in them, also when those are killed.

#[allow(dead_code, reason = "some of it is for the programs only")]
#[path = "../../ebpf/src/abi.rs"]
mod abi;
mod addresses;
mod directory;
mod feed;
mod frame;
mod garbage;
mod inside;
mod kernel;
mod neighbours;
pub mod node;
mod relay_status;
mod steady;
mod trips;
mod wires;

pub use abi::{FLOOD, FLOODED, FRAME, Frame, HONEST, INTERVAL, NEXT, Settings, State};
pub use addresses::{NEIGHBOURS, address, neighbour};
pub use directory::Directory;
pub use feed::{Fed, Feed, Load};
pub use frame::{Ends, frame_of, spoofed};
pub use garbage::Garbage;
pub use inside::Inside;
pub use kernel::{BURST, Generator, Sent, divert, is_built, settings};
pub use neighbours::Neighbours;
pub use node::{Kind, Node};
pub use relay_status::RelayStatus;
pub use steady::Steady;
pub use trips::there_and_back;
pub use wires::{in_new_namespace, merge};
