//! What a running relay shows of itself.

pub mod metrics;
pub mod status;
