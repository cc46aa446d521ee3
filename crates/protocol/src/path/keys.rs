//! The keys of one hop, and of all hops of a segment.

use arrayvec::ArrayVec;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use ring::{hkdf, hmac};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::curve;
use super::layout::{ALPHA, BETA, GAMMA, Hop, MAX_SEGMENT};
use crate::identity::{X25519Public, first_bytes};
use crate::{Error, Result};

/// What sets this use of HKDF apart.
const SALT: &[u8] = b"mixline/v1/hop";

/// The keys that a hop and the builder of its segment share.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct HopKeys {
    authentication: [u8; 32],
    pub(super) stream: [u8; 32],
    pub(super) payload: [u8; 32],
    pub(super) blind: [u8; 32],
}

/// 128 bytes of HKDF output.
struct Okm;

impl hkdf::KeyType for Okm {
    fn len(&self) -> usize {
        128
    }
}

impl HopKeys {
    /// The keys from `X25519(onion, alpha)`.
    pub(super) fn derive(
        shared: &[u8; 32],
        alpha: &[u8; ALPHA],
        onion: &X25519Public,
    ) -> Result<Self> {
        let failed = |_| Error::Limit {
            what: "hop key length",
        };
        let mut keys = Self {
            authentication: [0; 32],
            stream: [0; 32],
            payload: [0; 32],
            blind: [0; 32],
        };
        let mut okm = [[0; 32]; 4];
        hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
            .extract(shared)
            .expand(&[alpha, &onion.0], Okm)
            .and_then(|okm_of| okm_of.fill(okm.as_flattened_mut()))
            .map_err(failed)?;
        [keys.authentication, keys.stream, keys.payload, keys.blind] = okm;
        okm.zeroize();
        Ok(keys)
    }

    /// Gamma of a beta.
    pub(super) fn gamma(&self, beta: &[u8; BETA]) -> [u8; GAMMA] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.authentication);
        first_bytes(hmac::sign(&key, beta).as_ref())
    }
}

/// Adds the ChaCha20 keystream of `key`, from block 0 under a zero nonce, to `data`.
pub(super) fn apply_stream(key: &[u8; 32], data: &mut [u8]) {
    ChaCha20::new(key.into(), &[0; 12].into()).apply_keystream(data);
}

/// The hops' keys of a segment that starts from the scalar `secret`, and its first alpha.
///
/// # Errors
/// [`Error::Limit`] unless there are 1 to 4 hops, [`Error::LowOrder`] for a bad onion key.
pub(super) fn segment_keys(
    secret: &[u8; 32],
    hops: &[Hop],
) -> Result<([u8; ALPHA], ArrayVec<HopKeys, MAX_SEGMENT>)> {
    if hops.is_empty() || hops.len() > MAX_SEGMENT {
        return Err(Error::Limit {
            what: "relays in a path segment",
        });
    }
    let first = curve::public(secret);
    let mut alpha = first;
    let mut keys = ArrayVec::<HopKeys, MAX_SEGMENT>::new();
    for hop in hops {
        let mut shared = curve::exchange(secret, &hop.onion.0)?;
        for before in &keys {
            shared = curve::exchange(&before.blind, &shared)?;
        }
        let hop_keys = HopKeys::derive(&shared, &alpha, &hop.onion)?;
        if keys.len() + 1 < hops.len() {
            alpha = *curve::exchange(&hop_keys.blind, &alpha)?;
        }
        keys.push(hop_keys);
    }
    Ok((first, keys))
}
