//! One handshake with whoever answers at one address.
//!
//! A [`Peer`] makes it, under a key that is thrown away afterwards, so nothing is remembered of one attempt in the
//! next. The session that comes of it is closed at once: the relay forgets it and gives back its place. If the
//! close is lost, or the answer was, the relay forgets the session after 10 s, since nothing was said under it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mixline_protocol::identity::{X25519Public, X25519Secret};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::peer::{Action, Peer, Upkeep};
use mixline_protocol::link::{CellKind, DatagramType, Timestamp, datagram_type};
use mixline_protocol::size::{CELL, CELL_OFFSET, DATAGRAM, Datagram};
use rand_core::CryptoRng;

use super::state::Trouble;

/// How long an answer is waited for, for each initiation: four in 10 s. Of handshakes over a line that loses every
/// fifth datagram 98 in 100 succeed.
pub const WAITS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(4),
];
/// No attempt takes longer, whatever effort is asked for.
pub const LONGEST: Duration = Duration::from_secs(40);

/// What an attempt is given when it goes on.
pub struct Moment<'a, R: ?Sized> {
    /// The monotonic clock.
    pub now: Instant,
    /// The wall clock.
    pub wall: Timestamp,
    /// Randomness.
    pub rng: &'a mut R,
    /// Where datagrams are put that are to be sent.
    pub out: &'a mut Vec<(SocketAddr, Box<Datagram>)>,
}

/// One attempt that is under way.
pub struct Attempt {
    secret: X25519Secret,
    peer: Peer,
    to: SocketAddr,
    began: Instant,
    /// How many waits have begun.
    rounds: usize,
    /// When this round has lasted for long enough.
    round_ends: Instant,
    sent: u32,
    cookies: bool,
    /// Where an answer came from that should have come from elsewhere.
    stray: Option<SocketAddr>,
    bad_key: bool,
    /// What it has called sessions to be.
    pub indices: Vec<u32>,
}

impl Attempt {
    /// An attempt that sends its first initiation when it [goes on](Self::go_on) first.
    pub fn new(
        link: X25519Public,
        to: SocketAddr,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let secret = X25519Secret::generate(rng);
        Self {
            // Effort is made at once where it is asked for: the relay knows nothing of this key.
            peer: Peer::new(secret.public(), link, Upkeep::Always, now),
            secret,
            to,
            began: now,
            rounds: 0,
            round_ends: now,
            sent: 0,
            cookies: false,
            stray: None,
            bad_key: false,
            indices: Vec::new(),
        }
    }

    /// Where it goes.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// When it goes on, if nothing comes before.
    pub fn next(&self) -> Instant {
        self.round_ends
    }

    /// Whether effort is to be made ([`Self::solve`]).
    pub fn is_solving(&self) -> bool {
        self.peer.is_solving()
    }

    /// Sends what is due. `free_index` gives an index that nobody has.
    ///
    /// # Errors
    /// What came of it, when it is over.
    pub fn go_on(
        &mut self,
        mut free_index: impl FnMut(&mut dyn CryptoRng) -> u32,
        moment: &mut Moment<'_, impl CryptoRng>,
    ) -> Result<(), Trouble> {
        let now = moment.now;
        if now >= self.began + LONGEST {
            return Err(self.trouble());
        }
        if now >= self.round_ends && !self.peer.is_solving() {
            let Some(wait) = WAITS.get(self.rounds) else {
                return Err(self.trouble());
            };
            self.rounds += 1;
            self.round_ends = now + *wait;
            self.peer = self.peer.afresh(now);
        }
        while let Some(action) = self.peer.poll(now) {
            if matches!(action, Action::Initiate) {
                let index = free_index(&mut *moment.rng);
                self.indices.push(index);
                self.initiate(index, moment);
            }
        }
        if self.bad_key {
            return Err(Trouble::BadKey);
        }
        Ok(())
    }

    /// Makes some of the effort that is asked for.
    pub fn solve(&mut self, hashes: u32, now: Instant, out: &mut Vec<(SocketAddr, Box<Datagram>)>) {
        if let Some((datagram, to)) = self.peer.solve(hashes, now) {
            self.sent += 1;
            let wait = WAITS.get(self.rounds.saturating_sub(1));
            self.round_ends = now + wait.copied().unwrap_or_default();
            out.push((to, datagram));
        }
    }

    /// Takes what came for one of its indices; whether that proves that the holder of the link key is there.
    pub fn received(
        &mut self,
        datagram: &Datagram,
        source: SocketAddr,
        now: Instant,
        out: &mut Vec<(SocketAddr, Box<Datagram>)>,
    ) -> bool {
        let kind = datagram_type(datagram);
        // An answer from elsewhere proves nothing of this address, and it is not taken for one: then the right one
        // still counts when it comes.
        if source != self.to {
            if kind == Ok(DatagramType::Response) {
                self.stray = Some(source);
            }
            return false;
        }
        match kind {
            Ok(DatagramType::Cookie) => {
                self.cookies |= self.peer.cookie(datagram, now).is_ok();
                false
            }
            Ok(DatagramType::Response) => {
                let proven = self.peer.response(datagram, now).is_ok();
                if proven {
                    out.extend(self.close().map(|close| (self.to, close)));
                }
                proven
            }
            _ => false,
        }
    }

    fn initiate(&mut self, index: u32, moment: &mut Moment<'_, impl CryptoRng>) {
        let (to, wall, now) = (self.to, moment.wall, moment.now);
        let made = self
            .peer
            .initiate(&self.secret, index, to, wall, now, moment.rng);
        match made {
            Ok(Some(datagram)) => {
                self.sent += 1;
                moment.out.push((self.to, datagram));
            }
            Ok(None) => {}
            Err(_) => self.bad_key = true,
        }
    }

    fn close(&self) -> Option<Box<Datagram>> {
        let mut datagram = Box::new([0; DATAGRAM]);
        let cell = datagram.get_mut(CELL_OFFSET..CELL_OFFSET + CELL)?;
        Control::Close.encode_into(cell.try_into().ok()?).ok()?;
        let seal = self.peer.seal_key()?;
        seal.seal(&mut datagram, CellKind::Control).ok()?;
        Some(datagram)
    }

    fn trouble(&self) -> Trouble {
        match self.stray {
            Some(source) => Trouble::Elsewhere(source),
            None if self.cookies => Trouble::Busy,
            None => Trouble::Silent { sent: self.sent },
        }
    }
}
