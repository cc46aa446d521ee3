//! Answering messages: the seam to the directory daemon.

use mixline_protocol::identity::AnonymousId;

/// Answers the messages that arrive over sessions.
///
/// Called on a thread where it may block (a database's commit); several calls may run at once.
/// Requests may be repeated, and out of order: answers must be idempotent.
pub trait MessageService: Send + Sync + 'static {
    /// The answer to one message. `from` is the ID at the other end of the session, which the
    /// session has authenticated. An answer over 16 KiB, or an empty one, is dropped.
    fn answer(&self, from: AnonymousId, request: &[u8]) -> Vec<u8>;
}
