//! Building the layers of a segment's beta, innermost first.

use arrayvec::ArrayVec;

use super::keys::{HopKeys, apply_stream};
use super::layout::{BETA, FORWARD, GAMMA, Hop, MAX_SEGMENT, SLOT};

/// Command and argument of one hop.
pub(super) struct Slot {
    pub(super) command: u8,
    pub(super) argument: [u8; 8],
    /// Gamma of the next hop, which only the last slot of a segment is given.
    pub(super) gamma: [u8; GAMMA],
}

/// What the hops of a segment see.
pub(super) struct Layers {
    /// The first hop's beta.
    pub(super) beta: [u8; BETA],
    /// Each hop's gamma, first to last.
    pub(super) gammas: ArrayVec<[u8; GAMMA], MAX_SEGMENT>,
}

/// The whole keystream that a hop adds to beta and to the 25 zeros behind it.
pub(super) fn stream(keys: &HopKeys) -> [u8; BETA + SLOT] {
    let mut stream = [0; BETA + SLOT];
    apply_stream(&keys.stream, &mut stream);
    stream
}

/// Layers the slots `forward to hops[1], …, last` and, behind them, `rest`.
///
/// `rest` has [`BETA`]` - n * `[`SLOT`] bytes for `n` hops; what is missing is taken as zero
/// and what is too much is left out, so that nothing can panic.
pub(super) fn build(keys: &[HopKeys], hops: &[Hop], last: &Slot, rest: &[u8]) -> Layers {
    let before = keys.len().saturating_sub(1);
    let mut beta = [0; BETA];
    // What the last hop sees behind its own bytes: the streams that earlier hops have added
    // to the zeros they appended.
    let mut appended = [0; MAX_SEGMENT * SLOT];
    for (i, keys) in keys.iter().take(before).enumerate() {
        let stream = stream(keys);
        add(&mut appended, &stream[BETA - i * SLOT..]);
    }
    let own = BETA - before * SLOT;
    write_slot(&mut beta, last);
    let filled = rest.len().min(own - SLOT);
    beta[SLOT..SLOT + filled].copy_from_slice(&rest[..filled]);
    let mut gammas = ArrayVec::<_, MAX_SEGMENT>::new();
    if let Some(keys) = keys.last() {
        apply_stream(&keys.stream, &mut beta[..own]);
        beta[own..].copy_from_slice(&appended[..before * SLOT]);
        gammas.push(keys.gamma(&beta));
    }
    for (keys, next) in keys.iter().zip(hops.iter().skip(1)).take(before).rev() {
        beta.copy_within(..BETA - SLOT, SLOT);
        let gamma = gammas.last().copied().unwrap_or_default();
        write_slot(
            &mut beta,
            &Slot {
                command: FORWARD,
                argument: next.relay.0,
                gamma,
            },
        );
        apply_stream(&keys.stream, &mut beta);
        gammas.push(keys.gamma(&beta));
    }
    gammas.reverse();
    Layers { beta, gammas }
}

/// Adds `from` to the beginning of `to`, as far as both go.
pub(super) fn add(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

fn write_slot(beta: &mut [u8; BETA], slot: &Slot) {
    beta[0] = slot.command;
    beta[1..9].copy_from_slice(&slot.argument);
    beta[9..SLOT].copy_from_slice(&slot.gamma);
}
