//! Under which ID something is done.
//!
//! Packets and published descriptors are the own ID's. The directory is asked under throw-away
//! IDs, so that it cannot tell who asks for whom; these are renewed from time to time.

use std::ops::Range;
use std::time::{Duration, Instant};

use mixline_protocol::identity::{AnonymousId, IdentityKey, X25519Secret};
use mixline_protocol::records::Lease;
use mixline_protocol::session::{Certificate, TIMESTAMP_TOLERANCE_MS};
use mixline_protocol::time::UnixTime;
use rand_core::CryptoRng;

use crate::clock::Now;
use crate::config::Identity;
use crate::directory::said_time::behind;
use crate::random::below;

/// The last initiation is so far ahead of the clock, milliseconds, only if that was set back: no more are made than
/// that in the steps in which the time is told, each a millisecond later than the one before.
const SET_BACK_MS: u64 = 30_000;
/// Initiations say a time in steps of this, milliseconds. What is solved for one comes after its time was written, and
/// how long that takes tells how fast the machine is: beside this it is little.
const INITIATION_UNIT_MS: u64 = 60_000;
/// So many times are kept for what is sent while something is solved for an initiation with a later one.
const TIMES_MEANWHILE: u64 = 64;
/// How long a certificate is valid, seconds.
const CERTIFICATE_LIFE: u64 = 24 * 3600;
/// A throw-away ID is used at least so long ...
const SHORTEST_LIFE: Duration = Duration::from_secs(30 * 60);
/// ... and at most so many seconds longer, drawn at random.
const EXTRA_LIFE: u64 = 60 * 60;

/// One of the IDs that this endpoint uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pseudonym {
    /// The own one.
    Own,
    /// A throw-away one, for questions about others.
    Asking,
    /// A throw-away one, for what concerns the own records.
    Publishing,
}

impl Pseudonym {
    /// How the status shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Asking => "asking",
            Self::Publishing => "publishing",
        }
    }
}

/// The keys of one ID.
pub struct Local {
    /// Signs.
    pub key: IdentityKey,
    /// The session key.
    pub secret: X25519Secret,
    /// The ID.
    pub id: AnonymousId,
    certificate: Option<Certificate>,
    /// By how much the time that it says is behind.
    pub behind: Duration,
    /// The timestamp of the last initiation, milliseconds.
    last_initiation: u64,
    renew: Option<Instant>,
}

impl Local {
    fn own(identity: Identity) -> Self {
        Self {
            id: identity.key.anonymous_id(),
            behind: behind(&identity.key),
            key: identity.key,
            secret: identity.session,
            certificate: None,
            last_initiation: 0,
            renew: None,
        }
    }

    fn throw_away(now: Instant, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let key = IdentityKey::generate(rng);
        let extra = Duration::from_secs(below(EXTRA_LIFE, rng));
        Self {
            id: key.anonymous_id(),
            behind: behind(&key),
            key,
            secret: X25519Secret::generate(rng),
            certificate: None,
            last_initiation: 0,
            renew: Some(now + SHORTEST_LIFE + extra),
        }
    }

    /// What the last initiation said, or times until then were set aside for.
    #[must_use]
    pub fn last_initiation(&self) -> u64 {
        self.last_initiation
    }

    /// A process before this one may have said times until this one.
    pub fn go_on_after(&mut self, last_initiation: u64) {
        self.last_initiation = last_initiation;
    }

    /// The time to write into an initiation: what the ID says that it is, in steps of a minute, or later if that has
    /// not moved on.
    ///
    /// A clock that was set back (the directory's, or the host's as long as it has no snapshot) leaves times that are still to come. A peer that has seen one wants
    /// a later one, and any peer refuses what is too far ahead of its own clock. So attempts take
    /// turns in which of the two they heed; what no peer can have accepted is forgotten.
    pub fn initiation_time(&mut self, said: Now, attempt: usize) -> u64 {
        let grown = self.last_initiation.saturating_add(1);
        let ahead = grown.saturating_sub(said.unix_ms);
        if ahead > TIMESTAMP_TOLERANCE_MS {
            self.last_initiation = said.unix_ms;
        } else if ahead > SET_BACK_MS && attempt % 2 == 1 {
            return said.unix_ms;
        } else {
            let minute = said.unix_ms / INITIATION_UNIT_MS * INITIATION_UNIT_MS;
            self.last_initiation = minute.max(grown);
        }
        self.last_initiation
    }

    /// The time for an initiation that something is solved for, which is the end of the range, and times for those
    /// that are sent before that is done. So it is newer than they are, and no peer that has seen them refuses it.
    pub fn times_for_search(&mut self, said: Now, attempt: usize) -> Range<u64> {
        let first = self.initiation_time(said, attempt);
        let end = first.saturating_add(TIMES_MEANWHILE);
        self.last_initiation = self.last_initiation.max(end);
        first..end
    }
}

/// All IDs of an endpoint.
pub struct Pseudonyms {
    own: Local,
    asking: Local,
    publishing: Local,
    lease: Option<Lease>,
}

impl Pseudonyms {
    /// The own ID, and fresh throw-away ones.
    pub fn new(identity: Identity, now: Instant, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self {
            own: Local::own(identity),
            asking: Local::throw_away(now, rng),
            publishing: Local::throw_away(now, rng),
            lease: None,
        }
    }

    /// The keys of an ID.
    #[must_use]
    pub fn get(&self, pseudonym: Pseudonym) -> &Local {
        match pseudonym {
            Pseudonym::Own => &self.own,
            Pseudonym::Asking => &self.asking,
            Pseudonym::Publishing => &self.publishing,
        }
    }

    /// The keys of an ID.
    pub fn get_mut(&mut self, pseudonym: Pseudonym) -> &mut Local {
        match pseudonym {
            Pseudonym::Own => &mut self.own,
            Pseudonym::Asking => &mut self.asking,
            Pseudonym::Publishing => &mut self.publishing,
        }
    }

    /// The lease of the own ID, while it lasts.
    #[must_use]
    pub fn lease(&self, now: UnixTime) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| now < lease.expires)
    }

    /// Uses a lease from now on. False if it is another ID's, or older than what there is.
    pub fn set_lease(&mut self, lease: Lease) -> bool {
        let newer = self
            .lease
            .is_none_or(|old| old.ipv4 != lease.ipv4 || old.expires < lease.expires);
        if lease.id != self.own.id || !newer {
            return false;
        }
        self.lease = Some(lease);
        self.own.certificate = None;
        true
    }

    /// The certificate of an ID, made anew when half its life is over. `said`: the time as the ID tells it.
    ///
    /// # Errors
    /// None that can happen: the lease is the own ID's.
    pub fn certificate(
        &mut self,
        pseudonym: Pseudonym,
        now: UnixTime,
        said: UnixTime,
    ) -> mixline_protocol::Result<Certificate> {
        let lease = self
            .lease(now)
            .filter(|_| pseudonym == Pseudonym::Own)
            .copied();
        let local = self.get_mut(pseudonym);
        if let Some(certificate) = &local.certificate
            && (CERTIFICATE_LIFE / 2..=CERTIFICATE_LIFE).contains(&certificate.expires.since(said))
            && certificate.lease == lease
        {
            return Ok(certificate.clone());
        }
        let expires = said.plus(CERTIFICATE_LIFE);
        let made = Certificate::sign(&local.key, &local.secret.public(), expires, lease)?;
        local.certificate = Some(made.clone());
        Ok(made)
    }

    /// Whether a throw-away ID has been used long enough.
    #[must_use]
    pub fn is_worn(&self, pseudonym: Pseudonym, now: Instant) -> bool {
        self.get(pseudonym).renew.is_some_and(|renew| now >= renew)
    }

    /// Makes a fresh throw-away ID. Does nothing to the own one.
    pub fn renew(
        &mut self,
        pseudonym: Pseudonym,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        if pseudonym != Pseudonym::Own {
            *self.get_mut(pseudonym) = Local::throw_away(now, rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use mixline_protocol::random::OsRandom;
    use proptest::prelude::*;

    use crate::access::Access;
    use crate::directory::own_versions::OwnVersions;

    use super::*;

    /// What an ID says so many milliseconds after the beginning of a minute.
    fn said(ms: u64) -> Now {
        let now = Now::new(Instant::now(), SystemTime::UNIX_EPOCH);
        let unix_ms = 1_800_000_000_000 + ms;
        Now { unix_ms, ..now }
    }

    fn local() -> Local {
        Local::throw_away(Instant::now(), &mut OsRandom::new())
    }

    /// The own ID's, as a process has it that has just started.
    fn started() -> Local {
        let key = IdentityKey::from_seed([7; 32]);
        let session = X25519Secret::generate(&mut OsRandom::new());
        Local::own(Identity {
            key,
            session,
            access: Access::default(),
        })
    }

    #[test]
    fn times_grow_and_do_not_tell_when_in_a_minute_an_initiation_was_begun() {
        let mut local = local();
        let minute = said(0).unix_ms;
        let first = [30_000, 32_000, 58_000].map(|ms| local.initiation_time(said(ms), 0));
        assert_eq!(first, [minute, minute + 1, minute + 2]);
        let next = [60_000, 62_000, 118_000].map(|ms| local.initiation_time(said(ms), 1));
        let minute = said(60_000).unix_ms;
        assert_eq!(next, [minute, minute + 1, minute + 2]);
    }

    proptest! {
        /// Peers refuse what is not later. A process that starts may know the time less well than the one before it
        /// did, as its snapshot is older; and that may have been killed at any moment.
        #[test]
        fn who_was_started_again_is_later_than_before_at_once(
            runs in prop::collection::vec((1usize..300, 0u64..90_000), 1..20),
            attempts: bool,
        ) {
            let (mut passed, mut last, mut disk) = (100_000, 0, None::<String>);
            for (initiations, lag) in runs {
                let mut own = started();
                let mut versions = disk.as_deref().map_or_else(OwnVersions::default, |text| {
                    OwnVersions::load(text).unwrap()
                });
                own.go_on_after(versions.last_initiation());
                let mut first = true;
                for number in 0..initiations {
                    passed += 200;
                    let at = said(passed - lag);
                    // The first of a handshake, and perhaps one that was searched for.
                    let time = if attempts && number % 3 == 1 {
                        own.times_for_search(at, 0).end
                    } else {
                        own.initiation_time(at, 0)
                    };
                    versions.initiate(own.last_initiation());
                    disk = versions.unstored().or(disk);
                    versions.set_stored();
                    prop_assert!(time > last, "{time} after {last}, the first: {first}");
                    prop_assert!(time < at.unix_ms + lag + 60_000);
                    (last, first) = (time, false);
                }
            }
        }
    }

    #[test]
    fn times_are_stored_for_many_initiations_at_once() {
        let (mut own, mut versions, mut stored) = (started(), OwnVersions::default(), 0);
        for number in 0..10_000 {
            own.initiation_time(said(number * 100), 0);
            versions.initiate(own.last_initiation());
            stored += usize::from(versions.unstored().is_some());
            versions.set_stored();
        }
        // 17 minutes.
        assert!((17..=100).contains(&stored), "{stored}");
    }

    #[test]
    fn what_was_stored_under_a_clock_that_was_far_ahead_is_forgotten() {
        let mut own = started();
        let mut versions = OwnVersions::default();
        versions.initiate(said(10_000_000).unix_ms);
        own.go_on_after(versions.last_initiation());
        let time = own.initiation_time(said(60_000), 0);
        assert_eq!(time, said(60_000).unix_ms);
        versions.initiate(own.last_initiation());
        assert!((time..time + 1000).contains(&versions.last_initiation()));
    }

    #[test]
    fn what_something_was_solved_for_is_newer_than_what_was_sent_meanwhile() {
        let mut local = local();
        let before = local.initiation_time(said(2_000), 0);
        let times = local.times_for_search(said(4_000), 0);
        let (at, meanwhile) = (times.end, times.take(5));
        let sent: Vec<_> = std::iter::once(before)
            .chain(meanwhile)
            .chain([at])
            .collect();
        assert_eq!(sent.len(), 7);
        assert!(sent.is_sorted_by(|a, b| a < b), "{sent:?}");
        assert!(local.initiation_time(said(6_000), 0) > at);
        // A clock that was set back is heeded by every other attempt.
        let ahead = local.initiation_time(said(120_000), 0);
        assert!(local.times_for_search(said(60_000), 1).end < ahead);
        assert!(local.times_for_search(said(60_000), 0).end > ahead);
    }
}
