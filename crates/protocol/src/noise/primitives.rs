//! The primitives of Noise IK: X25519, AES-256-GCM, SHA-256, and randomness that was drawn before.

use crate::identity::{X25519Public, X25519Secret};
use crate::size::TAG;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

/// The one ephemeral key that a side of IK draws; a second draw is an error.
pub(super) struct Once(pub(super) Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        let drawn = self.0.take().filter(|drawn| drawn.len() == out.len());
        out.copy_from_slice(drawn.ok_or(snow::Error::Rng)?.as_ref());
        Ok(())
    }
}

/// X25519 that refuses a shared secret of zeros.
#[derive(Default)]
pub(super) struct Curve25519 {
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

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
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

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
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
pub(super) struct AesGcm(Option<LessSafeKey>);

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
    ) -> Result<usize, snow::Error> {
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
pub(super) struct Sha256(digest::Context);

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
