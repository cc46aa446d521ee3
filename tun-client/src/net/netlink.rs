//! rtnetlink(7), as much of it as is needed, with every request acknowledged: an address
//! that the kernel refused must not pass for one that is there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// An address and how many of its bits name the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address; behind the prefix it may have bits set.
    pub address: IpAddr,
    /// How many bits.
    pub length: u8,
}

impl Prefix {
    /// An address and a length in bits.
    #[must_use]
    pub fn new(address: impl Into<IpAddr>, length: u8) -> Self {
        Self {
            address: address.into(),
            length,
        }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: Prefix,
    /// The index of its interface; none for a route that refuses.
    pub interface: Option<u32>,
}

/// A connection to the kernel's routing.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens one. Reading needs no privilege, changing needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_up(&mut self, interface: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = interface;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)?;
        Ok(())
    }

    /// Gives an interface an address. The kernel adds the route to its network.
    ///
    /// # Errors
    /// What the kernel says; `PermissionDenied` also where IPv6 is disabled.
    pub fn add_address(&mut self, interface: u32, prefix: Prefix) -> io::Result<()> {
        let message = address_message(interface, prefix);
        self.request(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
        )?;
        Ok(())
    }

    /// Takes an address from an interface. One that is not there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_address(&mut self, interface: u32, prefix: Prefix) -> io::Result<()> {
        let message = address_message(interface, prefix);
        match self.request(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Routes a network into an interface. A route that is there already is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_route(&mut self, interface: u32, to: Prefix, metric: u32) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.address);
        message.header.destination_prefix_length = to.length;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Destination(match to.address {
                IpAddr::V4(address) => RouteAddress::Inet(address),
                IpAddr::V6(address) => RouteAddress::Inet6(address),
            }),
            RouteAttribute::Oif(interface),
            RouteAttribute::Priority(metric),
        ];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.request(RouteNetlinkMessage::NewRoute(message), flags) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// The routes of the main table, both families.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = match self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP) {
                Ok(answers) => answers,
                // A kernel without IPv6 has no routes of it.
                Err(_) if family == AddressFamily::Inet6 => continue,
                Err(error) => return Err(error),
            };
            routes.extend(answers.iter().filter_map(route));
        }
        Ok(routes)
    }

    /// Sends one request and collects what comes until its end.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut collected = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = usize::try_from(answer.header.length).map_err(io::Error::other)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(collected),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(collected),
                            Some(_) => Err(error.to_io()),
                        };
                    }
                    NetlinkPayload::InnerMessage(message) => collected.push(message),
                    _ => {}
                }
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address_message(interface: u32, prefix: Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(prefix.address);
    message.header.prefix_len = prefix.length;
    message.header.index = interface;
    message
        .attributes
        .push(AddressAttribute::Address(prefix.address));
    if prefix.address.is_ipv4() {
        message
            .attributes
            .push(AddressAttribute::Local(prefix.address));
    } else {
        // Nobody on this link could answer duplicate address detection.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message
}

fn route(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut address = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => address = IpAddr::V4(*to),
            RouteAttribute::Destination(RouteAddress::Inet6(to)) => address = IpAddr::V6(*to),
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    Some(Route {
        to: Prefix::new(address, message.header.destination_prefix_length),
        interface,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_can_be_read_without_privilege() {
        let routes = Netlink::open().unwrap().routes().unwrap();
        for route in routes {
            assert!(route.to.length <= if route.to.address.is_ipv4() { 32 } else { 128 });
        }
    }
}
