//! The benchmarks of Mixline.
//!
//! Every figure that is to be compared with another is measured in the same run, in rounds
//! of some hundred microseconds a subject, and stated as the median over all rounds: what else the
//! machine does then falls on all of them alike. Ratios are taken round by round.
//!
//! A benchmark is a function from [`Options`] to something that implements [`Report`], and a
//! name in [`cli::Name`].

pub mod attacks;
pub mod baseline;
pub mod benchmarks;
pub mod child;
pub mod cli;
pub mod cores;
pub mod endpoint;
pub mod flood;
pub mod forward;
pub mod generator;
pub mod hop;
pub mod latency;
pub mod machine;
pub mod measure;
pub mod one_at_a_time;
pub mod outcome;
pub mod path;
pub mod peers;
pub mod report;
pub mod ring;
pub mod scale;
pub mod testbed;
pub mod tool;

pub use cli::Options;
pub use outcome::{Goal, Outcome, Plot, Report};
