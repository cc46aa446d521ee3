//! What was found out about the way to a guard that does not answer handshakes.

use std::fmt;
use std::net::SocketAddr;

/// How the way to a guard was found to be, by shorter questions than handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathFinding {
    /// The guard's address.
    pub address: SocketAddr,
    /// Whether any question was answered.
    pub answers: bool,
    /// Bytes of the IP packet around a datagram.
    pub needed: u16,
    /// The largest IP packet that gets there, if known.
    pub out: Option<u16>,
    /// The largest that comes back, if known. An answer is never longer than its question, so no
    /// more is known of it than of `out`.
    pub back: Option<u16>,
}

impl PathFinding {
    /// The largest IP packet that gets there, if that is too small.
    #[must_use]
    pub fn narrow_out(&self) -> Option<u16> {
        self.out.filter(|out| *out < self.needed)
    }

    /// The largest IP packet that comes back, if that is too small by itself.
    #[must_use]
    pub fn narrow_back(&self) -> Option<u16> {
        let narrow = |back: &u16| *back < self.needed && self.out.is_none_or(|out| *back < out);
        self.back.filter(narrow)
    }

    /// Whether datagrams are too large for it.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.narrow_out().is_some() || self.narrow_back().is_some()
    }
}

/// One line for a person.
impl fmt::Display for PathFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address, needed, ..
        } = self;
        match (self.narrow_out(), self.narrow_back()) {
            (Some(out), None) => write!(
                f,
                "the path MTU to {address} is {out} bytes, and {needed} are needed"
            ),
            (None, Some(back)) => write!(
                f,
                "the path MTU from {address} is {back} bytes, and {needed} are needed"
            ),
            (Some(out), Some(back)) => write!(
                f,
                "the path MTU to {address} is {out} bytes and from there {back}, and {needed} are \
                 needed"
            ),
            (None, None) if self.answers => write!(
                f,
                "{address} answers questions about the path, and no handshakes"
            ),
            (None, None) => write!(
                f,
                "no answer from {address}, to short questions either: UDP to it is blocked, or it \
                 is down"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_narrow_is_named_with_its_value() {
        let say = |answers, out, back| {
            let finding = PathFinding {
                address: SocketAddr::from(([192, 0, 2, 1], 7000)),
                answers,
                needed: 1436,
                out,
                back,
            };
            (finding.is_narrow(), finding.to_string())
        };
        let (narrow, text) = say(true, Some(1400), Some(1400));
        assert!(
            narrow && text.contains("to 192.0.2.1:7000 is 1400 bytes, and 1436"),
            "{text}"
        );
        let (narrow, text) = say(true, Some(1436), Some(1280));
        assert!(
            narrow && text.contains("from 192.0.2.1:7000 is 1280 bytes"),
            "{text}"
        );
        let (narrow, text) = say(true, Some(1400), Some(1300));
        assert!(
            narrow && text.contains("1400") && text.contains("1300"),
            "{text}"
        );
        let (narrow, text) = say(true, Some(1436), Some(1436));
        assert!(!narrow && text.contains("no handshakes"), "{text}");
        let (narrow, text) = say(false, None, None);
        assert!(!narrow && text.contains("blocked"), "{text}");
    }
}
