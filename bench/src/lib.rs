//! The benchmarks of Mixline.
//!
//! Every figure that is to be compared with another is measured in the same run, in turns
//! of some hundred microseconds, and stated as the median over all turns: what else the
//! machine does then falls on all of them alike. Ratios are taken turn by turn.
//!
//! A benchmark is a function from [`Options`] to something that implements [`Report`], and a
//! line in [`benchmarks::ALL`].

pub mod baseline;
pub mod benchmarks;
pub mod child;
pub mod flood;
pub mod forward;
pub mod generator;
pub mod hop;
pub mod machine;
pub mod measure;
pub mod outcome;
pub mod path;
pub mod peers;
pub mod report;
pub mod scale;
pub mod testbed;

pub use mixline_testnet::Port;
pub use outcome::{Goal, Outcome, Plot, Report};

/// What all benchmarks are told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fewer turns, and no case that takes minutes.
    pub quick: bool,
    /// What the relays of a network receive and send with.
    pub port: Port,
}
