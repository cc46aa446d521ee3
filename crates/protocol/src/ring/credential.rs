//! Credentials: what one has to know to find a record, and to read it.
//!
//! ```text
//! client     = nothing, or the key of one client of a service that has a list (32 bytes, see `authorisation`)
//! factor     = SHA-256("mixline/v2/blind" | ID 32 | period 8 | client)
//! credential = SHA-256("mixline/v2/ring credential" | ID 32 | client)
//! ```
//!
//! A service without a list has one record, for everybody who knows its ID. One with a list has a record for each
//! client, and none for others: who is not on the list finds what he finds when the service is not there.

use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::blinding::{BlindedId, BlindedKey, blind_public};
use crate::authorisation::Authorisation;
use crate::identity::{AnonymousId, IdentityKey, first_bytes};
use crate::{Error, Result};

const FACTOR: &[u8] = b"mixline/v2/blind";
const CREDENTIAL: &[u8] = b"mixline/v2/ring credential";

/// What one has to know to find and read the records of a service. Zeroised when dropped.
#[derive(Clone)]
pub struct Credential {
    id: AnonymousId,
    client: Option<Zeroizing<[u8; 32]>>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl Credential {
    /// Of a service that everybody may find who knows its ID.
    #[must_use]
    pub fn of(id: AnonymousId) -> Self {
        Self { id, client: None }
    }

    /// What one client and a service with a list have in common; both can make it.
    #[must_use]
    pub fn of_client(id: AnonymousId, authorisation: &Authorisation) -> Self {
        Self {
            id,
            client: Some(authorisation.ring_key()),
        }
    }

    /// Whose records they are.
    #[must_use]
    pub fn id(&self) -> AnonymousId {
        self.id
    }

    /// The key under which the records of a period are kept.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the ID is no key of the prime-order subgroup, in its one encoding.
    pub fn blinded_id(&self, period: u64) -> Result<BlindedId> {
        blind_public(&self.id.0, &self.factor(period))
    }

    /// The key pair that signs the records of a period, which the service alone has.
    ///
    /// # Errors
    /// [`Error::Authentication`] if the key is not the ID's.
    pub fn blinded_key(&self, key: &IdentityKey, period: u64) -> Result<BlindedKey> {
        if key.anonymous_id() != self.id {
            return Err(Error::Authentication {
                what: "blinded key",
            });
        }
        let factor = self.factor(period);
        Ok(BlindedKey::new(
            &key.expanded(),
            &factor,
            period,
            self.digest(),
        ))
    }

    /// What the key of a record's content is made of.
    pub(super) fn digest(&self) -> Zeroizing<[u8; 32]> {
        self.hash(&[CREDENTIAL, &self.id.0])
    }

    fn factor(&self, period: u64) -> Zeroizing<[u8; 32]> {
        self.hash(&[FACTOR, &self.id.0, &period.to_be_bytes()])
    }

    fn hash(&self, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        if let Some(client) = &self.client {
            context.update(client.as_ref());
        }
        Zeroizing::new(first_bytes(context.finish().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::X25519Secret;

    #[test]
    fn client_and_service_make_the_same_and_nobody_else_does() {
        let service = IdentityKey::from_seed([1; 32]);
        let id = service.anonymous_id();
        let clients = [2, 3].map(|n| X25519Secret::from_bytes([n; 32]));
        let all = Credential::of(id);
        let mut seen = vec![all.blinded_id(7).unwrap(), all.blinded_id(8).unwrap()];
        for client in &clients {
            let theirs = Authorisation::of_client(client, &id).unwrap();
            let theirs = Credential::of_client(id, &theirs);
            let ours = Authorisation::of_service(&service, &client.public()).unwrap();
            let ours = Credential::of_client(id, &ours);
            let key = ours.blinded_key(&service, 7).unwrap();
            assert_eq!(theirs.blinded_id(7), Ok(key.id()));
            assert_eq!(theirs.digest(), ours.digest());
            assert_ne!(theirs.digest(), all.digest());
            seen.extend([key.id(), theirs.blinded_id(8).unwrap()]);
        }
        for (at, one) in seen.iter().enumerate() {
            assert!(!seen[at + 1..].contains(one));
        }
        let stranger = IdentityKey::from_seed([4; 32]);
        assert!(all.blinded_key(&stranger, 7).is_err());
    }
}
