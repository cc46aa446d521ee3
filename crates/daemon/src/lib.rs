//! What the three daemons do alike when they start.

pub mod logging;
