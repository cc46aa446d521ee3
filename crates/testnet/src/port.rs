//! The kinds of port that a relay can have.

/// What a relay receives and sends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Port {
    /// What is best here.
    Auto,
    /// UDP sockets.
    Udp,
    /// AF_XDP sockets.
    Xdp,
    /// UDP sockets behind an XDP program.
    XdpFilter,
}

impl Port {
    /// As it stands in a relay's configuration.
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
