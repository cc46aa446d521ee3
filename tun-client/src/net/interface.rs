//! The client's interface: its addresses and routes, after the device is made.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use mixline_protocol::address::VirtualNetwork;
use nix::net::if_::if_nametoindex;

use super::netlink::{Netlink, Prefix};
use super::routes;
use crate::dns::Families;
use crate::dns::zone::IPV6_NETWORK;
use crate::error::{Error, Result};

/// The metric of the route that is there before the lease is: it keeps packets to virtual
/// addresses from leaving by the default route, and gives way to the lease's own route,
/// which alone knows the right source address.
const EARLY_METRIC: u32 = 4096;

/// An interface that is up.
pub struct Interface {
    name: String,
    index: u32,
    netlink: Netlink,
    network: VirtualNetwork,
    lease: Option<Ipv4Addr>,
    ipv6: bool,
}

impl Interface {
    /// Takes hold of an interface by its name and keeps the kernel from giving it
    /// addresses of its own making. Done before it is brought up.
    ///
    /// # Errors
    /// [`Error::Interface`].
    pub fn find(name: &str) -> Result<Self> {
        let failed = |action, error| Error::Interface {
            interface: name.into(),
            action,
            error,
        };
        let index = if_nametoindex(name).map_err(|error| failed("find it", error.into()))?;
        let netlink = Netlink::open().map_err(|error| failed("open netlink", error))?;
        // There is no router and no neighbour to talk to. Where /proc/sys is read-only the
        // kernel's own chatter reaches the endpoint, which drops it.
        for (key, value) in [
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("autoconf", "0"),
        ] {
            if let Err(error) = std::fs::write(ipv6_setting(name, key), value) {
                tracing::debug!(%error, key, "interface setting");
            }
        }
        Ok(Self {
            name: name.to_owned(),
            index,
            netlink,
            network: VirtualNetwork::default(),
            lease: None,
            ipv6: false,
        })
    }

    /// Warnings about routes of the host that overlap the virtual networks.
    ///
    /// # Errors
    /// [`Error::NetworkTaken`]; [`Error::Interface`] if the routes cannot be read.
    pub fn conflicts(&mut self, network: &VirtualNetwork) -> Result<Vec<String>> {
        let routes = self
            .netlink
            .routes()
            .map_err(|error| self.failed("read routes", error))?;
        let name = |index| {
            let name = nix::net::if_::if_indextoname(index).ok()?;
            Some(name.to_string_lossy().into_owned())
        };
        Ok(routes::check(&routes, network, self.index, name)?.warnings)
    }

    /// Brings the interface up, gives it the resolver's address and the IPv6 address, and
    /// routes the virtual networks into it. A kernel without IPv6 is no error: the second
    /// value says so in a line.
    ///
    /// # Errors
    /// [`Error::Interface`].
    pub fn configure(
        &mut self,
        network: &VirtualNetwork,
        ipv6: Ipv6Addr,
    ) -> Result<(Families, Option<String>)> {
        self.network = *network;
        self.netlink
            .set_up(self.index)
            .map_err(|error| self.failed("bring it up", error))?;
        let resolver = Prefix::new(network.resolver(), 32);
        self.netlink
            .add_address(self.index, resolver)
            .map_err(|error| self.failed("add the resolver's address", error))?;
        let whole = Prefix::new(network.prefix, network.length);
        self.netlink
            .add_route(self.index, whole, EARLY_METRIC)
            .map_err(|error| self.failed("route the virtual network", error))?;
        let address = Prefix::new(ipv6, IPV6_NETWORK.1);
        let warning = match self.netlink.add_address(self.index, address) {
            Ok(()) => None,
            Err(error) => Some(format!(
                "no IPv6 on {}: {error}{}; .anon names have IPv4 addresses only",
                self.name,
                if self.ipv6_is_disabled() {
                    " (disabled in the kernel)"
                } else {
                    ""
                }
            )),
        };
        self.ipv6 = warning.is_none();
        Ok((
            Families {
                ipv4: true,
                ipv6: self.ipv6,
            },
            warning,
        ))
    }

    /// Makes `address` the one leased address; an earlier one goes.
    ///
    /// # Errors
    /// [`Error::Interface`].
    pub fn set_lease(&mut self, address: Ipv4Addr) -> Result<()> {
        if self.lease == Some(address) {
            return Ok(());
        }
        if let Some(old) = self.lease.take() {
            self.netlink
                .remove_address(self.index, Prefix::new(old, self.network.length))
                .map_err(|error| self.failed("remove the earlier address", error))?;
        }
        self.netlink
            .add_address(self.index, Prefix::new(address, self.network.length))
            .map_err(|error| self.failed("add the leased address", error))?;
        self.lease = Some(address);
        Ok(())
    }

    fn failed(&self, action: &'static str, error: io::Error) -> Error {
        Error::Interface {
            interface: self.name.clone(),
            action,
            error,
        }
    }

    fn ipv6_is_disabled(&self) -> bool {
        match std::fs::read_to_string(ipv6_setting(&self.name, "disable_ipv6")) {
            Ok(text) => text.trim() == "1",
            Err(_) => true,
        }
    }
}

fn ipv6_setting(interface: &str, key: &str) -> PathBuf {
    ["/proc/sys/net/ipv6/conf", interface, key].iter().collect()
}
