//! A relay's threads that forward: workers, and those of the slow path.

mod inside;
mod slow_path;
mod statistics;
mod threads;
mod wake;
mod worker;

pub use statistics::WorkerStatistics;
pub use threads::{Started, Threads};
pub use wake::ControlWaker;
