//! The program itself, on loopback: two relays, a directory and a client of the tests' own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
mod directory;
mod errors;
mod life;
mod process;
mod relaying;
