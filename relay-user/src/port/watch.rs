//! Watches over an XDP port while the relay runs, and gives it up when it is not to be trusted: the
//! program is detached, the queues' sockets are closed, and the relay goes on by UDP.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use mixline_relay_common::verdict::Verdict;
use mixline_xdp::Card;
use nix::net::if_::if_nametoindex;

use super::shared::Shared;
use super::trust::{Counts, Doubt, Trust};
use super::xdp_filter::XdpFilter;

/// What is known of a port that was given up.
pub const GIVEN_UP: &str = "given up";

/// Watches over one port.
pub struct Watch {
    card: Card,
    /// The interface's index: another interface may come by the same name.
    index: u32,
    filter: Arc<XdpFilter>,
    shared: Arc<Shared>,
    trust: Trust,
    /// Of the last look, by queue: frames given to its socket, and taken out of it.
    queues: Vec<(u64, u64)>,
    given_up: bool,
}

impl Watch {
    /// Watches over a port that was opened just now.
    #[must_use]
    pub fn new(card: Card, index: u32, filter: Arc<XdpFilter>, shared: Arc<Shared>) -> Self {
        let counts = counts(&filter, &shared).unwrap_or_default();
        Self {
            card,
            index,
            filter,
            shared,
            trust: Trust::new(counts, Instant::now()),
            queues: Vec::new(),
            given_up: false,
        }
    }

    /// Looks whether the port still works; to be called every
    /// [`LOOK_EVERY`](super::trust::LOOK_EVERY). Gives the reason once, when the port was given up
    /// just now: the workers are to be woken then.
    pub fn look(&mut self, now: Instant) -> Option<Doubt> {
        if self.given_up {
            return None;
        }
        let doubt = if if_nametoindex(self.card.interface.as_str()) != Ok(self.index) {
            Doubt::Gone
        } else {
            // What cannot be read says nothing.
            let counts = counts(&self.filter, &self.shared)?;
            let queues = counts.given.iter().zip(&counts.taken);
            self.queues = queues.map(|(given, taken)| (*given, *taken)).collect();
            self.trust.look(counts, now).err()?
        };
        self.given_up = true;
        // First the program, so that nothing goes to sockets that are about to be closed.
        self.filter.detach();
        self.shared.give_up();
        Some(doubt)
    }

    /// By queue, at the last look: frames given to its socket, and frames that came out of it.
    #[must_use]
    pub fn queues(&self) -> &[(u64, u64)] {
        &self.queues
    }

    /// The card that the port is on.
    #[must_use]
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// What is known of the port, for people.
    #[must_use]
    pub fn known(&self) -> &'static str {
        if self.given_up {
            GIVEN_UP
        } else if self.trust.is_proven() {
            "proven: full-sized frames arrive whole"
        } else {
            "not proven yet: few full-sized frames have come"
        }
    }
}

/// The counts of this moment; none if the program's cannot be read.
fn counts(filter: &XdpFilter, shared: &Shared) -> Option<Counts> {
    let counts = filter.counts()?;
    let verdict = |verdict: Verdict| counts.verdicts[verdict as usize];
    // Each of these verdicts says that a datagram of ours was whole.
    let whole = [
        Verdict::Redirected,
        Verdict::Filtered,
        Verdict::Handshake,
        Verdict::Replayed,
        Verdict::NoSocket,
    ];
    Some(Counts {
        cut: counts.cut + verdict(Verdict::Cut),
        whole: counts.large + whole.into_iter().map(verdict).sum::<u64>(),
        given: counts.redirected,
        taken: shared.taken(),
        passed: counts.to_us + verdict(Verdict::Handshake),
        seen: seen_by_kernel(),
    })
}

/// IP packets that the kernel has received from any card, in this network namespace (RFC 4293,
/// `ipSystemStatsInReceives`).
fn seen_by_kernel() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    // The loopback interface first: what comes in between makes the number too large, not too small.
    let own = loopback(&read("/proc/self/net/dev"));
    let v6 = in_receives_v6(&read("/proc/self/net/snmp6"));
    let v4 = in_receives_v4(&read("/proc/self/net/snmp"));
    (v4 + v6).saturating_sub(own)
}

/// Packets that the loopback interface has received: `/proc/net/dev`.
fn loopback(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.trim_start().strip_prefix("lo:"))
        .and_then(|counts| counts.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default()
}

/// `InReceives` of `/proc/net/snmp`, where a line of names precedes one of numbers.
fn in_receives_v4(text: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else {
        return 0;
    };
    names
        .split_whitespace()
        .zip(numbers.split_whitespace())
        .find(|(name, _)| *name == "InReceives")
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or_default()
}

/// `Ip6InReceives` of `/proc/net/snmp6`.
fn in_receives_v6(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("Ip6InReceives"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_received_is_read_from_its_tables() {
        let snmp =
            "Ip: Forwarding DefaultTTL InReceives InHdrErrors\nIp: 1 64 1234 0\nIcmp: InMsgs\n";
        assert_eq!(in_receives_v4(snmp), 1234);
        assert_eq!(
            in_receives_v6("Ip6InReceives                   \t77\nIp6InHdrErrors 0\n"),
            77
        );
        let dev = "Inter-|   Receive\n face |bytes    packets errs\n    lo:    5130      57    0\n  eth0: 9 9 9\n";
        assert_eq!(loopback(dev), 57);
        assert_eq!(in_receives_v4("") + in_receives_v6("") + loopback(""), 0);
    }

    #[test]
    fn this_kernel_has_such_tables() {
        assert!(
            fs::read_to_string("/proc/self/net/snmp").is_ok_and(|text| text.contains("InReceives"))
        );
        let _ = seen_by_kernel();
    }
}
