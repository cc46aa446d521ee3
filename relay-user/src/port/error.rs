//! Why a port was not opened, in words for the operator: which card, which driver, and what to do.

use std::io;
use std::net::SocketAddr;

use mixline_relay_common::maps::MAX_QUEUES;
use mixline_xdp::Card;
use nix::errno::Errno;

/// Why a port was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An address to listen on.
    #[error("{0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// XDP was asked for, and is not to be had.
    #[error("port: {kind}: {why}; `port: udp` works without XDP")]
    Xdp {
        /// The port that was asked for.
        kind: &'static str,
        /// What is missing.
        why: XdpError,
    },
}

/// Why there is no XDP.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// Which interface it would be on is not known.
    #[error(transparent)]
    Interface(InterfaceError),
    /// Addresses of `listen` differ in their ports: the program knows one.
    #[error("all addresses of `listen` must have one port")]
    Ports,
    /// More queues than the program's map has entries.
    #[error(
        "{card} has {queues} queues, of which {MAX_QUEUES} can be used: \
         `ethtool -L {} combined {MAX_QUEUES}`",
        card.interface
    )]
    Queues {
        /// Whose queues they are.
        card: Card,
        /// How many it has.
        queues: u32,
    },
    /// AF_XDP would be slower than UDP: what `auto` does not want.
    #[error("{0} grants no zero-copy, without which UDP with GRO and GSO is faster")]
    NoZeroCopy(Card),
    /// Next hops cannot be asked for.
    #[error("cannot ask the kernel for next hops on {card}: {source}")]
    NextHops {
        /// The card that would send.
        card: Card,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program or a socket.
    #[error(transparent)]
    Xdp(mixline_xdp::Error),
}

/// Why it is not known which interface XDP is for.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The system does not list them.
    #[error("cannot list interfaces: {0}")]
    List(Errno),
    /// None has an address where others reach the relay.
    #[error("no interface has an address of `advertise`: name it with `interface`")]
    NotAdvertised,
    /// The relay would not hear what arrives there.
    #[error(
        "interface {interface} has no address that the relay listens on: name another with \
         `interface`, or add its address to `listen`"
    )]
    NotListening {
        /// The interface.
        interface: String,
    },
    /// It was there when it was looked for, and is gone.
    #[error("interface {interface}: {errno}")]
    Gone {
        /// The interface.
        interface: String,
        /// What the system said.
        errno: Errno,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        Card {
            interface: "eth0".into(),
            driver: Some("igb".into()),
        }
    }

    #[test]
    fn errors_name_the_card_its_driver_and_what_to_do() {
        let queues = XdpError::Queues {
            card: card(),
            queues: 96,
        };
        let text = OpenError::Xdp {
            kind: "xdp",
            why: queues,
        }
        .to_string();
        assert_eq!(
            text,
            "port: xdp: eth0 (driver igb) has 96 queues, of which 64 can be used: `ethtool -L eth0 \
             combined 64`; `port: udp` works without XDP"
        );
        let text = XdpError::NoZeroCopy(card()).to_string();
        assert!(
            text.contains("eth0 (driver igb) grants no zero-copy"),
            "{text}"
        );
    }

    #[test]
    fn errors_about_interfaces_say_which_key_helps() {
        let interface = "eth1".to_string();
        let text = InterfaceError::NotListening { interface }.to_string();
        assert!(text.contains("eth1") && text.contains("`listen`"), "{text}");
        assert!(
            InterfaceError::NotAdvertised
                .to_string()
                .contains("`interface`")
        );
    }
}
