//! Why a port was not opened, in words for the operator: which card, which driver, and what to do.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use mixline_relay_common::maps::MAX_QUEUES;
use mixline_xdp::{Card, Stacked};
use nix::errno::Errno;

/// Why a port was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An address to listen on.
    #[error("{0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// XDP was asked for, and there is none.
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
    #[error(
        "{card} grants no zero-copy{}, without which UDP with GRO and GSO is faster{}",
        with_mtu(*.mtu),
        lower_mtu(card, *.mtu)
    )]
    NoZeroCopy {
        /// Whose driver it is.
        card: Card,
        /// The interface's MTU, where that may be why.
        mtu: Option<u32>,
    },
    /// Only generic XDP, which is slower than none.
    #[error("{0} has no native XDP, without which UDP with GRO and GSO is faster")]
    NotNative(Card),
    /// AF_XDP sockets would get nothing.
    #[error("{}", stacked(.card, .on))]
    Stacked {
        /// What was asked for.
        card: Card,
        /// What it is.
        on: Stacked,
    },
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

/// The largest MTU that is no reason for a driver to refuse anything.
pub(super) const USUAL_MTU: u32 = 1500;

fn with_mtu(mtu: Option<u32>) -> String {
    mtu.map_or_else(String::new, |mtu| format!(" with an MTU of {mtu}"))
}

fn lower_mtu(card: &Card, mtu: Option<u32>) -> String {
    mtu.map_or_else(String::new, |_| {
        let name = &card.interface;
        format!("; it may with another: `ip link set dev {name} mtu {USUAL_MTU}`")
    })
}

/// Why there is no AF_XDP on an interface that stands on others, and what to do instead.
pub fn stacked(card: &Card, on: &Stacked) -> String {
    let (name, what) = (&card.interface, on.what);
    let below = if on.below.is_empty() {
        "another interface".to_owned()
    } else {
        on.below.join(", ")
    };
    let remedy = match what {
        "bond" | "team" => format!(
            "`port: xdp-filter` works here; or give the relay a card of its own, outside {name}"
        ),
        "VLAN" => format!(
            "let the switch tag and give {below} the relay's address, or give the relay a card of \
             its own"
        ),
        _ => format!("give the relay's address to {below} instead of {name}"),
    };
    format!(
        "{name} is a {what} on {below}, where frames reach no AF_XDP socket of {name}: {remedy}"
    )
}

/// Why it is not known which interface XDP is for.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The system does not list them.
    #[error("cannot list interfaces: {0}")]
    List(Errno),
    /// None has an address where others reach the relay.
    #[error(
        "no interface has an address of `advertise` (there are {0}): name the one that XDP is \
         for with `interface`"
    )]
    NotAdvertised(Cards),
    /// The relay would not hear what arrives there.
    #[error(
        "{0} has no address that the relay listens on: name another with `interface`, or add \
         its address to `listen`"
    )]
    NotListening(Card),
    /// It was there when it was looked for, and is gone.
    #[error("{card} is gone ({errno}): bring it back, or name another with `interface`")]
    Gone {
        /// What it was.
        card: Card,
        /// What the system said.
        errno: Errno,
    },
}

/// Cards that could have been meant. At most [`Cards::SHOWN`] are named, since a host of
/// containers has many.
#[derive(Debug)]
pub struct Cards(pub Vec<Card>);

impl Cards {
    /// How many are named.
    pub const SHOWN: usize = 8;
}

impl fmt::Display for Cards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (number, card) in self.0.iter().take(Self::SHOWN).enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{card}")?;
        }
        match self.0.len().saturating_sub(Self::SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
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
        let text = |mtu| XdpError::NoZeroCopy { card: card(), mtu }.to_string();
        assert_eq!(
            text(None),
            "eth0 (driver igb) grants no zero-copy, without which UDP with GRO and GSO is faster"
        );
        let jumbo = text(Some(9000));
        assert!(
            jumbo.contains("no zero-copy with an MTU of 9000"),
            "{jumbo}"
        );
        assert!(jumbo.contains("`ip link set dev eth0 mtu 1500`"), "{jumbo}");
    }

    #[test]
    fn interfaces_on_others_are_named_with_what_carries_them() {
        let text = |driver: &str, what, below: &[&str]| {
            let card = Card {
                interface: "up0".into(),
                driver: Some(driver.into()),
            };
            let below = below.iter().map(|name| (*name).to_owned()).collect();
            let on = Stacked { what, below };
            XdpError::Stacked { card, on }.to_string()
        };
        let bond = text("bonding", "bond", &["eth0", "eth1"]);
        assert!(bond.starts_with("up0 is a bond on eth0, eth1, "), "{bond}");
        assert!(bond.contains("`port: xdp-filter`"), "{bond}");
        let vlan = text("802.1Q VLAN Support", "VLAN", &["eth0"]);
        assert!(vlan.contains("give eth0 the relay's address"), "{vlan}");
        let bridge = text("bridge", "bridge", &[]);
        assert!(bridge.contains("address to another interface"), "{bridge}");
    }

    #[test]
    fn errors_about_interfaces_name_the_card_and_which_key_helps() {
        let text = InterfaceError::NotListening(card()).to_string();
        assert!(text.starts_with("eth0 (driver igb) has no"), "{text}");
        assert!(text.contains("`listen`"), "{text}");
        let gone = InterfaceError::Gone {
            card: card(),
            errno: Errno::ENODEV,
        };
        assert_eq!(
            gone.to_string(),
            "eth0 (driver igb) is gone (ENODEV: No such device): bring it back, or name another \
             with `interface`"
        );
    }

    #[test]
    fn an_interface_that_is_not_found_is_chosen_among_those_that_there_are() {
        let text = |count| {
            let cards = Cards(vec![card(); count]);
            InterfaceError::NotAdvertised(cards).to_string()
        };
        assert_eq!(
            text(2),
            "no interface has an address of `advertise` (there are eth0 (driver igb), eth0 \
             (driver igb)): name the one that XDP is for with `interface`"
        );
        assert!(text(0).contains("(there are none)"));
        assert!(text(Cards::SHOWN + 3).contains(" and 3 more)"));
    }
}
