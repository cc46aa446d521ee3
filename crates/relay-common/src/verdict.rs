//! Every reason for which the XDP program passes, redirects or drops a frame, and where each is
//! counted.

/// One reason; its number is the index into the per-CPU counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Not an IP datagram to our address and port: the kernel's business.
    NotOurs = 0,
    /// Data of a live session, given to the queue's AF_XDP socket.
    Redirected = 1,
    /// Data of a live session, passed to the kernel's socket: the program runs as a filter
    /// before the UDP port. Status and metrics show it as `guarded`.
    Filtered = 2,
    /// An initiation within its limits, or an answer to a handshake of ours, passed to the kernel's
    /// socket.
    Handshake = 3,
    /// To our port, and not 1408 bytes long.
    WrongLength = 4,
    /// A message type that does not exist, or bytes that must be zero and are not.
    UnknownType = 5,
    /// An index that no session and no handshake of ours has.
    UnknownIndex = 6,
    /// A tag that has been seen before.
    Replayed = 7,
    /// An initiation over the limit of its source, or of a network that this is in.
    SourceLimited = 8,
    /// An initiation over the limit of all sources together.
    TotalLimited = 9,
    /// No AF_XDP socket is bound to the queue: passed to the kernel's socket.
    NoSocket = 10,
    /// Several datagrams that the kernel has merged, passed to its socket.
    Merged = 11,
    /// To our port, and shorter than it says itself: cut by the card or its driver.
    Cut = 12,
    /// A path probe within its limits, passed to the kernel's socket.
    Probe = 13,
    /// A path probe over the limit of its source, or of all sources together.
    ProbeLimited = 14,
    /// One answer too many to a handshake of ours.
    AnswerLimited = 15,
    /// To our port, and in IP options, extension headers or fragments, so that nothing in it was looked
    /// at: passed to the kernel's socket within limits.
    Unread = 16,
    /// The same, over the limit of its source, or of all sources together.
    UnreadLimited = 17,
}

impl Verdict {
    /// How many there are.
    pub const COUNT: usize = 18;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::NotOurs,
        Self::Redirected,
        Self::Filtered,
        Self::Handshake,
        Self::WrongLength,
        Self::UnknownType,
        Self::UnknownIndex,
        Self::Replayed,
        Self::SourceLimited,
        Self::TotalLimited,
        Self::NoSocket,
        Self::Merged,
        Self::Cut,
        Self::Probe,
        Self::ProbeLimited,
        Self::AnswerLimited,
        Self::Unread,
        Self::UnreadLimited,
    ];

    /// The name that status and metrics show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::Redirected => "redirected",
            Self::Filtered => "guarded",
            Self::Handshake => "handshake",
            Self::WrongLength => "wrong_length",
            Self::UnknownType => "unknown_type",
            Self::UnknownIndex => "unknown_index",
            Self::Replayed => "replayed",
            Self::SourceLimited => "source_limited",
            Self::TotalLimited => "total_limited",
            Self::NoSocket => "no_socket",
            Self::Merged => "merged",
            Self::Cut => "cut",
            Self::Probe => "probe",
            Self::ProbeLimited => "probe_limited",
            Self::AnswerLimited => "answer_limited",
            Self::Unread => "unread",
            Self::UnreadLimited => "unread_limited",
        }
    }

    /// Whether it says that the interface is not set up as it should be: worth a line in the log.
    #[must_use]
    pub const fn is_strange(self) -> bool {
        matches!(self, Self::NoSocket | Self::Merged | Self::Cut)
    }

    /// Whether the frame ends here.
    #[must_use]
    pub const fn drops(self) -> bool {
        matches!(
            self,
            Self::WrongLength
                | Self::UnknownType
                | Self::UnknownIndex
                | Self::Replayed
                | Self::SourceLimited
                | Self::TotalLimited
                | Self::Cut
                | Self::ProbeLimited
                | Self::AnswerLimited
                | Self::UnreadLimited
        )
    }
}

/// Where the program counts in its map `VERDICTS`: each verdict by its number, then what is behind
/// two of them.
pub mod counter {
    use super::Verdict;
    use crate::maps::MAX_QUEUES;

    /// Frames of one queue that were redirected; those of all queues are [`Verdict::Redirected`].
    #[inline(always)]
    #[must_use]
    pub const fn redirected(queue: u32) -> u32 {
        Verdict::COUNT as u32 + queue
    }

    /// Of the frames that are not ours, those with a whole IP packet of full size.
    pub const LARGE: u32 = redirected(MAX_QUEUES);
    /// Of the frames to our addresses that are not ours, those that end before their IP packet does.
    pub const CUT: u32 = LARGE + 1;
    /// Of the frames that are not ours, those with an IP packet to one of our addresses and without
    /// a VLAN tag.
    pub const TO_US: u32 = CUT + 1;
    /// How many counters there are.
    pub const COUNT: u32 = TO_US + 1;
}

const _: () = {
    let mut i = 0;
    while i < Verdict::COUNT {
        assert!(Verdict::ALL[i] as usize == i);
        i += 1;
    }
};
