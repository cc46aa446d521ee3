//! Path probes with a right MAC and forged sources, each from another one: a source has few answers.

use anyhow::{Result, ensure};
use mixline_protocol::link::probe::{MIN_PROBE, Probe};
use mixline_protocol::random::OsRandom;
use rand_core::Rng as _;

use super::sources::{self, forged};
use super::turns::{Limits, Turn};
use super::{Network, address_of, relays};

/// Who is asked.
#[derive(Debug, clap::Args)]
pub struct How {
    /// The relays, one as often as the other.
    #[arg(long)]
    relay: Vec<String>,
    /// How many are made, which are sent over and over.
    #[arg(long)]
    count: u32,
}

pub fn attack(network: &Network, limits: &Limits, how: &How) -> Result<()> {
    let relays = relays(&network.snapshot()?, &how.relay)?;
    let pool = (0..how.count)
        .zip(relays.iter().cycle())
        .map(|(number, relay)| {
            let probe = shortest(number).encode(MIN_PROBE, &relay.link)?;
            Ok((address_of(relay)?, probe.bytes))
        })
        .collect::<Result<Vec<_>>>()?;
    ensure!(!pool.is_empty(), "nothing to send");
    let socket = sources::socket()?;
    let rng = &mut OsRandom::new();
    let mut turn = Turn::wait(limits)?;
    for (to, probe) in pool.iter().cycle() {
        if !turn.goes_on() {
            break;
        }
        let from = forged(None, rng.next_u32());
        turn.sent(u64::from(sources::send(&socket, from, *to, probe)));
    }
    turn.end()
}

/// The shortest there is, so that as many as possible fit on a line, answered at once.
fn shortest(number: u32) -> Probe {
    Probe {
        number,
        answer: MIN_PROBE as u16,
        delay: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mixline_protocol::identity::X25519Secret;
    use mixline_protocol::link::probe::{ProbeResponder, lengthen};
    use mixline_protocol::size::DATAGRAM;
    use std::net::SocketAddr;
    use std::time::Instant;

    #[test]
    fn a_relay_would_answer_each_of_them() {
        let rng = &mut OsRandom::new();
        let relay = X25519Secret::generate(rng).public();
        let now = Instant::now();
        let mut responder = ProbeResponder::new(&relay, now);
        for number in 0..3 {
            let probe = shortest(number).encode(MIN_PROBE, &relay).unwrap();
            let mut slot = [0; DATAGRAM];
            slot[..MIN_PROBE].copy_from_slice(&probe.bytes);
            assert!(lengthen(&mut slot, MIN_PROBE));
            let from = SocketAddr::from((forged(None, rng.next_u32()), 7000));
            let answer = responder.respond(&slot, from, now).unwrap();
            assert_eq!(probe.answered(&answer.bytes).unwrap().seen, from);
        }
    }
}
