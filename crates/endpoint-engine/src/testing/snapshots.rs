//! Snapshots as the engine gets them, without what only their signers care for.

use mixline_protocol::identity::{Digest, NetworkId};
use mixline_protocol::records::{LogHead, Parameters, SharedRandom, Signatures, Snapshot};
use mixline_protocol::time::UnixTime;

/// How long rounds of several directories are, seconds.
pub const ROUND: u64 = 300;
/// How long their snapshots are valid, seconds.
pub const VALID: u64 = 3 * 3600;

/// A snapshot of a directory that is alone, or a round of several, valid for so many seconds. It is signed by nobody,
/// and has neither relays nor directories.
pub fn snapshot(issued: UnixTime, valid: u64, several: bool) -> Snapshot {
    let before = if several {
        issued.minus(ROUND)
    } else {
        UnixTime(0)
    };
    Snapshot {
        network: NetworkId([1; 32]),
        roster: several.into(),
        issued,
        valid_until: issued.plus(valid),
        previous: (before, Digest::default()),
        log: LogHead::default(),
        random: SharedRandom::default(),
        parameters: Parameters::default(),
        directories: Vec::new(),
        relays: Vec::new(),
        signatures: Signatures::default(),
    }
}
