//! The ways to the guards, as the kernel would take them, and when they have changed.
//!
//! The kernel announces each change of links, addresses and routes, of which a host with containers
//! has many that concern nobody here. So what is compared is the way to each guard: interface,
//! gateway and own address. An address that is renewed as it was changes nothing. A link that was
//! down and is up again does, since behind it may be another network with the same addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mixline_netlink::{Changes, Client, ROUTE};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::io::unix::AsyncFd;

use crate::sockets::source_to;

/// Groups of announcements (Linux, `linux/rtnetlink.h`): links; addresses and routes of IPv4 and
/// IPv6.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

/// How the kernel would send to an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Way {
    /// The interface's index.
    interface: u32,
    /// How often that has come up.
    ups: u32,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
}

/// The ways to the guards.
pub struct Ways {
    changes: Option<AsyncFd<Changes>>,
    known: Vec<(SocketAddr, Option<Way>)>,
}

impl Ways {
    /// Listens to the kernel, if it lets us. In a runtime.
    pub fn new() -> Self {
        let changes = Changes::listen(ROUTE, &GROUPS)
            .map_err(io::Error::other)
            .and_then(register);
        if let Err(error) = &changes {
            tracing::debug!(%error, "no announcements of the kernel: routes are looked at now and then");
        }
        Self {
            changes: changes.ok(),
            known: Vec::new(),
        }
    }

    /// Waits until the kernel announces something; for ever if it does not.
    pub async fn announced(&mut self) {
        let Some(changes) = &mut self.changes else {
            return std::future::pending().await;
        };
        loop {
            let Ok(mut guard) = changes.readable_mut().await else {
                return std::future::pending().await;
            };
            let heard = guard.get_inner_mut().heard();
            guard.clear_ready();
            if heard {
                return;
            }
        }
    }

    /// Whether the way to any of these addresses has become another one, and there is one now.
    pub fn have_changed(&mut self, to: impl Iterator<Item = SocketAddr>) -> bool {
        let client = Client::open(ROUTE).ok();
        let now: Vec<_> = to.map(|to| (to, way(client.as_ref(), to))).collect();
        let other = |(to, way): &(SocketAddr, Option<Way>)| {
            let before = self.known.iter().find(|(known, _)| known == to);
            way.is_some() && before.is_some_and(|(_, before)| before != way)
        };
        let changed = now.iter().any(other);
        self.known = now;
        changed
    }
}

#[expect(
    deprecated,
    reason = "the form without `unsafe`: `Changes` keeps its socket as long as it lives"
)]
fn register(changes: Changes) -> io::Result<AsyncFd<Changes>> {
    AsyncFd::new(changes)
}

/// The way to an address; `None` if there is none.
fn way(client: Option<&Client<RouteNetlinkMessage>>, to: SocketAddr) -> Option<Way> {
    // Where the kernel answers no questions, the own address has to do.
    let source = source_to(&to)?;
    let route = client.and_then(|client| route(client, to.ip()));
    Some(route.map_or(
        Way {
            source: Some(source),
            ..Way::default()
        },
        |way| Way {
            source: Some(source),
            ..way
        },
    ))
}

fn route(client: &Client<RouteNetlinkMessage>, to: IpAddr) -> Option<Way> {
    let mut question = RouteMessage::default();
    let (family, length, address) = match to {
        IpAddr::V4(ip) => (AddressFamily::Inet, 32, RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(ip)),
    };
    question.header.address_family = family;
    question.header.destination_prefix_length = length;
    question
        .attributes
        .push(RouteAttribute::Destination(address));
    let RouteNetlinkMessage::NewRoute(route) =
        client.ask(RouteNetlinkMessage::GetRoute(question)).ok()?
    else {
        return None;
    };
    let mut way = Way::default();
    for attribute in route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => way.interface = index,
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => way.gateway = Some(ip.into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => way.gateway = Some(ip.into()),
            _ => {}
        }
    }
    way.ups = ups(client, way.interface);
    Some(way)
}

/// How often an interface has come up.
fn ups(client: &Client<RouteNetlinkMessage>, index: u32) -> u32 {
    let mut question = LinkMessage::default();
    question.header.index = index;
    let Ok(RouteNetlinkMessage::NewLink(link)) = client.ask(RouteNetlinkMessage::GetLink(question))
    else {
        return 0;
    };
    let count = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::CarrierUpCount(count) => Some(*count),
        _ => None,
    };
    link.attributes.iter().find_map(count).unwrap_or(0)
}
