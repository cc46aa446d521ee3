//! Tails: the part of a path that its receiver builds and publishes.

use arrayvec::ArrayVec;
use rand_core::CryptoRng;
use ring::digest::{SHA256, digest};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::curve;
use super::keys::{apply_stream, segment_keys};
use super::layers::{Slot, add, build, stream};
use super::layout::{
    ALPHA, BETA, DELIVER, GAMMA, Hop, MAX_SEGMENT, MailboxToken, SEED, SLOT, TAIL_BETA,
};
use crate::identity::{ShortId, first_bytes};
use crate::size::Payload;
use crate::wire::Reader;
use crate::{Error, Result};
use mixline_wide_crypto::hctr2::Hctr2;

/// Bytes of an encoded published tail.
pub const PUBLISHED_TAIL: usize = 8 + ALPHA + GAMMA + TAIL_BETA + SEED;

/// Names a tail among those of one receiver: the first 8 bytes of its gamma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TailId(pub [u8; 8]);

/// The encrypted end of a path, as its receiver publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublishedTail {
    /// Short ID of its first relay, where heads join.
    pub first: ShortId,
    /// The X25519 value that the first relay sees.
    pub alpha: [u8; ALPHA],
    /// The authentication that the first relay checks.
    pub gamma: [u8; GAMMA],
    /// The first bytes of the beta that the first relay sees.
    pub beta: [u8; TAIL_BETA],
    /// What the rest of that beta is made of.
    pub seed: [u8; SEED],
}

impl PublishedTail {
    /// `first 8 | alpha 32 | gamma 16 | beta 100 | seed 16`.
    #[must_use]
    pub fn encode(&self) -> [u8; PUBLISHED_TAIL] {
        let fields = [
            &self.first.0[..],
            &self.alpha,
            &self.gamma,
            &self.beta,
            &self.seed,
        ];
        let mut bytes = [0; PUBLISHED_TAIL];
        let mut rest = &mut bytes[..];
        for field in fields {
            let (front, behind) = rest.split_at_mut(field.len());
            front.copy_from_slice(field);
            rest = behind;
        }
        bytes
    }

    /// Reads what [`PublishedTail::encode`] wrote.
    ///
    /// Gamma and beta mean something to the tail's first relay only, which checks them.
    ///
    /// # Errors
    /// [`Error::LowOrder`] for an alpha that every relay would refuse.
    pub fn decode(bytes: &[u8; PUBLISHED_TAIL]) -> Result<Self> {
        let mut from = Reader::new(bytes, "published tail");
        let tail = Self {
            first: ShortId(from.array()?),
            alpha: from.array()?,
            gamma: from.array()?,
            beta: from.array()?,
            seed: from.array()?,
        };
        from.finish()?;
        if curve::has_low_order(&tail.alpha) {
            return Err(Error::LowOrder);
        }
        Ok(tail)
    }

    /// The tail's name.
    #[must_use]
    pub fn id(&self) -> TailId {
        TailId(first_bytes(&self.gamma))
    }
}

/// The bytes of beta behind the published ones, made from a tail's seed.
pub(super) fn extend(seed: &[u8; SEED]) -> [u8; BETA - TAIL_BETA] {
    let mut bytes = [0; BETA - TAIL_BETA];
    apply_stream(&first_bytes(digest(&SHA256, seed).as_ref()), &mut bytes);
    bytes
}

/// The randomness of one tail, never used for another.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TailSecrets {
    /// The scalar of the first alpha.
    pub secret: [u8; 32],
    /// What fills the published beta behind the slots, so that it does not show their number.
    pub filling: [u8; TAIL_BETA],
    /// What the unpublished rest of beta is made of.
    pub seed: [u8; SEED],
}

impl TailSecrets {
    /// Fresh ones.
    #[must_use]
    pub fn random<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut secrets = Self {
            secret: [0; 32],
            filling: [0; TAIL_BETA],
            seed: [0; SEED],
        };
        rng.fill_bytes(&mut secrets.secret);
        rng.fill_bytes(&mut secrets.filling);
        rng.fill_bytes(&mut secrets.seed);
        secrets
    }
}

/// The payload layers of a head or a tail, first hop first.
pub(super) type PayloadLayers = ArrayVec<(Hctr2, [u8; GAMMA]), MAX_SEGMENT>;

/// What the receiver keeps of a tail. Erased on drop.
pub struct TailKeys {
    layers: PayloadLayers,
}

impl TailKeys {
    /// Undoes in place what the relays of the tail did to a payload.
    pub fn unwrap(&self, payload: &mut Payload) {
        encrypt(&self.layers, payload);
    }
}

/// Encrypts for the hops, the last one first.
pub(super) fn encrypt(layers: &PayloadLayers, payload: &mut Payload) {
    for (hctr2, gamma) in layers.iter().rev() {
        hctr2.encrypt(gamma, payload);
    }
}

/// Makes the tail through `hops`, first relay first, that delivers to `token` at the last.
///
/// # Errors
/// [`Error::Limit`] unless there are 1 to [`MAX_SEGMENT`] hops, [`Error::LowOrder`] for an
/// onion key that is none.
pub fn build_tail(
    secrets: &TailSecrets,
    hops: &[Hop],
    token: MailboxToken,
) -> Result<(PublishedTail, TailKeys)> {
    let (alpha, keys) = segment_keys(&secrets.secret, hops)?;
    // What the first relay shall see behind its 100 published bytes is fixed by the seed. So
    // the last slot's rest is that, with the streams taken off that the hops will add.
    let free = BETA - keys.len() * SLOT;
    let kept = TAIL_BETA - keys.len() * SLOT;
    let mut rest = [0; BETA];
    rest[..kept].copy_from_slice(&secrets.filling[..kept]);
    rest[kept..free].copy_from_slice(&extend(&secrets.seed));
    for (i, keys) in keys.iter().enumerate() {
        add(&mut rest[..free], &stream(keys)[(hops.len() - i) * SLOT..]);
    }
    let last = Slot {
        command: DELIVER,
        argument: token.0,
        gamma: [0; GAMMA],
    };
    let layers = build(&keys, hops, &last, &rest[..free]);
    let published = PublishedTail {
        first: hops.first().map(|hop| hop.relay).unwrap_or_default(),
        alpha,
        gamma: layers.gammas.first().copied().unwrap_or_default(),
        beta: first_bytes(&layers.beta),
        seed: secrets.seed,
    };
    debug_assert_eq!(layers.beta[TAIL_BETA..], extend(&secrets.seed));
    let layers = keys
        .iter()
        .zip(layers.gammas)
        .map(|(keys, gamma)| (Hctr2::new(&keys.payload), gamma));
    Ok((
        published,
        TailKeys {
            layers: layers.collect(),
        },
    ))
}
