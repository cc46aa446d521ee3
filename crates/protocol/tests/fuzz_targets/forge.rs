//! Sealing as a malicious peer could: written from the protocol's description and not with
//! the library, which refuses to write what is malformed.

use mixline_protocol::identity::{X25519Public, X25519Secret};
use ring::{digest, hkdf, hmac};
use snow::HandshakeState;

/// SHA-256 of the parts.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    super::fit(context.finish().as_ref())
}

/// The first 16 bytes of HMAC-SHA256.
pub fn mac(key: &[u8; 32], data: &[u8]) -> [u8; 16] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    super::fit(hmac::sign(&key, data).as_ref())
}

/// HKDF-SHA256.
pub fn hkdf<const N: usize>(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> [u8; N] {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = [0; N];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(info, Length(N))
        .and_then(|okm| okm.fill(&mut out))
        .expect("a short output");
    out
}

/// A Noise handshake, from the side that begins it.
pub fn initiator(local: &X25519Secret, remote: &X25519Public, prologue: &[u8]) -> HandshakeState {
    snow::Builder::new(PATTERN.parse().expect("a pattern"))
        .local_private_key(local.to_bytes().as_ref())
        .and_then(|builder| builder.remote_public_key(&remote.0))
        .and_then(|builder| builder.prologue(prologue))
        .and_then(snow::Builder::build_initiator)
        .expect("an initiator")
}

/// A Noise handshake, from the side that answers.
pub fn responder(local: &X25519Secret, prologue: &[u8]) -> HandshakeState {
    snow::Builder::new(PATTERN.parse().expect("a pattern"))
        .local_private_key(local.to_bytes().as_ref())
        .and_then(|builder| builder.prologue(prologue))
        .and_then(snow::Builder::build_responder)
        .expect("a responder")
}

const PATTERN: &str = "Noise_IK_25519_AESGCM_SHA256";
