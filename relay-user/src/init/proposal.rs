//! What a new relay's configuration says: what was asked for, and what the machine suggests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use mixline_relay_engine::port_kind::PortKind;

use super::machine::Proposal;
use mixline_daemon::network::Network;

/// The UDP port of a relay, unless another is asked for.
pub const PORT: u16 = 7000;

/// What a person said on the command line, or when asked.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The network to join.
    pub network: Network,
    /// What people call the relay.
    pub name: Option<String>,
    /// Where its state is kept.
    pub state_dir: PathBuf,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Where others reach it.
    pub advertise: Vec<SocketAddr>,
    /// How datagrams get in and out; with `auto`, what goes on this machine.
    pub port: PortKind,
}

/// Addresses of this machine on the interface that leads out, of which others may reach some.
#[must_use]
pub fn reachable(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in addresses {
        let public = match address {
            IpAddr::V4(v4) => is_public_v4(*v4),
            IpAddr::V6(v6) => is_public_v6(*v6),
        };
        // One of each family: a second one is an alias, or one that changes for privacy.
        if public && !found.iter().any(|a| a.is_ipv4() == address.is_ipv4()) {
            found.push(*address);
        }
    }
    found
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_multicast()
        // Behind a provider's NAT: RFC 6598.
        || (a == 100 && (64..128).contains(&b)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Global unicast: RFC 4291, section 2.4, as IANA assigns it.
    address.segments()[0] & 0xe000 == 0x2000
}

impl Wishes {
    /// Fills in what the machine suggests: where to listen and where others reach the relay.
    /// Addresses that were asked for are left alone.
    pub fn suggest(&mut self, addresses: &[IpAddr]) {
        if self.advertise.is_empty() {
            self.advertise = if self.listen.is_empty() {
                let reachable = reachable(addresses);
                reachable
                    .iter()
                    .map(|ip| SocketAddr::new(*ip, PORT))
                    .collect()
            } else {
                let concrete = self.listen.iter().filter(|a| !a.ip().is_unspecified());
                concrete.copied().collect()
            };
        }
        if self.listen.is_empty() {
            let any = [
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ];
            for ip in any {
                let same = self.advertise.iter().find(|a| a.is_ipv4() == ip.is_ipv4());
                self.listen
                    .extend(same.map(|address| SocketAddr::new(ip, address.port())));
            }
        }
    }

    /// The flags that are missing, with what they are for.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.name.is_none() {
            missing.push("--name NAME");
        }
        if self.advertise.is_empty() {
            missing.push("--advertise ADDRESS:PORT (this machine has no public address)");
        }
        missing
    }

    /// The configuration, as it is written, with what the machine proposes.
    pub(super) fn yaml(&self, proposal: &Proposal) -> String {
        let list = |addresses: &[SocketAddr]| {
            let quoted: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
            format!("[{}]", quoted.join(", "))
        };
        let (port, why) = match &proposal.only_udp {
            Some(why) if self.port == PortKind::Auto => (PortKind::Udp, format!("# udp: {why}\n")),
            _ => (self.port, String::new()),
        };
        let interface = match &proposal.interface {
            Some(name) => format!(
                "# None of this machine's interfaces has an address of `advertise`.\n\
                 interface: {name}\n"
            ),
            None => String::new(),
        };
        format!(
            "# A Mixline relay; `mixline-relay init` made this file. All keys are in the README.\n\
             name: {}\n\
             state_dir: {}\n\
             listen: {}\n\
             # Where others reach the relay: UDP, from everywhere.\n\
             advertise: {}\n\
             {}\
             # auto, udp, xdp, xdp-filter; `mixline-relay doctor` says what this machine grants.\n\
             {why}port: {}\n\
             {interface}\
             # What it may send: bytes a second, bytes a month.\n\
             #bandwidth: 20 MB\n\
             #monthly: 10 TB\n\
             # Relays of one operator give the same name.\n\
             #family: NAME\n",
            self.name.as_deref().unwrap_or_default(),
            self.state_dir.display(),
            list(&self.listen),
            list(&self.advertise),
            self.network.keys(),
            port.name(),
        )
    }
}

#[cfg(test)]
mod tests {
    use mixline_protocol::identity::NetworkId;

    use super::*;

    fn wishes() -> Wishes {
        Wishes {
            network: Network {
                id: NetworkId([7; 32]),
                urls: vec!["http://192.0.2.9:8080".into()],
            },
            name: None,
            state_dir: "/var/lib/mixline-relay".into(),
            listen: Vec::new(),
            advertise: Vec::new(),
            port: PortKind::Auto,
        }
    }

    fn addresses(text: &str) -> Vec<IpAddr> {
        text.split(' ').map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn public_addresses_are_suggested_one_of_each_family() {
        let mut wishes = wishes();
        wishes.suggest(&addresses(
            "fe80::1 10.1.2.3 192.0.2.7 192.0.2.8 fd00::1 2001:db8::7 2001:db8::8",
        ));
        let text = wishes.yaml(&Proposal::default());
        assert!(
            text.contains("listen: [\"0.0.0.0:7000\", \"[::]:7000\"]\n"),
            "{text}"
        );
        assert!(
            text.contains("advertise: [\"192.0.2.7:7000\", \"[2001:db8::7]:7000\"]\n"),
            "{text}"
        );
        assert_eq!(wishes.missing(), ["--name NAME"]);
    }

    #[test]
    fn what_was_asked_for_counts() {
        let mut asked = wishes();
        asked.advertise = vec!["198.51.100.1:443".parse().unwrap()];
        asked.suggest(&addresses("192.0.2.7 2001:db8::7"));
        assert_eq!(asked.listen, ["0.0.0.0:443".parse().unwrap()]);
        let mut asked = wishes();
        asked.listen = vec!["192.0.2.7:9".parse().unwrap()];
        asked.suggest(&addresses("192.0.2.8"));
        assert_eq!(asked.advertise, asked.listen);
    }

    #[test]
    fn auto_gives_way_where_xdp_cannot_work_and_what_was_asked_for_does_not() {
        let proposal = Proposal {
            only_udp: Some("bond0 is a bond on eth0".into()),
            interface: Some("bond0".into()),
        };
        let mut wishes = wishes();
        let text = wishes.yaml(&proposal);
        assert!(
            text.contains("\n# udp: bond0 is a bond on eth0\nport: udp\n"),
            "{text}"
        );
        assert!(text.contains("\ninterface: bond0\n"), "{text}");
        wishes.port = PortKind::XdpFilter;
        assert!(wishes.yaml(&proposal).contains("\nport: xdp-filter\n"));
        wishes.port = PortKind::Auto;
        let text = wishes.yaml(&Proposal::default());
        assert!(
            text.contains("\nport: auto\n") && !text.contains("interface:"),
            "{text}"
        );
    }

    #[test]
    fn behind_a_translator_nobody_knows_the_address() {
        let mut wishes = wishes();
        wishes.suggest(&addresses("192.168.1.2 100.64.0.1 fe80::1"));
        let missing = wishes.missing();
        assert_eq!(missing.len(), 2);
        assert!(missing[1].starts_with("--advertise"));
    }
}
