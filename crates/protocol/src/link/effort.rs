//! Effort in initiations: what a responder under load serves by.
//!
//! ```text
//! puzzle = "mixline/v1/link effort" | responder's static key 32 | cookie 16 | [0..1308] of the initiation
//! ```
//!
//! as [`crate::effort`] has it. The cookie keeps solutions from being made before the responder has given it
//! out, or for another source; all that costs public-key work is in it, so each solution is worth one
//! initiation. Nonce and effort stand behind the Noise message and under both MACs. The effort that a responder
//! suggests stands beside the cookie, in what it sends.

use super::cookie::Cookie;
use super::layout::{EFFORT_END, INITIATION_END};
use crate::effort::{EFFORT, Effort, NONCE, Puzzle, Solution};
use crate::identity::X25519Public;
use crate::size::Datagram;

/// The most effort that anybody is asked for, or makes: a quarter of a second of one core, some seconds of a slow one.
pub const MAX_EFFORT: Effort = 1 << 20;
/// The least. Less than this is none: it is done before it is noticed.
pub const MIN_EFFORT: Effort = 1 << 10;

/// What is to be solved for an initiation to this responder with this cookie.
pub(super) fn puzzle(responder: &X25519Public, cookie: &Cookie, initiation: &Datagram) -> Puzzle {
    let parts = [
        &responder.0[..],
        cookie.bytes(),
        &initiation[..INITIATION_END],
    ];
    Puzzle::new(b"mixline/v1/link effort", &parts)
}

/// Writes a solution, or zeros if there is no effort.
pub(super) fn write(initiation: &mut Datagram, solution: &Solution) {
    let (nonce, effort) = initiation[INITIATION_END..EFFORT_END].split_at_mut(NONCE);
    nonce.copy_from_slice(&solution.nonce);
    effort.copy_from_slice(&solution.effort.to_be_bytes());
}

/// What an initiation says of its effort.
pub(super) fn read(initiation: &Datagram) -> Solution {
    let (mut nonce, mut effort) = ([0; NONCE], [0; EFFORT]);
    nonce.copy_from_slice(&initiation[INITIATION_END..][..NONCE]);
    effort.copy_from_slice(&initiation[INITIATION_END + NONCE..EFFORT_END]);
    Solution {
        nonce,
        effort: Effort::from_be_bytes(effort),
    }
}
