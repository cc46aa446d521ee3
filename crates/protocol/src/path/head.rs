//! Heads: the part of a path that its sender builds, joined to a published tail.

use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::keys::segment_keys;
use super::layers::{Slot, build};
use super::layout::{ALPHA, BETA, GAMMA, Hop, JUNCTION, JUNCTION_REST, SEED, SLOT};
use super::tail::{PayloadLayers, PublishedTail, encrypt};
use crate::Result;
use crate::identity::ShortId;
use crate::size::{Header, PATH_HEADER, Payload};
use mixline_wide_crypto::hctr2::Hctr2;

/// The randomness of one head, never used for another.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct HeadSecrets {
    /// The scalar of the first alpha.
    pub secret: [u8; 32],
    /// What fills beta behind the tail, so that it does not show how many slots there are.
    pub rest: [u8; BETA],
}

impl HeadSecrets {
    /// Fresh ones.
    #[must_use]
    pub fn random<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut secrets = Self {
            secret: [0; 32],
            rest: [0; BETA],
        };
        rng.fill_bytes(&mut secrets.secret);
        rng.fill_bytes(&mut secrets.rest);
        secrets
    }
}

/// A head joined to a tail: what its sender needs for each cell. Erased on drop.
pub struct Head {
    header: Header,
    first: ShortId,
    layers: PayloadLayers,
}

impl Head {
    /// The header that each cell of this path starts with.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The relay that the cells are sent to.
    #[must_use]
    pub fn first(&self) -> ShortId {
        self.first
    }

    /// Encrypts a payload in place for the relays of the head.
    pub fn wrap(&self, payload: &mut Payload) {
        encrypt(&self.layers, payload);
    }
}

/// Makes the head through `hops`, first relay first, whose last relay joins it to `tail`.
///
/// # Errors
/// [`Error::Limit`](crate::Error::Limit) unless there are 1 to
/// [`MAX_SEGMENT`](super::MAX_SEGMENT) hops, [`Error::LowOrder`](crate::Error::LowOrder) for
/// an onion key that is none.
pub fn build_head(secrets: &HeadSecrets, hops: &[Hop], tail: &PublishedTail) -> Result<Head> {
    let (alpha, keys) = segment_keys(&secrets.secret, hops)?;
    let mut rest = [0; BETA];
    rest[..ALPHA].copy_from_slice(&tail.alpha);
    rest[ALPHA..ALPHA + SEED].copy_from_slice(&tail.seed);
    rest[ALPHA + SEED..JUNCTION_REST].copy_from_slice(&tail.beta);
    rest[JUNCTION_REST..].copy_from_slice(&secrets.rest[..BETA - JUNCTION_REST]);
    let last = Slot {
        command: JUNCTION,
        argument: tail.first.0,
        gamma: tail.gamma,
    };
    let layers = build(&keys, hops, &last, &rest[..BETA - keys.len() * SLOT]);
    let mut header = [0; PATH_HEADER];
    header[..ALPHA].copy_from_slice(&alpha);
    header[ALPHA..ALPHA + GAMMA]
        .copy_from_slice(&layers.gammas.first().copied().unwrap_or_default());
    header[ALPHA + GAMMA..].copy_from_slice(&layers.beta);
    let layers = keys
        .iter()
        .zip(layers.gammas)
        .map(|(keys, gamma)| (Hctr2::new(&keys.payload), gamma));
    Ok(Head {
        header,
        first: hops.first().map(|hop| hop.relay).unwrap_or_default(),
        layers: layers.collect(),
    })
}
