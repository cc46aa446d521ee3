//! What a step says of a slot: how far it has come, or why it goes no further.

use mixline_protocol::path::Next;
use mixline_protocol::replay::Position;

use crate::batch::State;
use crate::headers::Flow;
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

/// A cell whose layer is off, before it is known whether it has been relayed before.
pub(super) struct Peeled {
    /// Where its tag is in the replay filter.
    pub(super) replay: Position,
    /// Where it goes.
    pub(super) next: Next,
    /// The flow that it belonged to before its layer was taken off.
    pub(super) flow: Flow,
}
