//! Signatures of several directories over one thing.
//!
//! ```text
//! who: bits 2 | signature 64 * as many      in the order of the roster
//! ```
//!
//! A list, and no threshold signature: it names who signed what, takes no key generation
//! together and no rounds, and 64 bytes a directory are little beside a snapshot.

use arrayvec::ArrayVec;

use super::roster::MAX_DIRECTORIES;
use crate::Result;
use crate::identity::SIGNATURE;
use crate::wire::{Reader, Writer};

/// The signatures of some of a roster's directories, by their index, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures(ArrayVec<(u8, [u8; SIGNATURE]), MAX_DIRECTORIES>);

impl Signatures {
    /// The most bytes of an encoded list.
    pub const MAX_ENCODED: usize = 2 + MAX_DIRECTORIES * SIGNATURE;

    /// Adds the signature of directory number `index`, or puts it in place of the one that is there. One
    /// whose index no roster has is left out.
    pub fn put(&mut self, index: u8, signature: [u8; SIGNATURE]) {
        if usize::from(index) >= MAX_DIRECTORIES {
            return;
        }
        match self.0.iter_mut().find(|(of, _)| *of == index) {
            Some((_, old)) => *old = signature,
            None => {
                // As many places as indices.
                let _ = self.0.try_push((index, signature));
                self.0.sort_unstable_by_key(|(of, _)| *of);
            }
        }
    }

    /// Index and signature, by index, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8; SIGNATURE])> {
        self.0.iter().map(|(index, signature)| (*index, signature))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Only those of the first `most` indices for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(u8, &[u8; SIGNATURE]) -> bool) {
        self.0.retain(|(index, signature)| keep(*index, signature));
    }

    /// Appends the encoding.
    pub fn write(&self, writer: &mut Writer) {
        let bits = self.0.iter().fold(0u16, |bits, (index, _)| {
            bits | 1u16.checked_shl(u32::from(*index)).unwrap_or(0)
        });
        writer.u16(bits);
        for (_, signature) in &self.0 {
            writer.bytes(signature);
        }
    }

    /// Reads what [`Signatures::write`] wrote.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] for an index that no roster has, [`crate::Error::Length`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let bits = reader.u16()?;
        let mut read = Self::default();
        for index in 0..u16::BITS as u8 {
            if bits & (1 << index) == 0 {
                continue;
            }
            if usize::from(index) >= MAX_DIRECTORIES {
                return Err(reader.malformed());
            }
            read.put(index, reader.array()?);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_encoding_by_index() {
        let mut signatures = Signatures::default();
        for index in [9, 0, 4, 4, 10, 200] {
            signatures.put(index, [index; 64]);
        }
        let indices: Vec<_> = signatures.iter().map(|(index, _)| index).collect();
        assert_eq!(indices, [0, 4, 9]);
        let mut writer = Writer::new();
        signatures.write(&mut writer);
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len(), 2 + 3 * 64);
        assert!(bytes.len() <= Signatures::MAX_ENCODED);
        let mut reader = Reader::new(&bytes, "signatures");
        assert_eq!(Signatures::read(&mut reader).unwrap(), signatures);
        reader.finish().unwrap();
        for cut in 0..bytes.len() {
            assert!(Signatures::read(&mut Reader::new(&bytes[..cut], "signatures")).is_err());
        }
        let nobody = [&[0x04, 0][..], &[0; 64]].concat();
        assert!(Signatures::read(&mut Reader::new(&nobody, "signatures")).is_err());
    }
}
