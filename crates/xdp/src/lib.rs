//! The XDP program loaded, its maps, and AF_XDP sockets, behind a safe interface.
//!
//! All `unsafe` of the relay stands in this crate, and in the program itself. [`Program`]
//! loads the program and attaches it; [`Sessions`] and [`TagFilter`] are what the relay
//! tells it while it runs; [`Socket`] receives and sends frames of one queue.

mod error;
mod neighbours;
mod options;
mod program;
mod program_log;
mod socket;
mod tag_filter;
mod wakeup;

pub use error::{Error, Result};
pub use neighbours::{Neighbours, NextHop};
pub use program::{Attached, Program, ProgramConfig, Sessions, Verdicts};
pub use socket::{Granted, Packet, Socket, SocketConfig};
pub use tag_filter::TagFilter;
