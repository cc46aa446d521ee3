//! One relay: what is known of each of its addresses, and when it is tried again.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use mixline_protocol::identity::X25519Public;
use mixline_protocol::records::MAX_ADDRESSES;
use mixline_protocol::shares::Claimant;
use rand_core::CryptoRng;

use super::state::{State, Trouble, Why};
use super::{BACKOFF, Described, LIFE, LIFE_AFTER_RESTART, LONGEST_BACKOFF};

/// Where a relay is among those that are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is being moved.
    Nowhere,
    /// It has nothing to do before then.
    Later(Instant),
    /// It waits for a slot.
    Waits {
        /// Among those that are proven.
        renewal: bool,
    },
    /// One of its addresses is tried, in this flight.
    Tried(u64),
}

/// What is known of one address.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Where.
    pub address: SocketAddr,
    /// When it is tried next.
    pub due: Instant,
    proven: Option<Proven>,
    /// What came of the last attempt, if it was in vain.
    trouble: Option<Trouble>,
    /// Attempts in vain, one after the other.
    failures: u32,
}

#[derive(Debug, Clone, Copy)]
struct Proven {
    since: Instant,
    until: Instant,
}

impl Check {
    fn new(address: SocketAddr, now: Instant) -> Self {
        Self {
            address,
            due: now,
            proven: None,
            trouble: None,
            failures: 0,
        }
    }

    fn proven(&self, now: Instant) -> Option<Proven> {
        self.proven.filter(|proven| now < proven.until)
    }
}

/// One relay that is to be proven.
#[derive(Debug)]
pub struct Relay {
    /// Its link key.
    pub link: X25519Public,
    /// The place that it has, by where it registers from.
    pub place: Claimant,
    /// Whether it does register from there; else that is what it says.
    pub source_checked: bool,
    /// Where it is among those that are tried.
    pub standing: Standing,
    /// The state that it was last in when somebody looked.
    pub told: State,
    checks: ArrayVec<Check, MAX_ADDRESSES>,
}

impl Relay {
    /// A relay that is to be tried at once.
    pub fn new(
        as_it_is: Described<'_>,
        place: Claimant,
        source_checked: bool,
        now: Instant,
    ) -> Self {
        let mut relay = Self {
            link: as_it_is.link,
            place,
            source_checked,
            standing: Standing::Nowhere,
            told: State::Unproven(Why::Unasked),
            checks: ArrayVec::new(),
        };
        relay.describe(as_it_is, now);
        relay.told = relay.state(now);
        relay
    }

    /// Where it registers from.
    pub fn source(&self) -> IpAddr {
        match self.place {
            Claimant::Known(ip) | Claimant::Stranger(ip) => ip,
            Claimant::Own => IpAddr::from([0, 0, 0, 0]),
        }
    }

    /// Whether it has this key and these addresses.
    pub fn is(&self, as_it_is: &Described<'_>) -> bool {
        let named = || as_it_is.addresses.iter().take(MAX_ADDRESSES);
        let known = |address| self.checks.iter().any(|check| check.address == address);
        self.link == as_it_is.link
            && named().all(|address| known(*address))
            && self
                .checks
                .iter()
                .all(|check| named().any(|address| *address == check.address))
    }

    /// It has another key or other addresses. What was proven with the same key at the same address holds.
    pub fn describe(&mut self, as_it_is: Described<'_>, now: Instant) {
        let before = std::mem::take(&mut self.checks);
        let same_key = self.link == as_it_is.link;
        self.link = as_it_is.link;
        for address in as_it_is.addresses.iter().take(MAX_ADDRESSES) {
            if self.checks.iter().any(|check| check.address == *address) {
                continue;
            }
            let known = before.iter().find(|check| check.address == *address);
            let known = known.filter(|_| same_key).copied();
            // No more than there is room for.
            self.checks
                .push(known.unwrap_or_else(|| Check::new(*address, now)));
        }
    }

    /// All of it was proven when this directory last ran.
    pub fn restore(&mut self, now: Instant, rng: &mut impl CryptoRng) {
        for check in &mut self.checks {
            check.proven = Some(Proven {
                since: now,
                until: now + LIFE_AFTER_RESTART,
            });
            check.due = now + part(LIFE_AFTER_RESTART / 2, rng);
        }
        self.told = self.state(now);
    }

    /// The check that is due and has been for longest.
    pub fn due_check(&mut self, now: Instant) -> Option<&mut Check> {
        let due = self.checks.iter_mut().filter(|check| check.due <= now);
        due.min_by_key(|check| check.due)
    }

    /// When the next check is due.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.checks.iter().map(|check| check.due).min()
    }

    /// An address was tried.
    pub fn tried(
        &mut self,
        address: SocketAddr,
        result: Result<(), Trouble>,
        now: Instant,
        rng: &mut impl CryptoRng,
    ) {
        let mut checks = self.checks.iter_mut();
        let Some(check) = checks.find(|check| check.address == address) else {
            return;
        };
        let proven = check.proven(now);
        check.trouble = result.err();
        let pause = match result {
            Ok(()) => {
                check.failures = 0;
                check.proven = Some(Proven {
                    since: proven.map_or(now, |proven| proven.since),
                    until: now + LIFE,
                });
                LIFE / 2 + part(LIFE / 3, rng)
            }
            Err(Trouble::NoWay) => around(LONGEST_BACKOFF, rng),
            Err(_) => {
                let doubled = BACKOFF * (1 << check.failures.min(8));
                check.failures = check.failures.saturating_add(1);
                around(doubled.min(LONGEST_BACKOFF), rng)
            }
        };
        check.due = now + pause;
        if let Some(proven) = check.proven(now) {
            // When the life is over the relay's state is another one.
            check.due = check.due.min(proven.until);
        }
    }

    /// What is known of it.
    pub fn state(&self, now: Instant) -> State {
        let unproven = || {
            let checks = self.checks.iter();
            checks.filter(|check| check.proven(now).is_none())
        };
        let failed = unproven().find_map(|check| {
            let trouble = check.trouble.filter(|trouble| *trouble != Trouble::NoWay)?;
            Some(Why::Failed(check.address, trouble))
        });
        let waiting = unproven().find(|check| check.trouble.is_none());
        let proven = self.checks.iter().filter_map(|check| check.proven(now));
        if let Some(failed) = failed {
            State::Unproven(failed)
        } else if let Some(check) = waiting {
            State::Unproven(Why::Waiting(check.address))
        } else if let Some(since) = proven.map(|proven| proven.since).max() {
            State::Proven { since }
        } else if let Some(check) = self.checks.first() {
            State::CannotTell(check.address)
        } else {
            State::Unproven(Why::Unasked)
        }
    }
}

/// A time of up to that, at random.
pub fn part(most: Duration, rng: &mut impl CryptoRng) -> Duration {
    most.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX))
}

/// About that, a quarter more or less, at random: so what began together does not go on together.
pub fn around(duration: Duration, rng: &mut impl CryptoRng) -> Duration {
    duration * 3 / 4 + part(duration / 2, rng)
}

#[cfg(test)]
impl Relay {
    /// All of it is to be tried now.
    pub fn make_due(&mut self, now: Instant) {
        for check in &mut self.checks {
            check.due = now;
        }
    }
}
