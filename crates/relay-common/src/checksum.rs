//! The Internet checksum (RFC 1071).
//!
//! Sums are taken over 32-bit words in the host's byte order, which the compiler turns
//! into vector code. A one's complement sum does not depend on the order of bytes (RFC
//! 1071, section 2 B), so the folded sum, stored as it is, stands in network order.

/// A running one's complement sum. Each piece that is added has to begin at an even offset of
/// what is summed.
///
/// ```
/// use mixline_relay_common::checksum::Sum;
///
/// // RFC 1071, section 3
/// let sum = Sum::new().with(&[0x00, 0x01, 0xf2, 0x03]).with(&[0xf4, 0xf5, 0xf6, 0xf7]);
/// assert_eq!(sum.fold(), [0xdd, 0xf2]);
/// assert_eq!(sum.checksum(), [0x22, 0x0d]);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum over nothing.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// The pseudo-header of TCP, UDP and ICMPv6 over IPv4 (RFC 9293, section 3.1) and IPv6 (RFC
    /// 8200, section 8.1): source and destination address (8 or 32 bytes together), the
    /// protocol's number, and the bytes of transport header and payload.
    #[inline]
    #[must_use]
    pub fn pseudo_header(addresses: &[u8], protocol: u8, length: u16) -> Self {
        Self::new()
            .with(addresses)
            .with_u16(protocol.into())
            .with_u16(length)
    }

    /// Adds bytes; an odd last one counts as if a zero followed.
    #[inline]
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum: u64 = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)))
            .sum();
        sum += match *rest {
            [a] => u64::from(u16::from_ne_bytes([a, 0])),
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a, b, c] => {
                u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0]))
            }
            _ => 0,
        };
        Self(self.0 + sum)
    }

    /// Adds a number of 16 bits, which stands in network order in what is summed.
    #[inline]
    #[must_use]
    pub const fn with_u16(self, value: u16) -> Self {
        Self(self.0 + u16::from_ne_bytes(value.to_be_bytes()) as u64)
    }

    /// The folded sum, in network order. Over bytes that contain their own checksum, it is all
    /// ones.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (sum as u16).to_ne_bytes()
    }

    /// The checksum: the folded sum's complement, in network order.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> [u8; 2] {
        let [a, b] = self.fold();
        [!a, !b]
    }

    /// The checksum as UDP writes it: a zero there says that there is none, so a checksum of
    /// zero is written as its other form, all ones (RFC 768).
    #[inline]
    #[must_use]
    pub const fn udp_checksum(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_rfcs_example() {
        // RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().with(&bytes).fold(), [0xdd, 0xf2]);
    }

    #[test]
    fn of_nothing() {
        assert_eq!(Sum::new().with(&[]).checksum(), [0xff, 0xff]);
    }

    #[test]
    fn a_checksum_of_zero_is_all_ones_in_udp() {
        let sum = Sum::new().with(&[0xff, 0xff]);
        assert_eq!(sum.checksum(), [0, 0]);
        assert_eq!(sum.udp_checksum(), [0xff, 0xff]);
        assert_eq!(Sum::new().with(&[0, 1]).udp_checksum(), [0xff, 0xfe]);
    }

    #[test]
    fn a_pseudo_header_is_its_bytes() {
        let addresses = [192, 0, 2, 1, 198, 51, 100, 2];
        let bytes = [192, 0, 2, 1, 198, 51, 100, 2, 0, 17, 0x12, 0x34];
        assert_eq!(
            Sum::pseudo_header(&addresses, 17, 0x1234).fold(),
            Sum::new().with(&bytes).fold()
        );
    }

    proptest! {
        #[test]
        // pnet says 0 of nothing, which RFC 1071 does not: `of_nothing`.
        fn as_pnet_computes_it(bytes in proptest::collection::vec(any::<u8>(), 1..2000)) {
            // pnet leaves one word out; this one is past the end.
            let skip = bytes.len() / 2 + 1;
            let expected = pnet::packet::util::checksum(&bytes, skip);
            prop_assert_eq!(u16::from_be_bytes(Sum::new().with(&bytes).checksum()), expected);
        }

        #[test]
        fn parts_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            let at = at.min(bytes.len()) & !1;
            let (front, back) = bytes.split_at(at);
            let parts = Sum::new().with(front).with(back);
            prop_assert_eq!(parts.fold(), Sum::new().with(&bytes).fold());
        }
    }
}
