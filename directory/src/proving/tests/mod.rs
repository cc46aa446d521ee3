//! Proving, with hosts and a network in memory.

mod answers;
mod bounds;
mod renewal;
mod sockets;
mod world;
