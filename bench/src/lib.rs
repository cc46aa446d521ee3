//! The benchmarks of Mixline.
//!
//! Every figure that is to be compared with another is measured in the same run, in turns
//! of some hundred microseconds, and stated as the median over all turns: what else the
//! machine does then falls on all of them alike. Ratios are taken turn by turn.

pub mod floor;
pub mod hop;
pub mod machine;
pub mod measure;
pub mod scale;
pub mod stand;

/// What all benchmarks are told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Fewer turns, and no case that takes minutes.
    pub quick: bool,
}
