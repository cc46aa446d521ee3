//! The snapshot's relays, and which of them are used.

pub(crate) mod blame;
pub(crate) mod guards;
pub(crate) mod network;
pub(crate) mod selection;
