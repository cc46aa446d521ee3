//! The side that answers: which initiations cost it work, and which are old.

use super::cookie::CookieMaker;
use super::effort::{self, MAX_EFFORT, MIN_EFFORT};
use super::handshake::{Established, Incoming, Timestamp};
use super::layout::{DatagramType, EFFORT_END, MAC1, MAC2, expect_header, expect_zeros};
use super::mac::{self, MAC};
use crate::effort::Effort;
use crate::identity::{X25519Public, X25519Secret};
use crate::size::Datagram;
use crate::{Error, Result};
use rand_core::CryptoRng;
use ring::hmac;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

/// What to do with an initiation whose mac1 is right.
pub enum Admission {
    /// Give it to [`Responder::read`] or [`Responder::respond`].
    Process,
    /// Send this back to where it came from; no public-key work was done for it.
    SendCookie(Box<Datagram>),
}

/// Answers initiations to one static key.
pub struct Responder {
    local: X25519Secret,
    public: X25519Public,
    mac1: hmac::Key,
    cookies: CookieMaker,
    suggested: Effort,
    spent: Spent,
    timestamps: Timestamps,
}

impl Responder {
    /// A responder for the static key `local`.
    pub fn new(local: &X25519Secret, now: Instant, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let public = local.public();
        Self {
            local: local.clone(),
            public,
            mac1: mac::mac1_key(&public),
            cookies: CookieMaker::new(&public, now, rng),
            suggested: 0,
            spent: Spent::default(),
            timestamps: Timestamps::default(),
        }
    }

    /// Changes the secret of the cookies when it is time; called about once a second.
    pub fn tick(&mut self, now: Instant, rng: &mut (impl CryptoRng + ?Sized)) {
        if self.cookies.tick(now, rng) {
            self.spent.turn();
        }
    }

    /// Checks mac1 and, under load, mac2: a few hashes and no public-key work. `source` is
    /// where the datagram came from.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not an initiation, [`Error::Authentication`] if mac1 is
    /// wrong. Nothing is sent back then.
    pub fn check_macs(
        &self,
        datagram: &Datagram,
        source: SocketAddr,
        under_load: bool,
    ) -> Result<Admission> {
        self.check_mac1(datagram)?;
        if !under_load || self.cookies.check(datagram, source).is_some() {
            return Ok(Admission::Process);
        }
        self.cookie(datagram, source).map(Admission::SendCookie)
    }

    /// The first half of [`Responder::check_macs`]. What is not covered by effort is zeros, so that mac1 is another
    /// one only where effort was made again ([`Self::spend`]).
    ///
    /// # Errors
    /// Those of [`Responder::check_macs`].
    pub fn check_mac1(&self, datagram: &Datagram) -> Result<()> {
        expect_header(datagram, DatagramType::Initiation, "link initiation")?;
        expect_zeros(&datagram[EFFORT_END..MAC1], "link initiation")?;
        if !mac::same(
            &mac::mac(&self.mac1, &[&datagram[..MAC1]]),
            &datagram[MAC1..MAC2],
        ) {
            return Err(Error::Authentication {
                what: "link initiation",
            });
        }
        Ok(())
    }

    /// What effort an initiation shows; none if it carries no cookie that `source` was given, so that it
    /// may be from anywhere. What is wrong, or less than [`MIN_EFFORT`], is 0. A few hashes.
    #[must_use]
    pub fn effort(&self, datagram: &Datagram, source: SocketAddr) -> Option<Effort> {
        // Without a cookie there are zeros.
        if datagram[MAC2..].iter().all(|byte| *byte == 0) {
            return None;
        }
        let cookie = self.cookies.check(datagram, source)?;
        let solution = effort::read(datagram);
        let puzzle = effort::puzzle(&self.public, &cookie, datagram);
        let shown = solution.effort >= MIN_EFFORT && puzzle.is_solved_by(&solution);
        Some(if shown {
            solution.effort.min(MAX_EFFORT)
        } else {
            0
        })
    }

    /// Whether the effort of an initiation with a right mac1 is shown for the first time; it is remembered for as
    /// long as its cookie is good. False as well where so many were served that no more can be remembered.
    pub fn spend(&mut self, datagram: &Datagram) -> bool {
        self.spent.insert(mac1_of(datagram))
    }

    /// One that was shown has given way before it was served: it can be shown again.
    pub fn give_back(&mut self, datagram: &Datagram) {
        self.spent.remove(&mac1_of(datagram));
    }

    /// What cookies suggest from now on.
    pub fn suggest(&mut self, effort: Effort) {
        self.suggested = effort.min(MAX_EFFORT);
    }

    /// The cookie for `source`, in answer to an initiation with a right mac1.
    ///
    /// # Errors
    /// [`Error::Limit`] if it cannot be sealed.
    pub fn cookie(&self, datagram: &Datagram, source: SocketAddr) -> Result<Box<Datagram>> {
        self.cookies.answer(datagram, source, self.suggested)
    }

    /// Opens an initiation that was admitted and remembers its timestamp.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Authentication`] or [`Error::LowOrder`] if it was not
    /// made for us; [`Error::Replay`] if it is not newer than the last from the same key.
    pub fn read(
        &mut self,
        datagram: &Datagram,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Incoming> {
        let incoming = Incoming::open(&self.local, datagram, rng)?;
        self.timestamps
            .advance(incoming.remote(), incoming.timestamp())?;
        Ok(incoming)
    }

    /// [`Responder::read`], then [`Incoming::respond`]; `index` is what we will call the
    /// session. The caller receives under the established session before it sends the response.
    ///
    /// # Errors
    /// Those of the two.
    pub fn respond(
        &mut self,
        datagram: &Datagram,
        index: u32,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Established, Box<Datagram>)> {
        self.read(datagram, rng)?.respond(index, rng)
    }
}

/// So many initiations that have shown effort, and were served or wait, are remembered of each secret of the
/// cookies; these are two. Whoever serves fewer than this in [`super::COOKIE_LIFE`] forgets none that could be shown
/// again, however many others are made.
pub const MAX_SPENT: usize = 131_072;

/// Efforts that have been shown: those that were shown since the secret of the cookies changed, and those of the
/// time before. What is older was bound to a cookie that is good no more.
#[derive(Default)]
struct Spent {
    young: HashSet<[u8; MAC]>,
    old: HashSet<[u8; MAC]>,
}

impl Spent {
    fn insert(&mut self, mac1: [u8; MAC]) -> bool {
        let has_room = self.young.len() < MAX_SPENT;
        has_room && !self.old.contains(&mac1) && self.young.insert(mac1)
    }

    fn remove(&mut self, mac1: &[u8; MAC]) {
        self.young.remove(mac1);
        self.old.remove(mac1);
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

fn mac1_of(datagram: &Datagram) -> [u8; MAC] {
    let mut mac1 = [0; MAC];
    mac1.copy_from_slice(&datagram[MAC1..MAC2]);
    mac1
}

/// The last timestamp is remembered of this many static keys, and of at most twice as many.
///
/// Anyone who makes static keys by the thousand can push another's out, and then replay an
/// initiation of that key. This yields one response of the same size and a session that nobody
/// can confirm: a [`super::peer::Peer`] remembers the timestamp of its own neighbour and does
/// not let go of a session for one that is not confirmed.
pub const MAX_TIMESTAMPS: usize = 32_768;

/// The last timestamp of each static key: two generations, so that forgetting the oldest half
/// costs nothing.
#[derive(Default)]
struct Timestamps {
    young: HashMap<[u8; 32], Timestamp>,
    old: HashMap<[u8; 32], Timestamp>,
}

impl Timestamps {
    fn advance(&mut self, remote: X25519Public, at: Timestamp) -> Result<()> {
        let last = self
            .young
            .get(&remote.0)
            .or_else(|| self.old.get(&remote.0));
        if last.is_some_and(|last| *last >= at) {
            return Err(Error::Replay);
        }
        if self.young.len() >= MAX_TIMESTAMPS && !self.young.contains_key(&remote.0) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(remote.0, at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::COOKIE_LIFE;
    use crate::random::OsRandom;
    use crate::size::DATAGRAM;

    fn key(n: u32) -> X25519Public {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        X25519Public(bytes)
    }

    /// An initiation whose mac1 is this number.
    fn shown(n: usize) -> Box<Datagram> {
        let mut datagram = Box::new([0; DATAGRAM]);
        datagram[MAC1..MAC2].copy_from_slice(&(n as u128).to_be_bytes());
        datagram
    }

    #[test]
    fn an_effort_that_was_shown_is_remembered_for_as_long_as_its_cookie_is_good() {
        let (rng, mut now) = (&mut OsRandom::new(), Instant::now());
        let mut responder = Responder::new(&X25519Secret::generate(rng), now, rng);
        assert!(responder.spend(&shown(0)) && !responder.spend(&shown(0)));
        for secret in 0..2 {
            // Whoever makes ever new ones that give way, however many, pushes none out.
            for n in 1..2 * MAX_SPENT {
                let other = shown(secret * 2 * MAX_SPENT + n);
                assert!(responder.spend(&other));
                responder.give_back(&other);
            }
            assert!(!responder.spend(&shown(0)), "{secret} changes");
            now += COOKIE_LIFE;
            responder.tick(now, rng);
        }
        // There is no cookie any more that it could be shown with.
        assert!(responder.spend(&shown(0)));
        // What has given way is no copy when it comes again.
        responder.give_back(&shown(0));
        assert!(responder.spend(&shown(0)));
    }

    #[test]
    fn no_more_efforts_are_remembered_than_there_is_room_for() {
        let mut spent = Spent::default();
        let mac1 = |n: usize| (n as u128).to_be_bytes();
        for n in 0..MAX_SPENT {
            assert!(spent.insert(mac1(n)));
        }
        assert!(!spent.insert(mac1(MAX_SPENT)));
        assert_eq!(spent.young.len(), MAX_SPENT);
        spent.turn();
        assert!(spent.insert(mac1(MAX_SPENT)));
        assert!(!spent.insert(mac1(0)));
    }

    #[test]
    fn timestamps_grow_and_are_bounded() {
        let mut table = Timestamps::default();
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        table.advance(key(0), at(5)).unwrap();
        assert_eq!(table.advance(key(0), at(5)), Err(Error::Replay));
        assert_eq!(table.advance(key(0), at(4)), Err(Error::Replay));
        table.advance(key(0), at(6)).unwrap();
        // A key in use outlives a flood of less than the bound, and the bound holds.
        for n in 1..3 * MAX_TIMESTAMPS as u32 {
            table.advance(key(n), at(1)).unwrap();
            if n % 30_000 == 0 {
                assert_eq!(table.advance(key(0), at(6)), Err(Error::Replay));
                table.advance(key(0), at(u64::from(n))).unwrap();
                table.advance(key(0), at(6)).unwrap_err();
                table.young.insert(key(0).0, at(6));
            }
            assert!(table.young.len() + table.old.len() <= 2 * MAX_TIMESTAMPS);
        }
    }
}
