//! Link initiations with a right MAC and forged sources.
//!
//! They are made before, each with a link key of its own, since making one costs more than sending
//! thousands. At full speed the first pass has none that the relay has seen; later passes repeat them from
//! other addresses, which costs the relay the same until it compares the timestamps.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::SystemTime;

use anyhow::{Result, bail};
use mixline_protocol::identity::{X25519Public, X25519Secret};
use mixline_protocol::link::{Initiator, Timestamp};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::Datagram;
use rand_core::Rng as _;

use super::sources::{self, forged};
use super::turns::{Limits, Turn};
use super::{Network, address_of, relays};

/// Who is attacked, and as whom.
#[derive(Debug, clap::Args)]
pub struct How {
    /// The relays, one as often as the other.
    #[arg(long)]
    relay: Vec<String>,
    /// Sources are of the /24 of this address; from everywhere without.
    #[arg(long)]
    within: Option<Ipv4Addr>,
    /// How many are made.
    #[arg(long)]
    count: usize,
    /// Sends them there instead: for what the sending alone takes from this machine.
    #[arg(long)]
    instead: Option<SocketAddrV4>,
}

pub fn attack(network: &Network, limits: &Limits, how: &How) -> Result<()> {
    let relays = relays(&network.snapshot()?, &how.relay)?;
    let targets = relays
        .iter()
        .map(|relay| {
            Ok((
                how.instead.map_or_else(|| address_of(relay), Ok)?,
                relay.link,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let pool = (0..how.count)
        .zip(targets.iter().cycle())
        .map(|(number, (address, key))| Ok((*address, initiation(key, number)?)))
        .collect::<Result<Vec<_>>>()?;
    if pool.is_empty() {
        bail!("nothing to send");
    }
    let socket = sources::socket()?;
    let rng = &mut OsRandom::new();
    let mut turn = Turn::wait(limits)?;
    for (to, datagram) in pool.iter().cycle() {
        if !turn.goes_on() {
            break;
        }
        let from = forged(how.within, rng.next_u32());
        turn.sent(u64::from(sources::send(&socket, from, *to, &datagram[..])));
    }
    turn.end()
}

/// What somebody sends who wants a link and has not been asked for a cookie.
fn initiation(relay: &X25519Public, number: usize) -> Result<Box<Datagram>> {
    let rng = &mut OsRandom::new();
    let secret = X25519Secret::generate(rng);
    let at = Timestamp::from(SystemTime::now());
    let index = u32::try_from(number)?;
    let (_, datagram) = Initiator::start(&secret, relay, index, at, None, rng)?;
    Ok(datagram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mixline_protocol::link::{Admission, Responder};
    use std::net::SocketAddr;
    use std::time::Instant;

    #[test]
    fn a_relay_would_answer_each_of_them() {
        let rng = &mut OsRandom::new();
        let relay = X25519Secret::generate(rng);
        let mut responder = Responder::new(&relay, Instant::now(), rng);
        for number in 0..3 {
            let datagram = initiation(&relay.public(), number).unwrap();
            let from = SocketAddr::from((forged(None, rng.next_u32()), 7000));
            let admission = responder.check_macs(&datagram, from, false);
            assert!(matches!(admission, Ok(Admission::Process)));
            assert!(responder.respond(&datagram, 7, rng).is_ok());
        }
    }
}
