//! What a relay sends to the directory: its descriptor, and the proof that the link key in it is
//! its own.
//!
//! A descriptor is signed by the relay's identity, and anybody can sign one with another relay's link key
//! in it, which is in every snapshot. Others would look for that relay at the signer's addresses. So
//! the directory asks for a MAC that takes one of two secrets to make: that of the link key, or that of the
//! directory's own session key, whose public part the snapshot has. Only the directory has to be
//! convinced, as it is of everything else that makes it list a relay: the snapshot stays as small as it is.

use ring::{digest, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::relay::RelayDescriptor;
use crate::identity::{X25519Public, X25519Secret};
use crate::{Error, Result};

/// Bytes of the proof.
const PROOF: usize = 16;
const WHAT: &str = "proof of a link key";
const LABEL: &[u8] = b"mixline/v1/link key";

/// A descriptor, and the proof that who sends it has its link key.
///
/// ```text
/// relay descriptor | proof 16
///
/// proof = HMAC16(SHA-256("mixline/v1/link key" | X25519(link key, directory's session key)),
///                the descriptor, signature included)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// What the relay says of itself.
    pub descriptor: RelayDescriptor,
    proof: [u8; PROOF],
}

impl Registration {
    /// The most bytes of an encoded registration.
    pub const MAX_ENCODED: usize = RelayDescriptor::MAX_ENCODED + PROOF;

    /// The registration of a signed descriptor with the directory that has this session key. `link`: the
    /// secret of the descriptor's link key.
    ///
    /// # Errors
    /// [`Error::LowOrder`] if the directory's key is bad.
    pub fn new(
        descriptor: RelayDescriptor,
        link: &X25519Secret,
        directory: &X25519Public,
    ) -> Result<Self> {
        let key = key(&link.exchange(directory)?);
        let proof = mac(&key, &descriptor.encode());
        Ok(Self { descriptor, proof })
    }

    /// The bytes that are sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.descriptor.encode();
        bytes.extend_from_slice(&self.proof);
        bytes
    }

    /// Reads the form. Nothing is known of who made it before [`Registration::verify_proof`] and
    /// [`RelayDescriptor::verify`].
    ///
    /// # Errors
    /// Those of [`RelayDescriptor::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (descriptor, proof) = bytes.split_last_chunk().ok_or(Error::Length {
            what: WHAT,
            expected: PROOF,
            got: bytes.len(),
        })?;
        Ok(Self {
            descriptor: RelayDescriptor::decode(descriptor)?,
            proof: *proof,
        })
    }

    /// Checks that who sends the descriptor has its link key. `directory`: the secret of the directory's
    /// session key.
    ///
    /// # Errors
    /// [`Error::Authentication`]; [`Error::LowOrder`] if the link key is one whose secret everybody has.
    pub fn verify_proof(&self, directory: &X25519Secret) -> Result<()> {
        let key = key(&directory.exchange(&self.descriptor.link)?);
        let expected = mac(&key, &self.descriptor.encode());
        if expected.ct_eq(&self.proof).into() {
            Ok(())
        } else {
            Err(Error::Authentication { what: WHAT })
        }
    }
}

fn key(shared: &Zeroizing<[u8; 32]>) -> hmac::Key {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(LABEL);
    hash.update(shared.as_ref());
    hmac::Key::new(hmac::HMAC_SHA256, hash.finish().as_ref())
}

fn mac(key: &hmac::Key, descriptor: &[u8]) -> [u8; PROOF] {
    let mut out = [0; PROOF];
    out.copy_from_slice(&hmac::sign(key, descriptor).as_ref()[..PROOF]);
    out
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::identity::IdentityKey;
    use crate::random::OsRandom;
    use crate::time::UnixTime;

    fn descriptor(identity: &IdentityKey, link: X25519Public) -> RelayDescriptor {
        let descriptor = RelayDescriptor {
            id: identity.relay_id(),
            version: 1,
            issued: UnixTime(1000),
            expires: UnixTime(1600),
            link,
            onion: [(1, X25519Public([1; 32]))].into_iter().collect(),
            addresses: vec![SocketAddr::from(([192, 0, 2, 1], 7000))],
            capacity: 1,
            load: 0,
            family: None,
            name: "relay".into(),
            software: String::new(),
            signature: [0; 64],
        };
        descriptor.sign(identity).unwrap()
    }

    #[test]
    fn only_who_has_the_link_key_registers_it() {
        let rng = &mut OsRandom::new();
        let directory = X25519Secret::generate(rng);
        let (honest, bad) = (IdentityKey::generate(rng), IdentityKey::generate(rng));
        let link = X25519Secret::generate(rng);
        let right = descriptor(&honest, link.public());
        let right = Registration::new(right, &link, &directory.public()).unwrap();
        let read = Registration::decode(&right.encode()).unwrap();
        assert_eq!(read, right);
        read.verify_proof(&directory).unwrap();
        assert!(right.encode().len() <= Registration::MAX_ENCODED);

        // Another one with the same link key, and a link key of its own to make proofs with.
        let refused = |registration: &Registration| {
            let error = registration.verify_proof(&directory).unwrap_err();
            assert_eq!(error, Error::Authentication { what: WHAT });
        };
        let stolen = descriptor(&bad, link.public());
        let own = X25519Secret::generate(rng);
        refused(&Registration::new(stolen.clone(), &own, &directory.public()).unwrap());
        // The proof of the honest one's descriptor is of no use for another.
        refused(&Registration {
            descriptor: stolen,
            proof: right.proof,
        });
        // Nor is one that was made for another directory.
        let other = X25519Secret::generate(rng).public();
        let elsewhere = Registration::new(right.descriptor.clone(), &link, &other).unwrap();
        refused(&elsewhere);
        let mut bent = right.encode();
        *bent.last_mut().unwrap() ^= 1;
        refused(&Registration::decode(&bent).unwrap());

        // What everybody can compute proves nothing.
        let low = Registration {
            descriptor: descriptor(&bad, X25519Public([0; 32])),
            proof: mac(&key(&Zeroizing::new([0; 32])), b""),
        };
        assert_eq!(low.verify_proof(&directory), Err(Error::LowOrder));
    }

    #[test]
    fn registrations_that_are_cut_or_too_long_are_refused() {
        let rng = &mut OsRandom::new();
        let link = X25519Secret::generate(rng);
        let of = descriptor(&IdentityKey::generate(rng), link.public());
        let directory = X25519Secret::generate(rng).public();
        let bytes = Registration::new(of, &link, &directory).unwrap().encode();
        for length in 0..bytes.len() {
            assert!(Registration::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Registration::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
