//! Strict reading and writing of bytes. All integers are big-endian.

use crate::{Error, Result};

/// Reads fields from the beginning of a slice; an error names what was being read.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`; errors say that they are about `what`.
    #[must_use]
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`Error::Length`] if fewer are left.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((front, rest)) = self.rest.split_at_checked(n) else {
            return Err(Error::Length {
                what: self.what,
                expected: n,
                got: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(front)
    }

    /// The next `N` bytes by value.
    ///
    /// # Errors
    /// [`Error::Length`] if fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((front, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(Error::Length {
                what: self.what,
                expected: N,
                got: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*front)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Error::Length`] at the end.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// The next 16 bits.
    ///
    /// # Errors
    /// [`Error::Length`] at the end.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next 32 bits.
    ///
    /// # Errors
    /// [`Error::Length`] at the end.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next 64 bits.
    ///
    /// # Errors
    /// [`Error::Length`] at the end.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything else.
    pub fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    /// A length byte and that much UTF-8, at most `most` bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] if longer, [`Error::Malformed`] if not UTF-8.
    pub fn text(&mut self, most: usize) -> Result<&'a str> {
        let n = usize::from(self.u8()?);
        if n > most {
            return Err(Error::Limit { what: self.what });
        }
        std::str::from_utf8(self.take(n)?).map_err(|_| self.malformed())
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The rest, all of which must be zero.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a byte is not.
    pub fn zeros(self) -> Result<()> {
        if self.rest.iter().any(|b| *b != 0) {
            Err(self.malformed())
        } else {
            Ok(())
        }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`Error::Length`] if something is.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Error::Length {
                what: self.what,
                expected: 0,
                got: self.rest.len(),
            })
        }
    }

    /// The error for a field whose value is not allowed.
    #[must_use]
    pub fn malformed(&self) -> Error {
        Error::Malformed { what: self.what }
    }
}

/// Appends fields to a growing record.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty record with room for so many bytes: one of secrets, which a writer that grows would leave
    /// copies of.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Appends 16 bits.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Appends 32 bits.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Appends 64 bits.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Appends 0 or 1.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Appends a length byte and the text, cut at 255 bytes (callers bound it before).
    pub fn text(&mut self, text: &str) -> &mut Self {
        let bytes = &text.as_bytes()[..text.len().min(255)];
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most 255 by the line above"
        )]
        self.u8(bytes.len() as u8).bytes(bytes)
    }

    /// What has been written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.bytes
    }

    /// The record.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
