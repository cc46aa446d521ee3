//! Client authorisation: a service with a list of clients is found by these only, and opens sessions with
//! nobody else.
//!
//! A client has a key pair for each such service and tells the public half to whoever runs it, by another
//! way. The service's half of the exchange is its identity: the Ed25519 key pair as an X25519 one
//! (Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM", 2021).
//!
//! ```text
//! shared  = X25519(client's secret, service's ID as a Montgomery point)
//! keys    = HKDF-SHA256(salt "mixline/v1/client authorisation", input shared,
//!                       info client's key 32 | service's ID 32) = lookup 32 | session 32
//! token   = HMAC-SHA256(lookup, day 8), its first 16 bytes
//! entry   = SHA-256("mixline/v1/lookup token" | service's ID 32 | token 16), its first 16 bytes
//! ring    = HMAC-SHA256(lookup, "mixline/v2/ring client")
//! proof   = HMAC-SHA256(session, initiator's session key 32 | timestamp 8), its first 16 bytes
//! ```
//!
//! The directory has the entries, in the service's descriptor, and shows that to whoever knows a token of
//! one: all others hear that nothing was published. A day counts from 1970, in UTC. The proof stands in a
//! session's initiation. A service does not answer an initiation without one.

use std::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use ring::digest::{self, SHA256};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::identity::{AnonymousId, IdentityKey, X25519Public, X25519Secret, first_bytes};
use crate::time::UnixTime;
use crate::{Error, Result};

/// The most clients that a service lists.
pub const MAX_CLIENTS: usize = 32;
/// Entries in the descriptor of a service that has a list, however many clients are on it: two days of each.
pub const ENTRIES: usize = 2 * MAX_CLIENTS;
/// Bytes of a token, of an entry and of a proof.
pub const TOKEN: usize = 16;

const SALT: &[u8] = b"mixline/v1/client authorisation";
const ENTRY: &[u8] = b"mixline/v1/lookup token";
const RING: &[u8] = b"mixline/v2/ring client";
const FAILED: Error = Error::Malformed {
    what: "client authorisation",
};
const DAY: u64 = 24 * 3600;

/// Bytes of the secret from which a client makes its keys for all services.
pub const MASTER: usize = 32;

/// A client's secret for a service: HKDF-SHA256(salt as above, input `master`, info `"client" | ID`). Nobody
/// can tell that the keys for two services are one client's.
///
/// # Errors
/// [`Error::Malformed`] if HKDF fails, which it does not with these lengths.
pub fn client_secret(master: &[u8; MASTER], service: &AnonymousId) -> Result<X25519Secret> {
    let mut bytes = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, SALT)
        .extract(master)
        .expand(&[b"client", &service.0], HKDF_SHA256)
        .and_then(|okm| okm.fill(bytes.as_mut()))
        .map_err(|_| FAILED)?;
    Ok(X25519Secret::from_bytes(*bytes))
}

/// What a client shows the directory to be told where a service is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LookupToken(pub [u8; TOKEN]);

impl fmt::Debug for LookupToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LookupToken(..)")
    }
}

/// What a descriptor has of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(pub [u8; TOKEN]);

impl LookupToken {
    /// Its entry in the service's descriptor.
    #[must_use]
    pub fn entry(&self, service: &AnonymousId) -> Entry {
        let parts = [ENTRY, &service.0, &self.0].concat();
        Entry(first_bytes(digest::digest(&SHA256, &parts).as_ref()))
    }
}

/// What one client and one service have in common. Zeroised when dropped.
#[derive(Clone)]
pub struct Authorisation {
    /// The client's public key.
    pub client: X25519Public,
    lookup: Zeroizing<[u8; 32]>,
    session: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Authorisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorisation({})", self.client)
    }
}

impl Authorisation {
    /// The client's: from its secret for this service.
    ///
    /// # Errors
    /// [`Error::LowOrder`] or [`Error::Malformed`] if the ID is no key.
    pub fn of_client(secret: &X25519Secret, service: &AnonymousId) -> Result<Self> {
        let point = CompressedEdwardsY(service.0).decompress();
        let point = point.ok_or(Error::Malformed {
            what: "anonymous ID",
        })?;
        let theirs = X25519Public(point.to_montgomery().to_bytes());
        let shared = secret.exchange(&theirs)?;
        Self::derive(&shared, &secret.public(), service)
    }

    /// The service's: from its identity and the client's public key.
    ///
    /// # Errors
    /// [`Error::LowOrder`] if the client's key is none.
    pub fn of_service(key: &IdentityKey, client: &X25519Public) -> Result<Self> {
        let shared = key.exchange_secret().exchange(client)?;
        Self::derive(&shared, client, &key.anonymous_id())
    }

    /// A client that nobody is, the one of this number: always the same.
    ///
    /// # Errors
    /// [`Error::Malformed`] if HKDF fails, which it does not with these lengths.
    pub fn of_nobody(key: &IdentityKey, number: u8) -> Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        Salt::new(HKDF_SHA256, SALT)
            .extract(&*key.seed())
            .expand(&[b"nobody", &[number]], HKDF_SHA256)
            .and_then(|okm| okm.fill(bytes.as_mut()))
            .map_err(|_| FAILED)?;
        Self::of_service(key, &X25519Secret::from_bytes(*bytes).public())
    }

    fn derive(shared: &[u8; 32], client: &X25519Public, service: &AnonymousId) -> Result<Self> {
        let mut both = Zeroizing::new([0; 64]);
        Salt::new(HKDF_SHA256, SALT)
            .extract(shared)
            .expand(&[&client.0, &service.0], Both)
            .and_then(|okm| okm.fill(both.as_mut()))
            .map_err(|_| FAILED)?;
        Ok(Self {
            client: *client,
            lookup: Zeroizing::new(first_bytes(&both[..32])),
            session: Zeroizing::new(first_bytes(&both[32..])),
        })
    }

    /// What the client shows the directory at a time.
    #[must_use]
    pub fn token(&self, now: UnixTime) -> LookupToken {
        self.token_of(now.0 / DAY)
    }

    /// The entries of a descriptor that is made now: those of this day and of the next one. Of a client
    /// whose clock is behind by up to `slow` seconds, too.
    #[must_use]
    pub fn entries(&self, service: &AnonymousId, now: UnixTime, slow: u64) -> [Entry; 2] {
        let day = now.0.saturating_sub(slow) / DAY;
        [day, day.saturating_add(1)].map(|day| self.token_of(day).entry(service))
    }

    fn token_of(&self, day: u64) -> LookupToken {
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &*self.lookup),
            &day.to_be_bytes(),
        );
        LookupToken(first_bytes(tag.as_ref()))
    }

    /// What client and service find and read the client's record on the ring by ([`crate::ring`]).
    pub(crate) fn ring_key(&self) -> Zeroizing<[u8; 32]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.lookup);
        Zeroizing::new(first_bytes(hmac::sign(&key, RING).as_ref()))
    }

    /// What the client shows the service, in an initiation of a session with the key `session` that is made
    /// at `timestamp_ms`.
    #[must_use]
    pub fn proof(&self, session: &X25519Public, timestamp_ms: u64) -> [u8; TOKEN] {
        let mut context =
            hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*self.session));
        context.update(&session.0);
        context.update(&timestamp_ms.to_be_bytes());
        first_bytes(context.sign().as_ref())
    }

    /// Whether an initiation's proof is this client's. Takes as long whatever the proof is.
    #[must_use]
    pub fn has_made(&self, proof: &[u8; TOKEN], session: &X25519Public, timestamp_ms: u64) -> bool {
        self.proof(session, timestamp_ms).ct_eq(proof).into()
    }
}

struct Both;

impl KeyType for Both {
    fn len(&self) -> usize {
        64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    fn pair() -> (Authorisation, Authorisation, AnonymousId) {
        let rng = &mut OsRandom::new();
        let service = IdentityKey::generate(rng);
        let client = X25519Secret::generate(rng);
        let id = service.anonymous_id();
        let theirs = Authorisation::of_client(&client, &id).unwrap();
        let ours = Authorisation::of_service(&service, &client.public()).unwrap();
        (theirs, ours, id)
    }

    #[test]
    fn both_sides_have_the_same() {
        let (theirs, ours, id) = pair();
        let noon = UnixTime(20_000 * DAY + DAY / 2);
        let entries = ours.entries(&id, noon, 900);
        for (at, listed) in [
            (noon.0, true),
            (noon.0 + DAY, true),
            (noon.0 - DAY, false),
            (noon.0 + 2 * DAY, false),
        ] {
            let entry = theirs.token(UnixTime(at)).entry(&id);
            assert_eq!(entries.contains(&entry), listed, "{at}");
        }
        // A moment after midnight, the client's clock may be behind that.
        let midnight = UnixTime(20_001 * DAY);
        let entries = ours.entries(&id, UnixTime(midnight.0 + 60), 900);
        for at in [midnight.0 - 60, midnight.0 + 60] {
            assert!(entries.contains(&theirs.token(UnixTime(at)).entry(&id)));
        }
        let session = X25519Public([7; 32]);
        let proof = theirs.proof(&session, 5);
        assert!(ours.has_made(&proof, &session, 5));
        assert!(!ours.has_made(&proof, &session, 6));
        assert!(!ours.has_made(&proof, &X25519Public([8; 32]), 5));
    }

    #[test]
    fn a_client_has_another_key_for_each_service() {
        let (ids, master) = ([AnonymousId([1; 32]), AnonymousId([2; 32])], [7; MASTER]);
        let secrets = ids.map(|id| client_secret(&master, &id).unwrap());
        assert_ne!(secrets[0], secrets[1]);
        assert_eq!(client_secret(&master, &ids[0]).unwrap(), secrets[0]);
        assert_ne!(client_secret(&[8; MASTER], &ids[0]).unwrap(), secrets[0]);
    }

    /// By a program of a few lines, from RFC 7748, RFC 8032 and what stands above.
    #[test]
    fn values_that_were_computed_by_others() {
        let service = IdentityKey::from_seed([5; 32]);
        let client = X25519Secret::from_bytes([6; 32]);
        let at = UnixTime(20_000 * DAY);
        let id = service.anonymous_id();
        let hex = |bytes: [u8; TOKEN]| data_encoding::HEXLOWER.encode(&bytes);
        for it in [
            Authorisation::of_service(&service, &client.public()).unwrap(),
            Authorisation::of_client(&client, &id).unwrap(),
        ] {
            assert_eq!(hex(it.token(at).0), "6c15cf391cd444bba7b28035aec1ae07");
            let entry = it.token(at).entry(&id);
            assert_eq!(hex(entry.0), "a0173345453b4517ed0370943208fcd1");
            let proof = it.proof(&X25519Public([7; 32]), 5);
            assert_eq!(hex(proof), "7cf409bec8adc6fcd206519669fbc76d");
        }
    }

    #[test]
    fn others_have_nothing_of_it() {
        let (theirs, ours, id) = pair();
        let (other, _, _) = pair();
        let now = UnixTime(1_800_000_000);
        assert_ne!(theirs.token(now), other.token(now));
        assert_ne!(
            theirs.token(now).entry(&id),
            theirs.token(now).entry(&AnonymousId([1; 32]))
        );
        let session = X25519Public([7; 32]);
        assert!(!ours.has_made(&other.proof(&session, 5), &session, 5));
        assert!(!ours.has_made(&[0; TOKEN], &session, 5));
    }

    #[test]
    fn keys_of_low_order_are_none() {
        let key = IdentityKey::generate(&mut OsRandom::new());
        let none = X25519Public([0; 32]);
        assert_eq!(
            Authorisation::of_service(&key, &none).unwrap_err(),
            Error::LowOrder
        );
        let mut identity = [0; 32];
        identity[0] = 1;
        let secret = X25519Secret::generate(&mut OsRandom::new());
        assert!(Authorisation::of_client(&secret, &AnonymousId(identity)).is_err());
    }
}
