//! The kinds of port that a relay can have.

use serde::{Deserialize, Serialize};

/// How datagrams get in and out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum PortKind {
    /// The best that this machine has.
    #[default]
    Auto,
    /// UDP sockets of the kernel.
    Udp,
    /// AF_XDP.
    Xdp,
    /// UDP sockets behind an XDP program that drops what is wrong.
    XdpFilter,
}

impl PortKind {
    /// As it is written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Udp => "udp",
            Self::Xdp => "xdp",
            Self::XdpFilter => "xdp-filter",
        }
    }

    /// Whether it has to have the XDP program.
    #[must_use]
    pub fn needs_xdp(self) -> bool {
        matches!(self, Self::Xdp | Self::XdpFilter)
    }
}
