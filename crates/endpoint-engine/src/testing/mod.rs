//! A network in memory, and what tests look into.
#![expect(missing_docs, reason = "for tests")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::vec_box,
    reason = "for tests"
)]

pub mod internals;
pub mod packets;
pub mod relay;
pub mod snapshots;
pub mod store;
pub mod strangers;
pub mod world;

pub use packets::*;
pub use relay::{Action, SimRelay};
pub use store::Store;
pub use strangers::Stranger;
pub use world::*;
