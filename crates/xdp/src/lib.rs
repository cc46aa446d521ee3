//! The XDP program loaded, its maps, and AF_XDP sockets, behind a safe interface.
//!
//! All `unsafe` of the relay is in this crate, and in the program itself. [`Program`]
//! loads the program and attaches it; [`Sessions`] and [`TagFilter`] are what the relay
//! tells it while it runs; [`Socket`] receives and sends frames of one queue, over the real
//! kernel's rings ([`Bound`]) or, in tests, over rings in plain memory (`testing`).

mod bound;
mod card;
mod error;
mod kernel;
mod memory;
mod neighbours;
mod options;
mod packet;
mod program;
mod program_log;
mod socket;
mod socket_config;
mod tag_filter;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wakeup;

pub use bound::{Bound, Granted};
pub use card::{Abilities, Card, Stacked};
pub use error::{BindError, Error, LoadError, MapFault, Result};
pub use kernel::{Kernel, Ring};
pub use neighbours::{Neighbours, NextHop};
pub use packet::Packet;
pub use program::{Attached, Counts, Program, ProgramConfig, Sessions, Verdicts};
pub use socket::Socket;
pub use socket_config::{FrameBytes, SocketConfig};
pub use tag_filter::TagFilter;
