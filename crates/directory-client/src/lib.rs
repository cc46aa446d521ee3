//! The public part of the directories over HTTP: snapshots, rosters and relay registration.
//!
//! A [`NetworkClient`] asks any of a network's directories for the signed snapshot, and checks it against
//! the network's roster and the clock; the roster against the network's ID, and against the one before. A
//! [`DirectoryClient`] is for one directory, with which it also registers relays. Nothing in these
//! requests depends on who asks. Every answer is bounded in size and time. What goes wrong becomes one
//! line that says what to do. [`Known`] is what outlives a process.
//!
//! Plain HTTP is enough: snapshots, rosters and descriptors are signed, and public.

mod client;
mod error;
mod follow;
mod known;
mod moving;
mod network;
mod standing;

pub use client::{DirectoryClient, Fetched};
pub use error::{ClockError, Error, Result};
pub use follow::{FollowStatus, Following};
pub use known::Known;
pub use moving::follow_settings;
pub use network::NetworkClient;
pub use standing::DirectoryStatus;
