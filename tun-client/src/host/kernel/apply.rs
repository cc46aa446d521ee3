//! Changes, each acknowledged by the kernel.

use std::io;
use std::net::IpAddr;

use mixline_netlink::Error;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::super::observed::{Address, LOOPBACK, Route, Rule, Target};
use super::super::plan::Action;
use super::{Kernel, KernelError, family};

impl Kernel {
    /// Carries out one action. What is there already, or is gone already, is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn apply(&self, action: &Action) -> Result<(), KernelError> {
        match action {
            Action::SetFilter(chains) => self.set_filter(chains),
            Action::RemoveFilter => self.remove_filter(),
            Action::SetRoute(route) => self.change(
                RouteNetlinkMessage::NewRoute(route_message(route)),
                NLM_F_CREATE | NLM_F_REPLACE,
                || format!("route {}", route.to),
            ),
            Action::RemoveRoute(route) => self.change(
                RouteNetlinkMessage::DelRoute(route_message(route)),
                0,
                || format!("remove the route {}", route.to),
            ),
            Action::AddRule(rule) => self.change(
                RouteNetlinkMessage::NewRule(rule_message(rule)),
                NLM_F_CREATE | NLM_F_EXCL,
                || format!("add the policy rule {rule}"),
            ),
            Action::RemoveRule(rule) => {
                self.change(RouteNetlinkMessage::DelRule(rule_message(rule)), 0, || {
                    format!("remove the policy rule {rule}")
                })
            }
            Action::SetUp(interface) => {
                let mut message = LinkMessage::default();
                message.header.index = *interface;
                message.header.flags = LinkFlags::Up;
                message.header.change_mask = LinkFlags::Up;
                self.change(RouteNetlinkMessage::SetLink(message), 0, || {
                    "bring the interface up".into()
                })
            }
            Action::AddAddress(address) => self.change(
                RouteNetlinkMessage::NewAddress(address_message(address)),
                NLM_F_CREATE | NLM_F_REPLACE,
                || format!("add the address {}", address.prefix),
            ),
            Action::RemoveAddress(address) => self.change(
                RouteNetlinkMessage::DelAddress(address_message(address)),
                0,
                || format!("remove the address {}", address.prefix),
            ),
        }
    }

    fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<(), KernelError> {
        match self.routes.request(message, NLM_F_ACK | flags) {
            Ok(_) => Ok(()),
            Err(Error::Refused(error)) if is_done(&error) => Ok(()),
            Err(source) => Err(KernelError {
                action: action(),
                source,
            }),
        }
    }
}

/// Whether a refusal says that it is so already: `EEXIST`, `ESRCH` (routes), `ENOENT` (rules),
/// `EADDRNOTAVAIL` (addresses), `ENODEV` (what was on an interface went with it).
fn is_done(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EEXIST | Errno::ESRCH | Errno::ENOENT | Errno::EADDRNOTAVAIL | Errno::ENODEV)
    )
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(&route.to);
    message.header.destination_prefix_length = route.to.length;
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.attributes = vec![
        RouteAttribute::Destination(match route.to.address {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        }),
        RouteAttribute::Table(route.table),
        RouteAttribute::Priority(route.metric),
    ];
    message.header.kind = match route.target {
        Target::Interface(index) => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(index));
            RouteType::Unicast
        }
        Target::Throw => RouteType::Throw,
        Target::Unreachable => RouteType::Unreachable,
        // Only removed: by its destination and metric.
        Target::Other => {
            message.header.scope = RouteScope::NoWhere;
            RouteType::Unspec
        }
    };
    message
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(&rule.to);
    message.header.src_len = rule.from.length;
    message.header.dst_len = rule.to.length;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::Static),
    ];
    // The kernel refuses an address of no length.
    if rule.from.length > 0 {
        let source = RuleAttribute::Source(rule.from.address);
        message.attributes.push(source);
    }
    if rule.to.length > 0 {
        let destination = RuleAttribute::Destination(rule.to.address);
        message.attributes.push(destination);
    }
    message
}

fn address_message(address: &Address) -> AddressMessage {
    let prefix = address.prefix;
    let mut message = AddressMessage::default();
    message.header.family = family(&prefix);
    message.header.prefix_len = prefix.length;
    message.header.index = address.interface;
    if address.interface == LOOPBACK {
        // Of this host alone.
        message.header.scope = AddressScope::Host;
    }
    message
        .attributes
        .push(AddressAttribute::Address(prefix.address));
    if prefix.is_ipv6() {
        // Nobody on this link could answer duplicate address detection.
        message.header.flags = AddressHeaderFlags::Nodad;
    } else {
        message
            .attributes
            .push(AddressAttribute::Local(prefix.address));
    }
    message
}
