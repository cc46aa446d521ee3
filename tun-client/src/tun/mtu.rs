//! The interface's MTU, while it is up.

use std::io;

use mixline_netlink::{Client, ROUTE};
use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::error::{Error, Result};

/// Sets the MTU of an interface of this network namespace, bytes. One that is not there has none.
///
/// # Errors
/// [`Error::Interface`] if the kernel refuses.
pub fn set_if_there(interface: &str, mtu: u16) -> Result<()> {
    let failed = |error| Error::Interface {
        interface: interface.to_owned(),
        action: "set its MTU",
        error,
    };
    let mut message = LinkMessage::default();
    message.header.index = match if_nametoindex(interface) {
        Ok(index) => index,
        Err(Errno::ENODEV | Errno::ENXIO) => return Ok(()),
        Err(errno) => return Err(failed(errno.into())),
    };
    message.attributes.push(LinkAttribute::Mtu(mtu.into()));
    let change = || {
        let routes = Client::<RouteNetlinkMessage>::open(ROUTE)?;
        routes.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
    };
    change()
        .map(drop)
        .map_err(|error| failed(io::Error::other(error)))
}
