//! What the doctors of relay and client have in common: what they say, and what they ask of the machine.

pub mod capabilities;
pub mod clock;
pub mod command;
pub mod finding;

pub use finding::{Finding, Level, Section};
