//! What the relay is meant to do, which decides whether something missing is a problem.

use std::net::SocketAddr;

use mixline_xdp::FrameBytes;

use super::finding::Finding;
use crate::config::{Config, PortKind, XdpSend};
use crate::observe::Report;

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
