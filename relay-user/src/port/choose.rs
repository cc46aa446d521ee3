//! Which kind of port a relay has: what the configuration says, and for `auto` what the card
//! grants.

use mixline_xdp::{Card, Error, Granted, Program, Socket, SocketConfig};

use super::error::{USUAL_MTU, XdpError};
use super::interface::interface;
use super::udp::ControlSockets;
use crate::config::{Config, PortKind, XdpSend};

/// The kind of port to open.
pub(super) enum Choice {
    /// Plain UDP.
    Udp {
        /// Why this one.
        why: String,
    },
    /// XDP in front of it.
    Xdp {
        /// Its name.
        kind: &'static str,
        /// Whether data goes to AF_XDP sockets, or is only filtered.
        redirect: bool,
        /// Whether plain UDP will do if there is no XDP.
        or_udp: bool,
    },
}

/// Chooses the port that the configuration asks for. `auto` takes AF_XDP where the driver grants
/// zero-copy, and UDP elsewhere: docs/performance.md says what was measured.
pub(super) fn choose(config: &Config, sockets: &ControlSockets) -> Choice {
    let xdp = |kind: PortKind, or_udp| Choice::Xdp {
        kind: kind.name(),
        redirect: kind == PortKind::Xdp,
        or_udp,
    };
    match config.port {
        PortKind::Udp => Choice::Udp {
            why: "as configured".into(),
        },
        PortKind::Xdp | PortKind::XdpFilter => xdp(config.port, false),
        PortKind::Auto => match may_zero_copy(config, sockets) {
            Ok(()) => xdp(PortKind::Xdp, true),
            Err(why) => Choice::Udp {
                why: why.to_string(),
            },
        },
    }
}

/// Whether XDP may be worth a try on an interface: not where this program or the driver is without
/// it, or frames reach no AF_XDP socket. Nothing is bound or attached to find out.
///
/// # Errors
/// [`XdpError`]: why `auto` takes UDP there.
pub fn may_have_xdp(interface: &str) -> Result<Card, XdpError> {
    if !Program::is_built() {
        return Err(XdpError::Xdp(Error::NotBuilt));
    }
    let card = Card::of(interface);
    if let Some(on) = card.stacked() {
        return Err(XdpError::Stacked { card, on });
    }
    match card.abilities() {
        Some(can) if !can.native => Err(XdpError::NotNative(card)),
        _ => Ok(card),
    }
}

/// Whether zero-copy is granted on the first queue: what `auto` wants AF_XDP for. The driver is
/// asked first, so that nothing is bound to a card that cannot.
fn may_zero_copy(config: &Config, sockets: &ControlSockets) -> Result<(), XdpError> {
    if !Program::is_built() {
        return Err(XdpError::Xdp(Error::NotBuilt));
    }
    let (interface, _) = interface(config, sockets).map_err(XdpError::Interface)?;
    let card = may_have_xdp(&interface)?;
    if card.abilities().is_some_and(|can| !can.zero_copy) {
        return Err(XdpError::NoZeroCopy { card, mtu: None });
    }
    let small = SocketConfig {
        frames: 64,
        zero_copy: true,
        ..SocketConfig::default()
    };
    let socket = Socket::bind(&interface, 0, small).map_err(XdpError::Xdp)?;
    match socket.granted() {
        Granted::ZeroCopy => Ok(()),
        Granted::Copy => {
            let mtu = card.mtu().filter(|mtu| *mtu > USUAL_MTU);
            Err(XdpError::NoZeroCopy { card, mtu })
        }
    }
}

/// Whether frames leave through the TX ring, given what the kernel granted, or through UDP.
pub(super) fn sends_through_ring(send: XdpSend, granted: Option<Granted>) -> bool {
    match (send, granted) {
        (_, None) | (XdpSend::Gso, _) | (XdpSend::Auto, Some(Granted::Copy)) => false,
        (XdpSend::Ring, _) | (XdpSend::Auto, Some(Granted::ZeroCopy)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_taken_with_zero_copy_or_when_it_is_asked_for() {
        let (zero, copy) = (Some(Granted::ZeroCopy), Some(Granted::Copy));
        let of = |send| [zero, copy, None].map(|granted| sends_through_ring(send, granted));
        assert_eq!(of(XdpSend::Auto), [true, false, false]);
        assert_eq!(of(XdpSend::Ring), [true, true, false]);
        assert_eq!(of(XdpSend::Gso), [false, false, false]);
    }
}
