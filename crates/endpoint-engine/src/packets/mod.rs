//! IP packets: their headers, answers to them, batches of them.

pub mod batch;
pub mod headers;
pub mod held;
pub mod icmp;
pub mod lookups;
