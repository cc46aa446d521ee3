//! Wire formats, cryptography and state machines of Mixline.
//!
//! Bytes, time and randomness go in; bytes and decisions come out. Nothing here
//! does I/O, reads a clock or uses `unsafe`, so all of it runs in tests, in
//! fuzzers and in benchmarks without a socket or root.
//!
//! From the outside in, a datagram on the wire is read by
//! [`link`] (neighbour to neighbour), [`path`] (layer by layer through relays),
//! [`session`] (end to end between two anonymous IDs) and [`frames`] (the IP
//! packets within). [`records`] say who takes part, and [`directory`] is how to ask for them. [`ring`] is where
//! relays keep what services publish.
//!
//! # A path
//!
//! The receiver builds a tail and publishes it, the sender puts a head in front. Each relay peels
//! one layer, and at the end the receiver takes off what the tail's relays have left:
//!
//! ```
//! use mixline_protocol::identity::IdentityKey;
//! use mixline_protocol::path::{
//!     HeadSecrets, Hop, MailboxToken, Next, OnionSecret, TailSecrets, build_head, build_tail,
//!     open_header,
//! };
//! use mixline_protocol::random::OsRandom;
//! use mixline_protocol::size::{CELL, PATH_HEADER, PAYLOAD};
//!
//! # fn main() -> mixline_protocol::Result<()> {
//! let rng = &mut OsRandom::new();
//! // Four relays, each with its identity and its onion key. Two are of the head, two of the tail.
//! let names: Vec<_> = (0..4).map(|_| IdentityKey::generate(rng).relay_id().short()).collect();
//! let onions: Vec<_> = (0..4).map(|_| OnionSecret::generate(rng)).collect();
//! let hop = |i: usize| Hop { relay: names[i], onion: onions[i].public() };
//!
//! let mailbox = MailboxToken([7; 8]);
//! let (tail, keys) = build_tail(&TailSecrets::random(rng), &[hop(2), hop(3)], mailbox)?;
//! let head = build_head(&HeadSecrets::random(rng), &[hop(0), hop(1)], &tail)?;
//!
//! let mut cell = [0; CELL];
//! cell[..PATH_HEADER].copy_from_slice(head.header());
//! let mut payload = [42; PAYLOAD];
//! head.wrap(&mut payload);
//! cell[PATH_HEADER..].copy_from_slice(&payload);
//!
//! let expected = [
//!     Next::Forward(names[1]),
//!     Next::Junction(names[2]),
//!     Next::Forward(names[3]),
//!     Next::Deliver(mailbox),
//! ];
//! for (onion, next) in onions.iter().zip(expected) {
//!     let path = open_header(onion, cell.first_chunk().expect("a header"))?;
//!     assert_eq!(path.next(), next);
//!     path.peel(&mut cell);
//! }
//!
//! payload.copy_from_slice(&cell[PATH_HEADER..]);
//! keys.unwrap(&mut payload);
//! assert_eq!(payload, [42; PAYLOAD]);
//! # Ok(())
//! # }
//! ```

pub mod address;
pub mod address_scope;
pub mod authorisation;
pub mod directory;
pub mod effort;
pub mod epoch;
pub mod error;
pub mod frames;
pub mod identity;
pub mod link;
pub mod listing;
pub mod name;
mod noise;
pub mod path;
pub mod prefetch;
pub mod random;
pub mod rate_limit;
pub mod records;
pub mod replay;
pub mod ring;
pub mod round_log;
pub mod session;
pub mod shares;
pub mod size;
pub mod time;
pub mod wire;

pub use error::{Error, Result};
