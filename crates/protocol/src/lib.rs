//! Wire formats, cryptography and state machines of Mixline.
//!
//! Bytes, time and randomness go in; bytes and decisions come out. Nothing here
//! does I/O, reads a clock or uses `unsafe`, so all of it runs in tests, in
//! fuzzers and in benchmarks without a socket or root.
//!
//! From the outside in, a datagram on the wire is read by
//! [`link`] (neighbour to neighbour), [`path`] (layer by layer through relays),
//! [`session`] (end to end between two anonymous IDs) and [`frames`] (the IP
//! packets within). [`records`] and [`directory`] say who is there and how to ask.

pub mod address;
pub mod directory;
pub mod epoch;
pub mod error;
pub mod frames;
pub mod hctr2;
pub mod identity;
pub mod link;
pub mod name;
mod noise;
pub mod path;
pub mod prefetch;
pub mod random;
pub mod records;
pub mod replay;
pub mod session;
pub mod size;
pub mod time;
pub mod wire;

pub use error::{Error, Result};
