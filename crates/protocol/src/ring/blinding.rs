//! Blinded keys: an Ed25519 key pair times a factor.
//!
//! ```text
//! a' = h a mod l        A' = h A        nonce prefix' = SHA-512(label | prefix | A')[..32]
//! ```
//!
//! Whoever knows `A` and what `h` is made of knows `A'`; nobody else can tell that two blinded keys are of one
//! identity, nor whose. Only who has `a` can sign. This is what Tor does for onion services (rend-spec-v3,
//! appendix A.2), with other labels and one difference: the nonce prefix depends on the blinded key. One
//! prefix under two keys is safe only as long as no message is signed under both, or else two signatures give
//! `a` away.

use std::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use data_encoding::HEXLOWER;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Sha512, VerifyingKey};
use ring::digest::{self, SHA512};
use ring::hmac;
use zeroize::{Zeroize, Zeroizing};

use super::record::{LIFE, STEP};
use crate::identity::{SIGNATURE, first_bytes, message};
use crate::time::UnixTime;
use crate::{Error, Result};

const NONCE: &[u8] = b"mixline/v2/blind nonce";
const CLOCK: &[u8] = b"mixline/v2/ring clock";
/// How far behind a blinded key's own time may be, in milliseconds.
const BEHIND_MS: u64 = 600_000;

/// The public key of a service for one period.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlindedId(pub [u8; 32]);

impl fmt::Debug for BlindedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlindedId({})", HEXLOWER.encode(&self.0))
    }
}

/// What a record says of itself beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Grows with each record under one key.
    pub revision: u64,
    /// When the record ends: a multiple of [`STEP`], at most [`LIFE`] from now.
    pub expires: UnixTime,
}

/// The key pair of a service for one period, with what its records are sealed by. Zeroised when dropped.
pub struct BlindedKey {
    secret: ExpandedSecretKey,
    public: VerifyingKey,
    pub(super) period: u64,
    pub(super) credential: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for BlindedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlindedKey(..)")
    }
}

impl BlindedKey {
    /// The key pair of `identity` times the factor; the factor is clamped.
    pub(super) fn new(
        identity: &ExpandedSecretKey,
        factor: &[u8; 32],
        period: u64,
        credential: Zeroizing<[u8; 32]>,
    ) -> Self {
        let (secret, public) = blind_secret(identity, factor, NONCE);
        Self {
            secret,
            public,
            period,
            credential,
        }
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> BlindedId {
        BlindedId(self.public.to_bytes())
    }

    /// The period that it is for.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.period
    }

    /// Signs `domain | 0 | bytes`, as [`crate::identity::verify`] checks it.
    pub(super) fn sign(&self, domain: &str, bytes: &[u8]) -> [u8; SIGNATURE] {
        raw_sign::<Sha512>(&self.secret, &message(domain, bytes), &self.public).to_bytes()
    }

    /// What a record says that is made at `now_ms` (unix time, milliseconds), after one of the revision `last`.
    ///
    /// Relays compare what they are told of the time with their own clocks. So it is that of a clock which is
    /// behind by up to ten minutes, by as much as this key's secret says: two keys of one service differ as
    /// those of two services do. It goes on after a restart without anything having been written down.
    #[must_use]
    pub fn terms(&self, now_ms: u64, last: Option<u64>) -> Terms {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret.hash_prefix);
        let drawn = u64::from_be_bytes(first_bytes(hmac::sign(&key, CLOCK).as_ref()));
        let seconds = now_ms.saturating_sub(drawn % BEHIND_MS) / 1000;
        let after = last.map_or(0, |last| last.saturating_add(1));
        Terms {
            revision: seconds.max(after),
            expires: UnixTime(seconds / STEP * STEP).plus(LIFE),
        }
    }
}

/// The public key times the factor, which is clamped.
///
/// # Errors
/// [`Error::Malformed`] if the key is no point of the prime-order subgroup, or is the identity: of a key with a part of
/// small order others could make keys that blind to the same. All encodings that are not canonical are of such points.
pub(super) fn blind_public(public: &[u8; 32], factor: &[u8; 32]) -> Result<BlindedId> {
    let point = CompressedEdwardsY(*public)
        .decompress()
        .filter(|point| !point.is_small_order() && point.is_torsion_free())
        .ok_or(Error::Malformed {
            what: "anonymous ID",
        })?;
    Ok(BlindedId(point.mul_clamped(*factor).compress().to_bytes()))
}

fn blind_secret(
    identity: &ExpandedSecretKey,
    factor: &[u8; 32],
    label: &[u8],
) -> (ExpandedSecretKey, VerifyingKey) {
    let mut factor = Scalar::from_bytes_mod_order(clamp_integer(*factor));
    let mut secret = ExpandedSecretKey {
        scalar: identity.scalar * factor,
        hash_prefix: [0; 32],
    };
    factor.zeroize();
    let public = VerifyingKey::from(&secret);
    let mut context = digest::Context::new(&SHA512);
    for part in [label, &identity.hash_prefix, public.as_bytes()] {
        context.update(part);
    }
    secret.hash_prefix = first_bytes(context.finish().as_ref());
    (secret, public)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{IdentityKey, verify};

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
    }

    /// Tor's vectors of the same operation: seed, public key, factor, blinded public key, blinded scalar. Made by
    /// `ed25519_exts_ref.py` of the tor repository, and also tested by Arti (`tor-llcrypto`, `keymanip.rs`).
    const TOR: [[&str; 5]; 10] = [
        [
            "26c76712d89d906e6672dafa614c42e5cb1caac8c6568e4d2493087db51f0d36",
            "c2247870536a192d142d056abefca68d6193158e7c1a59c1654c954eccaff894",
            "54a513898b471d1d448a2f3c55c1de2c0ef718c447b04497eeb999ed32027823",
            "1fc1fa4465bd9d4956fdbdc9d3acb3c7019bb8d5606b951c2e1dfe0b42eaeb41",
            "293c3acff4e902f6f63ddc5d5caa2a57e771db4f24de65d4c28df3232f47fa01",
        ],
        [
            "fba7a5366b5cb98c2667a18783f5cf8f4f8d1a2ce939ad22a6e685edde85128d",
            "1519a3b15816a1aafab0b213892026ebf5c0dc232c58b21088d88cb90e9b940d",
            "831e9b5325b5d31b7ae6197e9c7a7baf2ec361e08248bce055908971047a2347",
            "1cbbd4a88ce8f165447f159d9f628ada18674158c4f7c5ead44ce8eb0fa6eb7e",
            "38b88f9f9440358da544504ee152fb475528f7c51c285bd1c68b14ade8e29a07",
        ],
        [
            "67e3aa7a14fac8445d15e45e38a523481a69ae35513c9e4143eb1c2196729a0e",
            "081faa81992e360ea22c06af1aba096e7a73f1c665bc8b3e4e531c46455fd1dd",
            "ac78a1d46faf3bfbbdc5af5f053dc6dc9023ed78236bec1760dadfd0b2603760",
            "c5419ad133ffde7e0ac882055d942f582054132b092de377d587435722deb028",
            "4d03ce16a3f3249846aac9de0a0075061495c3b027248eeee47da4ddbaf9e004",
        ],
        [
            "d51385942033a76dc17f089a59e6a5a7fe80d9c526ae8ddd8c3a506b99d3d0a6",
            "73cfa1189a723aad7966137cbffa35140bb40d7e16eae4c40b79b5f0360dd65a",
            "f9c84dc0ac31571507993df94da1b3d28684a12ad14e67d0a068aba5c53019fc",
            "3e08d0dc291066272e313014bfac4d39ad84aa93c038478a58011f431648105f",
            "51d7db01aaa0d937a9fd7c8c7381445a14d8fa61f43347af5460d7cd8fda9904",
        ],
        [
            "5c8eac469bb3f1b85bc7cd893f52dc42a9ab66f1b02b5ce6a68e9b175d3bb433",
            "66c1a77104d86461b6f98f73acf3cd229c80624495d2d74d6fda1e940080a96b",
            "b1fe79d1dec9bc108df69f6612c72812755751f21ecc5af99663b30be8b9081f",
            "59381f06acb6bf1389ba305f70874eed3e0f2ab57cdb7bc69ed59a9b8899ff4d",
            "1f76cab834e222bd2546efa7e073425680ab88df186ff41327d3e40770129b00",
        ],
        [
            "eda433d483059b6d1ff8b7cfbd0fe406bfb23722c8f3c8252629284573b61b86",
            "d21c294db0e64cb2d8976625786ede1d9754186ae8197a64d72f68c792eecc19",
            "81f1512b63ab5fb5c1711a4ec83d379c420574aedffa8c3368e1c3989a3a0084",
            "2b946a484344eb1c17c89dd8b04196a84f3b7222c876a07a4cece85f676f87d9",
            "c23588c23ee76093419d07b27c6df5922a03ac58f96c53671456a7d1bdbf560e",
        ],
        [
            "4377c40431c30883c5fbd9bc92ae48d1ed8a47b81d13806beac5351739b5533d",
            "c4d58b4cf85a348ff3d410dd936fa460c4f18da962c01b1963792b9dcc8a6ea6",
            "97f45142597c473a4b0e9a12d64561133ad9e1155fe5a9807fe6af8a93557818",
            "c6b585129b135f8769df2eba987e76e089e80ba3a2a6729134d3b28008ac098e",
            "3ed249c6932d076e1a2f6916975914b14e8c739da00992358b8f37d3e7906506",
        ],
        [
            "c6bbcce615839756aed2cc78b1de13884dd3618f48367a17597a16c1cd7a290b",
            "95126f14d86494020665face03f2d42ee2b312a85bc729903eb17522954a1c4a",
            "3f44f6a5a92cde816635dfc12ade70539871078d2ff097278be2a555c9859cd0",
            "0eefdc795b59cabbc194c6174e34ba9451e8355108520554ec285acabebb34ac",
            "288cbfd923cb286d48c084555b5bdd06c05e92fb81acdb45271367f57515380e",
        ],
        [
            "c6bbcce615839756aed2cc78b1de13884dd3618f48367a17597a16c1cd7a290b",
            "95126f14d86494020665face03f2d42ee2b312a85bc729903eb17522954a1c4a",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "312404d06a0a9de489904b18d5233e83a50b225977fa8734f2c897a73c067952",
            "e5cd03eb4cc456e11bc36724b558873df0045729b22d8b748360067a7770ac02",
        ],
        [
            "c6bbcce615839756aed2cc78b1de13884dd3618f48367a17597a16c1cd7a290b",
            "95126f14d86494020665face03f2d42ee2b312a85bc729903eb17522954a1c4a",
            "1111111111111111111111111111111111111111111111111111111111111111",
            "952a908a4a9e0e5176a2549f8f328955aca6817a9fdc59e3acec5dec50838108",
            "2cf7ed8b163f5af960d2fc62e1883aa422a6090736b4f18a5456ddcaf78ede0c",
        ],
    ];

    #[test]
    fn blinds_as_tor_does() {
        for [seed, public, factor, blinded, scalar] in TOR {
            let identity = IdentityKey::from_seed(bytes(seed));
            assert_eq!(identity.public(), bytes(public));
            let expected = BlindedId(bytes(blinded));
            assert_eq!(blind_public(&bytes(public), &bytes(factor)), Ok(expected));
            let (secret, public) = blind_secret(&identity.expanded(), &bytes(factor), NONCE);
            assert_eq!(secret.scalar.to_bytes(), bytes(scalar));
            assert_eq!(public.to_bytes(), expected.0);
        }
    }

    fn blinded(seed: [u8; 32], factor: [u8; 32]) -> BlindedKey {
        let identity = IdentityKey::from_seed(seed);
        BlindedKey::new(&identity.expanded(), &factor, 1, Zeroizing::default())
    }

    proptest! {
        #[test]
        fn both_halves_agree_and_sign(seed: [u8; 32], factor: [u8; 32], text: Vec<u8>) {
            let identity = IdentityKey::from_seed(seed);
            let key = blinded(seed, factor);
            prop_assert_eq!(blind_public(&identity.public(), &factor), Ok(key.id()));
            let signature = key.sign("a", &text);
            prop_assert_eq!(verify(&key.id().0, "a", &text, &signature), Ok(()));
            prop_assert!(verify(&identity.public(), "a", &text, &signature).is_err());
            prop_assert!(verify(&key.id().0, "b", &text, &signature).is_err());
        }
    }

    /// One message under two blinded keys of one identity, and under the identity itself: with one nonce for two of
    /// them, the difference of two signatures would give the secret scalar away.
    #[test]
    fn no_two_keys_share_a_nonce() {
        let seed = [5; 32];
        let commitments = [
            first_bytes::<32>(&blinded(seed, [1; 32]).sign("a", b"text")),
            first_bytes(&blinded(seed, [2; 32]).sign("a", b"text")),
            first_bytes(&IdentityKey::from_seed(seed).sign("a", b"text")),
        ];
        for (at, one) in commitments.iter().enumerate() {
            assert!(!commitments[at + 1..].contains(one));
        }
        let again = blinded(seed, [1; 32]).sign("a", b"text");
        assert_eq!(commitments[0], first_bytes(&again));
    }

    /// `A` and the eight points `A + T`, `T` of small order: all but `A` are refused, and so are the `T`.
    #[test]
    fn keys_with_a_part_of_small_order_are_refused() {
        use curve25519_dalek::constants::EIGHT_TORSION;
        let public = IdentityKey::from_seed([5; 32]).public();
        let point = CompressedEdwardsY(public).decompress().unwrap();
        for torsion in EIGHT_TORSION {
            let sum = (point + torsion).compress().to_bytes();
            assert_eq!(blind_public(&sum, &[1; 32]).is_ok(), sum == public);
            assert!(blind_public(&torsion.compress().to_bytes(), &[1; 32]).is_err());
        }
    }

    /// y = p + 1 is 1, and the sign of x = 0 is no sign: encodings of a point that has another one.
    #[test]
    fn a_key_has_one_encoding() {
        let mut encodings = 0;
        for low in 0..19 {
            for high in [0x7f, 0xff] {
                let mut bytes = [0xff; 32];
                (bytes[0], bytes[31]) = (0xed + low, high);
                encodings += usize::from(CompressedEdwardsY(bytes).decompress().is_some());
                assert!(blind_public(&bytes, &[1; 32]).is_err(), "{bytes:?}");
            }
        }
        assert!(encodings > 4, "{encodings}");
        assert!(blind_public(&[2; 32], &[1; 32]).is_err());
    }

    #[test]
    fn terms_grow_and_tell_little_of_the_time() {
        let key = blinded([5; 32], [1; 32]);
        let now_ms = 1_800_000_123_456;
        let terms = key.terms(now_ms, None);
        assert!((now_ms / 1000 - 600..=now_ms / 1000).contains(&terms.revision));
        assert_eq!(terms.expires.0 % STEP, 0);
        let life = terms.expires.since(UnixTime(now_ms / 1000));
        assert!((LIFE - 600 - STEP..=LIFE).contains(&life));
        assert_eq!(key.terms(now_ms + 1000, None).revision, terms.revision + 1);
        // The clock was set back.
        let earlier = key.terms(now_ms - 5000, Some(terms.revision));
        assert_eq!(earlier.revision, terms.revision + 1);
        let other = blinded([5; 32], [2; 32]).terms(now_ms, None);
        assert_ne!(other.revision, terms.revision);
        assert_eq!(key.terms(0, None).revision, 0);
        assert_eq!(key.terms(0, Some(u64::MAX)).revision, u64::MAX);
    }
}
