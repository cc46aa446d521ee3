//! Which function runs which benchmark.

use anyhow::Result;

use crate::cli::{Name, Options};
use crate::{Outcome, cores, endpoint, flood, forward, hop, latency, path, ring, scale};

/// Runs a benchmark. It may keep the thread to one core.
///
/// # Errors
/// If what is measured does not do what it should.
pub fn run(name: Name, options: &Options) -> Result<Outcome> {
    match name {
        Name::Hop => Outcome::of(&hop::run(options)?),
        Name::Scale => Outcome::of(&scale::run(options)?),
        Name::Cores => Outcome::of(&cores::run(options)?),
        Name::Endpoint => Outcome::of(&endpoint::run(options)?),
        Name::Ring => Outcome::of(&ring::run(options)?),
        Name::Path => Outcome::of(&path::run(options)?),
        Name::Forward => Outcome::of(&forward::run(options)?),
        Name::Latency => Outcome::of(&latency::run(options)?),
        Name::Flood => Outcome::of(&flood::run(options)?),
    }
}
