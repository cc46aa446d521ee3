//! The snapshot's relays, and which of them are used.

pub(crate) mod blame;
pub(crate) mod budget;
pub(crate) mod guards;
pub(crate) mod key_changes;
pub(crate) mod layers;
pub(crate) mod network;
mod relay_text;
pub(crate) mod selection;
