//! What a relay does with a cell between peeling and sealing: nothing.
//!
//! A test network needs relays that misbehave under link encryption that is in order.
//! They implement [`Behaviour`] in a program of their own; this one has [`Honest`] only,
//! which has no size and compiles to nothing.

use mixline_protocol::path::Next;
use mixline_protocol::size::Cell;

/// What to do with a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send it on.
    Forward,
    /// Send it on, and once more under a seal of its own.
    ForwardTwice,
    /// Do not send it on.
    Drop,
}

/// Sees every cell after its layer is off and before it is sealed for the next hop.
pub trait Behaviour: Send + 'static {
    /// May change the cell, and decides what to do with it.
    fn decide(&mut self, cell: &mut Cell, next: &Next) -> Action;
}

/// Sends every cell on as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Honest;

impl Behaviour for Honest {
    fn decide(&mut self, _cell: &mut Cell, _next: &Next) -> Action {
        Action::Forward
    }
}
