//! The log of a network's rounds: a Merkle tree (RFC 6962, section 2.1) over all snapshots that were published.
//!
//! Each snapshot has size and root of the tree of those before it. Who holds one and gets a later one can
//! ask for a proof that the later tree begins with the earlier one ([`RoundLog::consistency`]), and that the
//! snapshot it holds is the next leaf ([`RoundLog::inclusion`]). Who was shown another snapshot than the rest of the world gets no such
//! proof from the rest of the world.
//!
//! ```text
//! leaf = round 8 | digest of the snapshot 32
//! ```

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, HashableLeaf, InclusionProof, RootHash};
use sha2::Sha256;

use crate::identity::Digest;
use crate::records::LogHead;
use crate::time::UnixTime;
use crate::{Error, Result};

/// Bytes of a leaf.
pub const LEAF: usize = 8 + 32;
/// The most bytes of a proof: two hashes for each level of a tree as large as there can be.
pub const MAX_PROOF: usize = 2 * 64 * 32;

const WHAT: &str = "log of rounds";

/// A published round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Which round.
    pub round: UnixTime,
    /// Its snapshot.
    pub digest: Digest,
}

impl Leaf {
    /// `round 8 | digest 32`
    #[must_use]
    pub fn encode(&self) -> [u8; LEAF] {
        let mut bytes = [0; LEAF];
        let (round, digest) = bytes.split_at_mut(8);
        round.copy_from_slice(&self.round.0.to_be_bytes());
        digest.copy_from_slice(&self.digest.0);
        bytes
    }

    /// Reads what [`Leaf::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8; LEAF]) -> Self {
        let mut read = Self {
            round: UnixTime(0),
            digest: Digest::default(),
        };
        if let Some((round, digest)) = bytes.split_first_chunk() {
            read.round = UnixTime(u64::from_be_bytes(*round));
            read.digest = Digest(crate::identity::first_bytes(digest));
        }
        read
    }
}

impl HashableLeaf for Leaf {
    fn hash<H: sha2::digest::Update>(&self, hasher: &mut H) {
        hasher.update(&self.encode());
    }
}

/// The log, with all its leaves.
#[derive(Debug, Clone, Default)]
pub struct RoundLog {
    tree: MemoryBackedTree<Sha256, Leaf>,
}

impl RoundLog {
    /// Size and root.
    #[must_use]
    pub fn head(&self) -> LogHead {
        let root = self.tree.root();
        LogHead {
            size: root.num_leaves(),
            root: Digest(crate::identity::first_bytes(root.as_bytes())),
        }
    }

    /// All rounds.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        self.tree.items()
    }

    /// The last round.
    #[must_use]
    pub fn last(&self) -> Option<&Leaf> {
        self.leaves().last()
    }

    /// The place of a round.
    #[must_use]
    pub fn place_of(&self, round: UnixTime) -> Option<usize> {
        self.leaves()
            .binary_search_by_key(&round, |leaf| leaf.round)
            .ok()
    }

    /// Whether this round has this snapshot.
    #[must_use]
    pub fn has(&self, leaf: &Leaf) -> bool {
        let place = self.place_of(leaf.round);
        place.and_then(|at| self.leaves().get(at)) == Some(leaf)
    }

    /// Adds a round; false if it is not later than the last.
    pub fn push(&mut self, leaf: Leaf) -> bool {
        let later = self.last().is_none_or(|last| last.round < leaf.round);
        if later {
            self.tree.push(leaf);
        }
        later
    }

    /// Only the first so many rounds. Takes as long as building them anew.
    pub fn truncate(&mut self, size: usize) {
        if size >= self.leaves().len() {
            return;
        }
        let mut shorter = MemoryBackedTree::default();
        for leaf in self.leaves().iter().take(size) {
            shorter.push(*leaf);
        }
        self.tree = shorter;
    }

    /// The head that the log had when it had so many rounds.
    #[must_use]
    pub fn head_at(&self, size: usize) -> Option<LogHead> {
        if size == self.leaves().len() {
            return Some(self.head());
        }
        let mut shorter = Self::default();
        for leaf in self.leaves().get(..size)? {
            shorter.tree.push(*leaf);
        }
        Some(shorter.head())
    }

    /// The proof that the first `size` of the log's rounds were the whole of it before.
    ///
    /// # Errors
    /// [`Error::Limit`] if it was never so small or is not so large.
    pub fn consistency(&self, size: u64) -> Result<Vec<u8>> {
        let now = self.tree.len();
        if size == 0 || size >= now {
            return Err(Error::Limit { what: WHAT });
        }
        let added = usize::try_from(now - size).map_err(|_| Error::Limit { what: WHAT })?;
        Ok(self.tree.prove_consistency(added).as_bytes().to_vec())
    }

    /// The proof that the round at `place` is what it is.
    ///
    /// # Errors
    /// [`Error::Limit`] if there is none.
    pub fn inclusion(&self, place: u64) -> Result<Vec<u8>> {
        let at = usize::try_from(place)
            .ok()
            .filter(|_| place < self.tree.len());
        let at = at.ok_or(Error::Limit { what: WHAT })?;
        Ok(self.tree.prove_inclusion(at).as_bytes().to_vec())
    }
}

/// Checks that a log of which `new` is the head began as one of which `old` was the head.
///
/// # Errors
/// [`Error::Authentication`] if it did not, or the proof is none.
pub fn verify_consistency(old: &LogHead, new: &LogHead, proof: &[u8]) -> Result<()> {
    let failed = Err(Error::Authentication { what: WHAT });
    if old.size == new.size {
        return if old.root == new.root && proof.is_empty() {
            Ok(())
        } else {
            failed
        };
    }
    // Every log begins as an empty one.
    if old.size == 0 && proof.is_empty() {
        return Ok(());
    }
    if proof.len() > MAX_PROOF {
        return Err(Error::Limit { what: WHAT });
    }
    let Ok(proof) = ConsistencyProof::<Sha256>::try_from_bytes(proof.to_vec()) else {
        return failed;
    };
    let verified = root(new).verify_consistency(&root(old), &proof);
    verified.or(Err(Error::Authentication { what: WHAT }))
}

/// Checks that a log of which `head` is the head has `leaf` at `place`.
///
/// # Errors
/// [`Error::Authentication`] if it has not, or the proof is none.
pub fn verify_inclusion(head: &LogHead, leaf: &Leaf, place: u64, proof: &[u8]) -> Result<()> {
    let failed = Error::Authentication { what: WHAT };
    if proof.len() > MAX_PROOF {
        return Err(Error::Limit { what: WHAT });
    }
    let proof =
        InclusionProof::<Sha256>::try_from_bytes(proof.to_vec()).map_err(|_| failed.clone())?;
    let verified = root(head).verify_inclusion(leaf, place, &proof);
    verified.map_err(|_| failed)
}

fn root(head: &LogHead) -> RootHash<Sha256> {
    RootHash::new(head.root.0.into(), head.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(n: u64) -> Leaf {
        Leaf {
            round: UnixTime(300 * n),
            digest: Digest::of("test", &[&n.to_be_bytes()]),
        }
    }

    fn log(size: u64) -> RoundLog {
        let mut log = RoundLog::default();
        assert!((0..size).all(|n| log.push(leaf(n))));
        log
    }

    #[test]
    fn the_tree_is_that_of_rfc_6962() {
        // The root of the empty tree is the hash of nothing, that of one leaf the hash of 0 and the leaf.
        let nothing = Digest::of("", &[]);
        assert_eq!(
            log(0).head(),
            LogHead {
                size: 0,
                root: nothing
            }
        );
        let one = Digest::of("", &[&[0], &leaf(0).encode()]);
        assert_eq!(log(1).head(), LogHead { size: 1, root: one });
        let other = Digest::of("", &[&[0], &leaf(1).encode()]);
        let both = Digest::of("", &[&[1], &one.0, &other.0]);
        assert_eq!(
            log(2).head(),
            LogHead {
                size: 2,
                root: both
            }
        );
    }

    #[test]
    fn logs_grow_and_prove_it() {
        let whole = log(40);
        for size in 0..=40 {
            let old = log(size).head();
            assert_eq!(whole.head_at(size as usize), Some(old));
            let proof = whole.consistency(size).unwrap_or_default();
            verify_consistency(&old, &whole.head(), &proof).unwrap();
            if size == 0 || size == 40 {
                continue;
            }
            // Another history of the same length has no such proof, nor has one that is bent.
            let mut forked = log(size - 1);
            assert!(forked.push(Leaf {
                digest: Digest([1; 32]),
                ..leaf(size - 1)
            }));
            assert!(verify_consistency(&forked.head(), &whole.head(), &proof).is_err());
            assert!(verify_consistency(&old, &log(39).head(), &proof).is_err() || size == 39);
            for at in (0..proof.len()).step_by(32) {
                let mut bent = proof.clone();
                bent[at] ^= 1;
                assert!(verify_consistency(&old, &whole.head(), &bent).is_err());
            }
        }
        assert!(whole.consistency(0).is_err() && whole.consistency(41).is_err());
    }

    #[test]
    fn rounds_are_where_they_are() {
        let whole = log(23);
        for place in 0..23 {
            let proof = whole.inclusion(place).unwrap();
            verify_inclusion(&whole.head(), &leaf(place), place, &proof).unwrap();
            assert!(verify_inclusion(&whole.head(), &leaf(place + 1), place, &proof).is_err());
            assert!(verify_inclusion(&whole.head(), &leaf(place), place + 1, &proof).is_err());
            assert_eq!(whole.place_of(leaf(place).round), Some(place as usize));
            assert!(whole.has(&leaf(place)));
        }
        assert!(whole.inclusion(23).is_err());
        assert!(!whole.has(&Leaf {
            digest: Digest([1; 32]),
            ..leaf(3)
        }));
    }

    #[test]
    fn only_later_rounds_come_behind() {
        let mut log = log(5);
        assert!(!log.push(leaf(4)) && !log.push(leaf(2)));
        let before = log.head();
        assert!(log.push(leaf(9)));
        log.truncate(5);
        assert_eq!(log.head(), before);
        assert_eq!(Leaf::decode(&leaf(7).encode()), leaf(7));
    }
}
