//! What a question is about: a name of ours, a reverse name of ours, or neither.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::identity::{AnonymousId, DOMAIN};
use mixline_protocol::name::{AnonName, Label};

use crate::host::prefix::Prefix;

/// The IPv6 network of all derived addresses: `fd00::/8`.
pub const IPV6_NETWORK: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8);

/// The name that browsers ask for before they use name servers of their own.
pub const CANARY: &str = "use-application-dns.net";

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `label.anon`.
    Label(Label),
    /// `<id>.anon`.
    Id(AnonymousId),
    /// `anon` itself.
    Apex,
    /// A reverse name of one virtual address.
    Reverse(IpAddr),
    /// Above a reverse name of ours: it exists and holds nothing (RFC 8020). All addresses in this network
    /// are below.
    ReverseParent(Prefix),
    /// Inside what is ours, and nothing of that form exists.
    Nothing,
    /// Not ours.
    Outside,
}

/// The names that this responder answers for.
#[derive(Debug, Clone)]
pub struct Zone {
    network: VirtualNetwork,
    /// The host's search domains, lower-cased labels from the left.
    search: Vec<Name>,
}

impl Zone {
    /// The zone for a virtual IPv4 network. `search` are the host's search domains: a
    /// stub resolver appends them to a name that was not found, and `x.anon.SEARCH`
    /// must not tell an outside server about `x.anon` either.
    #[must_use]
    pub fn new(network: VirtualNetwork, search: &[String]) -> Self {
        let search = search
            .iter()
            .filter_map(|domain| Name::from_ascii(domain).ok())
            .map(|mut name| {
                name.set_fqdn(true);
                name
            })
            .filter(|name| !name.is_root())
            .collect();
        Self { network, search }
    }

    /// Whether an address lies in one of the virtual networks.
    #[must_use]
    pub fn is_virtual(&self, address: IpAddr) -> bool {
        is_virtual(&self.network, address)
    }

    /// What `name` stands for.
    #[must_use]
    pub fn subject(&self, name: &Name) -> Subject {
        let labels: Vec<&[u8]> = name.iter().collect();
        match labels.as_slice() {
            // `x.anon.anon` of a host that searches `anon` is no name below `anon.anon`, whose holder
            // would be taken for all others.
            [.., last] if last.eq_ignore_ascii_case(DOMAIN.as_bytes()) => {
                if self.is_expanded(name) {
                    Subject::Nothing
                } else {
                    forward_subject(&labels)
                }
            }
            [.., arpa] if arpa.eq_ignore_ascii_case(b"arpa") => self.reverse(&labels),
            _ if self.is_expanded(name) || is_canary(&labels) => Subject::Nothing,
            _ => Subject::Outside,
        }
    }

    /// The name that owns the SOA record for `name`: `anon`, or the reverse name of the
    /// virtual network cut at a whole label.
    #[must_use]
    pub fn apex(&self, name: &Name) -> Name {
        let labels: Vec<&[u8]> = name.iter().collect();
        let keep = match labels.as_slice() {
            [.., last] if last.eq_ignore_ascii_case(DOMAIN.as_bytes()) => 1,
            [.., zone, _] if zone.eq_ignore_ascii_case(b"in-addr") => {
                2 + usize::from(self.network.length / 8)
            }
            [.., zone, _] if zone.eq_ignore_ascii_case(b"ip6") => {
                2 + usize::from(IPV6_NETWORK.1 / 4)
            }
            _ => labels.len(),
        };
        name.trim_to(keep.min(labels.len()))
    }

    /// Whether `name` is something of ours with one of the search domains behind.
    fn is_expanded(&self, name: &Name) -> bool {
        let labels: Vec<&[u8]> = name.iter().collect();
        self.search.iter().any(|domain| {
            let before = labels.len().checked_sub(usize::from(domain.num_labels()));
            domain.zone_of(name)
                && before.is_some_and(|before| match labels.get(..before).unwrap_or_default() {
                    [.., last] if last.eq_ignore_ascii_case(DOMAIN.as_bytes()) => true,
                    labels => self.reverse(labels) != Subject::Outside,
                })
        })
    }

    /// What a reverse name stands for; `labels` are all of it.
    fn reverse(&self, labels: &[&[u8]]) -> Subject {
        match labels {
            [rest @ .., zone, arpa] if arpa.eq_ignore_ascii_case(b"arpa") => {
                if zone.eq_ignore_ascii_case(b"in-addr") {
                    self.reverse_ipv4(rest)
                } else if zone.eq_ignore_ascii_case(b"ip6") {
                    reverse_ipv6(rest)
                } else {
                    Subject::Outside
                }
            }
            _ => Subject::Outside,
        }
    }

    fn reverse_ipv4(&self, labels: &[&[u8]]) -> Subject {
        let mut octets = [0; 4];
        let mut known = 0;
        for label in labels.iter().rev() {
            match (octets.get_mut(known), decimal_octet(label)) {
                (Some(octet), Some(value)) => *octet = value,
                _ => break,
            }
            known += 1;
        }
        let inside = covers(
            u32::from(self.network.prefix).into(),
            self.network.length,
            u32::from(Ipv4Addr::from(octets)).into(),
            32,
        );
        reverse(
            inside,
            known * 8,
            self.network.length,
            32,
            labels.len() > known,
            IpAddr::V4(Ipv4Addr::from(octets)),
        )
    }
}

fn forward_subject(labels: &[&[u8]]) -> Subject {
    match labels {
        [_] => Subject::Apex,
        // What stands before a name is that name: a service may have hosts of its own.
        [.., label, _] => match std::str::from_utf8(label)
            .ok()
            .and_then(|text| format!("{text}.{DOMAIN}").parse::<AnonName>().ok())
        {
            Some(AnonName::Label(label)) => Subject::Label(label),
            Some(AnonName::Id(id)) => Subject::Id(id),
            None => Subject::Nothing,
        },
        [] => Subject::Nothing,
    }
}

fn reverse_ipv6(labels: &[&[u8]]) -> Subject {
    let mut address: u128 = 0;
    let mut known: usize = 0;
    for label in labels.iter().rev().take(32) {
        let [digit] = label else { break };
        let Some(nibble) = char::from(*digit).to_digit(16) else {
            break;
        };
        address |= u128::from(nibble) << (124 - 4 * known);
        known += 1;
    }
    let inside = covers(IPV6_NETWORK.0.into(), IPV6_NETWORK.1, address, 128);
    reverse(
        inside,
        known * 4,
        IPV6_NETWORK.1,
        128,
        labels.len() > known,
        IpAddr::V6(Ipv6Addr::from(address)),
    )
}

/// Sorts a reverse name of which `known` bits were read, `more` labels standing before.
fn reverse(
    inside: bool,
    known: usize,
    length: u8,
    bits: usize,
    more: bool,
    address: IpAddr,
) -> Subject {
    if !inside || known < usize::from(length) {
        // A name above the network, such as `in-addr.arpa` itself, is everybody's.
        Subject::Outside
    } else if more {
        Subject::Nothing
    } else if known == bits {
        Subject::Reverse(address)
    } else {
        Subject::ReverseParent(Prefix::new(address, known as u8))
    }
}

/// Whether a browser asks if it may use name servers of its own: whoever has `.anon` says no
/// (Mozilla, "Canary domain - use-application-dns.net").
fn is_canary(labels: &[&[u8]]) -> bool {
    let canary = CANARY.split('.').map(str::as_bytes);
    labels.len() == canary.clone().count()
        && labels
            .iter()
            .zip(canary)
            .all(|(label, other)| label.eq_ignore_ascii_case(other))
}

/// Whether the network `prefix/length` of `bits`-bit addresses holds `address`.
fn covers(prefix: u128, length: u8, address: u128, bits: u32) -> bool {
    let host_bits = bits.saturating_sub(u32::from(length));
    let shift = |value: u128| value.checked_shr(host_bits).unwrap_or(0);
    shift(prefix) == shift(address)
}

/// A decimal octet as reverse names write it, without leading zeros.
fn decimal_octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let value: u8 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

/// Whether `address` lies in one of the virtual networks.
#[must_use]
pub fn is_virtual(network: &VirtualNetwork, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => covers(
            u32::from(network.prefix).into(),
            network.length,
            u32::from(address).into(),
            32,
        ),
        IpAddr::V6(address) => covers(IPV6_NETWORK.0.into(), IPV6_NETWORK.1, address.into(), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        Zone::new(
            VirtualNetwork::default(),
            &["corp.example".into(), ".".into(), "lan.".into()],
        )
    }

    fn subject(name: &str) -> Subject {
        zone().subject(&Name::from_ascii(name).unwrap())
    }

    #[test]
    fn names_under_anon() {
        let id = AnonymousId([7; 32]);
        assert_eq!(
            subject("FreeSpeech.Anon."),
            Subject::Label("freespeech".parse().unwrap())
        );
        assert_eq!(subject(&format!("{}.", id.host())), Subject::Id(id));
        assert_eq!(subject("anon."), Subject::Apex);
        for below in ["www.freespeech.anon.", "a.b.c.FREESPEECH.anon."] {
            assert_eq!(
                subject(below),
                Subject::Label("freespeech".parse().unwrap())
            );
        }
        assert_eq!(subject(&format!("www.{}.", id.host())), Subject::Id(id));
        assert_eq!(subject("www.xn--bad.anon."), Subject::Nothing);
        assert_eq!(subject("xn--bad.anon."), Subject::Nothing);
        assert_eq!(subject("_http._tcp.anon."), Subject::Nothing);
        assert_eq!(subject("example.org."), Subject::Outside);
        assert_eq!(subject("anon.example.org."), Subject::Outside);
        assert_eq!(subject("notanon."), Subject::Outside);
        assert_eq!(subject("."), Subject::Outside);
    }

    #[test]
    fn browsers_are_told_to_ask_the_host() {
        assert_eq!(subject("Use-Application-DNS.net."), Subject::Nothing);
        assert_eq!(subject("www.use-application-dns.net."), Subject::Outside);
    }

    #[test]
    fn a_search_domain_does_not_carry_a_name_out() {
        assert_eq!(subject("freespeech.anon.corp.example."), Subject::Nothing);
        assert_eq!(subject("freespeech.ANON.CORP.example."), Subject::Nothing);
        assert_eq!(subject("freespeech.anon.lan."), Subject::Nothing);
        assert_eq!(
            subject("4.3.2.10.In-Addr.arpa.corp.example."),
            Subject::Nothing
        );
        assert_eq!(subject("1.d.f.ip6.arpa.lan."), Subject::Nothing);
        assert_eq!(subject("4.3.2.11.in-addr.arpa.lan."), Subject::Outside);
        assert_eq!(subject("www.corp.example."), Subject::Outside);
        assert_eq!(subject("freespeech.anon.other.example."), Subject::Outside);
    }

    #[test]
    fn a_search_domain_of_ours_makes_no_other_name() {
        let search = ["Anon.".to_owned(), "sub.freespeech.anon".to_owned()];
        let zone = Zone::new(VirtualNetwork::default(), &search);
        let subject = |name: &str| zone.subject(&Name::from_ascii(name).unwrap());
        for expanded in [
            "www.freespeech.anon.anon.",
            "freespeech.ANON.anon.",
            "freespeech.anon.sub.freespeech.anon.",
            "4.3.2.10.in-addr.arpa.anon.",
        ] {
            assert_eq!(subject(expanded), Subject::Nothing, "{expanded}");
        }
        let name = Subject::Label("freespeech".parse().unwrap());
        for meant in [
            "freespeech.anon.",
            "www.freespeech.anon.",
            "w.sub.freespeech.anon.",
        ] {
            assert_eq!(subject(meant), name, "{meant}");
        }
    }

    #[test]
    fn reverse_names() {
        assert_eq!(
            subject("4.3.2.10.in-addr.arpa."),
            Subject::Reverse(IpAddr::V4(Ipv4Addr::new(10, 2, 3, 4)))
        );
        let parent = |address: [u8; 4], length| {
            Subject::ReverseParent(Prefix::new(Ipv4Addr::from(address), length))
        };
        assert_eq!(subject("2.10.in-addr.arpa."), parent([10, 2, 0, 0], 16));
        assert_eq!(subject("10.in-addr.arpa."), parent([10, 0, 0, 0], 8));
        assert_eq!(subject("in-addr.arpa."), Subject::Outside);
        assert_eq!(subject("4.3.2.11.in-addr.arpa."), Subject::Outside);
        assert_eq!(
            subject("lb._dns-sd._udp.0.0.0.10.in-addr.arpa."),
            Subject::Nothing
        );
        assert_eq!(subject("0.4.3.2.10.in-addr.arpa."), Subject::Nothing);
        assert_eq!(subject("04.3.2.10.in-addr.arpa."), Subject::Nothing);
        let address = Ipv6Addr::new(0xfd12, 1, 2, 3, 4, 5, 6, 0x789a);
        let digits: Vec<String> = address
            .octets()
            .iter()
            .rev()
            .flat_map(|b| [b & 15, b >> 4])
            .map(|nibble| format!("{nibble:x}"))
            .collect();
        let name = format!("{}.ip6.arpa.", digits.join("."));
        assert_eq!(subject(&name), Subject::Reverse(IpAddr::V6(address)));
        assert_eq!(
            subject("d.f.ip6.arpa."),
            Subject::ReverseParent(Prefix::new(IPV6_NETWORK.0, IPV6_NETWORK.1))
        );
        assert_eq!(subject("f.ip6.arpa."), Subject::Outside);
        assert_eq!(subject("c.f.ip6.arpa."), Subject::Outside);
        assert_eq!(subject("b._dns-sd._udp.0.d.f.ip6.arpa."), Subject::Nothing);
    }

    #[test]
    fn apexes() {
        let apex = |name: &str| zone().apex(&Name::from_ascii(name).unwrap()).to_ascii();
        assert_eq!(apex("www.freespeech.anon."), "anon.");
        assert_eq!(apex("4.3.2.10.in-addr.arpa."), "10.in-addr.arpa.");
        assert_eq!(apex("0.0.d.f.ip6.arpa."), "d.f.ip6.arpa.");
    }

    #[test]
    fn a_network_that_ends_inside_an_octet() {
        let network = VirtualNetwork {
            prefix: Ipv4Addr::new(100, 64, 0, 0),
            length: 10,
        };
        let zone = Zone::new(network, &[]);
        let subject = |name: &str| zone.subject(&Name::from_ascii(name).unwrap());
        assert_eq!(
            subject("1.0.127.100.in-addr.arpa."),
            Subject::Reverse(IpAddr::V4(Ipv4Addr::new(100, 127, 0, 1)))
        );
        assert_eq!(subject("1.0.128.100.in-addr.arpa."), Subject::Outside);
        assert_eq!(subject("100.in-addr.arpa."), Subject::Outside);
        assert!(is_virtual(&network, "100.64.0.1".parse().unwrap()));
        assert!(!is_virtual(&network, "100.128.0.1".parse().unwrap()));
        assert!(is_virtual(&network, "fd12::1".parse().unwrap()));
        assert!(!is_virtual(&network, "fe80::1".parse().unwrap()));
    }
}
