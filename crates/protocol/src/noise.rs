//! Noise IK as this project uses it: the state machine of `snow` over primitives given to it.
//!
//! `snow` would draw its ephemeral key from the operating system itself, and its X25519
//! accepts a shared secret of zeros, as the Noise specification allows. Here randomness is passed
//! in, and points of low order are refused. AES-256-GCM and SHA-256 are those of `ring`, as in
//! the rest of the link.

mod primitives;

use crate::identity::{X25519Public, X25519Secret};
use crate::{Error, Result};
use primitives::{AesGcm, Curve25519, Once, Sha256};
use rand_core::CryptoRng;
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

/// The pattern of links and of sessions.
const PATTERN: &str = "Noise_IK_25519_AESGCM_SHA256";

/// Begins the side that knows the other's static key.
pub(crate) fn initiator(
    local: &X25519Secret,
    remote: &X25519Public,
    prologue: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<HandshakeState> {
    let secret = local.to_bytes();
    builder(rng)?
        .local_private_key(secret.as_ref())
        .and_then(|b| b.remote_public_key(&remote.0))
        .and_then(|b| b.prologue(prologue))
        .and_then(Builder::build_initiator)
        .map_err(|_| Error::Malformed {
            what: "Noise parameters",
        })
}

/// Begins the side that learns the other's static key from the message.
pub(crate) fn responder(
    local: &X25519Secret,
    prologue: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<HandshakeState> {
    let secret = local.to_bytes();
    builder(rng)?
        .local_private_key(secret.as_ref())
        .and_then(|b| b.prologue(prologue))
        .and_then(Builder::build_responder)
        .map_err(|_| Error::Malformed {
            what: "Noise parameters",
        })
}

/// `snow`'s error about a message as one of ours.
pub(crate) fn error(what: &'static str) -> impl Fn(snow::Error) -> Error {
    move |error| match error {
        snow::Error::Decrypt => Error::Authentication { what },
        snow::Error::Dh => Error::LowOrder,
        _ => Error::Malformed { what },
    }
}

/// The static key that the other side has shown.
pub(crate) fn remote_static(handshake: &HandshakeState) -> Result<X25519Public> {
    let bytes = handshake
        .get_remote_static()
        .and_then(|s| s.try_into().ok());
    bytes.map(X25519Public).ok_or(Error::Malformed {
        what: "Noise static key",
    })
}

fn builder<'a>(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Builder<'a>> {
    let mut ephemeral = Zeroizing::new([0; 32]);
    rng.fill_bytes(ephemeral.as_mut());
    let params: NoiseParams = PATTERN.parse().map_err(|_| Error::Malformed {
        what: "Noise pattern",
    })?;
    Ok(Builder::with_resolver(
        params,
        Box::new(Resolver { ephemeral }),
    ))
}

/// Gives `snow` its primitives.
struct Resolver {
    ephemeral: Zeroizing<[u8; 32]>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::<Curve25519>::default()),
            DHChoice::Curve448 => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::<Sha256>::default()),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::AESGCM => Some(Box::<AesGcm>::default()),
            _ => None,
        }
    }
}
