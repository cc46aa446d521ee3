//! The cookies that an initiator has been given.
//!
//! A cookie is authenticated by nothing that who sees the initiation does not have, so the first to come
//! may be forged, and so may all but one. Which one is true shows when an initiation that carries it is
//! answered. So a few are kept and used in turn, those first that were used least often; the true one comes
//! again with each reply, since a responder gives a source the same one for as long as it is good. The same
//! cookie with another effort is another one here: who sees it can say anything of the effort.

use super::cookie::{COOKIE_LIFE, Cookie};
use rand_core::CryptoRng;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Cookies that are kept. Who forges more for each initiation leaves the true one a part of its chances, until it has
/// come for two of them: from then on it is kept until it is used.
pub(super) const KEPT: usize = 4;

/// For so long the effort that came with a cookie is made: who is still busy then says it again.
const EFFORT_LIFE: Duration = Duration::from_secs(30);

/// Cookies, and how often each was used.
#[derive(Clone, Default)]
pub(super) struct CookieJar {
    kept: Vec<Kept>,
    /// Grows with each initiation.
    round: u64,
    /// How many came for which there was no room but that of another unused one.
    crowd: u64,
    /// What decides which of those stays: nobody else knows it.
    random: u64,
}

#[derive(Clone)]
struct Kept {
    cookie: Cookie,
    /// Whom it is from: a source has another cookie where it has another address.
    from: SocketAddr,
    got: Instant,
    /// In answer to which initiation it last came.
    round: u64,
    /// Whether it came in answer to another one before.
    again: bool,
    uses: u32,
}

impl CookieJar {
    /// Keeps a cookie from there.
    pub(super) fn add(&mut self, cookie: Cookie, from: SocketAddr, now: Instant) {
        self.forget_old(now);
        let same = |kept: &&mut Kept| kept.from == from && kept.cookie.is(&cookie);
        if let Some(known) = self.kept.iter_mut().find(same) {
            known.got = now;
            known.again |= known.round != self.round;
            known.round = self.round;
            return;
        }
        let new = Kept {
            cookie,
            from,
            got: now,
            round: self.round,
            again: false,
            uses: 0,
        };
        if self.kept.len() < KEPT {
            return self.kept.push(new);
        }
        // One that was used in vain, or any of those that came for one initiation only, the new one among them.
        let all = self.kept.iter().enumerate();
        let used = all.clone().filter(|(_, kept)| kept.uses > 0);
        let out = match used.max_by_key(|(_, kept)| kept.uses) {
            Some((at, _)) => Some(at),
            None => {
                let once: Vec<_> = all
                    .filter(|(_, kept)| !kept.again)
                    .map(|(at, _)| at)
                    .collect();
                self.crowd += 1;
                let drawn = self.draw() % (once.len() as u64 + self.crowd);
                usize::try_from(drawn)
                    .ok()
                    .and_then(|drawn| once.get(drawn).copied())
            }
        };
        if let Some(out) = out {
            self.kept.remove(out);
            self.kept.push(new);
        }
    }

    /// The cookie for the next initiation to there.
    pub(super) fn take(
        &mut self,
        to: SocketAddr,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<Cookie> {
        self.forget_old(now);
        self.random = rng.next_u64();
        self.crowd = 0;
        self.round += 1;
        let from_there = self.kept.iter_mut().filter(|kept| kept.from == to);
        let next = from_there.min_by_key(|kept| kept.uses)?;
        next.uses = next.uses.saturating_add(1);
        let busy = now.saturating_duration_since(next.got) < EFFORT_LIFE;
        Some(next.cookie.with_effort(busy))
    }

    /// The initiation with this cookie was answered: it is good, or none is asked for.
    pub(super) fn proved(&mut self, cookie: &Cookie) {
        self.kept
            .retain(|kept| kept.cookie.bytes() == cookie.bytes());
        for kept in &mut self.kept {
            kept.uses = 0;
        }
    }

    fn forget_old(&mut self, now: Instant) {
        let age = |kept: &Kept| now.saturating_duration_since(kept.got);
        self.kept.retain(|kept| age(kept) < COOKIE_LIFE);
    }

    /// The next of a row of numbers (Vigna, "An experimental exploration of Marsaglia's xorshift generators").
    fn draw(&mut self) -> u64 {
        self.random |= 1;
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    const THERE: SocketAddr = SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        7000,
    );

    fn cookie(n: u32) -> Cookie {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Cookie::new(bytes, 0)
    }

    fn take(jar: &mut CookieJar, now: Instant) -> Option<Cookie> {
        jar.take(THERE, now, &mut OsRandom::new())
    }

    #[test]
    fn each_is_used_before_one_is_used_again() {
        let (mut jar, now) = (CookieJar::default(), Instant::now());
        assert!(take(&mut jar, now).is_none());
        for n in [1, 2, 1, 2] {
            jar.add(cookie(n), THERE, now);
        }
        for n in [1, 2, 1, 2] {
            assert!(take(&mut jar, now).unwrap().is(&cookie(n)));
        }
        jar.proved(&cookie(2));
        assert_eq!(jar.kept.len(), 1);
        assert!(take(&mut jar, now).unwrap().is(&cookie(2)));
        assert!(take(&mut jar, now + COOKIE_LIFE).is_none());
    }

    #[test]
    fn an_effort_is_made_for_as_long_as_somebody_may_be_busy() {
        let (mut jar, now) = (CookieJar::default(), Instant::now());
        jar.add(Cookie::new([1; 16], 5000), THERE, now);
        assert_eq!(take(&mut jar, now).unwrap().effort(), 5000);
        assert_eq!(take(&mut jar, now + EFFORT_LIFE).unwrap().effort(), 0);
        // The same one with another effort is another one.
        jar.add(Cookie::new([1; 16], 0), THERE, now);
        assert_eq!(jar.kept.len(), 2);
    }

    #[test]
    fn a_cookie_is_good_where_it_is_from() {
        let (mut jar, now) = (CookieJar::default(), Instant::now());
        let elsewhere = SocketAddr::from(([192, 0, 2, 2], 7000));
        jar.add(cookie(1), elsewhere, now);
        assert!(take(&mut jar, now).is_none());
        assert!(jar.take(elsewhere, now, &mut OsRandom::new()).is_some());
    }

    /// Ten forged ones for each initiation, all of them before the true one, or all after it.
    #[test]
    fn a_crowd_leaves_the_true_one_its_chance() {
        for true_first in [true, false] {
            let (mut used, mut forged) = (0, 1);
            for _ in 0..300 {
                let (mut jar, now) = (CookieJar::default(), Instant::now());
                for _ in 0..18 {
                    used += usize::from(take(&mut jar, now).is_some_and(|c| c.is(&cookie(0))));
                    let mut next = || {
                        forged += 1;
                        cookie(forged)
                    };
                    let mut all: Vec<_> = (0..10).map(|_| next()).collect();
                    all.insert(if true_first { 0 } else { 10 }, cookie(0));
                    for cookie in all {
                        jar.add(cookie, THERE, now);
                    }
                    assert_eq!(jar.kept.len(), KEPT);
                }
            }
            // One in eleven of 18 × 300, or so.
            assert!(used > 150, "{used}, first: {true_first}");
        }
    }
}
