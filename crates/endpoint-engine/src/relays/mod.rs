//! The snapshot's relays, and which of them are used.

pub mod blame;
pub mod guards;
pub mod network;
pub mod selection;
