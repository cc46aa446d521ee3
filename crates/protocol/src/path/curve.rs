//! X25519 (RFC 7748) on bare bytes, as the blinding of path packets needs it.

use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret, x25519};
use zeroize::Zeroizing;

use crate::{Error, Result};

/// `X25519(scalar, point)`; the scalar is clamped.
///
/// # Errors
/// [`Error::LowOrder`] if the result is all zeros (RFC 7748, section 6.1).
pub(super) fn exchange(scalar: &[u8; 32], point: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
    let shared = Zeroizing::new(x25519(*scalar, *point));
    if bool::from(shared.ct_eq(&[0; 32])) {
        return Err(Error::LowOrder);
    }
    Ok(shared)
}

/// The public value of a scalar.
pub(super) fn public(scalar: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*scalar)).to_bytes()
}

const fn end(first: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = first;
    bytes[31] = 0x7f;
    bytes
}
const fn small(first: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = first;
    bytes
}
/// The encodings below 2^255 of the points whose order divides 8, on the curve and its twist
/// (<https://cr.yp.to/ecdh.html#validate>).
const LOW: [[u8; 32]; 7] = [
    small(0),
    small(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    end(0xec),
    end(0xed),
    end(0xee),
];

/// Whether every exchange with this point fails: its order divides 8, on the curve or on its
/// twist. The highest bit is ignored, as X25519 does.
pub(super) fn has_low_order(point: &[u8; 32]) -> bool {
    let mut point = *point;
    point[31] &= 0x7f;
    LOW.contains(&point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_order_points_are_those_that_exchange_to_zero() {
        let mut low = 0;
        for first in 0..=255 {
            for filling in [[0; 32], [0xff; 32]] {
                for last in [0x00, 0x7f, 0x80, 0xff] {
                    let mut point = filling;
                    point[0] = first;
                    point[31] = last;
                    let refused = exchange(&[0x42; 32], &point).is_err();
                    assert_eq!(has_low_order(&point), refused, "{point:?}");
                    low += u32::from(refused);
                }
            }
        }
        assert!(low >= 10);
    }

    #[test]
    fn points_of_order_eight_are_known() {
        for point in LOW {
            assert!(exchange(&[0x42; 32], &point).is_err(), "{point:?}");
        }
    }

    #[test]
    fn public_is_the_base_point_times_the_scalar() {
        let scalar = [0x17; 32];
        assert_eq!(
            public(&scalar),
            x25519(scalar, x25519_dalek::X25519_BASEPOINT_BYTES)
        );
    }
}
