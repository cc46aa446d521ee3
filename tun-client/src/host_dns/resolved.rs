//! systemd-resolved, over D-Bus (org.freedesktop.resolve1(5)).
//!
//! It keeps what it is told about a link for as long as that link is there, also when it is started
//! again, and forgets it when somebody reverts the link.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::StreamExt;
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::identity::DOMAIN;
use zbus::as_variant::Deserialize;
use zbus::connection::Builder;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath};

use super::failed;
use crate::dns::zone::CANARY;
use crate::error::Result;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The name of the service, its object, and its interfaces.
const NAME: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const LINK: &str = "org.freedesktop.resolve1.Link";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The bus itself (D-Bus Specification, "Message Bus Messages").
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
/// At most this many search domains are seen to (resolved.conf(5) has 256 for all links together).
const MAX_SEARCH: usize = 64;
/// The family of IPv4 addresses.
const IPV4: i32 = nix::libc::AF_INET;

/// What systemd-resolved is to do for one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// The link's index.
    pub link: u32,
    /// The name server behind it.
    pub resolver: Ipv4Addr,
    /// The domains that are asked there, and of nobody else.
    domains: Vec<String>,
}

impl Routing {
    /// `.anon`, the reverse names of the virtual networks and the browsers' canary, by a link; and
    /// `.anon` with each of the host's search domains behind, which a stub resolver asks for when
    /// it has not found a name.
    #[must_use]
    pub fn new(link: u32, resolver: Ipv4Addr, network: &VirtualNetwork, search: &[String]) -> Self {
        let mut domains = vec![
            DOMAIN.to_owned(),
            "d.f.ip6.arpa".to_owned(),
            CANARY.to_owned(),
        ];
        domains.extend(reverse_domains(network));
        let search = search.iter().map(|domain| domain.trim_matches('.'));
        let search = search.filter(|domain| !domain.is_empty());
        domains.extend(
            search
                .take(MAX_SEARCH)
                .map(|domain| format!("{DOMAIN}.{domain}")),
        );
        Self {
            link,
            resolver,
            domains,
        }
    }

    /// The domains that are asked by the link.
    #[must_use]
    pub fn domains(&self) -> &[String] {
        &self.domains
    }

    fn index(&self) -> i32 {
        i32::try_from(self.link).unwrap_or(0)
    }

    fn servers(&self) -> Vec<(i32, Vec<u8>)> {
        vec![(IPV4, self.resolver.octets().to_vec())]
    }

    /// The domains; each is a route, and none is searched.
    fn routes(&self) -> Vec<(&str, bool)> {
        self.domains
            .iter()
            .map(|domain| (domain.as_str(), true))
            .collect()
    }
}

/// The system's bus, and systemd-resolved on it.
#[derive(Debug, Clone)]
pub struct Resolved {
    connection: Connection,
}

impl Resolved {
    /// Connects to the bus at `address`, or to the system's.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`] if there is none.
    pub async fn connect(address: Option<&str>) -> Result<Self> {
        let builder = address.map_or_else(Builder::system, Builder::address);
        let connecting = builder.method_timeout(TIMEOUT).build();
        let connection = tokio::time::timeout(TIMEOUT, connecting)
            .await
            .map_err(|_| failed("D-Bus does not answer"))?
            .map_err(|error| failed(format!("D-Bus: {error}")))?;
        Ok(Self { connection })
    }

    /// Whether the bus is still there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.connection.is_closed()
    }

    /// Whether systemd-resolved runs.
    pub async fn is_running(&self) -> bool {
        let asked = self.bus("NameHasOwner", &NAME).await;
        asked.is_ok_and(|answer| answer.body().deserialize::<bool>().unwrap_or(false))
    }

    /// Its process, as the bus knows it.
    pub async fn process(&self) -> Option<u32> {
        let asked = self.bus("GetConnectionUnixProcessID", &NAME).await;
        asked.ok()?.body().deserialize().ok()
    }

    /// Has the bus start it, where it knows how.
    pub async fn start(&self) {
        if let Err(error) = self.bus("StartServiceByName", &(NAME, 0u32)).await {
            tracing::debug!(%error, "systemd-resolved is not started");
        }
    }

    /// Whether it does what was asked of it.
    pub async fn has(&self, routing: &Routing) -> bool {
        self.reads(routing).await.unwrap_or(false)
    }

    async fn reads(&self, routing: &Routing) -> zbus::Result<bool> {
        let link = self.manager("GetLink", &routing.index()).await?;
        let link: OwnedObjectPath = link.body().deserialize()?;
        let property = async |name: &str| {
            let arguments = (LINK, name);
            self.connection
                .call_method(Some(NAME), &link, Some(PROPERTIES), "Get", &arguments)
                .await
        };
        let answer = property("Domains").await?;
        let body = answer.body();
        let domains: Deserialize<'_, Vec<(String, bool)>> = body.deserialize()?;
        let answer = property("DNS").await?;
        let body = answer.body();
        let servers: Deserialize<'_, Vec<(i32, Vec<u8>)>> = body.deserialize()?;
        let has_all = routing.domains.iter().all(|domain| {
            let mut there = domains.0.iter();
            there.any(|(name, route)| *route && name.eq_ignore_ascii_case(domain))
        });
        Ok(has_all && servers.0 == routing.servers())
    }

    /// Sends the domains to the link's name server, and nothing else.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`] with what it said.
    pub async fn set(&self, routing: &Routing) -> Result<()> {
        let link = routing.index();
        // Names are routed before there is a server for them: until then resolved has
        // nobody to ask, and asks nobody else.
        self.call("SetLinkDomains", &(link, routing.routes()))
            .await?;
        self.call("SetLinkDNS", &(link, routing.servers())).await?;
        // What the responder does not do. An old one may not know them all.
        let settings = [
            ("SetLinkDNSSEC", "no"),
            ("SetLinkDNSOverTLS", "no"),
            ("SetLinkLLMNR", "no"),
            ("SetLinkMulticastDNS", "no"),
        ];
        for (method, value) in settings {
            if let Err(error) = self.manager(method, &(link, value)).await {
                tracing::debug!(%error, method, "systemd-resolved");
            }
        }
        let no_default = self.manager("SetLinkDefaultRoute", &(link, false)).await;
        if let Err(error) = no_default {
            tracing::debug!(%error, "systemd-resolved");
        }
        Ok(())
    }

    /// Takes back what was asked for a link.
    pub async fn revert(&self, link: u32) {
        let link = i32::try_from(link).unwrap_or(0);
        if let Err(error) = self.manager("RevertLink", &link).await {
            tracing::debug!(%error, "systemd-resolved");
        }
    }

    /// Hears when it is started, and when it ends.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`] if the bus refuses.
    pub async fn owners(&self) -> Result<Owners> {
        let listen = async {
            let rule = MatchRule::builder()
                .msg_type(zbus::message::Type::Signal)
                .sender(BUS)
                .interface(BUS)
                .member("NameOwnerChanged")
                .add_arg(NAME)
                .build()?;
            MessageStream::for_match_rule(rule, &self.connection, None).await
        };
        let stream = listen.await;
        Ok(Owners {
            stream: stream.map_err(|error| failed(format!("D-Bus: {error}")))?,
        })
    }

    async fn call<B>(&self, method: &str, arguments: &B) -> Result<()>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let done = self.manager(method, arguments).await;
        done.map(drop)
            .map_err(|error| failed(format!("systemd-resolved, {method}: {error}")))
    }

    async fn manager<B>(&self, method: &str, arguments: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.connection
            .call_method(Some(NAME), PATH, Some(MANAGER), method, arguments)
            .await
    }

    async fn bus<B>(&self, method: &str, arguments: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.connection
            .call_method(Some(BUS), BUS_PATH, Some(BUS), method, arguments)
            .await
    }
}

/// When systemd-resolved starts and ends.
#[derive(Debug)]
pub struct Owners {
    stream: MessageStream,
}

impl Owners {
    /// Waits for the next time. False when the bus is gone.
    pub async fn changed(&mut self) -> bool {
        self.stream
            .next()
            .await
            .is_some_and(|signal| signal.is_ok())
    }
}

/// Whether an address is one that systemd-resolved's stub listens on (resolved.conf(5)).
#[must_use]
pub fn is_stub(address: IpAddr) -> bool {
    const STUBS: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)),
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54)),
    ];
    STUBS.contains(&address)
}

/// The reverse zones that make up the network, cut at whole octets: one, or up to 128.
fn reverse_domains(network: &VirtualNetwork) -> Vec<String> {
    let octets = network.prefix.octets();
    let whole = usize::from(network.length / 8).min(3);
    let rest = network.length % 8;
    let tail = |upto: usize| {
        octets
            .iter()
            .take(upto)
            .rev()
            .map(|octet| format!("{octet}."))
            .collect::<String>()
    };
    if rest == 0 {
        return vec![format!("{}in-addr.arpa", tail(whole))];
    }
    let first = octets.get(whole).copied().unwrap_or(0);
    let count = 1u16 << (8 - rest);
    (0..count)
        .map(|offset| format!("{}.{}in-addr.arpa", u16::from(first) + offset, tail(whole)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_of_a_network() {
        let network = |prefix: [u8; 4], length| VirtualNetwork {
            prefix: prefix.into(),
            length,
        };
        assert_eq!(
            reverse_domains(&network([10, 0, 0, 0], 8)),
            ["10.in-addr.arpa"]
        );
        assert_eq!(
            reverse_domains(&network([10, 7, 0, 0], 16)),
            ["7.10.in-addr.arpa"]
        );
        let halves = reverse_domains(&network([100, 64, 0, 0], 10));
        assert_eq!(halves.len(), 64);
        assert_eq!(halves[0], "64.100.in-addr.arpa");
        assert_eq!(halves[63], "127.100.in-addr.arpa");
    }

    #[test]
    fn only_ours_is_routed() {
        let resolver = Ipv4Addr::new(10, 0, 0, 53);
        let search = ["corp.example.".to_owned(), ".".to_owned()];
        let routing = Routing::new(7, resolver, &VirtualNetwork::default(), &search);
        let routes = [
            ("anon", true),
            ("d.f.ip6.arpa", true),
            ("use-application-dns.net", true),
            ("10.in-addr.arpa", true),
            ("anon.corp.example", true),
        ];
        assert_eq!(routing.routes(), routes);
        assert_eq!(routing.servers(), [(2, vec![10, 0, 0, 53])]);
    }
}
