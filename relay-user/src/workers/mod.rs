//! A relay's threads that forward: workers, and those of the slow path.

pub mod slow_path;
mod wake;

pub use wake::{ControlWaker, EventWaker};
