//! A name server of the host's.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

use crate::config::DNS_PORT;

/// A name server, as resolv.conf(5) names one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The interface that it is behind, by name or by number, if its address does not say so
    /// (RFC 4007, section 11). An interface may go and come again with another number.
    pub scope: Option<String>,
}

impl Upstream {
    /// A server on the port of DNS, from `ADDRESS` or `ADDRESS%INTERFACE`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, scope) = match text.split_once('%') {
            Some((address, scope)) if !scope.is_empty() => (address, Some(scope.to_owned())),
            Some(_) => return None,
            None => (text, None),
        };
        Some(Self {
            address: address.parse().ok()?,
            port: DNS_PORT,
            scope,
        })
    }

    /// Where it is now.
    ///
    /// # Errors
    /// If there is no interface of that name.
    pub fn socket_address(&self) -> io::Result<SocketAddr> {
        let (IpAddr::V6(address), Some(scope)) = (self.address, &self.scope) else {
            return Ok(SocketAddr::new(self.address, self.port));
        };
        let index = match scope.parse() {
            Ok(index) => index,
            Err(_) => if_nametoindex(scope.as_str())?,
        };
        Ok(SocketAddrV6::new(address, self.port, 0, index).into())
    }
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V6(address) if address.scope_id() > 0 => {
                Some(address.scope_id().to_string())
            }
            _ => None,
        };
        Self {
            address: address.ip(),
            port: address.port(),
            scope,
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(scope) = &self.scope {
            write!(f, "%{scope}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_file() {
        let server = Upstream::parse("192.0.2.1").unwrap();
        assert_eq!(
            server.socket_address().unwrap(),
            "192.0.2.1:53".parse().unwrap()
        );
        let server = Upstream::parse("fe80::1%lo").unwrap();
        assert_eq!(server.to_string(), "fe80::1%lo");
        // The loopback interface is the first in every network namespace.
        assert_eq!(
            server.socket_address().unwrap(),
            "[fe80::1%1]:53".parse().unwrap()
        );
        assert_eq!(
            Upstream::parse("fe80::1%7")
                .unwrap()
                .socket_address()
                .unwrap(),
            "[fe80::1%7]:53".parse().unwrap()
        );
        let gone = Upstream::parse("fe80::1%nosuch0").unwrap();
        assert!(gone.socket_address().is_err());
        for bad in ["", "x", "fe80::1%", "%lo", "192.0.2.1:53"] {
            assert_eq!(Upstream::parse(bad), None, "{bad}");
        }
    }
}
