//! Under which ID something is done.
//!
//! Packets and published descriptors are the own ID's. The directory is asked under throw-away
//! IDs, so that it cannot tell who asks for whom; these are renewed from time to time.

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

/// The last initiation is so far ahead of the clock, milliseconds, only if that was set back.
const SET_BACK_MS: u64 = 2000;
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

    /// What the last initiation said.
    #[cfg(feature = "testing")]
    pub fn last_initiation(&self) -> u64 {
        self.last_initiation
    }

    /// The time to write into an initiation: what the ID says that it is, or later if that has not moved on.
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
            self.last_initiation = said.unix_ms.max(grown);
        }
        self.last_initiation
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
