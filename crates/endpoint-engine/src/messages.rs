//! Messages of peers on their way to the service.

use mixline_protocol::identity::AnonymousId;

use crate::keys::SessionKey;

/// At most so many messages wait for the service.
pub const MAX_REQUESTS: usize = 256;

/// A message from a peer that the service is to answer.
#[derive(Debug)]
pub struct ServiceRequest {
    /// Where the answer goes.
    pub session: SessionKey,
    /// Who asks.
    pub from: AnonymousId,
    /// What.
    pub message: Vec<u8>,
}
