//! The same by the crates `aes` and `polyval`, on any processor.
//!
//! One keystream call covers a payload, so that the cipher's widest backend is filled; POLYVAL takes
//! four blocks a step with its powers ready in the key; nothing is allocated.

use super::{HEAD, LENGTH};
use crate::BLOCK;
use aes::Aes256;
use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt,
    BlockSizeUser, KeyInit, ParBlocks,
};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;
use zeroize::Zeroize;

type Block = Array<u8, U16>;

/// Blocks that POLYVAL takes in one step.
const AT_ONCE: usize = 4;

/// The last blocks of a long message, this many, are hashed beside the rest: a step of one half
/// waits for nothing in the other, so that the processor overlaps them.
const FOLD: usize = 32;

/// HCTR2-AES-256 under one key, ready for both directions. Erased on drop.
pub(super) struct Hctr2 {
    /// `E(1)`.
    l: u128,
    /// POLYVAL under `h = E(0)`, nothing hashed yet.
    polyval: Polyval,
    /// POLYVAL under the [`FOLD`]th power of `h`: one block of it counts for as many of `h`.
    fold: Polyval,
    aes: Aes256,
}

impl Hctr2 {
    /// Expands a key.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let aes = Aes256::new(key.into());
        let mut constants = [Block::default(), 1u128.to_le_bytes().into()];
        aes.encrypt_blocks(&mut constants);
        let polyval = Polyval::new(&constants[0]);
        let mut power = polyval.clone();
        power.update(&constants[..1]);
        power.update(&[Block::default(); FOLD - 2]);
        let mut power = power.finalize();
        let fold = Polyval::new(&power);
        power.0.zeroize();
        let l = u128::from_le_bytes(constants[1].0);
        constants
            .iter_mut()
            .for_each(|constant| constant.0.zeroize());
        Self {
            aes,
            polyval,
            fold,
            l,
        }
    }

    /// Encrypts in place.
    pub(super) fn encrypt<const N: usize>(&self, tweak: &[u8; BLOCK], message: &mut [u8; N]) {
        let (left, right) = split(message);
        let mm = u128::from_le_bytes(left.0) ^ self.hash(tweak, right);
        let mut uu: Block = mm.to_le_bytes().into();
        self.aes.encrypt_block(&mut uu);
        let uu = u128::from_le_bytes(uu.0);
        self.xctr(mm ^ uu ^ self.l, right);
        left.0 = (uu ^ self.hash(tweak, right)).to_le_bytes();
    }

    /// Decrypts in place.
    pub(super) fn decrypt<const N: usize>(&self, tweak: &[u8; BLOCK], message: &mut [u8; N]) {
        let (left, right) = split(message);
        let uu = u128::from_le_bytes(left.0) ^ self.hash(tweak, right);
        let mut mm: Block = uu.to_le_bytes().into();
        self.aes.decrypt_block(&mut mm);
        let mm = u128::from_le_bytes(mm.0);
        self.xctr(mm ^ uu ^ self.l, right);
        left.0 = (mm ^ self.hash(tweak, right)).to_le_bytes();
    }

    /// `H(tweak, message)` of the paper.
    fn hash(&self, tweak: &[u8; BLOCK], blocks: &[Block]) -> u128 {
        let mut start = [
            LENGTH.into(),
            (*tweak).into(),
            Block::default(),
            Block::default(),
        ];
        let mut state = self.polyval.clone();
        // The length and the tweak share a step of four with the head.
        let (first, blocks) = blocks.split_at(HEAD);
        start[2..].copy_from_slice(first);
        state.update(&start);
        if blocks.len() < 2 * FOLD {
            state.update(blocks);
            return value(state);
        }
        let (front, back) = blocks.split_at(blocks.len() - FOLD);
        let mut other = self.polyval.clone();
        let (front, middle) = front.split_at(FOLD);
        for (front, back) in front.chunks_exact(AT_ONCE).zip(back.chunks_exact(AT_ONCE)) {
            state.update(front);
            other.update(back);
        }
        state.update(middle);
        let mut fold = self.fold.clone();
        fold.update(&[state.finalize()]);
        value(fold) ^ value(other)
    }

    /// Adds the keystream `E(s ^ 1) | E(s ^ 2) | …` to `data`.
    fn xctr(&self, s: u128, data: &mut [Block]) {
        self.aes.encrypt_with_backend(Xctr { s, data });
    }
}

impl Drop for Hctr2 {
    /// The cipher's and the hash's keys erase themselves.
    fn drop(&mut self) {
        self.l.zeroize();
    }
}

/// The first block and the others.
fn split(message: &mut [u8]) -> (&mut Block, &mut [Block]) {
    let (blocks, _) = Array::<u8, U16>::slice_as_chunks_mut(message);
    let Some(split) = blocks.split_first_mut() else {
        unreachable!("no messages without a block compile");
    };
    split
}

fn value(state: Polyval) -> u128 {
    u128::from_le_bytes(state.finalize().0)
}

/// Runs within the cipher's backend, compiled for its instructions.
struct Xctr<'a> {
    s: u128,
    data: &'a mut [Block],
}

impl BlockSizeUser for Xctr<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Xctr<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let (groups, blocks) = Array::<Block, B::ParBlocksSize>::slice_as_chunks_mut(self.data);
        let mut counter = 1u128;
        for group in groups {
            let mut stream = ParBlocks::<B>::default();
            for (block, at) in stream.iter_mut().zip(counter..) {
                *block = (self.s ^ at).to_le_bytes().into();
            }
            backend.encrypt_par_blocks((&mut stream).into());
            for (to, from) in group.iter_mut().zip(&stream) {
                add(&mut to.0, &from.0);
            }
            counter += B::ParBlocksSize::U64 as u128;
        }
        for block in blocks {
            let mut stream: Block = (self.s ^ counter).to_le_bytes().into();
            backend.encrypt_block((&mut stream).into());
            add(&mut block.0, &stream.0);
            counter += 1;
        }
    }
}

#[inline(always)]
fn add(to: &mut [u8; BLOCK], from: &[u8; BLOCK]) {
    *to = (u128::from_ne_bytes(*to) ^ u128::from_ne_bytes(*from)).to_ne_bytes();
}
