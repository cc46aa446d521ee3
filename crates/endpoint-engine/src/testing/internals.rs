//! Parts of the engine that its own tests look into, and nobody else.

/// Headers, answers to packets, and the bounds of what waits.
pub mod packets {
    pub use crate::packets::headers::parse;
    pub use crate::packets::held::MAX_HELD;
    pub use crate::packets::icmp::{BURST, PER_SECOND, Rejection, error_for};
    pub use crate::packets::lookups::{LOOKUPS_BURST, LOOKUPS_PER_SECOND, MAX_LOOKUPS};
}

/// The bounds of what peers and the directory are remembered by.
pub mod bounds {
    pub use crate::directory::pseudonyms::Pseudonym;
    pub use crate::directory::said_time::{MOST_BEHIND, UNIT};
    pub use crate::directory::unreachable::MAX_UNREACHABLE;
    pub use crate::limits::{
        ANSWERS_BURST, ANSWERS_PER_SECOND, MAX_READ, MAX_SEALED, MAX_UNCONFIRMED, NEW_HEADS_BURST,
        NEW_HEADS_PER_HOUR, NEW_RELAYS_BURST, TRIES_BURST, TRIES_PER_SECOND,
    };
    pub use crate::session::initiation_replay::InitiationReplayCache;
    pub use crate::token_bucket::TokenBucket;
}

/// What is spent and suggested.
pub mod effort {
    pub use crate::effort::MOST_EFFORT;
    pub use crate::effort::queue::PATIENCE;
    pub use crate::effort::suggestion::{FALLS_AFTER, LEAST};
}

/// Paths and flows of one session, and how long it lasts.
pub mod session {
    pub use crate::engine::liveness::{MESSAGES_IDLE, PACKETS_IDLE};
    pub use crate::session::flows::policy;
    pub use crate::session::paths::{
        DEAD_AFTER, DEAD_IN_TROUBLE, NewPath, PROBE_EVERY, PROVEN_WITHIN, Paths,
    };
}

/// The choice of relays and guards.
pub mod relays {
    pub use crate::relays::guards::{GONE, MAX_FALLBACKS, PATIENCE, RECOVERED};
    pub use crate::relays::key_changes::{CHANGES_BURST, CHANGES_PER_HOUR, KeyChanges};
    pub use crate::relays::layers::{SECOND, THIRD};
    pub use crate::relays::network::{Network, Relay};
    pub use crate::relays::selection::{Place, Plan, choose};
}

/// Own tails.
pub mod tails {
    use std::time::Instant;

    use mixline_protocol::path::PublishedTail;

    use crate::engine::Engine;
    use crate::tails::Owner;

    /// Those that one peer knows each, and when it was last heard through them.
    #[must_use]
    pub fn private(engine: &Engine) -> Vec<(PublishedTail, Option<Instant>)> {
        let tails = engine.tails.iter().map(|(_, tail)| tail);
        tails
            .filter(|tail| matches!(tail.owner, Owner::Session(_)))
            .map(|tail| (tail.published, tail.heard))
            .collect()
    }

    /// Whether cells come in through a tail still.
    #[must_use]
    pub fn receives(engine: &Engine, tail: &PublishedTail) -> bool {
        engine.tails.iter().any(|(_, own)| own.published == *tail)
    }
}
