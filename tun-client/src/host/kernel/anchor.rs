//! The anchor: a link that stays when the client dies.
//!
//! systemd-resolved keeps what it was told of a link for as long as the link is there and has an
//! address. The client's interface goes with the process, and with it the word that `.anon` is asked
//! of nobody else. The anchor carries nothing: whatever is sent there is for an address of this
//! host, or is dropped.

use std::io;

use mixline_netlink::Error;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use nix::errno::Errno;

use super::super::observed::ANCHOR;
use super::{Kernel, KernelError};

/// The other end, where the anchor is one of a pair.
const PEER: &str = "mixline-dns-p";

impl Kernel {
    /// Makes the anchor if it is not there, and brings it up.
    ///
    /// # Errors
    /// What the kernel says: it may have neither of the two kinds of link.
    pub fn keep_anchor(&self) -> Result<(), KernelError> {
        match self.is_up(ANCHOR.1)? {
            Some((index, true)) if index == ANCHOR.0 => return Ok(()),
            Some((index, false)) if index == ANCHOR.0 => {}
            // Not as it should be: made by somebody else.
            Some(_) => self.remove_anchor()?,
            None => {}
        }
        let made = match self.make(dummy()) {
            Err(error) if is_unknown(&error) => {
                self.make(pair())?;
                self.bring_up(PEER)
            }
            made => made,
        };
        made?;
        self.bring_up(ANCHOR.1)
    }

    /// Removes the anchor, if it is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_anchor(&self) -> Result<(), KernelError> {
        let request = RouteNetlinkMessage::DelLink(named(ANCHOR.1));
        match self.routes.request(request, NLM_F_ACK) {
            Ok(_) => Ok(()),
            Err(Error::Refused(error)) if errno(&error) == Some(Errno::ENODEV) => Ok(()),
            Err(source) => Err(KernelError::at("remove the link of the resolver")(source)),
        }
    }

    fn make(&self, message: LinkMessage) -> Result<(), KernelError> {
        let request = RouteNetlinkMessage::NewLink(message);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.routes.request(request, flags) {
            Ok(_) => Ok(()),
            Err(Error::Refused(error)) if errno(&error) == Some(Errno::EEXIST) => Ok(()),
            Err(source) => Err(KernelError::at("make a link for the resolver")(source)),
        }
    }

    /// Brings it up, without an address of its own making and without multicast.
    fn bring_up(&self, name: &str) -> Result<(), KernelError> {
        let at = || KernelError::at("bring the link of the resolver up");
        let mut quiet = named(name);
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        quiet
            .attributes
            .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                vec![none],
            )]));
        // A kernel without IPv6 makes none in any case.
        let _ = self
            .routes
            .request(RouteNetlinkMessage::SetLink(quiet), NLM_F_ACK);
        let mut up = named(name);
        up.header.flags = LinkFlags::Up | LinkFlags::Noarp;
        up.header.change_mask = LinkFlags::Up | LinkFlags::Noarp | LinkFlags::Multicast;
        let done = self
            .routes
            .request(RouteNetlinkMessage::SetLink(up), NLM_F_ACK);
        done.map(drop).map_err(at())
    }

    /// The index of the link of this name, and whether it is up.
    fn is_up(&self, name: &str) -> Result<Option<(u32, bool)>, KernelError> {
        let question = RouteNetlinkMessage::GetLink(named(name));
        match self.routes.ask(question) {
            Ok(RouteNetlinkMessage::NewLink(link)) => Ok(Some((
                link.header.index,
                link.header.flags.contains(LinkFlags::Up),
            ))),
            Ok(_) => Ok(None),
            Err(Error::Refused(error)) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(source) => Err(KernelError::at("read a link")(source)),
        }
    }
}

/// A link without another end.
fn dummy() -> LinkMessage {
    let mut message = named(ANCHOR.1);
    message.header.index = ANCHOR.0;
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
            InfoKind::Dummy,
        )]));
    message
}

/// A link whose other end is in the same network.
fn pair() -> LinkMessage {
    let mut message = named(ANCHOR.1);
    message.header.index = ANCHOR.0;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(named(PEER)))),
    ]));
    message
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message
}

/// Whether the kernel has no such kind of link: what it says is of no kind of its own.
fn is_unknown(error: &KernelError) -> bool {
    match &error.source {
        Error::Refused(error) => errno(error) == Some(Errno::EOPNOTSUPP),
        _ => false,
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}
