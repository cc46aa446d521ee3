//! X25519 (RFC 7748) on bare bytes, as the blinding of path packets needs it.
//!
//! A relay multiplies each alpha twice, so it pays to take the point to Edwards form once,
//! where vector instructions multiply it in 60 % of the time of a Montgomery ladder. Points
//! of the curve's twist, which no honest builder sends, have no Edwards form and take the
//! ladder. The result is X25519's in either case; which of the two was taken says only
//! what everybody can see of the point.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::montgomery::MontgomeryPoint;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Error, Result};

/// A point, ready to be multiplied.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) enum Point {
    /// On the curve.
    Curve(EdwardsPoint),
    /// On its twist.
    Twist(MontgomeryPoint),
}

impl Point {
    /// The point of an encoding; X25519 knows no wrong ones.
    pub(super) fn new(encoded: &[u8; 32]) -> Self {
        let point = MontgomeryPoint(*encoded);
        // The sign does not matter: a point and its negative have one u coordinate, and so
        // have all their multiples.
        point.to_edwards(0).map_or(Self::Twist(point), Self::Curve)
    }

    /// `X25519(scalar, point)`; the scalar is clamped.
    ///
    /// # Errors
    /// [`Error::LowOrder`] if the result is all zeros (RFC 7748, section 6.1).
    pub(super) fn exchange(&self, scalar: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
        let shared = match self {
            Self::Curve(point) => point.mul_clamped(*scalar).to_montgomery(),
            Self::Twist(point) => point.mul_clamped(*scalar),
        };
        let shared = Zeroizing::new(shared.0);
        if bool::from(shared.ct_eq(&[0; 32])) {
            return Err(Error::LowOrder);
        }
        Ok(shared)
    }
}

/// [`Point::exchange`] with a point that is used once.
///
/// # Errors
/// As [`Point::exchange`] has.
pub(super) fn exchange(scalar: &[u8; 32], point: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
    Point::new(point).exchange(scalar)
}

/// The public value of a scalar.
pub(super) fn public(scalar: &[u8; 32]) -> [u8; 32] {
    MontgomeryPoint::mul_base_clamped(*scalar).0
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
    use proptest::prelude::*;
    use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

    use super::*;

    /// What X25519 of another module says.
    fn expected(scalar: [u8; 32], point: [u8; 32]) -> Result<[u8; 32]> {
        match x25519(scalar, point) {
            shared if shared == [0; 32] => Err(Error::LowOrder),
            shared => Ok(shared),
        }
    }

    fn ours(scalar: [u8; 32], point: [u8; 32]) -> Result<[u8; 32]> {
        exchange(&scalar, &point).map(|shared| *shared)
    }

    proptest! {
        /// Half of all encodings are of the twist; those of the curve have parts of low order.
        #[test]
        fn agrees_with_the_ladder(scalar: [u8; 32], point: [u8; 32]) {
            prop_assert_eq!(ours(scalar, point), expected(scalar, point));
        }

        #[test]
        fn public_is_the_base_point_times_the_scalar(scalar: [u8; 32]) {
            prop_assert_eq!(public(&scalar), x25519(scalar, X25519_BASEPOINT_BYTES));
            prop_assert!(matches!(Point::new(&public(&scalar)), Point::Curve(_)));
        }
    }

    #[test]
    fn agrees_with_the_ladder_about_the_ends_of_the_field() {
        let scalar = [0x42; 32];
        let (mut low, mut on_curve) = (0, 0);
        for first in 0..=255 {
            for filling in [0, 0xff] {
                for last in [0x00, 0x7f, 0x80, 0xff] {
                    let mut point = [filling; 32];
                    point[0] = first;
                    point[31] = last;
                    let result = ours(scalar, point);
                    assert_eq!(result, expected(scalar, point), "{point:?}");
                    assert_eq!(has_low_order(&point), result.is_err(), "{point:?}");
                    low += u32::from(result.is_err());
                    on_curve += u32::from(matches!(Point::new(&point), Point::Curve(_)));
                }
            }
        }
        assert_eq!(low, 10);
        assert!((900..1150).contains(&on_curve), "{on_curve} of 2048");
    }

    #[test]
    fn points_of_low_order_exchange_to_nothing() {
        for mut point in LOW {
            for bit in [0, 0x80] {
                point[31] ^= bit;
                assert_eq!(ours([0x42; 32], point), Err(Error::LowOrder), "{point:?}");
                assert!(has_low_order(&point));
            }
        }
    }
}
