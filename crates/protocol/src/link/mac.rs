//! SHA-256, HMAC and HKDF in the shapes that the link asks for.

use crate::identity::X25519Public;
use crate::{Error, Result};
use ring::{digest, hkdf, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of a MAC or a cookie.
pub(super) const MAC: usize = 16;

/// `SHA-256(label | public)`, a key that everyone has who knows the public key.
pub(super) fn public_key(label: &str, public: &X25519Public) -> [u8; 32] {
    labelled(label, &public.0)
}

/// `SHA-256(label | bytes)`.
fn labelled(label: &str, bytes: &[u8]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(label.as_bytes());
    hash.update(bytes);
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

/// The key of a response's mac1. The initiation's ML-KEM key is sealed in it, so only the two ends of the handshake
/// have this.
pub(super) fn response_key(kem: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &labelled("mixline/v1/response", kem))
}

/// The key of an initiation's mac1, to the holder of `receiver`.
pub(super) fn mac1_key(receiver: &X25519Public) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &public_key("mixline/v1/mac1", receiver))
}

/// The first 16 bytes of HMAC-SHA256 over the concatenation of `parts`.
pub(super) fn mac(key: &hmac::Key, parts: &[&[u8]]) -> [u8; MAC] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; MAC];
    out.copy_from_slice(&context.sign().as_ref()[..MAC]);
    out
}

/// Whether two MACs are the same, in constant time.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// A key for each direction.
pub(super) type TwoKeys = (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>);

/// HKDF-SHA256 (RFC 5869) into two keys of 32 bytes.
pub(super) fn two_keys(salt: &[u8], secret: &[u8], info: &str) -> Result<TwoKeys> {
    struct SixtyFour;
    impl hkdf::KeyType for SixtyFour {
        fn len(&self) -> usize {
            64
        }
    }
    let failed = |_| Error::Length {
        what: "HKDF output",
        expected: 64,
        got: 64,
    };
    let mut both = Zeroizing::new([0; 64]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info.as_bytes()], SixtyFour)
        .and_then(|okm| okm.fill(both.as_mut()))
        .map_err(failed)?;
    let (mut first, mut second) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    first.copy_from_slice(&both[..32]);
    second.copy_from_slice(&both[32..]);
    Ok((first, second))
}
