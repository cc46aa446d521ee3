//! What the three daemons do alike: how they log when they start, and what their packages make of their
//! command lines.

pub mod logging;
pub mod manual;
