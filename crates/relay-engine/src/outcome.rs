//! What can become of a datagram. Each one is counted under exactly one outcome.

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What became of a datagram.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[$doc])* $variant,)*
        }

        impl Outcome {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in metrics and status.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

outcomes! {
    /// Sealed for the next relay.
    Forwarded = "forwarded",
    /// Sealed for the client that registered the mailbox token.
    Delivered = "delivered",
    /// Cover of a neighbour: authentic, and empty.
    Cover = "cover",
    /// A control message, given to the control plane.
    Control = "control",
    /// Part of a link handshake, given to the control plane.
    Handshake = "handshake",
    /// A path probe, given to the control plane.
    Probe = "probe",
    /// Dropped: has not the length of a datagram.
    WrongLength = "wrong_length",
    /// Dropped: type unknown, or not zero where it must be.
    Malformed = "malformed",
    /// Dropped: no session has this receiver index.
    UnknownIndex = "unknown_index",
    /// Dropped: its counter has been seen under this session, or is too old.
    LinkReplay = "link_replay",
    /// Dropped: does not authenticate under the session's key.
    LinkAuthentication = "link_authentication",
    /// Dropped: a message that this relay has relayed before.
    Replay = "replay",
    /// Dropped: its path header does not open under any of our onion keys.
    BadHeader = "bad_header",
    /// Dropped: its path is new, and this neighbour has as many of those waiting as it may.
    NewPathLimit = "new_path_limit",
    /// Dropped: its path is new, and this relay takes none, as it leaves.
    PathRefused = "path_refused",
    /// Dropped: waited too long, or too many wait.
    HeldTooLong = "held_too_long",
    /// Dropped: the next relay is not in the snapshot.
    UnknownRelay = "unknown_relay",
    /// Dropped: no link to the next hop, and no room to wait for one.
    LinkDown = "link_down",
    /// Dropped: nobody has registered this mailbox token.
    UnknownMailbox = "unknown_mailbox",
    /// Dropped: its path leads through this relay too often in a row.
    Loop = "loop",
    /// Dropped: too many wait for their delay.
    DelayLimit = "delay_limit",
    /// Dropped: the control plane has too much to do.
    ControlLimit = "control_limit",
    /// Dropped: the worker that owns the session has too much to do.
    HandoverLimit = "handover_limit",
    /// Dropped: the relay has sent as much as it may.
    BandwidthLimit = "bandwidth_limit",
    /// Dropped: the kernel did not take it.
    SendFailed = "send_failed",
    /// Dropped by the relay's behaviour: never, in an honest one.
    Misbehaved = "misbehaved",
}

/// How often each outcome occurred; one worker's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters([u64; Outcome::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Outcome::ALL.len()])
    }
}

impl Counters {
    /// Counts `n` datagrams.
    #[inline]
    pub fn add(&mut self, outcome: Outcome, n: u64) {
        self.0[outcome as usize] += n;
    }

    /// How many datagrams had this outcome.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    /// All outcomes, those that never occurred included.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL
            .iter()
            .map(|outcome| (*outcome, self.of(*outcome)))
    }
}
