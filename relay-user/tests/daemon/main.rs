//! The program itself, on loopback and in network namespaces: two relays, a directory and a
//! client of the tests' own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod directories;
mod directory;
mod doctor;
mod drain;
mod errors;
mod hangups;
mod init;
mod life;
mod limits;
mod logs;
mod metrics;
mod network;
mod process;
mod relaying;
mod reload;
mod service;
mod setting;
mod top;
mod wires;
mod xdp;
