//! Datagrams that say that they come from where the sender chooses.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use mixline_testnet::guests::NETWORKS;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrIn, sendmsg, setsockopt, sockopt::IpTransparent,
};

/// A socket that may send from any address. What comes to its port at any address of its host comes to it.
pub fn socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    setsockopt(&socket, IpTransparent, &true).context("sending from any address")?;
    Ok(socket)
}

/// Whether the kernel has taken it.
pub fn send(socket: &UdpSocket, from: Ipv4Addr, to: SocketAddrV4, bytes: &[u8]) -> bool {
    let information = in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr {
            s_addr: u32::from_ne_bytes(from.octets()),
        },
        ipi_addr: in_addr { s_addr: 0 },
    };
    let to = SockaddrIn::from(to);
    let sent = sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &[ControlMessage::Ipv4PacketInfo(&information)],
        MsgFlags::empty(),
        Some(&to),
    );
    sent.is_ok()
}

/// An address from anywhere in the world, or of the /24 of `within`.
pub fn forged(within: Option<Ipv4Addr>, random: u32) -> Ipv4Addr {
    let [a, b, c, d] = random.to_be_bytes();
    let host = d % 250 + 3;
    match within {
        Some(network) => {
            let [a, b, c, _] = network.octets();
            Ipv4Addr::new(a, b, c, host)
        }
        // Between 10.0.0.0/8 and 127.0.0.0/8, where the router takes all sources for what they say.
        None => Ipv4Addr::new(11 + a % 89, b, c, host),
    }
}

/// An address of [`NETWORKS`], at which the attackers receive: each number is in another /16, as long as there are.
pub fn own(number: u16) -> Ipv4Addr {
    let (networks, length) = NETWORKS;
    let below = 16 - length;
    let (network, host) = (number % (1 << below), number >> below);
    let [a, b, ..] = networks.octets();
    let ([e, f], [_, host]) = (network.to_be_bytes(), host.to_be_bytes());
    Ipv4Addr::new(a + e, b + f, 0, host + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_is_sent_arrives() {
        // The loopback's own addresses need no transparent socket.
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(to) = there.local_addr().unwrap() else {
            panic!("IPv4");
        };
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let from = Ipv4Addr::new(127, 0, 0, 9);
        assert!(send(&socket, from, to, &[5; 1408]));
        let mut bytes = [0; 2000];
        let (length, seen) = there.recv_from(&mut bytes).unwrap();
        assert_eq!((length, seen.ip()), (1408, from.into()));
    }

    #[test]
    fn forged_addresses_are_where_they_should_be() {
        let network = Ipv4Addr::new(198, 18, 0, 2);
        for random in (0..=u32::MAX).step_by(0x0fff_fff1) {
            let near = forged(Some(network), random);
            assert_eq!(near.octets()[..3], network.octets()[..3]);
            assert!(near.octets()[3] > 2);
            let far = forged(None, random);
            assert!((11..100).contains(&far.octets()[0]), "{far}");
        }
    }

    #[test]
    fn own_addresses_differ_and_are_of_many_networks() {
        let (networks, length) = NETWORKS;
        let all: HashSet<_> = (0..8192).map(own).collect();
        assert_eq!(all.len(), 8192);
        let prefix = |address: Ipv4Addr| u32::from(address) >> (32 - u32::from(length));
        assert!(all.iter().all(|it| prefix(*it) == prefix(networks)));
        let slash16: HashSet<_> = (0..4096).map(|it| u32::from(own(it)) >> 16).collect();
        assert_eq!(slash16.len(), 4096);
    }
}
