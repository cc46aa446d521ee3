//! The clocks of this machine, which the engine is told.

use std::time::{Instant, SystemTime};

use mixline_endpoint_engine::clock::Now;

/// What they show.
pub(crate) fn now() -> Now {
    Now::new(Instant::now(), SystemTime::now())
}
