//! The bare primitives that no relay can do without.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram, PATH_HEADER, Payload, TAG};
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
            neighbour: Gcm::new(&[1; 32]),
            open: Gcm::new(&[1; 32]),
            hctr2: Hctr2::new(&[2; 32]),
            seal: Gcm::new(&[3; 32]),
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
