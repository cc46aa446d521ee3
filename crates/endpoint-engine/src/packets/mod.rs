//! IP packets: their headers, answers to them, batches of them.

pub(crate) mod batch;
pub(crate) mod headers;
pub(crate) mod held;
pub(crate) mod icmp;
pub(crate) mod lookups;
