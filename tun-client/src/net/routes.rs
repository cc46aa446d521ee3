//! Whether the host already uses the addresses that Mixline wants to.

use std::net::IpAddr;

use mixline_protocol::address::VirtualNetwork;

use super::netlink::{Prefix, Route};
use crate::dns::zone::IPV6_NETWORK;
use crate::error::{Error, Result};

/// What the host's routes mean for the virtual networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conflicts {
    /// Lines for the person at the machine.
    pub warnings: Vec<String>,
}

/// Compares the host's routes with the virtual networks. `own` is the client's interface,
/// `name` turns an interface's index into its name.
///
/// A route *inside* a virtual network wins over Mixline's, being more specific: those
/// addresses cannot be reached through Mixline, which is said. A route to exactly a
/// virtual network would lose to Mixline's, and with it the host what it leads to: that
/// is refused. A wider route, the default route among them, goes on for everything else.
///
/// # Errors
/// [`Error::NetworkTaken`].
pub fn check(
    routes: &[Route],
    network: &VirtualNetwork,
    own: u32,
    name: impl Fn(u32) -> Option<String>,
) -> Result<Conflicts> {
    let mut conflicts = Conflicts::default();
    let virtual_networks = [
        Prefix::new(network.prefix, network.length),
        Prefix::new(IPV6_NETWORK.0, IPV6_NETWORK.1),
    ];
    for route in routes.iter().filter(|route| route.interface != Some(own)) {
        for virtual_network in virtual_networks {
            if !contains(virtual_network, route.to) {
                continue;
            }
            let via = match route.interface {
                Some(index) => name(index).unwrap_or_else(|| format!("interface {index}")),
                None => "a route that refuses".to_owned(),
            };
            if route.to.length == virtual_network.length {
                if virtual_network.address.is_ipv4() {
                    return Err(Error::NetworkTaken {
                        network: *network,
                        route: format!("via {via}"),
                    });
                }
                // fd00::/8 as one route is nobody's network (RFC 4193, section 3.1: /48),
                // rather a catch-all that refuses.
                conflicts
                    .warnings
                    .push(format!("the route to {} ({via}) is overruled", route.to));
                continue;
            }
            conflicts.warnings.push(format!(
                "{} is routed via {via}: addresses in it cannot be reached through Mixline's \
                 {virtual_network}; where that hurts, use a directory with another `network` \
                 parameter",
                route.to
            ));
        }
    }
    Ok(conflicts)
}

/// Whether all of `inner` lies in `outer`.
fn contains(outer: Prefix, inner: Prefix) -> bool {
    let differ = |a: u128, b: u128, bits: u32| {
        (a ^ b)
            .checked_shr(bits - u32::from(outer.length))
            .unwrap_or(0)
    };
    inner.length >= outer.length
        && match (outer.address, inner.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                differ(a.to_bits().into(), b.to_bits().into(), 32) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => differ(a.to_bits(), b.to_bits(), 128) == 0,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, interface: u32) -> Route {
        let (address, length) = to.split_once('/').unwrap();
        let to = Prefix::new(address.parse::<IpAddr>().unwrap(), length.parse().unwrap());
        Route {
            to,
            interface: Some(interface),
        }
    }

    fn check_all(routes: &[Route]) -> Result<Conflicts> {
        let name = |index| Some(format!("eth{index}"));
        check(routes, &VirtualNetwork::default(), 9, name)
    }

    #[test]
    fn other_networks_and_wider_routes_do_not_matter() {
        let routes = [
            route("0.0.0.0/0", 1),
            route("0.0.0.0/1", 1),
            route("8.0.0.0/6", 1),
            route("11.0.0.0/8", 1),
            route("192.168.0.0/16", 1),
            route("::/0", 1),
            route("fc00::/7", 1),
            route("fe80::/64", 1),
            route("2001:db8::/32", 1),
        ];
        assert_eq!(check_all(&routes).unwrap(), Conflicts::default());
    }

    #[test]
    fn a_route_inside_is_told() {
        let conflicts = check_all(&[route("10.7.0.0/16", 3), route("fd12::/48", 4)]).unwrap();
        assert_eq!(conflicts.warnings.len(), 2);
        let first = &conflicts.warnings[0];
        assert!(
            first.contains("10.7.0.0/16") && first.contains("eth3"),
            "{first}"
        );
        assert!(first.contains("`network`"), "{first}");
        assert!(conflicts.warnings[1].contains("fd12::/48"));
    }

    #[test]
    fn the_same_route_is_refused() {
        let error = check_all(&[route("10.0.0.0/8", 2)])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("10.0.0.0/8") && error.contains("eth2"),
            "{error}"
        );
    }

    #[test]
    fn the_own_interface_is_no_conflict() {
        let routes = [
            route("10.0.0.0/8", 9),
            route("10.0.0.53/32", 9),
            route("fd00::/8", 9),
        ];
        assert_eq!(check_all(&routes).unwrap(), Conflicts::default());
    }
}
