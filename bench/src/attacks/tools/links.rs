//! Link initiations from addresses that receive, each in a network of its own: they return the cookies that
//! relays ask for, and make as much effort as those suggest.
//!
//! With effort, each is another one, since a solution serves for one: as many as fit in the time are made
//! before, but for the solution. Without, one for each source is sent over and over, which costs the relay the same
//! until it compares the timestamps. Nobody goes on when the relay answers: what is attacked is its time for
//! public-key work, and the places of those who have returned a cookie and say nothing.

use std::collections::HashMap;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use mixline_protocol::effort::{Effort, Solution};
use mixline_protocol::identity::{X25519Public, X25519Secret};
use mixline_protocol::link::{
    Cookie, DatagramType, Draft, Initiator, MIN_EFFORT, Timestamp, datagram_type, receiver_index,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{DATAGRAM, Datagram};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt::RcvBufForce};

use super::spending::solve;
use super::turns::{Limits, Turn};
use super::{Network, address_of, relays, sources};

/// One initiation in so many asks for a cookie although there is one, to hear what is suggested now.
const PER_QUESTION: usize = 64;
/// Bytes of what has arrived that the kernel keeps.
const RECEIVED: usize = 4 << 20;

/// Who is attacked, from where, and at what cost.
#[derive(Debug, clap::Args)]
pub struct How {
    /// The relays, one as often as the other.
    #[arg(long)]
    relay: Vec<String>,
    /// Addresses that they come from.
    #[arg(long)]
    sources: u16,
    /// How many are made before.
    #[arg(long)]
    count: usize,
    /// As much effort is made as each relay suggests, and the least that counts where it suggests none.
    #[arg(long)]
    effort: bool,
}

pub fn attack(network: &Network, limits: &Limits, how: &How) -> Result<()> {
    let targets = relays(&network.snapshot()?, &how.relay)?
        .iter()
        .map(|relay| Target::new(address_of(relay)?, relay.link, how))
        .collect::<Result<Vec<_>>>()?;
    ensure!(!targets.is_empty(), "nobody to attack");
    ensure!(how.sources > 0, "nowhere to attack from");
    let mut crowd = Crowd::new(targets, how)?;
    let mut turn = Turn::wait(limits)?;
    for number in 0.. {
        if !turn.goes_on() {
            break;
        }
        crowd.listen();
        crowd.send(number, &mut turn)?;
    }
    turn.end()
}

/// A relay.
struct Target {
    address: SocketAddrV4,
    key: X25519Public,
    /// What it says that an initiation should cost.
    suggested: Effort,
    /// What was made before.
    drafts: Vec<Draft>,
    /// The index of the next one.
    next: u32,
    /// Those that a cookie may come for, by index: for which source, and what opens the cookie.
    asked: HashMap<u32, (usize, Initiator)>,
    /// What each source has of it.
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    cookie: Option<Cookie>,
    /// What is sent over and over.
    ready: Option<Box<Datagram>>,
}

/// All sources.
struct Crowd {
    socket: UdpSocket,
    targets: Vec<Target>,
    effort: bool,
}

impl Crowd {
    fn new(targets: Vec<Target>, how: &How) -> Result<Self> {
        let socket = sources::socket()?;
        setsockopt(&socket, RcvBufForce, &RECEIVED).context("room for what arrives")?;
        Ok(Self {
            socket,
            targets,
            effort: how.effort,
        })
    }

    /// Sends what the next source has to send to the next target.
    fn send(&mut self, number: usize, turn: &mut Turn) -> Result<()> {
        let count = self.targets.len();
        let target = &mut self.targets[number % count];
        let source = number / count % target.slots.len();
        let from = sources::own(u16::try_from(source)?);
        let to = target.address;
        let asks = number.is_multiple_of(PER_QUESTION) || target.slots[source].cookie.is_none();
        let datagram = if asks {
            Some(target.question(source)?)
        } else if self.effort {
            target.with_effort(source, turn)?
        } else {
            Some(target.without_effort(source)?)
        };
        if let Some(datagram) = datagram {
            let left = sources::send(&self.socket, from, to, &datagram[..]);
            turn.sent(u64::from(left));
        }
        Ok(())
    }

    /// Takes the cookies that have arrived.
    fn listen(&mut self) {
        let (socket, mut datagram) = (self.socket.as_raw_fd(), [0; DATAGRAM]);
        while let Ok(length) = recv(socket, &mut datagram, MsgFlags::MSG_DONTWAIT) {
            if length == DATAGRAM && datagram_type(&datagram) == Ok(DatagramType::Cookie) {
                let mut targets = self.targets.iter_mut();
                let _ = targets.any(|target| target.hear(&datagram));
            }
        }
    }
}

impl Target {
    fn new(address: SocketAddrV4, key: X25519Public, how: &How) -> Result<Self> {
        let mut target = Self {
            address,
            key,
            suggested: 0,
            drafts: Vec::new(),
            next: 0,
            asked: HashMap::new(),
            slots: (0..how.sources).map(|_| Slot::default()).collect(),
        };
        target.drafts = (0..how.count / how.relay.len().max(1))
            .map(|_| target.make())
            .collect::<Result<_>>()?;
        Ok(target)
    }

    /// An initiation that a cookie comes for.
    fn question(&mut self, source: usize) -> Result<Box<Datagram>> {
        let (initiator, datagram) = self.draft()?.finish(None, &Solution::default());
        self.asked.insert(initiator.index(), (source, initiator));
        Ok(datagram)
    }

    /// That of this source with its cookie.
    fn without_effort(&mut self, source: usize) -> Result<Box<Datagram>> {
        if let Some(ready) = &self.slots[source].ready {
            return Ok(ready.clone());
        }
        let draft = self.draft()?;
        let slot = &mut self.slots[source];
        let (_, datagram) = draft.finish(slot.cookie.as_ref(), &Solution::default());
        slot.ready = Some(datagram.clone());
        Ok(datagram)
    }

    /// A new one with the cookie of this source and what the relay suggests; none if the turn ends before it is
    /// solved.
    fn with_effort(&mut self, source: usize, turn: &mut Turn) -> Result<Option<Box<Datagram>>> {
        let draft = self.draft()?;
        let effort = self.suggested.max(MIN_EFFORT);
        let cookie = self.slots[source].cookie.as_ref();
        let puzzle = draft.puzzle(cookie.context("no cookie")?);
        let solution = solve(&puzzle, effort, turn);
        Ok(solution.map(|solution| draft.finish(cookie, &solution).1))
    }

    /// Takes a cookie, if it is for one of these sources from this relay.
    fn hear(&mut self, datagram: &Datagram) -> bool {
        let index = receiver_index(datagram);
        let opened = self.asked.get(&index);
        let Some(Ok(cookie)) = opened.map(|(_, asked)| asked.open_cookie(datagram)) else {
            return false;
        };
        self.suggested = cookie.effort();
        if let Some((source, _)) = self.asked.remove(&index) {
            self.slots[source].cookie = Some(cookie);
        }
        true
    }

    /// One that was made before, as long as there is any.
    fn draft(&mut self) -> Result<Draft> {
        self.drafts.pop().map_or_else(|| self.make(), Ok)
    }

    /// One of somebody whom nobody has seen before.
    fn make(&mut self) -> Result<Draft> {
        let rng = &mut OsRandom::new();
        let secret = X25519Secret::generate(rng);
        let at = Timestamp::from(SystemTime::now());
        self.next = self.next.wrapping_add(1);
        Ok(Draft::new(&secret, &self.key, self.next, at, rng)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mixline_protocol::link::{Admission, Responder};
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Instant;

    fn how() -> How {
        How {
            relay: vec!["one".into()],
            sources: 2,
            count: 2,
            effort: true,
        }
    }

    #[test]
    fn a_relay_under_load_would_count_the_effort_and_answer() {
        let rng = &mut OsRandom::new();
        let relay = X25519Secret::generate(rng);
        let mut responder = Responder::new(&relay, Instant::now(), rng);
        responder.suggest(1 << 12);
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000);
        let mut target = Target::new(address, relay.public(), &how()).unwrap();
        let from = |source| SocketAddr::from((sources::own(source), 7000));
        let turn = &mut Turn::of_seconds(1000);
        for source in [0, 1] {
            let at = from(source);
            let question = target.question(source.into()).unwrap();
            let Ok(Admission::SendCookie(cookie)) = responder.check_macs(&question, at, true)
            else {
                panic!("no cookie");
            };
            assert!(target.hear(&cookie) && !target.hear(&cookie));
            let datagram = target.with_effort(source.into(), turn).unwrap().unwrap();
            let admission = responder.check_macs(&datagram, at, true);
            assert!(matches!(admission, Ok(Admission::Process)));
            assert_eq!(responder.effort(&datagram, at), Some(1 << 12));
            assert_eq!(responder.effort(&datagram, from(1 - source)), None);
            assert!(responder.respond(&datagram, 7, rng).is_ok());
        }
        assert_eq!(turn.hashes(), 2 << 12);
        // The same source with the same cookie, over and over.
        let datagram = target.without_effort(0).unwrap();
        assert_eq!(responder.effort(&datagram, from(0)), Some(0));
        assert_eq!(target.without_effort(0).unwrap(), datagram);
    }
}
