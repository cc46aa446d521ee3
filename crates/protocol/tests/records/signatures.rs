//! Which signatures hold where points have a component of small order: whoever has a key can make such signatures
//! for it, and readers must not differ about them. `verify` says so for every record, one at a time.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use mixline_protocol::identity::verify;
use ring::digest::{SHA512, digest};

const DOMAIN: &str = "mixline/v1/relay descriptor";

/// `SHA-512(R | A | domain | 0 | bytes)` as a scalar (RFC 8032, section 5.1.6).
fn challenge(r: &[u8; 32], a: &[u8; 32], bytes: &[u8]) -> Scalar {
    let message = [&r[..], a, DOMAIN.as_bytes(), &[0], bytes].concat();
    let hash = digest(&SHA512, &message);
    Scalar::from_bytes_mod_order_wide(hash.as_ref().try_into().unwrap())
}

/// A signature under the key `a B + of_key` with the commitment `r B + of_commitment`, as its owner makes it.
fn signed(
    (secret, of_key): (Scalar, EdwardsPoint),
    (nonce, of_commitment): (Scalar, EdwardsPoint),
    bytes: &[u8],
) -> ([u8; 32], [u8; 64]) {
    let public = (EdwardsPoint::mul_base(&secret) + of_key).compress();
    let commitment = (EdwardsPoint::mul_base(&nonce) + of_commitment).compress();
    let challenge = challenge(commitment.as_bytes(), public.as_bytes(), bytes);
    let scalar = nonce + challenge * secret;
    let signature = [commitment.to_bytes(), scalar.to_bytes()].concat();
    (public.to_bytes(), signature.try_into().unwrap())
}

fn secret() -> Scalar {
    Scalar::from_bytes_mod_order(clamp_integer([7; 32]))
}

const NONE: EdwardsPoint = EIGHT_TORSION[0];

#[test]
fn a_commitment_with_a_component_of_small_order_is_refused() {
    let nonce = Scalar::from(1_000_003u64);
    for (at, torsion) in EIGHT_TORSION.iter().enumerate() {
        // An equation with random weights takes one of two, four or eight of these.
        for n in 0..16u8 {
            let (public, signature) = signed((secret(), NONE), (nonce, *torsion), &[n]);
            let held = verify(&public, DOMAIN, &[n], &signature).is_ok();
            assert_eq!(held, at == 0, "torsion point {at}");
        }
    }
}

/// A key with such a component signs what the component drops out of, and nothing else.
#[test]
fn a_key_with_a_component_of_small_order_signs_by_the_equation_without_cofactor() {
    let nonce = Scalar::from(1_000_003u64);
    for (at, torsion) in EIGHT_TORSION.iter().enumerate() {
        for n in 0..32u8 {
            let (public, signature) = signed((secret(), *torsion), (nonce, NONE), &[n]);
            let commitment = signature.first_chunk().unwrap();
            let dropped = challenge(commitment, &public, &[n]) * torsion == NONE;
            let held = verify(&public, DOMAIN, &[n], &signature).is_ok();
            assert_eq!(held, dropped, "torsion point {at}");
        }
    }
}

#[test]
fn points_of_small_order_are_no_keys_and_no_commitments() {
    for torsion in &EIGHT_TORSION {
        for n in 0..32u8 {
            let (public, signature) = signed((Scalar::ZERO, *torsion), (Scalar::ONE, NONE), &[n]);
            assert!(verify(&public, DOMAIN, &[n], &signature).is_err());
            let (public, signature) = signed((secret(), NONE), (Scalar::ZERO, *torsion), &[n]);
            assert!(verify(&public, DOMAIN, &[n], &signature).is_err());
        }
    }
}

/// `S` has one form (RFC 8032, section 5.1.7).
#[test]
fn a_scalar_past_the_order_is_refused() {
    let (public, mut signature) = signed((secret(), NONE), (Scalar::ONE, NONE), b"text");
    assert!(verify(&public, DOMAIN, b"text", &signature).is_ok());
    // The order l, little-endian (RFC 8032, section 5.1).
    let order = (-Scalar::ONE).to_bytes();
    let mut carry = 1u16;
    for (to, add) in signature[32..].iter_mut().zip(order) {
        carry += u16::from(*to) + u16::from(add);
        *to = carry as u8;
        carry >>= 8;
    }
    assert_eq!(carry, 0);
    assert!(verify(&public, DOMAIN, b"text", &signature).is_err());
}
