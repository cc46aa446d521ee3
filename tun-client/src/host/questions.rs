//! Questions of DNS that nobody but the client answers: names under `.anon`, and reverse names of
//! virtual addresses. The packet filter drops them, to whatever server they go.
//!
//! A packet filter does not walk through a name: it compares bytes at one place. So there is a sentence
//! for each place where the labels in question may begin, and a search domain behind them changes
//! nothing. What others have inside the virtual networks has reverse names of its own, which are
//! nobody's secret: those of addresses pass, at the few places where they may stand.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::filter::Sentence;
use super::nftables::{self, accept, drop};
use super::prefix::Prefix;

/// Where a question's name begins with UDP: behind the header of 12 bytes (RFC 1035, section 4.1.1).
const NAME: usize = 12;
/// With TCP all is two bytes later (RFC 1035, section 4.2.2).
const LENGTH: usize = 2;
/// Where a label that is not the name's first may begin, with UDP or TCP: a name has at most 255 bytes
/// (RFC 1035, section 2.3.4).
const LABELS: std::ops::RangeInclusive<usize> = 14..=263;
/// Bytes of the longest label that stands for an octet, and of one that stands for half of one
/// (RFC 1035, section 3.5; RFC 3596, section 2.5).
const OCTET: usize = 4;
const NIBBLE: usize = 2;
/// How many sentences there are at most for reverse names of others: some 80 networks of 24 bits. What
/// is beyond has none.
const MAX_PASSING: usize = 600;

/// Names that end in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Zone {
    /// A label between these two, both of one length, if the zone is more than one label.
    from: Option<(Vec<u8>, Vec<u8>)>,
    /// The labels behind it, as they are on the wire, without the end of the name.
    labels: Vec<u8>,
    /// Bytes that the name of an address has before that, at most.
    before: usize,
    /// The least that these can be apart.
    step: usize,
}

/// What happens to questions that leave by an interface of others, given the virtual networks, those of
/// others inside them, and the addresses in those that names had first.
pub fn sentences(
    networks: &[Prefix],
    others: &BTreeSet<Prefix>,
    kept: &BTreeSet<IpAddr>,
) -> Vec<Sentence> {
    let mut chain = vec![dropped(nftables::bytes_at(NAME, b"\x04anon\x00"))];
    // A resolver that is refused appends the host's search domains, and asks again.
    chain.extend(LABELS.map(|at| dropped(nftables::bytes_at(at, b"\x04anon"))));
    // A program was told these for names.
    for address in kept {
        let name = ended(wire_name(*address));
        let places = [NAME, NAME + LENGTH];
        chain.extend(places.map(|at| dropped(nftables::bytes_at(at, &name))));
    }
    let passing = others.iter().flat_map(zones).flat_map(Zone::passes);
    chain.extend(passing.take(MAX_PASSING));
    for zone in networks.iter().flat_map(zones) {
        let anywhere = [NAME].into_iter().chain(LABELS);
        chain.extend(anywhere.map(|at| dropped(zone.at(at, false))));
    }
    chain
}

fn dropped(part: nftables::Part) -> Sentence {
    nftables::all([part, drop()])
}

impl Zone {
    /// Names of the zone begin their part that is common to all of them there; with `ended`, nothing
    /// comes behind it.
    fn at(&self, at: usize, ended: bool) -> nftables::Part {
        let mut part = Vec::new();
        let mut behind = at;
        if let Some((first, last)) = &self.from {
            part.extend(nftables::bytes_between(at, first, last));
            behind += first.len();
        }
        let labels = if ended {
            self::ended(self.labels.clone())
        } else {
            self.labels.clone()
        };
        part.extend(nftables::bytes_at(behind, &labels));
        part
    }

    /// Lets questions about addresses in the zone pass.
    fn passes(self) -> impl Iterator<Item = Sentence> {
        // With UDP, or two bytes later.
        let places = (NAME..=NAME + self.before + LENGTH).step_by(self.step);
        places.map(move |at| nftables::all([self.at(at, true), accept()]))
    }
}

/// The reverse zones that make up a network: one, or, where it ends inside an octet, up to three. One of
/// IPv6 that ends inside of four bits is taken for the wider one.
fn zones(network: &Prefix) -> Vec<Zone> {
    let network = network.network();
    match network.address {
        IpAddr::V4(address) => {
            let octets = address.octets();
            let whole = usize::from(network.length / 8).min(octets.len());
            let labels = labels_of_octets(octets.get(..whole).unwrap_or_default());
            let before = (octets.len() - whole) * OCTET;
            let Some(first) = octets
                .get(whole)
                .filter(|_| !network.length.is_multiple_of(8))
            else {
                return vec![Zone {
                    from: None,
                    labels,
                    before,
                    step: 1,
                }];
            };
            let last = first | (u8::MAX >> (network.length % 8));
            // Numbers of one length are in the order of their digits.
            [(0, 9), (10, 99), (100, u8::MAX)]
                .into_iter()
                .map(|(low, high)| (low.max(*first), high.min(last)))
                .filter(|(low, high)| low <= high)
                .map(|(low, high)| Zone {
                    from: Some((label(&low.to_string()), label(&high.to_string()))),
                    labels: labels.clone(),
                    before: before - OCTET,
                    step: 1,
                })
                .collect()
        }
        IpAddr::V6(address) => {
            let nibbles = nibbles(address);
            let whole = usize::from(network.length / 4).min(nibbles.len());
            let labels = labels_of_nibbles(nibbles.get(..whole).unwrap_or_default());
            vec![Zone {
                from: None,
                labels,
                before: (nibbles.len() - whole) * NIBBLE,
                step: NIBBLE,
            }]
        }
    }
}

/// The reverse name of an address, as it is on the wire, without the end of the name.
fn wire_name(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => labels_of_octets(&address.octets()),
        IpAddr::V6(address) => labels_of_nibbles(&nibbles(address)),
    }
}

fn labels_of_octets(octets: &[u8]) -> Vec<u8> {
    let octets = octets.iter().rev().map(u8::to_string);
    let labels = octets.chain(["in-addr".to_owned(), "arpa".to_owned()]);
    labels.flat_map(|text| label(&text)).collect()
}

fn labels_of_nibbles(nibbles: &[u8]) -> Vec<u8> {
    let nibbles = nibbles.iter().rev().map(|nibble| format!("{nibble:x}"));
    let labels = nibbles.chain(["ip6".to_owned(), "arpa".to_owned()]);
    labels.flat_map(|text| label(&text)).collect()
}

fn nibbles(address: std::net::Ipv6Addr) -> Vec<u8> {
    let octets = address.octets();
    octets.iter().flat_map(|b| [b >> 4, b & 15]).collect()
}

/// A label on the wire (RFC 1035, section 3.1).
fn label(text: &str) -> Vec<u8> {
    let mut label = vec![text.len() as u8];
    label.extend(text.bytes());
    label
}

/// Labels with the end of the name behind.
fn ended(mut labels: Vec<u8>) -> Vec<u8> {
    labels.push(0);
    labels
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn ipv4(address: [u8; 4], length: u8) -> Prefix {
        Prefix::new(Ipv4Addr::from(address), length)
    }

    #[test]
    fn zones_as_they_are_on_the_wire() {
        let [ten] = &zones(&ipv4([10, 0, 0, 0], 8))[..] else {
            panic!("one zone");
        };
        assert_eq!(ten.labels, b"\x0210\x07in-addr\x04arpa");
        assert_eq!((&ten.from, ten.before), (&None, 12));
        let host = &zones(&ipv4([10, 1, 200, 3], 32))[0];
        assert_eq!(host.labels, b"\x013\x03200\x011\x0210\x07in-addr\x04arpa");
        assert_eq!(host.before, 0);
        let ula = &zones(&Prefix::new(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8))[0];
        assert_eq!(ula.labels, b"\x01d\x01f\x03ip6\x04arpa");
        assert_eq!((ula.before, ula.step), (60, 2));
    }

    #[test]
    fn a_network_that_ends_inside_an_octet() {
        let ranges = |network: Prefix| -> Vec<(String, String)> {
            let text = |label: &[u8]| String::from_utf8(label[1..].to_vec()).unwrap();
            let zones = zones(&network).into_iter();
            let ranges = zones.filter_map(|zone| zone.from);
            ranges
                .map(|(low, high)| (text(&low), text(&high)))
                .collect()
        };
        let pair = |low: &str, high: &str| (low.to_owned(), high.to_owned());
        assert_eq!(
            ranges(ipv4([100, 64, 0, 0], 10)),
            [pair("64", "99"), pair("100", "127")]
        );
        assert_eq!(
            ranges(ipv4([10, 0, 0, 0], 9)),
            [pair("0", "9"), pair("10", "99"), pair("100", "127")]
        );
        assert_eq!(ranges(ipv4([172, 16, 0, 0], 12)), [pair("16", "31")]);
        let zone = &zones(&ipv4([172, 16, 0, 0], 12))[0];
        assert_eq!(zone.labels, b"\x03172\x07in-addr\x04arpa");
        assert_eq!(zone.before, 8);
    }

    #[test]
    fn there_is_a_bound_to_what_neighbours_make_of_it() {
        let networks = [ipv4([10, 0, 0, 0], 8)];
        let alone = sentences(&networks, &BTreeSet::new(), &BTreeSet::new()).len();
        assert_eq!(alone, 2 * 251);
        let crowd = (0..=u8::MAX)
            .map(|third| ipv4([10, 1, third, 0], 23))
            .collect();
        assert_eq!(
            sentences(&networks, &crowd, &BTreeSet::new()).len(),
            alone + MAX_PASSING
        );
    }
}
