//! The one line by which others join: whose network it is, and where others reach the directory.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use mixline_daemon::network::{Network, NoNetwork};
use mixline_protocol::identity::AnonymousId;

/// Where a directory is asked for, as far as it can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The address and the port.
    pub address: SocketAddr,
    /// Whether the configuration names it, or this machine's routes do.
    pub configured: bool,
}

/// Addresses of RFC 5737 and RFC 3849, which are nobody's: their route is the one to everybody.
const ANYBODY: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

impl Place {
    /// The place of a directory that listens there. `None` if it listens at all addresses, and no
    /// route leads anywhere.
    #[must_use]
    pub fn of(listen: SocketAddr) -> Option<Self> {
        if !listen.ip().is_unspecified() {
            return Some(Self {
                address: listen,
                configured: true,
            });
        }
        let outwards = ANYBODY.iter().find_map(|(from, to)| {
            // Nothing is sent by this.
            let socket = UdpSocket::bind(from).ok()?;
            socket.connect(to).ok()?;
            Some(socket.local_addr().ok()?.ip())
        });
        outwards
            .filter(|address: &IpAddr| !address.is_unspecified())
            .map(|address| Self {
                address: SocketAddr::new(address, listen.port()),
                configured: false,
            })
    }

    /// The line.
    ///
    /// # Errors
    /// [`NoNetwork`] never, since an address is a host of a URL.
    pub fn network(&self, id: AnonymousId) -> Result<Network, NoNetwork> {
        Network::new(id, &format!("http://{}", self.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_is_the_place() {
        for listen in ["198.51.100.7:8080", "[2001:db8::7]:80", "127.0.0.1:9"] {
            let listen: SocketAddr = listen.parse().unwrap();
            let place = Place::of(listen).unwrap();
            assert!(place.configured);
            let network = place.network(AnonymousId([3; 32])).unwrap();
            assert_eq!(network.urls, [format!("http://{listen}")]);
        }
        if let Some(place) = Place::of("0.0.0.0:8080".parse().unwrap()) {
            assert!(!place.configured && !place.address.ip().is_unspecified());
            assert_eq!(place.address.port(), 8080);
        }
    }
}
