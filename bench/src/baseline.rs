//! The bare primitives that no relay can do without.

use std::time::{Duration, Instant};

use anyhow::Result;
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram, PATH_HEADER, Payload, TAG};
use mixline_wide_crypto::Width;
use mixline_wide_crypto::gcm::Gcm;
use mixline_wide_crypto::hctr2::Hctr2;

use crate::testbed::{PER_ROUND, nanoseconds};

/// AES-256-GCM open, HCTR2 and AES-256-GCM seal on buffers of a datagram's length, with one
/// key each and nothing around them.
pub struct Baseline {
    neighbour: Gcm,
    open: Gcm,
    hctr2: Hctr2,
    seal: Gcm,
    datagrams: Vec<Datagram>,
}

impl Default for Baseline {
    fn default() -> Self {
        Self::new()
    }
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
    /// Three keys, for the instructions that the relay uses.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Width::current())
    }

    /// By the crates that are used where there are no wide instructions.
    ///
    /// # Errors
    /// None that happen.
    pub fn by_crates() -> Result<Self> {
        Ok(Self::with(Width::named("scalar")?))
    }

    fn with(width: Width) -> Self {
        Self {
            neighbour: Gcm::with(&[1; 32], width),
            open: Gcm::with(&[1; 32], width),
            hctr2: Hctr2::with(&[2; 32], width),
            seal: Gcm::with(&[3; 32], width),
            datagrams: vec![[0; DATAGRAM]; PER_ROUND],
        }
    }

    /// All three after each other for each of [`PER_ROUND`] datagrams: nanoseconds for one.
    ///
    /// # Errors
    /// None that happen.
    pub fn round(&mut self) -> Result<f64> {
        self.fill()?;
        let began = Instant::now();
        for (counter, datagram) in (0..).zip(&mut self.datagrams) {
            self.open.open(counter, datagram)?;
            self.hctr2.decrypt(&[4; 16], payload(datagram)?);
            self.seal.seal(counter, datagram);
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
            self.open.open(counter, datagram)?;
        }
        opening += began.elapsed();
        let began = Instant::now();
        for datagram in &mut self.datagrams {
            self.hctr2.decrypt(&[4; 16], payload(datagram)?);
        }
        let hctr2 = began.elapsed();
        let began = Instant::now();
        for (counter, datagram) in (0..).zip(&mut self.datagrams) {
            self.seal.seal(counter, datagram);
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
            self.neighbour.seal(counter, datagram);
        }
        Ok(())
    }
}

fn payload(datagram: &mut Datagram) -> Result<&mut Payload> {
    let payload = &mut datagram[CELL_OFFSET + PATH_HEADER..DATAGRAM - TAG];
    Ok(payload.try_into()?)
}
