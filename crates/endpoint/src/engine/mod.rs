//! The endpoint without I/O.

pub mod command;
pub mod queries;
