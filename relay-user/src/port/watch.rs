//! Watches over an XDP port while the relay runs, and gives it up when it is not to be trusted: the
//! program is detached, the queues' sockets are closed, and the relay goes on by UDP.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use mixline_relay_common::verdict::Verdict;
use mixline_xdp::Card;
use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::shared::Shared;
use super::trust::{Counts, Doubt, Seen, Trust};
use super::xdp_filter::XdpFilter;

/// What is known of a port that was given up.
pub const GIVEN_UP: &str = "given up";

/// Watches over one port.
pub struct Watch {
    card: Card,
    /// The interface's index: its name may change, and another may come by the same name.
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
        let queues = counts.taken.len().max(shared.taken().len());
        Self {
            card,
            index,
            filter,
            shared,
            trust: Trust::new(counts, queues),
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
        let doubt = if is_gone(&self.card.interface, self.index) {
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
        if let Err(error) = self.filter.detach()
            && doubt != Doubt::Gone
        {
            tracing::error!(
                %error,
                "the XDP program stays attached: `ip link set dev {} xdp off`",
                self.card.interface
            );
        }
        self.shared.give_up();
        Some(doubt)
    }

    /// By queue, at the last look: frames given to its socket, and frames that came out of it.
    #[must_use]
    pub fn queues(&self) -> &[(u64, u64)] {
        &self.queues
    }

    /// Whether something is to be brought about that the kernel must receive, to see that it does.
    #[must_use]
    pub fn needs_answer(&self) -> bool {
        !self.given_up && self.trust.needs_answer()
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

/// Whether an interface is not there any more, or another has its name. One that has another name
/// now is still there. What cannot be asked says nothing.
fn is_gone(name: &str, index: u32) -> bool {
    match if_nametoindex(name) {
        Ok(found) => found != index,
        Err(Errno::ENODEV | Errno::ENXIO) => {
            // An empty name is none.
            if_indextoname(index).is_ok_and(|name| name.is_empty())
                || matches!(if_indextoname(index), Err(Errno::ENXIO | Errno::ENODEV))
        }
        Err(_) => false,
    }
}

/// The counts of this moment; none if the program's cannot be read.
fn counts(filter: &XdpFilter, shared: &Shared) -> Option<Counts> {
    let counts = filter.counts()?;
    let verdict = |verdict: Verdict| counts.verdicts[verdict as usize];
    // Each of these verdicts says that a datagram of ours was whole. A path probe may be short.
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
        passed: counts.to_us + verdict(Verdict::Handshake) + verdict(Verdict::Probe),
        seen: seen_by_kernel(),
    })
}

/// IP packets that the kernel has received from any card, in this network namespace (RFC 4293,
/// `ipSystemStatsInReceives`). None if it does not say.
fn seen_by_kernel() -> Option<Seen> {
    let own = || loopback(&fs::read_to_string("/proc/self/net/dev").ok()?);
    // What the loopback interface receives meanwhile is what is not known.
    let before = own()?;
    let v4 = in_receives_v4(&fs::read_to_string("/proc/self/net/snmp").ok()?)?;
    // Without IPv6 in the kernel there is no such table.
    let v6 = fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
    let all = v4 + in_receives_v6(&v6);
    Some(Seen {
        least: all.saturating_sub(own()?),
        most: all.saturating_sub(before),
    })
}

/// Packets that the loopback interface has received: `/proc/net/dev`.
fn loopback(text: &str) -> Option<u64> {
    let line = |line: &str| Some(line.trim_start().strip_prefix("lo:")?.to_owned());
    let counts = text.lines().find_map(line)?;
    counts.split_whitespace().nth(1)?.parse().ok()
}

/// `InReceives` of `/proc/net/snmp`, where a line of names precedes one of numbers.
fn in_receives_v4(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut both = names.split_whitespace().zip(numbers.split_whitespace());
    both.find(|(name, _)| *name == "InReceives")?.1.parse().ok()
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
        assert_eq!(in_receives_v4(snmp), Some(1234));
        assert_eq!(
            in_receives_v6("Ip6InReceives                   \t77\nIp6InHdrErrors 0\n"),
            77
        );
        let dev = "Inter-|   Receive\n face |bytes    packets errs\n    lo:    5130      57    0\n  eth0: 9 9 9\n";
        assert_eq!(loopback(dev), Some(57));
        assert_eq!((in_receives_v4(""), loopback("")), (None, None));
        assert_eq!(in_receives_v6(""), 0);
    }

    #[test]
    fn an_interface_is_gone_when_neither_its_name_nor_its_index_is_there() {
        let lo = if_nametoindex("lo").expect("a loopback interface");
        assert!(!is_gone("lo", lo));
        assert!(is_gone("lo", lo + 77), "another by its name");
        assert!(!is_gone("none-such", lo), "it has another name");
        assert!(is_gone("none-such", 2_000_000_000));
    }

    #[test]
    fn this_kernel_has_such_tables() {
        let seen = seen_by_kernel().expect("tables");
        assert!(seen.least <= seen.most);
    }
}
