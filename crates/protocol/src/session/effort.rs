//! The effort that was spent on an initiation, which stands before it.
//!
//! Anybody may send initiations through public tails, and each costs the responder public-key work. So what
//! comes there begins with a puzzle's solution ([`crate::effort`]), which is checked with a hash of the payload:
//!
//! ```text
//! initiation 1072 = front 24 | e 32 | s 48 | sealed 952 + 16
//!   front         = { nonce 16 | effort 4 | zero 4 } xor mask
//!   mask          = the first 24 bytes of SHA-256("mixline/v1/session effort mask" | seed 16 | e 32)
//!   puzzle        = "mixline/v1/session effort" | responder's ID 32 | seed 16 | [24..1072]
//! ```
//!
//! Effort 0 has the nonce of zeros. The seed is in the responder's descriptor. It has a new one from time to
//! time, and tells by the four zeros which of those that are good an initiation was made with. The mask leaves
//! nothing in a payload that is the same in two of them for those who do not know the descriptor, such as a
//! relay that sees one at a junction.
//!
//! The puzzle is of all that follows and not of the keys alone: who has made `e` and `s` can seal anything
//! under them, also with the same tag, and one solution would be good for any number of initiations.

use ring::digest::{Context, SHA256, digest};

use crate::effort::{EFFORT, Effort, NONCE, Puzzle, Seed, Solution};
use crate::identity::{AnonymousId, first_bytes};
use crate::size::Payload;

/// Bytes before the handshake message.
pub const FRONT: usize = NONCE + EFFORT + 4;

const PUZZLE: &[u8] = b"mixline/v1/session effort";
const MASK: &[u8] = b"mixline/v1/session effort mask";

/// The puzzle of an initiation. What stands in its front makes no difference.
#[must_use]
pub fn puzzle(responder: &AnonymousId, seed: &Seed, initiation: &Payload) -> Puzzle {
    Puzzle::new(PUZZLE, &[&responder.0, seed, &initiation[FRONT..]])
}

/// Writes a solution into an initiation's front.
pub fn write(seed: &Seed, solution: &Solution, initiation: &mut Payload) {
    let mut front = [0; FRONT];
    front[..NONCE].copy_from_slice(&solution.nonce);
    front[NONCE..NONCE + EFFORT].copy_from_slice(&solution.effort.to_be_bytes());
    let masked = xor(front, mask(seed, initiation));
    initiation[..FRONT].copy_from_slice(&masked);
}

/// The effort that was spent on an initiation, if it was made with one of these seeds and says the truth. It
/// costs a hash for each seed, and one of the payload if an effort is claimed.
#[must_use]
pub fn spent<'a>(
    responder: &AnonymousId,
    seeds: impl IntoIterator<Item = &'a Seed>,
    initiation: &Payload,
) -> Option<Effort> {
    let (seed, solution) = seeds.into_iter().find_map(|seed| {
        let front = xor(first_bytes(initiation), mask(seed, initiation));
        let solution = Solution {
            nonce: first_bytes(&front),
            effort: Effort::from_be_bytes(first_bytes(&front[NONCE..])),
        };
        (front[NONCE + EFFORT..] == [0; 4]).then_some((seed, solution))
    })?;
    let solved = match solution.effort {
        0 => solution.nonce == [0; NONCE],
        _ => puzzle(responder, seed, initiation).is_solved_by(&solution),
    };
    solved.then_some(solution.effort)
}

/// What tells an initiation from all others: the beginning of its SHA-256. Of a part of it, such as `e`, whoever sees
/// it before the responder could make another one with the same name, and spend less on that.
#[must_use]
pub fn name(initiation: &Payload) -> [u8; 8] {
    first_bytes(digest(&SHA256, initiation).as_ref())
}

fn mask(seed: &Seed, initiation: &Payload) -> [u8; FRONT] {
    let mut context = Context::new(&SHA256);
    context.update(MASK);
    context.update(seed);
    context.update(&initiation[FRONT..FRONT + 32]);
    first_bytes(context.finish().as_ref())
}

fn xor(one: [u8; FRONT], two: [u8; FRONT]) -> [u8; FRONT] {
    std::array::from_fn(|at| one[at] ^ two[at])
}
