//! The program itself, on loopback and in network namespaces: two relays, a directory and a
//! client of the tests' own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod directory;
mod doctor;
mod drain;
mod errors;
mod life;
mod limits;
mod logs;
mod network;
mod process;
mod relaying;
mod reload;
mod service;
mod wires;
mod xdp;
