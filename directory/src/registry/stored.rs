//! How a relay is stored.
//!
//! `2 | gone 1 | since 8 | proven 8 | place 16 | relay record`, the place being an IPv6 address or an IPv4 one
//! mapped to one. It is written when a relay comes, when its record changes, and when it is gone; not each time
//! that it is heard.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use mixline_protocol::records::RelayRecord;
use mixline_protocol::time::UnixTime;

use super::live::{LiveRelay, Place, Registered};
use crate::{Error, Result};

const VERSION: u8 = 2;

/// The stored form; `gone`: whether the relay has left, or was silent for too long.
pub(super) fn encode(registered: &Registered, gone: bool) -> Vec<u8> {
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
        [VERSION, u8::from(gone)].as_slice(),
        &relay.since.0.to_be_bytes(),
        &proven.0.to_be_bytes(),
        &place.octets(),
        &relay.record.encode(),
    ]
    .concat()
}

/// The relay that is stored as `value`, as if it had been heard at `heard`, and whether it is gone; `place` says
/// what an address is.
pub(super) fn decode(
    value: &[u8],
    heard: UnixTime,
    place: impl FnOnce(IpAddr) -> Place,
) -> Result<(Registered, bool)> {
    let ([version, gone], rest) = chunk(value)?;
    if version != VERSION || gone > 1 {
        return Err(broken("of another version"));
    }
    let (since, rest) = time(rest)?;
    let (proven, rest) = time(rest)?;
    let (octets, record) = chunk::<16>(rest)?;
    let at = Ipv6Addr::from(octets).to_canonical();
    let digest = RelayRecord::digest_of(record);
    let record = RelayRecord::decode(record).map_err(|e| broken(&e.to_string()))?;
    let registered = Registered {
        relay: LiveRelay {
            record: Arc::new(record),
            digest,
            heard,
            since,
            load: 0,
            beat: 0,
        },
        place: place(at),
        proven,
    };
    Ok((registered, gone == 1))
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
    use crate::registry::tests::{NOW, record};

    #[test]
    fn what_is_stored_is_read() {
        let place = |text: &str| Place::Public(text.parse().unwrap());
        let record = Arc::new(record(1, NOW));
        for (at, gone) in [("45.9.9.9", false), ("2a00::1", true)] {
            let stored = encode(
                &Registered {
                    relay: LiveRelay {
                        record: record.clone(),
                        digest: record.digest(),
                        heard: NOW,
                        since: NOW.minus(2),
                        load: 7,
                        beat: 9,
                    },
                    place: place(at),
                    proven: NOW.minus(1),
                },
                gone,
            );
            let (read, was_gone) = decode(&stored, NOW.plus(5), Place::Public).unwrap();
            assert_eq!((read.place, read.proven), (place(at), NOW.minus(1)));
            assert_eq!((&read.relay.record, was_gone), (&record, gone));
            assert_eq!(read.relay.digest, record.digest());
            assert_eq!(
                (read.relay.heard, read.relay.since),
                (NOW.plus(5), NOW.minus(2))
            );
            let cut = |n: usize| decode(&stored[..n], NOW, Place::Public);
            assert!((0..stored.len()).all(|n| cut(n).is_err()));
        }
    }
}
