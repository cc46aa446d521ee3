//! The Internet checksum (RFC 1071).
//!
//! Sums are taken over 32-bit words in the host's byte order, which the compiler turns
//! into vector code; a one's complement sum does not depend on the order of bytes (RFC
//! 1071, section 2 B), so that the folded sum, stored as it is, stands in network order.

/// A running one's complement sum of at most 64 KiB. What is added has to begin at an even offset.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum over nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(0)
    }

    /// Adds bytes; an odd last one counts as if a zero followed.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(4);
        let mut sum: u64 = words
            .by_ref()
            .map(|word| match word {
                [a, b, c, d] => u64::from(u32::from_ne_bytes([*a, *b, *c, *d])),
                _ => 0,
            })
            .sum();
        sum += match *words.remainder() {
            [a] => u64::from(u16::from_ne_bytes([a, 0])),
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a, b, c] => {
                u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0]))
            }
            _ => 0,
        };
        Self(self.0 + sum)
    }

    /// Adds a number of 16 bits.
    #[must_use]
    pub fn with_u16(self, value: u16) -> Self {
        self.with(&value.to_be_bytes())
    }

    /// The pseudo-header of TCP and UDP over IPv4 (RFC 9293, section 3.1) and IPv6 (RFC
    /// 8200, section 8.1): both addresses, the protocol, the transport's length.
    #[must_use]
    pub fn pseudo_header(addresses: &[u8], protocol: u8, length: u16) -> Self {
        Self::new()
            .with(addresses)
            .with_u16(protocol.into())
            .with_u16(length)
    }

    /// The folded sum, in network order.
    #[must_use]
    pub fn fold(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (sum as u16).to_ne_bytes()
    }

    /// The checksum: the folded sum's complement, in network order.
    #[must_use]
    pub fn checksum(self) -> [u8; 2] {
        let [a, b] = self.fold();
        [!a, !b]
    }
}

#[cfg(test)]
mod tests {
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

    proptest! {
        #[test]
        // Of nothing, pnet says 0, which RFC 1071 does not: `of_nothing`.
        fn as_pnet_reckons_it(bytes in proptest::collection::vec(any::<u8>(), 1..2000)) {
            // pnet leaves one word out; it is put where there is nothing.
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
