//! Records of all kinds: every one survives encoding, and nothing else gets through.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../records_common/mod.rs"]
mod records_common;

mod all_kinds;
mod contradictions;
mod kinds;
mod online_keys;
mod quorum;
mod relays;
mod rosters;
mod services;
mod signatures;
mod snapshots;
mod vectors;
mod votes;
