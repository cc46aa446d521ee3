//! The public part of the directory over HTTP: snapshots and relay registration.
//!
//! A [`DirectoryClient`] fetches the signed snapshot, checks it against the directory's
//! ID and the clock, and registers relays. Nothing in these requests depends on who
//! asks. Every answer is bounded in size and time. What goes wrong becomes one line that
//! says what to do.
//!
//! Plain HTTP is enough: snapshots and descriptors are signed, and public.

mod client;
mod error;
mod follow;
mod known;
mod moving;

pub use client::{DirectoryClient, Fetched};
pub use error::{ClockError, Error, Result};
pub use follow::FollowStatus;
pub use known::Known;
pub use moving::follow_settings;
