//! How a relay is stored.
//!
//! `1 | heard 8 | since 8 | proven 8 | place 16 | descriptor`, the place being an IPv6 address or an IPv4 one
//! mapped to one. Without a place it is `heard 8 | since 8 | descriptor`, which begins with 0: such a relay
//! counts at its first address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use mixline_protocol::records::RelayDescriptor;
use mixline_protocol::time::UnixTime;

use super::live::{LiveRelay, Place, Registered};
use crate::{Error, Result};

const WITH_PLACE: u8 = 1;

pub(super) fn encode(registered: &Registered) -> Vec<u8> {
    let Registered {
        relay,
        place,
        proven,
    } = registered;
    let place = match place.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    [
        [WITH_PLACE].as_slice(),
        &relay.heard.0.to_be_bytes(),
        &relay.since.0.to_be_bytes(),
        &proven.0.to_be_bytes(),
        &place.octets(),
        &relay.descriptor.encode(),
    ]
    .concat()
}

/// The relay that is stored as `value`; `place` says what an address is.
pub(super) fn decode(value: &[u8], place: impl FnOnce(IpAddr) -> Place) -> Result<Registered> {
    let (with_place, rest) = match value {
        [WITH_PLACE, rest @ ..] => (true, rest),
        without => (false, without),
    };
    let (heard, rest) = time(rest)?;
    let (since, rest) = time(rest)?;
    let ((proven, at), record) = if with_place {
        let (proven, rest) = time(rest)?;
        let (octets, record) = chunk::<16>(rest)?;
        let at = Ipv6Addr::from(octets).to_canonical();
        ((proven, Some(at)), record)
    } else {
        ((heard, None), rest)
    };
    let descriptor = RelayDescriptor::decode(record).map_err(|e| broken(&e.to_string()))?;
    let first = descriptor.addresses.first().map(|address| address.ip());
    let at = at.or(first).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    Ok(Registered {
        relay: LiveRelay {
            descriptor: Arc::new(descriptor),
            heard,
            since,
        },
        place: place(at),
        proven,
    })
}

fn time(bytes: &[u8]) -> Result<(UnixTime, &[u8])> {
    let (time, rest) = chunk(bytes)?;
    Ok((UnixTime(u64::from_be_bytes(time)), rest))
}

fn chunk<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8])> {
    let (chunk, rest) = bytes
        .split_first_chunk()
        .ok_or_else(|| broken("too short"))?;
    Ok((*chunk, rest))
}

fn broken(why: &str) -> Error {
    Error::Store(format!("damaged relay: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tests::{NOW, relay};

    #[test]
    fn a_place_is_kept_and_one_that_was_never_stored_is_the_first_address() {
        let place = |text: &str| Place::Public(text.parse().unwrap());
        let descriptor = Arc::new(relay(1, NOW));
        for at in ["45.9.9.9", "2a00::1"] {
            let stored = encode(&Registered {
                relay: LiveRelay {
                    descriptor: descriptor.clone(),
                    heard: NOW,
                    since: NOW.minus(2),
                },
                place: place(at),
                proven: NOW.minus(1),
            });
            let read = decode(&stored, Place::Public).unwrap();
            assert_eq!((read.place, read.proven), (place(at), NOW.minus(1)));
            assert_eq!(read.relay.descriptor, descriptor);
            assert_eq!((read.relay.heard, read.relay.since), (NOW, NOW.minus(2)));
            assert!((0..stored.len()).all(|n| decode(&stored[..n], Place::Public).is_err()));
        }
        let without = [
            NOW.0.to_be_bytes().as_slice(),
            &NOW.minus(2).0.to_be_bytes(),
            &descriptor.encode(),
        ]
        .concat();
        let read = decode(&without, Place::Public).unwrap();
        assert_eq!((read.place, read.proven), (place("45.1.0.2"), NOW));
        assert_eq!((read.relay.heard, read.relay.since), (NOW, NOW.minus(2)));
    }
}
