//! What a relay has relayed already: a filter over the replay tags of [`crate::path`].
//!
//! A malicious neighbour can seal an old cell into a fresh datagram; the link's window does
//! not see that, but the replay tag is the same over every link. The filter
//! forgets no tag before its time, and at times takes a new one for an old one.
//!
//! # Shape
//!
//! A split-block Bloom filter (Putze, Sanders, Singler 2007, section 3; as in Apache Parquet):
//! a keyed hash of the tag selects one block of 512 bits, and in each of its eight words one
//! bit. The key is secret, because anyone who builds a path chooses the tags that its relays see,
//! and could otherwise aim at blocks. One bit of each block (the highest of its first word) is a
//! lock that is held for the few nanoseconds in which eight words are read and written. So
//! of any number of threads that bring the same tag at the same time, exactly one is told
//! that it is new; and one atomic exchange is cheaper than eight. An old tag of the current generation takes the lock too: of one cell that comes
//! over many links to several workers, each copy costs them a line's way between cores.
//!
//! There are two generations. Tags go into the current one and are looked for in both. When
//! the current one is full ([`BITS_PER_ENTRY`]) or as old as the keys under which a tag can come
//! back, the other is emptied and takes its place.
//!
//! # What it promises
//!
//! - *Horizon*: a tag that was new is remembered for at least as long as the current generation
//!   lasts after it, so between one and two generations. With `b` bytes in a generation and `r` cells a
//!   second, a generation lasts `8 b / (32 r)` seconds, at most the life that was set: 16 MiB at
//!   10,000 cells a second last seven minutes. A replay older than the horizon passes, until
//!   the onion key's life ends; [`ReplayFilter::horizon`] tells an operator what memory buys.
//! - *False positives*: 1.7 in 100,000 in a generation that has just become full, 0.25 averaged
//!   over the time in which it fills. Both generations add up: on average 2 new cells in
//!   100,000, at worst 3.4, are dropped by each relay of a path whose filter has been full. At 24
//!   bits an entry it would be 10, which over six relays is a loss that TCP above notices.
//! - *Memory*: twice the bytes given. Pages that no tag has touched cost none, but they are large,
//!   and some hundred tags touch them all.

/// Atomics of the standard library; a test puts others in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}
mod turn;
mod words;

use self::turn::Turn;
use self::words::Words;
use crate::prefetch::prefetch_element;
use crate::time::UnixTime;
use crate::wire::Reader;
use crate::{Error, Result};
use ring::digest::{SHA256, digest};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zeroize::Zeroize;

/// A generation is full when it has this many bits for each entry.
pub const BITS_PER_ENTRY: usize = 32;

/// Words of a block.
const WORDS: usize = 8;
/// Bytes of a block, and of a cache line.
const BLOCK: usize = WORDS * 8;
/// The bit of a block's first word that is a lock and no part of the filter.
const LOCK: u64 = 1 << 63;
/// How many bits of the first word entries use.
const FIRST_BITS: u64 = 63;
/// Entries are counted in one block of this many, so that threads do not contend for a counter.
const SAMPLE: u64 = 64;
/// The least and the most bytes of a generation.
const BYTES: std::ops::RangeInclusive<usize> = 64 * BLOCK..=1 << 36;

/// Magic and version of a saved filter.
const MAGIC: [u8; 8] = *b"mlreplay";
const VERSION: u8 = 1;
/// Words of a chunk of a saved filter; chunks of zeros are left out.
const CHUNK: usize = 512;
/// Ends the chunks of a generation.
const NO_CHUNK: u32 = u32::MAX;

/// Remembers 16-byte tags. Shared by threads.
pub struct ReplayFilter {
    key: [u8; 16],
    blocks: u64,
    generations: [Generation; 2],
    /// Which of the two takes new tags: they do so in turn.
    turn: Turn,
    /// Milliseconds after which a generation is replaced although it is not full.
    life_ms: AtomicU64,
    origin: Instant,
}

/// One filter.
struct Generation {
    words: Words,
    /// Entries in the blocks that are counted.
    sampled: AtomicU64,
    /// When it began to take tags, in milliseconds since the filter's origin.
    began: AtomicI64,
}

/// Where a tag stands.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    block: u64,
    /// Which bit of each word, in six bits each.
    bits: u64,
}

impl ReplayFilter {
    /// A filter of two generations, each of `bytes` (rounded down to blocks of 64, at least 4
    /// KiB and at most 64 GiB). `key` is random and secret. No generation is replaced for
    /// its age before [`ReplayFilter::set_life`].
    ///
    /// # Errors
    /// [`Error::Limit`] if there is no memory for it.
    pub fn new(bytes: usize, key: [u8; 16], now: Instant) -> Result<Self> {
        let blocks = bytes.clamp(*BYTES.start(), *BYTES.end()) / BLOCK;
        Ok(Self {
            key,
            blocks: blocks as u64,
            generations: [Generation::new(blocks)?, Generation::new(blocks)?],
            turn: Turn::default(),
            life_ms: AtomicU64::new(i64::MAX as u64),
            origin: now,
        })
    }

    /// A generation is replaced at this age although it is not full: how long the keys live
    /// under which a tag can come back. An onion key is published an epoch early, so that is
    /// two epochs and the grace.
    pub fn set_life(&self, life: Duration) {
        let ms = u64::try_from(life.as_millis())
            .unwrap_or(u64::MAX)
            .min(i64::MAX as u64);
        self.life_ms.store(ms, Ordering::Relaxed);
    }

    /// Remembers the tag. True if it was not remembered before: the cell may go on.
    #[must_use]
    pub fn check_and_set(&self, tag: &[u8; 16]) -> bool {
        self.check_and_set_at(self.locate(tag))
    }

    /// [`ReplayFilter::check_and_set`]'s first step, for a caller that has something else to do
    /// while memory is waited for: finds the tag's position and prefetches it.
    #[must_use]
    pub fn locate(&self, tag: &[u8; 16]) -> Position {
        let position = self.position(tag);
        for generation in &self.generations {
            prefetch_element(generation.all(), generation.first_word(position));
        }
        position
    }

    /// The second step: remembers the tag that was located. True if it was not remembered before.
    #[must_use]
    pub fn check_and_set_at(&self, position: Position) -> bool {
        let bits = position.bits();
        self.turn.take(
            |generation| self.generations[generation].contains(position, &bits),
            |generation| self.generations[generation].insert(position, &bits),
        )
    }

    /// Whether the tag is remembered.
    #[must_use]
    pub fn contains(&self, tag: &[u8; 16]) -> bool {
        let position = self.position(tag);
        let bits = position.bits();
        self.generations
            .iter()
            .any(|generation| generation.contains(position, &bits))
    }

    /// Begins a new generation if the current one is full or old. Called by one thread,
    /// about once a second: a filter that is never rotated stays safe, but takes ever more new
    /// tags for old ones. True if it did.
    pub fn rotate(&self, now: Instant) -> bool {
        let current = self.turn.generation();
        let now = self.ms(now);
        let age = now.saturating_sub(self.generations[current].began.load(Ordering::Relaxed));
        let old = age.unsigned_abs() >= self.life_ms.load(Ordering::Relaxed) && age > 0;
        if !old && self.fill() < 1.0 {
            return false;
        }
        let other = &self.generations[1 - current];
        other.clear();
        other.began.store(now, Ordering::Relaxed);
        self.turn.pass();
        true
    }

    /// How full the current generation is; 1 at its capacity.
    #[must_use]
    pub fn fill(&self) -> f64 {
        let current = &self.generations[self.turn.generation()];
        let entries = current.sampled.load(Ordering::Relaxed);
        let sampled_blocks = self.blocks.div_ceil(SAMPLE);
        let capacity = sampled_blocks * (BLOCK * 8) as u64 / BITS_PER_ENTRY as u64;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let fill = entries as f64 / capacity as f64;
        fill
    }

    /// Every tag that came within this time is remembered.
    #[must_use]
    pub fn horizon(&self, now: Instant) -> Duration {
        let previous = &self.generations[1 - self.turn.generation()];
        let age = self
            .ms(now)
            .saturating_sub(previous.began.load(Ordering::Relaxed));
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }

    /// The filter as bytes, for a clean stop: `magic 8 | version 1 | key 16 | blocks 8 | unix
    /// time 8`, then, the current one first, for each generation `age in ms 8 | entries counted
    /// 8 | (chunk number 4 | 512 words of 8)* | ff ff ff ff`, then the SHA-256 of all this. The
    /// secret key is in it, so nobody else may read it. Tags that come meanwhile may be missing.
    #[must_use]
    pub fn save(&self, now: Instant, wall: UnixTime) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.blocks.to_be_bytes());
        out.extend_from_slice(&wall.0.to_be_bytes());
        let current = self.turn.generation();
        for generation in [&self.generations[current], &self.generations[1 - current]] {
            let age = self
                .ms(now)
                .saturating_sub(generation.began.load(Ordering::Relaxed));
            out.extend_from_slice(&age.to_be_bytes());
            generation.save(&mut out);
        }
        let sum = digest(&SHA256, &out);
        out.extend_from_slice(sum.as_ref());
        out
    }

    /// A saved filter; its generations have aged by the time between the two wall clocks.
    ///
    /// # Errors
    /// [`Error::Authentication`] if the checksum is wrong, [`Error::Version`],
    /// [`Error::Length`], [`Error::Malformed`], [`Error::Limit`] if it is larger than a
    /// filter can be. The caller then has no replay memory, and must not use the onion keys
    /// that go with it.
    pub fn load(bytes: &[u8], now: Instant, wall: UnixTime) -> Result<Self> {
        const WHAT: &str = "replay filter";
        let short = Error::Length {
            what: WHAT,
            expected: 32,
            got: bytes.len(),
        };
        let (body, sum) = bytes.split_last_chunk::<32>().ok_or(short)?;
        if digest(&SHA256, body).as_ref() != sum {
            return Err(Error::Authentication { what: WHAT });
        }
        let mut reader = Reader::new(body, WHAT);
        if reader.array()? != MAGIC || reader.u8()? != VERSION {
            return Err(Error::Version { what: WHAT });
        }
        let key = reader.array()?;
        let blocks = usize::try_from(reader.u64()?).map_err(|_| reader.malformed())?;
        if !blocks
            .checked_mul(BLOCK)
            .is_some_and(|bytes| BYTES.contains(&bytes))
        {
            return Err(Error::Limit { what: WHAT });
        }
        let stopped = wall.since(UnixTime(reader.u64()?));
        let stopped = i64::try_from(stopped.saturating_mul(1000)).unwrap_or(i64::MAX);
        let filter = Self::new(blocks * BLOCK, key, now)?;
        for generation in &filter.generations {
            let age = i64::from_be_bytes(reader.array()?).saturating_add(stopped);
            generation
                .began
                .store(0i64.saturating_sub(age), Ordering::Relaxed);
            generation.load(&mut reader)?;
        }
        reader.finish()?;
        Ok(filter)
    }

    fn position(&self, tag: &[u8; 16]) -> Position {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(tag);
        let hash = hasher.finish128();
        // The high half of a product is below `blocks`, near enough uniform.
        let block = (u128::from(hash.h1) * u128::from(self.blocks)) >> 64;
        let block = block as u64;
        let bits = hash.h2;
        Position { block, bits }
    }

    fn ms(&self, now: Instant) -> i64 {
        let ms = now.saturating_duration_since(self.origin).as_millis();
        i64::try_from(ms).unwrap_or(i64::MAX)
    }
}

impl Position {
    /// The bit of each word.
    fn bits(self) -> [u64; WORDS] {
        let mut bits = [0; WORDS];
        for (i, bit) in bits.iter_mut().enumerate() {
            *bit = 1 << ((self.bits >> (6 * i)) & 63);
        }
        // The first word has no room for a 64th bit.
        bits[0] = 1 << (((self.bits >> 48) * FIRST_BITS) >> 16);
        bits
    }
}

impl Drop for ReplayFilter {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Generation {
    fn new(blocks: usize) -> Result<Self> {
        Ok(Self {
            words: words::zeroed(blocks * WORDS)?,
            sampled: AtomicU64::new(0),
            began: AtomicI64::new(0),
        })
    }

    /// The words of all blocks.
    fn all(&self) -> &[AtomicU64] {
        self.words.borrow_dependent()
    }

    #[expect(clippy::cast_possible_truncation, reason = "an index of a slice")]
    fn first_word(&self, position: Position) -> usize {
        position.block as usize * WORDS
    }

    fn block(&self, position: Position) -> &[AtomicU64] {
        let first = self.first_word(position);
        &self.all()[first..first + WORDS]
    }

    fn contains(&self, position: Position, bits: &[u64; WORDS]) -> bool {
        let words = self.block(position).iter().zip(bits);
        words.fold(0, |missing, (word, bit)| {
            missing | (bit & !word.load(Ordering::Relaxed))
        }) == 0
    }

    /// Sets the tag's bits; whether one was missing.
    fn insert(&self, position: Position, bits: &[u64; WORDS]) -> bool {
        let block = self.block(position);
        let first = lock(block);
        let mut missing = bits[0] & !first;
        for (word, bit) in block.iter().zip(bits).skip(1) {
            let old = word.load(Ordering::Relaxed);
            missing |= bit & !old;
            word.store(old | bit, Ordering::Relaxed);
        }
        block[0].store(first | bits[0], Ordering::Release);
        if missing != 0 && position.block.is_multiple_of(SAMPLE) {
            self.sampled.fetch_add(1, Ordering::Relaxed);
        }
        missing != 0
    }

    /// Forgets everything. Pages that were never written stay so. Under the locks: a thread that was taken off the
    /// processor with an earlier turn of this generation may write here once more.
    fn clear(&self) {
        for block in self.all().chunks_exact(WORDS) {
            if block.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
                continue;
            }
            let _ = lock(block);
            for word in &block[1..] {
                word.store(0, Ordering::Relaxed);
            }
            block[0].store(0, Ordering::Release);
        }
        self.sampled.store(0, Ordering::Relaxed);
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sampled.load(Ordering::Relaxed).to_be_bytes());
        for (number, chunk) in (0u32..).zip(self.all().chunks(CHUNK)) {
            if chunk.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
                continue;
            }
            out.extend_from_slice(&number.to_be_bytes());
            for (i, word) in chunk.iter().enumerate() {
                out.extend_from_slice(&unlocked(i, word.load(Ordering::Relaxed)).to_be_bytes());
            }
        }
        out.extend_from_slice(&NO_CHUNK.to_be_bytes());
    }

    fn load(&self, reader: &mut Reader<'_>) -> Result<()> {
        self.sampled.store(reader.u64()?, Ordering::Relaxed);
        let mut least = 0;
        loop {
            let number = reader.u32()?;
            if number == NO_CHUNK {
                return Ok(());
            }
            let first = usize::try_from(number)
                .ok()
                .and_then(|n| n.checked_mul(CHUNK));
            let words = first
                .and_then(|first| self.all().get(first..))
                .unwrap_or_default();
            if words.is_empty() || number < least {
                return Err(reader.malformed());
            }
            least = number + 1;
            for (i, word) in words[..words.len().min(CHUNK)].iter().enumerate() {
                word.store(unlocked(i, reader.u64()?), Ordering::Relaxed);
            }
        }
    }
}

/// Takes a block's lock, which storing its first word gives back; what that word was.
fn lock(block: &[AtomicU64]) -> u64 {
    let mut spins = 0u32;
    loop {
        let first = block[0].fetch_or(LOCK, Ordering::Acquire);
        if first & LOCK == 0 {
            return first;
        }
        while block[0].load(Ordering::Relaxed) & LOCK != 0 {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(1024) {
                // The thread that holds it was taken off the processor.
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// Word `i` of some blocks, without the lock.
fn unlocked(i: usize, word: u64) -> u64 {
    if i.is_multiple_of(WORDS) {
        word & !LOCK
    } else {
        word
    }
}
