//! Identities: Ed25519 keys of relays, directories and anonymous
//! endpoints, and the X25519 keys that they vouch for.
//!
//! An identity is its public key; nothing else is needed to check what it signed.
//! Text forms: an anonymous ID is 52 lower-case base32 characters (RFC 4648, no
//! padding), a short ID 16 hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ed25519_dalek::hazmat::ExpandedSecretKey;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use ring::digest::{Context, SHA256, digest};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{Error, Result};

/// Bytes of an Ed25519 signature.
pub const SIGNATURE: usize = 64;
/// Characters of an anonymous ID's text form.
pub const ID_TEXT: usize = 52;
/// The pseudo top-level domain of everything that Mixline carries.
pub const DOMAIN: &str = "anon";

/// The first bytes of a relay's SHA-256 fingerprint: how path headers name a relay.
///
/// Eight bytes do not identify anybody by themselves; the directory refuses a relay
/// whose short ID is taken, and a link authenticates the relay behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShortId(pub [u8; 8]);

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortId({self})")
    }
}

impl FromStr for ShortId {
    type Err = Error;

    /// Sixteen hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = Error::Malformed { what: "short ID" };
        let bytes = HEXLOWER
            .decode(text.to_ascii_lowercase().as_bytes())
            .map_err(|_| malformed.clone())?;
        bytes.try_into().map(Self).map_err(|_| malformed)
    }
}

/// A relay's Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub [u8; 32]);

impl RelayId {
    /// The first 8 bytes of the key's SHA-256.
    #[must_use]
    pub fn short(&self) -> ShortId {
        ShortId(first_bytes(digest(&SHA256, &self.0).as_ref()))
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayId({self})")
    }
}

/// The Ed25519 public key of an anonymous endpoint, or of a directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnonymousId(pub [u8; 32]);

impl AnonymousId {
    /// The name under which applications reach it: `<52 characters>.anon`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{self}.{DOMAIN}")
    }
}

impl fmt::Display for AnonymousId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for AnonymousId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnonymousId({self})")
    }
}

impl FromStr for AnonymousId {
    type Err = Error;

    /// 52 base32 characters, in either case: names in DNS do not keep theirs.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = Error::Malformed {
            what: "anonymous ID",
        };
        if text.len() != ID_TEXT {
            return Err(malformed);
        }
        let bytes = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| malformed.clone())?;
        bytes.try_into().map(Self).map_err(|_| malformed)
    }
}

/// Which network this is: the hash of its first roster ([`crate::records::Roster`]), or the ID of the one
/// directory that it has.
///
/// The two do not collide: nobody knows the secret key of a hash, nor what hashes to a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub [u8; 32]);

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AnonymousId(self.0).fmt(f)
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({self})")
    }
}

impl FromStr for NetworkId {
    type Err = Error;

    /// 52 base32 characters, in either case.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = Error::Malformed { what: "network ID" };
        let id: AnonymousId = text.parse().map_err(|_| malformed)?;
        Ok(Self(id.0))
    }
}

impl From<AnonymousId> for NetworkId {
    /// The network of a single directory.
    fn from(directory: AnonymousId) -> Self {
        Self(directory.0)
    }
}

/// The SHA-256 of something that is named by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The hash of `label | parts`.
    #[must_use]
    pub fn of(label: &str, parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(label.as_bytes());
        for part in parts {
            context.update(part);
        }
        Self(first_bytes(context.finish().as_ref()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = Error::Malformed { what: "digest" };
        let bytes = HEXLOWER
            .decode(text.to_ascii_lowercase().as_bytes())
            .map_err(|_| malformed.clone())?;
        bytes.try_into().map(Self).map_err(|_| malformed)
    }
}

/// An Ed25519 key pair. Zeroised when dropped.
pub struct IdentityKey(SigningKey);

impl IdentityKey {
    /// A fresh one.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self(SigningKey::from_bytes(&seed))
    }

    /// The key of a seed (RFC 8032, section 5.1.5: the "private key").
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed, to be kept in a file that nobody else reads.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The public key as an endpoint's or directory's ID.
    #[must_use]
    pub fn anonymous_id(&self) -> AnonymousId {
        AnonymousId(self.public())
    }

    /// The public key as a relay's ID.
    #[must_use]
    pub fn relay_id(&self) -> RelayId {
        RelayId(self.public())
    }

    /// The key pair's X25519 secret, for client authorisation.
    pub(crate) fn exchange_secret(&self) -> X25519Secret {
        let mut scalar = Zeroizing::new(self.0.to_scalar_bytes());
        X25519Secret::from_bytes(std::mem::take(&mut *scalar))
    }

    /// Secret scalar and nonce prefix (RFC 8032, section 5.1.5), for the blinded keys of the ring.
    pub(crate) fn expanded(&self) -> ExpandedSecretKey {
        ExpandedSecretKey::from(&*self.seed())
    }

    /// Signs `domain | 0 | bytes`; the domain keeps one kind of record from passing for
    /// another.
    #[must_use]
    pub fn sign(&self, domain: &'static str, bytes: &[u8]) -> [u8; SIGNATURE] {
        self.0.sign(&message(domain, bytes)).to_bytes()
    }
}

/// Checks a signature over `domain | 0 | bytes`.
///
/// Strict in the sense of RFC 8032, section 5.1.7, and beyond it: keys and commitments
/// of low order are refused, so that no signature holds for two messages or two keys.
///
/// # Errors
/// [`Error::Authentication`], with `domain` as what failed.
pub fn verify(
    public: &[u8; 32],
    domain: &'static str,
    bytes: &[u8],
    signature: &[u8; SIGNATURE],
) -> Result<()> {
    let failed = Error::Authentication { what: domain };
    let key = VerifyingKey::from_bytes(public).map_err(|_| failed.clone())?;
    key.verify_strict(&message(domain, bytes), &Signature::from_bytes(signature))
        .map_err(|_| failed)
}

/// What is signed in a domain.
pub(crate) fn message(domain: &str, bytes: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &[0], bytes].concat()
}

/// An X25519 secret: of a link, an onion layer or a session. Zeroised when dropped.
#[derive(Clone)]
pub struct X25519Secret(StaticSecret);

impl X25519Secret {
    /// A fresh one.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut());
        Self::from_bytes(*bytes)
    }

    /// The secret with these bytes; they are clamped when used (RFC 7748, section 5).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self(StaticSecret::from(*bytes))
    }

    /// The bytes, to be kept where nobody else reads them.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key: one multiplication of the base point.
    #[must_use]
    pub fn public(&self) -> X25519Public {
        X25519Public(PublicKey::from(&self.0).to_bytes())
    }

    /// The shared secret with `public`.
    ///
    /// # Errors
    /// [`Error::LowOrder`] if it would be all zeros (RFC 7748, section 6.1).
    pub fn exchange(&self, public: &X25519Public) -> Result<Zeroizing<[u8; 32]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(public.0));
        if shared.was_contributory() {
            Ok(Zeroizing::new(shared.to_bytes()))
        } else {
            Err(Error::LowOrder)
        }
    }
}

impl PartialEq for X25519Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for X25519Secret {}

impl fmt::Debug for X25519Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X25519Secret(..)")
    }
}

/// An X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct X25519Public(pub [u8; 32]);

impl fmt::Display for X25519Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for X25519Public {
    type Err = Error;

    /// 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = Error::Malformed { what: "X25519 key" };
        let bytes = HEXLOWER
            .decode(text.to_ascii_lowercase().as_bytes())
            .map_err(|_| malformed.clone())?;
        bytes.try_into().map(Self).map_err(|_| malformed)
    }
}

impl fmt::Debug for X25519Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X25519Public({self})")
    }
}

/// The first `N` bytes of a digest that has at least as many.
pub(crate) fn first_bytes<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(digest) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    #[test]
    fn rfc_8032_key() {
        // RFC 8032, section 7.1, test 1.
        let seed = HEXLOWER
            .decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
        let key = IdentityKey::from_seed(seed.try_into().unwrap());
        assert_eq!(
            HEXLOWER.encode(&key.public()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        assert_eq!(IdentityKey::from_seed(*key.seed()).public(), key.public());
    }

    #[test]
    fn domains_keep_signatures_apart() {
        let key = IdentityKey::generate(&mut OsRandom::new());
        let signature = key.sign("a", b"text");
        assert_eq!(verify(&key.public(), "a", b"text", &signature), Ok(()));
        assert!(verify(&key.public(), "b", b"text", &signature).is_err());
        assert!(verify(&key.public(), "a", b"texu", &signature).is_err());
        let other = IdentityKey::generate(&mut OsRandom::new());
        assert!(verify(&other.public(), "a", b"text", &signature).is_err());
        for bit in 0..SIGNATURE * 8 {
            let mut bent = signature;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&key.public(), "a", b"text", &bent).is_err());
        }
    }

    #[test]
    fn keys_of_low_order_sign_nothing() {
        // The identity point: with it, R = [s]B verifies for every message when not strict.
        let mut public = [0; 32];
        public[0] = 1;
        let mut signature = [0; SIGNATURE];
        signature[0] = 1;
        assert!(verify(&public, "a", b"anything", &signature).is_err());
    }

    #[test]
    fn text_of_an_id() {
        let id = IdentityKey::generate(&mut OsRandom::new()).anonymous_id();
        let text = id.to_string();
        assert_eq!(text.len(), ID_TEXT);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_ascii_uppercase().parse(), Ok(id));
        assert_eq!(id.host(), format!("{text}.anon"));
        assert!(text[1..].parse::<AnonymousId>().is_err());
        assert!(format!("{text}=").parse::<AnonymousId>().is_err());
        // 52 characters are 260 bits: the last four must be zero.
        let last_set = format!("{}b", "a".repeat(51));
        assert!(last_set.parse::<AnonymousId>().is_err());
        assert!("é".repeat(26).parse::<AnonymousId>().is_err());
    }

    #[test]
    fn x25519_agrees_and_refuses_low_order() {
        let (a, b) = (
            X25519Secret::generate(&mut OsRandom::new()),
            X25519Secret::generate(&mut OsRandom::new()),
        );
        let (ab, ba) = (
            a.exchange(&b.public()).unwrap(),
            b.exchange(&a.public()).unwrap(),
        );
        assert_eq!(*ab, *ba);
        assert_eq!(a.exchange(&X25519Public([0; 32])), Err(Error::LowOrder));
    }

    #[test]
    fn short_ids() {
        let short = RelayId([7; 32]).short();
        assert_eq!(short.to_string().len(), 16);
        assert_eq!(short.to_string().parse(), Ok(short));
        assert!("12".parse::<ShortId>().is_err());
    }
}
