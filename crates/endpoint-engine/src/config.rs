//! What an endpoint is told when it starts.

use mixline_protocol::identity::{IdentityKey, X25519Secret};
use mixline_protocol::path::MAX_SEGMENT;
use serde::Deserialize;

use crate::access::Access;
use crate::error::ConfigError;
use crate::policy::{MAX_RULES, PolicyRule};
use crate::relays::guards::MAX_GUARDS;

/// At most so many sessions.
pub(crate) const MAX_SESSIONS: usize = 1000;

/// The settings of an engine. Wrong keys are refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many guards are used, 1 to 5.
    #[serde(default = "three")]
    pub guards: usize,
    /// Relays in a head, the guard included, 1 to 4.
    #[serde(default = "three")]
    pub head_length: usize,
    /// Relays in a tail, the guard included, 1 to 4.
    #[serde(default = "three")]
    pub tail_length: usize,
    /// Tails that each peer gets for itself, 2 to 4.
    #[serde(default = "four")]
    pub private_tails: usize,
    /// Tails in the own descriptor, 1 to 8.
    #[serde(default = "four")]
    pub public_tails: usize,
    /// How packets are spread over paths.
    #[serde(default)]
    pub policies: Vec<PolicyRule>,
    /// Whether others may open sessions to the own ID: public tails are built and kept alive.
    #[serde(default)]
    pub accept_sessions: bool,
    /// Whether the own descriptor is published through the directory's private part whenever
    /// it changes. Without it, the descriptor is only shown.
    #[serde(default)]
    pub publish: bool,
    /// At most so many sessions, 1 to 1000, of packets and messages together.
    #[serde(default = "max_sessions")]
    pub max_sessions: usize,
    /// The longest packet that is taken from the device, bytes, 1280 to 65535; longer ones that
    /// must not be fragmented are answered by "packet too big".
    #[serde(default = "mtu")]
    pub mtu: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            guards: three(),
            head_length: three(),
            tail_length: three(),
            private_tails: four(),
            public_tails: four(),
            policies: Vec::new(),
            accept_sessions: false,
            publish: false,
            max_sessions: max_sessions(),
            mtu: mtu(),
        }
    }
}

impl Config {
    /// Relays in the longer of heads and tails.
    #[must_use]
    pub(crate) fn longest(&self) -> usize {
        self.head_length.max(self.tail_length)
    }

    /// Whether heads or tails of so many relays have a third layer of kept relays: those of services, if
    /// a place is left that is free.
    #[must_use]
    pub(crate) fn has_third_layer(&self, length: usize) -> bool {
        self.accept_sessions && length > 3
    }

    /// Whether any head or tail has one.
    #[must_use]
    pub(crate) fn has_third_layers(&self) -> bool {
        self.has_third_layer(self.longest())
    }

    /// Refuses numbers out of range.
    ///
    /// # Errors
    /// [`ConfigError`] with the first key that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let check = |key, got: usize, low: usize, high: usize, allowed| {
            if (low..=high).contains(&got) {
                Ok(())
            } else {
                Err(ConfigError { key, got, allowed })
            }
        };
        check("guards", self.guards, 1, MAX_GUARDS, "1 to 5")?;
        check("head_length", self.head_length, 1, MAX_SEGMENT, "1 to 4")?;
        check("tail_length", self.tail_length, 1, MAX_SEGMENT, "1 to 4")?;
        check("private_tails", self.private_tails, 2, 4, "2 to 4")?;
        check("public_tails", self.public_tails, 1, 8, "1 to 8")?;
        check(
            "policies",
            self.policies.len(),
            0,
            MAX_RULES,
            "at most 64 rules",
        )?;
        check(
            "max_sessions",
            self.max_sessions,
            1,
            MAX_SESSIONS,
            "1 to 1000",
        )?;
        check("mtu", self.mtu.into(), 1280, 65535, "1280 to 65535")
    }
}

/// Who the endpoint is. Lives outside: the endpoint writes no secret to disk.
pub struct Identity {
    /// The key of the anonymous ID.
    pub key: IdentityKey,
    /// The key of its sessions.
    pub session: X25519Secret,
    /// Who may open sessions with it, and whose client it is.
    pub access: Access,
}

fn three() -> usize {
    3
}

fn four() -> usize {
    4
}

fn max_sessions() -> usize {
    MAX_SESSIONS
}

fn mtu() -> u16 {
    1500
}
