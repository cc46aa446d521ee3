//! What the driver and the kernel grant: native XDP, zero-copy.
//!
//! The program is not attached to find out, since some drivers then restart their queues. The
//! driver is asked what it can do, and a small AF_XDP socket is bound for a moment, as the
//! relay does before it decides; without a program no packet goes to it.

use mixline_xdp::{Abilities, Granted, Socket, SocketConfig};

use super::finding::Finding;
use super::interface::Interface;
use super::plan::{Need, Plan};
use crate::config::{PortKind, XdpSend};

/// The result of binding an AF_XDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// The kernel granted it, in this mode.
    Granted(Granted),
    /// The kernel refused it.
    Refused(String),
    /// It was not tried, since it would have disturbed what runs.
    Not(&'static str),
}

/// What was seen of the modes.
#[derive(Debug, Clone)]
pub struct Modes {
    /// What the driver says that it can do; none if the kernel does not say.
    pub abilities: Option<Abilities>,
    /// The result of binding a socket to the first queue.
    pub tried: Tried,
}

impl Modes {
    /// Looks at the machine, and binds a socket if no XDP program is there.
    #[must_use]
    pub fn read(interface: &Interface, plan: &Plan) -> Self {
        let tried = if plan.runs_with_xdp() {
            Tried::Not("the relay runs on it")
        } else if interface.attached.is_some() {
            Tried::Not("another XDP program runs on it")
        } else {
            let small = SocketConfig {
                frames: 64,
                zero_copy: true,
                ..SocketConfig::default()
            };
            match Socket::bind(&interface.card.interface, 0, small) {
                Ok(socket) => Tried::Granted(socket.granted()),
                Err(error) => Tried::Refused(error.to_string()),
            }
        };
        Self {
            abilities: interface.card.abilities(),
            tried,
        }
    }

    /// Compares it with what the relay needs.
    #[must_use]
    pub fn judge(&self, plan: &Plan) -> Vec<Finding> {
        vec![self.judge_native(plan), self.judge_zero_copy(plan)]
    }

    fn judge_native(&self, plan: &Plan) -> Finding {
        let check = "native XDP";
        let Some(can) = self.abilities else {
            return Finding::ok(check, "this kernel does not say what its drivers can do");
        };
        if can.native && (can.redirect || !plan.redirects()) {
            return Finding::ok(check, "the driver has it");
        }
        let found = if !can.native {
            "the driver has none: only generic XDP, which is slower than plain UDP"
        } else {
            "the driver has it without redirection to AF_XDP: only generic XDP, which is slow"
        };
        match plan.need() {
            Need::Must => Finding::warning(check, found, "`port: udp`, or a card with native XDP"),
            Need::Maybe => Finding::ok(check, format!("{found}; `auto` takes UDP")),
            Need::No => Finding::ok(check, format!("{found}; not needed with `port: udp`")),
        }
    }

    fn judge_zero_copy(&self, plan: &Plan) -> Finding {
        let check = "zero-copy";
        let promised = self.abilities.map(|can| can.zero_copy);
        match (&self.tried, plan.port) {
            (Tried::Granted(Granted::ZeroCopy), _) => Finding::ok(check, "granted"),
            (Tried::Granted(Granted::Copy), PortKind::Xdp) if plan.send == XdpSend::Ring => {
                Finding::warning(
                    check,
                    "not granted: the kernel makes a packet of each frame of the TX ring",
                    "`xdp_send: auto`, which sends with GSO then; or `port: udp`",
                )
            }
            (Tried::Granted(Granted::Copy), PortKind::Xdp) => Finding::warning(
                check,
                "not granted: each frame is copied, and UDP with GRO and GSO is faster",
                "`port: udp`, or `port: xdp-filter` for its protection; or a card with zero-copy",
            ),
            (Tried::Granted(Granted::Copy), PortKind::Auto) => Finding::ok(
                check,
                "not granted: `auto` takes UDP with GRO and GSO, which is faster then",
            ),
            (Tried::Granted(Granted::Copy), _) => {
                Finding::ok(check, "not granted; not needed with this port")
            }
            (Tried::Refused(why), _) if !plan.redirects() => Finding::ok(
                check,
                format!("not tried ({why}); not needed with this port"),
            ),
            (Tried::Refused(why), _) => plan.lacks(
                check,
                why.as_str(),
                "see above for capabilities; `Device or resource busy`: end the other program \
                 with an AF_XDP socket on queue 0",
            ),
            (Tried::Not(why), _) => Finding::ok(
                check,
                match promised {
                    Some(true) => format!("the driver has it; not tried: {why}"),
                    Some(false) => format!("the driver has none; not tried: {why}"),
                    None => format!("not tried: {why}"),
                },
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;
    use crate::doctor::plan::tests::plan;

    fn can(native: bool, redirect: bool, zero_copy: bool) -> Option<Abilities> {
        Some(Abilities {
            native,
            redirect,
            zero_copy,
            checksums: false,
        })
    }

    fn levels(abilities: Option<Abilities>, tried: Tried, port: PortKind) -> [Level; 2] {
        let findings = Modes { abilities, tried }.judge(&plan(port));
        [findings[0].level, findings[1].level]
    }

    #[test]
    fn modes_are_judged_by_the_port() {
        use Level::{Ok, Warning};
        let none = can(false, false, false);
        let copy = Tried::Granted(Granted::Copy);
        let zero = Tried::Granted(Granted::ZeroCopy);
        let (all, some) = (can(true, true, true), can(true, false, false));
        assert_eq!(levels(all, zero, PortKind::Xdp), [Ok, Ok]);
        assert_eq!(levels(all, copy.clone(), PortKind::Xdp), [Ok, Warning]);
        assert_eq!(levels(all, copy.clone(), PortKind::Auto), [Ok, Ok]);
        assert_eq!(levels(some, copy.clone(), PortKind::Xdp), [Warning; 2]);
        assert_eq!(levels(some, copy.clone(), PortKind::XdpFilter), [Ok, Ok]);
        assert_eq!(
            levels(none, copy.clone(), PortKind::XdpFilter),
            [Warning, Ok]
        );
        assert_eq!(levels(none, copy.clone(), PortKind::Auto), [Ok, Ok]);
        assert_eq!(levels(None, copy, PortKind::Udp), [Ok, Ok]);
    }

    #[test]
    fn a_socket_that_is_refused_stops_the_port_that_needs_it() {
        let refused = || Tried::Refused("busy".into());
        let level = |port| levels(None, refused(), port)[1];
        assert_eq!(level(PortKind::Xdp), Level::Problem);
        assert_eq!(level(PortKind::Auto), Level::Warning);
        assert_eq!(level(PortKind::XdpFilter), Level::Ok);
        assert_eq!(level(PortKind::Udp), Level::Ok);
        let not = Tried::Not("the relay runs on it");
        assert_eq!(
            levels(can(false, false, true), not, PortKind::Xdp)[1],
            Level::Ok
        );
    }
}
