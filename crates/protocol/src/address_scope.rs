//! From where an address can be reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{IPV6_FIRST_BYTE, VirtualNetwork};

/// From where an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// From everywhere.
    Public,
    /// Within one site or one machine.
    Private,
    /// Through Mixline only.
    Virtual,
    /// Not at all, or on one link only.
    Link,
}

/// From where `ip` can be reached, by the IANA registries of special-purpose addresses. `network`: that of virtual
/// IPv4 addresses.
#[must_use]
pub fn scope(ip: IpAddr, network: &VirtualNetwork) -> Scope {
    match ip {
        IpAddr::V4(ip) => scope_v4(ip, network),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

fn scope_v4(ip: Ipv4Addr, network: &VirtualNetwork) -> Scope {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && b & 0xc0 == 64;
    let benchmark = a == 198 && b & 0xfe == 18;
    let protocols = [a, b, c] == [192, 0, 0];
    if network.contains(ip) {
        Scope::Virtual
    } else if ip.is_link_local() || a == 0 || a >= 224 {
        Scope::Link
    } else if ip.is_private()
        || ip.is_loopback()
        || ip.is_documentation()
        || shared
        || benchmark
        || protocols
    {
        Scope::Private
    } else {
        Scope::Public
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    let [a, b, ..] = ip.segments();
    let documentation = (a == 0x2001 && b == 0xdb8) || (a == 0x3fff && b & 0xf000 == 0);
    if ip.octets()[0] == IPV6_FIRST_BYTE {
        Scope::Virtual
    } else if ip.is_loopback() || documentation || ip.is_unique_local() {
        Scope::Private
    } else if a & 0xe000 == 0x2000 {
        Scope::Public
    } else {
        // Link-local addresses need a zone, and nothing else is assigned to hosts.
        Scope::Link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let network = VirtualNetwork::default();
        for (text, expected) in [
            ("203.0.114.7", Scope::Public),
            ("172.21.0.2", Scope::Private),
            ("127.0.0.1", Scope::Private),
            ("100.64.0.1", Scope::Private),
            ("100.128.0.1", Scope::Public),
            ("198.19.0.1", Scope::Private),
            ("10.1.2.3", Scope::Virtual),
            ("169.254.0.1", Scope::Link),
            ("2a00::1", Scope::Public),
            ("3fff:1::2", Scope::Private),
            ("2001:db8::1", Scope::Private),
            ("::1", Scope::Private),
            ("fc00::1", Scope::Private),
            ("fd00::1", Scope::Virtual),
            ("fe80::1", Scope::Link),
        ] {
            assert_eq!(scope(text.parse().unwrap(), &network), expected, "{text}");
        }
    }
}
