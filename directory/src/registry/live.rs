//! A relay that is there, and how it is stored.

use std::sync::Arc;

use mixline_protocol::records::RelayDescriptor;
use mixline_protocol::time::UnixTime;

use crate::{Error, Result};

/// A relay that was heard from of late.
#[derive(Debug, Clone)]
pub struct LiveRelay {
    /// What it last said.
    pub descriptor: Arc<RelayDescriptor>,
    /// When.
    pub heard: UnixTime,
    /// Since when it is there without a gap.
    pub since: UnixTime,
}

/// As stored: `heard 8 | since 8 | descriptor`.
pub(super) fn encode(relay: &LiveRelay) -> Vec<u8> {
    [
        &relay.heard.0.to_be_bytes(),
        &relay.since.0.to_be_bytes(),
        relay.descriptor.encode().as_slice(),
    ]
    .concat()
}

pub(super) fn decode(value: &[u8]) -> Result<LiveRelay> {
    let broken = |why: String| Error::Store(format!("damaged relay: {why}"));
    let (heard, rest) = value
        .split_first_chunk()
        .ok_or_else(|| broken("too short".into()))?;
    let (since, record) = rest
        .split_first_chunk()
        .ok_or_else(|| broken("too short".into()))?;
    let descriptor = RelayDescriptor::decode(record).map_err(|e| broken(e.to_string()))?;
    Ok(LiveRelay {
        descriptor: Arc::new(descriptor),
        heard: UnixTime(u64::from_be_bytes(*heard)),
        since: UnixTime(u64::from_be_bytes(*since)),
    })
}
