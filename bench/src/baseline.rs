//! The bare primitives that no relay can do without.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use mixline_protocol::hctr2::Hctr2;
use mixline_protocol::size::{
    CELL_OFFSET, DATAGRAM, Datagram, LINK_HEADER, PATH_HEADER, SEALED, TAG,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::testbed::{PER_ROUND, nanoseconds};

/// AES-256-GCM open, HCTR2 and AES-256-GCM seal on buffers of a datagram's length, with one
/// key each and nothing around them.
pub struct Baseline {
    neighbour: LessSafeKey,
    open: LessSafeKey,
    hctr2: Hctr2,
    seal: LessSafeKey,
    datagrams: Vec<Datagram>,
}

/// What the primitives took, in nanoseconds for one datagram.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// Opening.
    pub open: f64,
    /// HCTR2.
    pub hctr2: f64,
    /// Sealing.
    pub seal: f64,
}

impl Baseline {
    /// Three keys.
    ///
    /// # Errors
    /// None that happen.
    pub fn new() -> Result<Self> {
        Ok(Self {
            neighbour: key(1)?,
            open: key(1)?,
            hctr2: Hctr2::new(&[2; 32]),
            seal: key(3)?,
            datagrams: vec![[0; DATAGRAM]; PER_ROUND],
        })
    }

    /// All three after each other for each of [`PER_ROUND`] datagrams: nanoseconds for one.
    ///
    /// # Errors
    /// None that happen.
    pub fn round(&mut self) -> Result<f64> {
        self.fill()?;
        let began = Instant::now();
        for (counter, datagram) in (0..).zip(&mut self.datagrams) {
            open(&self.open, counter, datagram)?;
            self.hctr2.decrypt(&[4; 16], payload(datagram));
            seal(&self.seal, counter, datagram)?;
        }
        Ok(nanoseconds(began.elapsed()) / PER_ROUND as f64)
    }

    /// Each primitive by itself over all datagrams.
    ///
    /// # Errors
    /// None that happen.
    pub fn parts(&mut self) -> Result<Took> {
        self.fill()?;
        let mut opening = Duration::ZERO;
        let began = Instant::now();
        for (counter, datagram) in (0..).zip(&mut self.datagrams) {
            open(&self.open, counter, datagram)?;
        }
        opening += began.elapsed();
        let began = Instant::now();
        for datagram in &mut self.datagrams {
            self.hctr2.decrypt(&[4; 16], payload(datagram));
        }
        let hctr2 = began.elapsed();
        let began = Instant::now();
        for (counter, datagram) in (0..).zip(&mut self.datagrams) {
            seal(&self.seal, counter, datagram)?;
        }
        let sealing = began.elapsed();
        let one = |took| nanoseconds(took) / PER_ROUND as f64;
        Ok(Took {
            open: one(opening),
            hctr2: one(hctr2),
            seal: one(sealing),
        })
    }

    fn fill(&mut self) -> Result<()> {
        for (counter, datagram) in (0..).zip(&mut self.datagrams) {
            seal(&self.neighbour, counter, datagram)?;
        }
        Ok(())
    }
}

fn key(byte: u8) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, &[byte; 32]).map_err(|_| anyhow!("no AES key"))?;
    Ok(LessSafeKey::new(key))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn open(key: &LessSafeKey, counter: u64, datagram: &mut Datagram) -> Result<()> {
    let (header, sealed) = datagram.split_at_mut(LINK_HEADER);
    key.open_in_place(nonce(counter), Aad::from(&*header), sealed)
        .map_err(|_| anyhow!("does not open"))?;
    Ok(())
}

fn seal(key: &LessSafeKey, counter: u64, datagram: &mut Datagram) -> Result<()> {
    let (header, rest) = datagram.split_at_mut(LINK_HEADER);
    let (sealed, tag) = rest.split_at_mut(SEALED);
    let made = key
        .seal_in_place_separate_tag(nonce(counter), Aad::from(&*header), sealed)
        .map_err(|_| anyhow!("does not seal"))?;
    tag.copy_from_slice(made.as_ref());
    Ok(())
}

fn payload(datagram: &mut Datagram) -> &mut [u8] {
    &mut datagram[CELL_OFFSET + PATH_HEADER..DATAGRAM - TAG]
}
