//! Noise IK as this project uses it: the state machine is `snow`'s, the primitives are given to it.
//!
//! `snow` would draw its ephemeral key from the operating system itself, and its X25519
//! accepts a shared secret of zeros, as the Noise specification allows. Here randomness is passed
//! in, and points of low order are refused. AES-256-GCM and SHA-256 are those of `ring`, as in
//! the rest of the link.

use crate::identity::{X25519Public, X25519Secret};
use crate::size::TAG;
use crate::{Error, Result};
use rand_core::CryptoRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
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

/// Begins the side that is told who the other is.
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

/// What `snow` says about a message, said our way.
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

/// The one ephemeral key that a side of IK draws; a second draw is an error.
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> std::result::Result<(), snow::Error> {
        let drawn = self.0.take().filter(|drawn| drawn.len() == out.len());
        out.copy_from_slice(drawn.ok_or(snow::Error::Rng)?.as_ref());
        Ok(())
    }
}

/// X25519 that refuses a shared secret of zeros.
#[derive(Default)]
struct Curve25519 {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Dh for Curve25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        self.public = X25519Secret::from_bytes(*self.secret).public().0;
    }

    fn generate(&mut self, rng: &mut dyn Random) -> std::result::Result<(), snow::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(secret.as_mut())?;
        self.set(secret.as_ref());
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_ref()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> std::result::Result<(), snow::Error> {
        let public = public.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = X25519Secret::from_bytes(*self.secret)
            .exchange(&X25519Public(*public))
            .map_err(|_| snow::Error::Dh)?;
        out.get_mut(..32)
            .ok_or(snow::Error::Dh)?
            .copy_from_slice(shared.as_ref());
        Ok(())
    }
}

/// AES-256-GCM with the nonces of Noise: four zero bytes, and the number in network order.
#[derive(Default)]
struct AesGcm(Option<LessSafeKey>);

impl AesGcm {
    fn nonce(number: u64) -> Nonce {
        let mut bytes = [0; NONCE_LEN];
        bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
        Nonce::assume_unique_for_key(bytes)
    }
}

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = UnboundKey::new(&AES_256_GCM, key)
            .ok()
            .map(LessSafeKey::new);
    }

    /// # Panics
    /// Without a key, or with less room than the message and its tag take: `snow` has checked
    /// both.
    #[expect(
        clippy::expect_used,
        reason = "the trait has no error, and nothing may be sent unsealed"
    )]
    fn encrypt(&self, nonce: u64, authenticated: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let (sealed, rest) = out.split_at_mut(plain.len());
        sealed.copy_from_slice(plain);
        let tag = self
            .0
            .as_ref()
            .expect("a key")
            .seal_in_place_separate_tag(Self::nonce(nonce), Aad::from(authenticated), sealed)
            .expect("a message of less than 64 GiB");
        rest[..TAG].copy_from_slice(tag.as_ref());
        plain.len() + TAG
    }

    fn decrypt(
        &self,
        nonce: u64,
        authenticated: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> std::result::Result<usize, snow::Error> {
        let failed = || snow::Error::Decrypt;
        let (body, tag) = sealed.split_last_chunk::<TAG>().ok_or_else(failed)?;
        let out = out.get_mut(..body.len()).ok_or_else(failed)?;
        out.copy_from_slice(body);
        let key = self.0.as_ref().ok_or_else(failed)?;
        let (nonce, tag) = (Self::nonce(nonce), (*tag).into());
        key.open_in_place_separate_tag(nonce, Aad::from(authenticated), tag, out, 0..)
            .map_err(|_| failed())?;
        Ok(body.len())
    }
}

/// SHA-256.
struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        digest::SHA256.block_len()
    }

    fn hash_len(&self) -> usize {
        digest::SHA256_OUTPUT_LEN
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.0.clone().finish();
        out[..digest::SHA256_OUTPUT_LEN].copy_from_slice(hash.as_ref());
    }
}
