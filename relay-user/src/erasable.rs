//! Files whose earlier contents are gone for good once they are replaced or removed.
//!
//! Who replaces a file by renaming another one over it leaves the old one's blocks on the disk, and
//! whoever has it open. So contents are encrypted, each time under a new key, and the keys stand in
//! a file that is written in place:
//!
//! ```text
//! NAME       magic 8 | number 8 | (ciphertext, at most 2^20 | tag 16)*
//! NAME.seal  two slots, 4096 bytes apart: number 8 | key 32
//! ```
//!
//! AES-256-GCM; the nonce of a piece is its place, the last one's is marked; magic and number are
//! authenticated with each piece.
//!
//! A replacement takes three steps, each on the disk before the next: the new key is written into the
//! slot that the file does not use; the new file takes the old one's place; the old key is written
//! over. After a power cut between them there is the old file with its key or the new one with its
//! own, and [`Erasable::settle`] writes over the key that no file uses. A file without its key is
//! none.
//!
//! A file system that never writes in place (btrfs, ZFS, a disk's own translation layer) keeps the
//! old key somewhere for a while: docs/threat-model.md.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mixline_protocol::random::OsRandom;
use rand_core::Rng as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::durable;

/// How a sealed file begins. No file that was written in the clear begins with a zero.
const MAGIC: [u8; 8] = *b"\0mxseal1";
/// Bytes before the pieces.
const HEADER: usize = 16;
/// Bytes of contents in a piece.
const PIECE: usize = 1 << 20;
const TAG: usize = 16;
/// Bytes between the slots of two keys: they share no block of a disk, so that a write that is cut
/// short harms one of them.
const SLOT: u64 = 4096;
/// Bytes of a slot that are used.
const SLOT_USED: usize = 40;

/// A file in a directory that nobody else writes to.
#[derive(Debug)]
pub struct Erasable {
    directory: PathBuf,
    name: &'static str,
}

/// A key and its number; number 0 is no key.
#[derive(Default)]
struct Slot {
    number: u64,
    key: Zeroizing<[u8; 32]>,
}

impl Erasable {
    /// The file of this name.
    pub fn new(directory: PathBuf, name: &'static str) -> Self {
        Self { directory, name }
    }

    /// The file's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Puts in order what a power cut has left, and encrypts a file that is there in the clear, of at
    /// most `largest` bytes. To be called before anything else.
    ///
    /// # Errors
    /// What the system says.
    pub fn settle(&self, largest: u64) -> io::Result<Settled> {
        durable::remove(&self.new_file())?;
        match self.number()? {
            Found::Sealed(number) => self.keep_only(number)?,
            Found::Nothing => self.keep_only(0)?,
            Found::Plain => {
                if let Err(error) = self.seal_plain(largest) {
                    return Ok(Settled::InTheClear(error));
                }
            }
        }
        self.rid(&self.path(".plain"));
        Ok(Settled::InOrder)
    }

    /// Encrypts a file that is there in the clear.
    fn seal_plain(&self, largest: u64) -> io::Result<()> {
        // A second name, so that the blocks are found again after a power cut.
        let (path, plain) = (self.path(""), self.path(".plain"));
        durable::remove(&plain)?;
        fs::hard_link(&path, &plain)?;
        durable::sync_directory(&plain)?;
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        if length > largest {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut contents = Zeroizing::new(Vec::new());
        let room = usize::try_from(length).unwrap_or(usize::MAX);
        contents.try_reserve_exact(room)?;
        file.take(length).read_to_end(&mut contents)?;
        self.write(&contents)
    }

    /// Removes a file that is there in the clear and could not be encrypted, and all that belongs to it, as far
    /// as the system lets us. What stays is not read.
    pub fn discard(&self) {
        if let Err(error) = self.keep_only(0) {
            tracing::warn!("{}: {error}", self.path(".seal").display());
        }
        for path in [self.new_file(), self.path(""), self.path(".plain")] {
            self.rid(&path);
        }
    }

    /// The contents; none if there is no file, or no key that opens it.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::FileTooLarge`] if the file has more than `largest`
    /// bytes.
    pub fn read(&self, largest: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let Found::Sealed(number) = self.number()? else {
            return Ok(None);
        };
        let slots = self.slots()?;
        let Some(slot) = slots.iter().find(|slot| slot.number == number) else {
            return Ok(None);
        };
        let mut file = File::open(self.path(""))?;
        let length = file.metadata()?.len();
        if length > largest {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut header = [0; HEADER];
        file.read_exact(&mut header)?;
        let pieces = length.saturating_sub(HEADER as u64);
        open(slot, header, file, pieces)
    }

    /// Replaces the contents. Those from before are gone when this returns.
    ///
    /// # Errors
    /// What the system says. Contents from before may be there still.
    pub fn write(&self, contents: &[u8]) -> io::Result<()> {
        let slot = self.add_key()?;
        self.put(&slot, contents)?;
        self.keep_only(slot.number)
    }

    /// Removes the file. Its contents are gone when this returns. What is there in the clear goes as far as the
    /// system lets us.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self) -> io::Result<()> {
        self.keep_only(0)?;
        durable::remove(&self.new_file())?;
        match self.number()? {
            Found::Nothing => {}
            Found::Sealed(_) => durable::remove(&self.path(""))?,
            Found::Plain => self.rid(&self.path("")),
        }
        self.rid(&self.path(".plain"));
        Ok(())
    }

    /// The first step: a key of its own for the new contents, beside that of the old ones.
    fn add_key(&self) -> io::Result<Slot> {
        let used = match self.number()? {
            Found::Sealed(number) => number,
            Found::Nothing | Found::Plain => 0,
        };
        let slots = self.slots()?;
        let last = slots.iter().map(|slot| slot.number).max().unwrap_or(0);
        let free = slots
            .iter()
            .position(|slot| slot.number != used || used == 0);
        let mut slot = Slot {
            number: last.max(used) + 1,
            ..Slot::default()
        };
        OsRandom::new().fill_bytes(slot.key.as_mut());
        self.write_slot(free.unwrap_or(0), &slot)?;
        Ok(slot)
    }

    /// The second step: the new file in the old one's place.
    fn put(&self, slot: &Slot, contents: &[u8]) -> io::Result<()> {
        durable::replace(&self.path(""), |file| seal(slot, contents, file))
    }

    /// The third step: writes over all keys but that of this number.
    fn keep_only(&self, number: u64) -> io::Result<()> {
        for (at, slot) in self.slots()?.iter().enumerate() {
            if slot.number != 0 && slot.number != number {
                self.write_slot(at, &Slot::default())?;
            }
        }
        Ok(())
    }

    /// What the file is.
    fn number(&self) -> io::Result<Found> {
        let mut file = match File::open(self.path("")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let mut header = [0; HEADER];
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Found::Plain),
            Err(error) => return Err(error),
        }
        let (magic, number) = header.split_at(MAGIC.len());
        Ok(match number.try_into().map(u64::from_be_bytes) {
            Ok(number) if magic == MAGIC => Found::Sealed(number),
            _ => Found::Plain,
        })
    }

    /// Both slots; empty ones if there is no file of keys.
    fn slots(&self) -> io::Result<[Slot; 2]> {
        let mut slots = [Slot::default(), Slot::default()];
        let file = match File::open(self.path(".seal")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(slots),
            Err(error) => return Err(error),
        };
        for (slot, at) in slots.iter_mut().zip(0..) {
            let mut bytes = Zeroizing::new([0; SLOT_USED]);
            match file.read_exact_at(bytes.as_mut(), at * SLOT) {
                Ok(()) => {}
                // Cut short when it was made: it had no keys yet.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            let (number, key) = bytes.split_at(8);
            slot.number = number.try_into().map(u64::from_be_bytes).unwrap_or(0);
            slot.key.copy_from_slice(key);
        }
        Ok(slots)
    }

    /// Writes a slot in place.
    fn write_slot(&self, at: usize, slot: &Slot) -> io::Result<()> {
        let path = self.path(".seal");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        let length = file.metadata()?.len();
        if length < 2 * SLOT {
            file.set_permissions(Permissions::from_mode(0o600))?;
            // Blocks that are there, and not a hole that is filled elsewhere later.
            let missing = vec![0; usize::try_from(2 * SLOT - length).unwrap_or(0)];
            file.write_all_at(&missing, length)?;
            file.sync_all()?;
            durable::sync_directory(&path)?;
        }
        let mut bytes = Zeroizing::new([0; SLOT_USED]);
        bytes[..8].copy_from_slice(&slot.number.to_be_bytes());
        bytes[8..].copy_from_slice(slot.key.as_ref());
        file.write_all_at(bytes.as_ref(), at as u64 * SLOT)?;
        file.sync_all()
    }

    /// Removes a file that is there in the clear, written over if that goes.
    fn rid(&self, path: &Path) {
        if let Err(error) = self.wipe(path).or_else(|_| durable::remove(path)) {
            let path = path.display();
            tracing::warn!("cannot remove {path}: {error}; its contents may be readable there");
        }
    }

    /// Writes over a file, as far as the file system lets us, and removes it.
    fn wipe(&self, path: &Path) -> io::Result<()> {
        let file = match OpenOptions::new().write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let (length, zeros) = (file.metadata()?.len(), [0; 4096]);
        let mut at = 0;
        while at < length {
            let n = (length - at).min(zeros.len() as u64);
            file.write_all_at(&zeros[..usize::try_from(n).unwrap_or(zeros.len())], at)?;
            at += n;
        }
        file.sync_all()?;
        durable::remove(path)
    }

    /// The file's own path, or that of one beside it.
    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}{suffix}", self.name))
    }

    /// Where a new file is until it takes the old one's place.
    fn new_file(&self) -> PathBuf {
        durable::beside(&self.path(""))
    }
}

/// How a file was found.
#[derive(Debug)]
pub enum Settled {
    /// It is encrypted, or there is none.
    InOrder,
    /// It is there in the clear and could not be encrypted, for this reason. To be
    /// [discarded](Erasable::discard).
    InTheClear(io::Error),
}

/// What stands under the file's name.
enum Found {
    Nothing,
    /// In the clear, as it was stored before it was encrypted.
    Plain,
    /// Under the key of this number.
    Sealed(u64),
}

fn header(number: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..].copy_from_slice(&number.to_be_bytes());
    header
}

fn aead(slot: &Slot) -> io::Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, slot.key.as_ref()).map_err(io::Error::other)?;
    Ok(LessSafeKey::new(key))
}

/// The nonce of a piece, by its place.
fn nonce(piece: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[0] = is_last.into();
    nonce[NONCE_LEN - 8..].copy_from_slice(&piece.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Writes header and pieces. There is at least one piece.
fn seal(slot: &Slot, contents: &[u8], file: &mut File) -> io::Result<()> {
    let (aead, header) = (aead(slot)?, header(slot.number));
    file.write_all(&header)?;
    let mut buffer = Zeroizing::new(Vec::with_capacity(PIECE.min(contents.len()) + TAG));
    let last = contents.len().div_ceil(PIECE).max(1) - 1;
    for (piece, number) in (0..=last).zip(0..) {
        let from = piece * PIECE;
        let to = contents.len().min(from + PIECE);
        buffer.clear();
        buffer.extend_from_slice(&contents[from..to]);
        aead.seal_in_place_append_tag(
            nonce(number, piece == last),
            Aad::from(header),
            &mut *buffer,
        )
        .map_err(io::Error::other)?;
        file.write_all(&buffer)?;
    }
    Ok(())
}

/// Reads pieces of so many bytes in all; none if one of them is not what was written.
fn open(
    slot: &Slot,
    header: [u8; HEADER],
    mut file: impl io::Read,
    mut left: u64,
) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let aead = aead(slot)?;
    let mut contents = Zeroizing::new(Vec::with_capacity(usize::try_from(left).unwrap_or(0)));
    let most = left.min((PIECE + TAG) as u64);
    let mut buffer = Zeroizing::new(vec![0; usize::try_from(most).unwrap_or(0)]);
    for piece in 0.. {
        let take = left.min((PIECE + TAG) as u64);
        let sealed = &mut buffer[..usize::try_from(take).unwrap_or(0)];
        file.read_exact(sealed)?;
        left -= take;
        match aead.open_in_place(nonce(piece, left == 0), Aad::from(header), sealed) {
            Ok(opened) => contents.extend_from_slice(opened),
            Err(_) => return Ok(None),
        }
        if left == 0 {
            break;
        }
    }
    Ok(Some(contents))
}

#[cfg(test)]
mod tests;
