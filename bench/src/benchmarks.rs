//! Which benchmarks there are.

use anyhow::Result;

use crate::{Options, Outcome, flood, forward, hop, path, scale};

/// One benchmark.
pub struct Benchmark {
    /// Its name on the command line, and that of its object in the JSON.
    pub name: &'static str,
    /// What it measures, in a line.
    pub about: &'static str,
    /// Whether it makes namespaces, which only root may.
    pub needs_root: bool,
    /// Runs it, on a thread of its own.
    pub run: fn(&Options) -> Result<Outcome>,
}

/// All of them, in the order in which they are run.
pub const ALL: &[Benchmark] = &[
    Benchmark {
        name: hop::NAME,
        about: "one datagram of a known path on one core, from sealed to sealed",
        needs_root: false,
        run: |options| Outcome::of(&hop::run(options)?),
    },
    Benchmark {
        name: "scale",
        about: "the same with many known paths and link sessions, and their memory",
        needs_root: false,
        run: |options| Outcome::of(&scale::run(options)?),
    },
    Benchmark {
        name: "path",
        about: "three and three relays end to end: TCP, UDP, round trips, processor time",
        needs_root: true,
        run: |options| Outcome::of(&path::run(options)?),
    },
    Benchmark {
        name: "forward",
        about: "datagrams a second through a relay on a wire: AF_XDP, UDP, and a bare AF_XDP echo",
        needs_root: true,
        run: |options| Outcome::of(&forward::run(options)?),
    },
    Benchmark {
        name: "flood",
        about: "what honest neighbours get through a relay while garbage comes: AF_XDP and UDP",
        needs_root: true,
        run: |options| Outcome::of(&flood::run(options)?),
    },
];

/// The one of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Benchmark> {
    ALL.iter().find(|benchmark| benchmark.name == name)
}
