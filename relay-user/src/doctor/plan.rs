//! What the relay is meant to do, which decides whether something missing is a problem.

use std::net::SocketAddr;

use mixline_xdp::FrameBytes;

use super::finding::Finding;
use crate::config::{Config, PortKind, XdpSend};
use crate::observe::Report;
use crate::port::GIVEN_UP;

/// What the configuration asks of the machine.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The port.
    pub port: PortKind,
    /// How frames leave.
    pub send: XdpSend,
    /// How large frames are.
    pub frames: FrameBytes,
    /// Where the relay listens; empty without a configuration.
    pub listen: Vec<SocketAddr>,
    /// Threads that forward.
    pub workers: usize,
    /// The relay's own status, if it runs.
    pub running: Option<Box<Report>>,
}

/// How much XDP is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is not used.
    No,
    /// It is used where it is available.
    Maybe,
    /// The relay does not start without it.
    Must,
}

impl Plan {
    /// What a configuration asks for, on a machine with this many cores.
    #[must_use]
    pub fn of(config: &Config, cores: usize, running: Option<Report>) -> Self {
        Self {
            port: config.port,
            send: config.xdp_send,
            frames: config.xdp_frame_bytes.into(),
            listen: config.listen.clone(),
            workers: config.worker_count(cores),
            running: running.map(Box::new),
        }
    }

    /// Without a configuration.
    #[must_use]
    pub fn bare(cores: usize) -> Self {
        Self {
            workers: cores,
            ..Self::default()
        }
    }

    /// How much XDP is needed.
    #[must_use]
    pub fn need(&self) -> Need {
        match self.port {
            PortKind::Udp => Need::No,
            PortKind::Auto => Need::Maybe,
            PortKind::Xdp | PortKind::XdpFilter => Need::Must,
        }
    }

    /// Whether data may go to AF_XDP sockets.
    #[must_use]
    pub fn redirects(&self) -> bool {
        matches!(self.port, PortKind::Xdp | PortKind::Auto)
    }

    /// Whether datagrams may pass the kernel's UDP sockets.
    #[must_use]
    pub fn uses_udp(&self) -> bool {
        self.port != PortKind::Xdp
    }

    /// Whether the relay listens on an address of this family, as far as is known.
    #[must_use]
    pub fn listens(&self, v4: bool) -> bool {
        self.listen.is_empty() || self.listen.iter().any(|address| address.is_ipv4() == v4)
    }

    /// Whether the relay runs now, with an XDP program.
    #[must_use]
    pub fn runs_with_xdp(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|report| report.port.kind.starts_with("xdp"))
    }

    /// The relay runs, and has given XDP up.
    #[must_use]
    pub fn judge_given_up(&self) -> Option<Finding> {
        let port = &self.running.as_ref()?.port;
        (port.check.as_deref() == Some(GIVEN_UP)).then(|| {
            Finding::warning(
                "running relay",
                port.why.as_str(),
                "mend what it says, then `systemctl restart mixline-relay`",
            )
        })
    }

    /// Something that XDP takes is missing.
    #[must_use]
    pub fn lacks(&self, check: &str, found: impl Into<String>, change: &str) -> Finding {
        match self.need() {
            Need::Must => Finding::problem(check, found, change),
            Need::Maybe => Finding::warning(check, found, change),
            Need::No => Finding::ok(
                check,
                format!("{}; not needed with `port: udp`", found.into()),
            ),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    /// A plan with this port and nothing else.
    pub fn plan(port: PortKind) -> Plan {
        Plan {
            port,
            ..Plan::bare(4)
        }
    }

    #[test]
    fn a_relay_that_gave_xdp_up_is_to_be_restarted() {
        let with = |check: Option<&str>| {
            let mut running = crate::top::sample::report();
            running.port.why = "XDP on eth0 was given up".into();
            running.port.check = check.map(str::to_owned);
            let plan = Plan {
                running: Some(Box::new(running)),
                ..plan(PortKind::Auto)
            };
            plan.judge_given_up()
        };
        let finding = with(Some(GIVEN_UP)).expect("a finding");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.change.expect("a change").contains("restart"));
        assert_eq!(with(None), None);
        assert_eq!(with(Some("proven")), None);
        assert_eq!(plan(PortKind::Xdp).judge_given_up(), None);
    }

    #[test]
    fn what_is_missing_weighs_by_the_port() {
        for (port, level) in [
            (PortKind::Udp, Level::Ok),
            (PortKind::Auto, Level::Warning),
            (PortKind::Xdp, Level::Problem),
            (PortKind::XdpFilter, Level::Problem),
        ] {
            let finding = plan(port).lacks("check", "is", "do");
            assert_eq!(finding.level, level, "{port:?}");
            assert_eq!(finding.change.is_some(), level != Level::Ok);
        }
    }
}
