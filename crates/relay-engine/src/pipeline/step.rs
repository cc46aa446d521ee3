//! What a step says of a slot: how far it has come, or why it goes no further.

use crate::batch::State;
use crate::outcome::Outcome;

/// Why a slot goes no further in this batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// For good, and this is counted.
    With(Outcome),
    /// It comes back, and is counted then.
    ForNow,
}

/// The state that a slot is in after a step.
pub(super) type Step = Result<State, Leave>;
