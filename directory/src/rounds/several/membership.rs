//! Which directory this one is, and what it signs with.
//!
//! ```text
//! roster file          (length 2 | roster) *      all versions, the newest last
//! state_dir/
//!   online.key         0600  32 bytes: the Ed25519 seed that signs
//!   online.cert        0644  the certificate of that key by the directory's identity
//! ```

use std::fs;
use std::path::Path;

use mixline_directory_engine::{Scheme as _, SigningKeys};
use mixline_protocol::identity::IdentityKey;
use mixline_protocol::records::{OnlineKey, Roster};
use mixline_protocol::time::UnixTime;

use crate::keys;
use crate::{Error, Result};

/// The file of the certificate.
const CERTIFICATE: &str = "online.cert";
/// The first eight bytes of a network ID say enough in a file's text.
const WARN_BEFORE: u64 = 14 * 24 * 3600;

/// This directory in its network.
pub struct Membership {
    rosters: Vec<Roster>,
    index: u8,
    certificate: OnlineKey,
    seed: zeroize::Zeroizing<[u8; 32]>,
}

impl Membership {
    /// Reads the roster and the keys.
    ///
    /// # Errors
    /// [`Error::Roster`] if the roster does not verify, or this directory is not in it, or its key is not
    /// certified for this time; [`Error::State`] if files cannot be read.
    pub fn load(roster: &Path, state_dir: &Path, now: UnixTime) -> Result<Self> {
        let rosters = read_rosters(roster)?;
        let newest = rosters.last().ok_or_else(|| wrong(roster, "it is empty"))?;
        let path = state_dir.join(CERTIFICATE);
        let bytes = fs::read(&path).map_err(|error| Error::State {
            path: path.clone(),
            reason: format!("{error}; `mixline-directory online-key` makes it"),
        })?;
        let certificate = OnlineKey::decode(&bytes).map_err(|error| wrong(&path, error))?;
        let key = keys::load_online(state_dir)?;
        if key.public() != certificate.key {
            return Err(wrong(&path, "it is of another key than online.key"));
        }
        let index = certificate.verify(newest, now).map_err(|error| {
            let hint = "is this directory in the roster, and the key not over? `mixline-directory online-key` \
                        makes a new one";
            wrong(&path, format!("{error}; {hint}"))
        })?;
        if certificate.expires.since(now) < WARN_BEFORE {
            tracing::warn!(
                "the online key ends in {}: certify another one by `mixline-directory online-key`",
                crate::registry::span(certificate.expires.since(now))
            );
        }
        Ok(Self {
            index,
            certificate,
            seed: key.seed(),
            rosters,
        })
    }

    /// Writes an online key and its certificate into a state directory.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn install(state_dir: &Path, key: &IdentityKey, certificate: &OnlineKey) -> Result<()> {
        keys::replace_online(state_dir, key)?;
        let path = state_dir.join(CERTIFICATE);
        fs::write(&path, certificate.encode()).map_err(|error| Error::State {
            path,
            reason: error.to_string(),
        })
    }

    /// The key that signs.
    #[must_use]
    pub fn online_key(&self) -> IdentityKey {
        IdentityKey::from_seed(*self.seed)
    }

    /// This directory's index.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.index
    }

    /// The roster that counts.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        // There is one: it was loaded with one.
        &self.rosters[self.rosters.len() - 1]
    }

    /// All versions, the newest last.
    #[must_use]
    pub fn rosters(&self) -> &[Roster] {
        &self.rosters
    }

    /// What signs, and checks, as far as is known at `now`.
    #[must_use]
    pub fn signing_keys(&self, now: UnixTime) -> SigningKeys {
        let mut keys = SigningKeys::new(self.roster().clone(), self.online_key());
        keys.learn(&self.certificate, now);
        keys
    }
}

/// Reads the rosters of a network from a file, and checks that each follows from the one before.
///
/// # Errors
/// [`Error::Roster`].
pub fn read_rosters(path: &Path) -> Result<Vec<Roster>> {
    let bytes = fs::read(path).map_err(|error| wrong(path, error))?;
    let first = bytes.get(2..).and_then(|rest| {
        let length = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
        Roster::decode(rest.get(..length)?).ok()
    });
    let first = first.ok_or_else(|| wrong(path, "it is no roster"))?;
    Roster::decode_chain(&bytes, first.network()).map_err(|error| {
        let reason = format!("it does not verify: {error}; has every directory signed it?");
        wrong(path, reason)
    })
}

fn wrong(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Roster(format!("{}: {reason}", path.display()))
}
