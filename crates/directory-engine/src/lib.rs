//! How the directories of a network agree on a snapshot, without sockets, disk or clock.
//!
//! Each round has a snapshot or none, and never two. The directories exchange [votes](mixline_protocol::records::Vote)
//! and pass on those of the others ([`endorsements`](mixline_protocol::records::Endorsement)) until all
//! honest ones know the same ([`rounds`]); each of them then makes the same snapshot of them ([`merge()`])
//! and signs it, once a round. Whoever has the signatures of a quorum publishes.
//!
//! - `schedule`: when what happens;
//! - `rounds`: the state of a round, what comes in and what goes out;
//! - `merge`, `shared_random`: what a snapshot of some votes is;
//! - `message`: what directories send to each other;
//! - `scheme`: who signs and how signatures are checked, real or, in the model's tests, pretended.
//!
//! Safety needs no clock: two quorums have an honest directory in common, and it signs one snapshot a round, which is on its
//! disk before anybody sees it. That a round has a snapshot at all takes clocks and a network that keep to the
//! [schedule](schedule::Schedule).

pub mod merge;
pub mod message;
mod round;
pub mod rounds;
pub mod schedule;
pub mod scheme;
pub mod shared_random;

pub use merge::{Merged, merge};
pub use message::Message;
pub use rounds::{Certified, Draft, Output, Promise, Records, Rounds, Wanted};
pub use schedule::Schedule;
pub use scheme::{Scheme, Signable, SigningKeys};
