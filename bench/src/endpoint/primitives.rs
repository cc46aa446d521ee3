//! The bare primitives that no endpoint can do without.

use std::time::Instant;

use anyhow::Result;
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram, PATH_HEADER, Payload, TAG};
use mixline_wide_crypto::gcm::Gcm;
use mixline_wide_crypto::hctr2::Hctr2;

use super::ends::CELLS;
use crate::testbed::nanoseconds;

/// Layers that an endpoint puts on, or takes off.
const LAYERS: usize = 3;

/// Payloads and datagrams sealed and opened, with a key for each layer and nothing around them.
pub struct Primitives {
    session: Gcm,
    layers: [Hctr2; LAYERS],
    link: Gcm,
    datagrams: Vec<Datagram>,
}

/// What each took, in nanoseconds for one cell.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// AES-256-GCM of a payload, sealed.
    pub seal_payload: f64,
    /// HCTR2, three layers.
    pub layers: f64,
    /// AES-256-GCM of a datagram, sealed.
    pub seal_link: f64,
    /// The same opened.
    pub open_link: f64,
    /// AES-256-GCM of a payload, opened.
    pub open_payload: f64,
}

impl Primitives {
    /// For the instructions that the endpoint uses.
    pub fn new() -> Self {
        Self {
            session: Gcm::new(&[1; 32]),
            layers: [2, 3, 4].map(|byte| Hctr2::new(&[byte; 32])),
            link: Gcm::new(&[5; 32]),
            datagrams: vec![[0; DATAGRAM]; CELLS],
        }
    }

    /// What a cell takes to leave: its payload sealed, three layers, the datagram sealed. Nanoseconds for one.
    ///
    /// # Errors
    /// None that happen.
    pub fn out(&mut self) -> Result<f64> {
        let Self {
            session,
            layers,
            link,
            datagrams,
        } = self;
        timed(datagrams, |counter, datagram| {
            session.seal_payload(counter, payload(datagram)?);
            wrap(layers, payload(datagram)?);
            link.seal(counter, datagram);
            Ok(())
        })
    }

    /// What a cell takes that comes: the datagram opened, three layers, the payload opened. Nanoseconds for one.
    ///
    /// # Errors
    /// None that happen.
    pub fn back(&mut self) -> Result<f64> {
        self.out()?;
        let Self {
            session,
            layers,
            link,
            datagrams,
        } = self;
        timed(datagrams, |counter, datagram| {
            link.open(counter, datagram)?;
            unwrap(layers, payload(datagram)?);
            Ok(session.open_payload(counter, payload(datagram)?)?)
        })
    }

    /// Each by itself over all datagrams.
    ///
    /// # Errors
    /// None that happen.
    pub fn parts(&mut self) -> Result<Parts> {
        let Self {
            session,
            layers,
            link,
            datagrams,
        } = self;
        let seal_payload = timed(datagrams, |counter, datagram| {
            session.seal_payload(counter, payload(datagram)?);
            Ok(())
        })?;
        let layered = timed(datagrams, |_, datagram| {
            wrap(layers, payload(datagram)?);
            Ok(())
        })?;
        let seal_link = timed(datagrams, |counter, datagram| {
            link.seal(counter, datagram);
            Ok(())
        })?;
        let open_link = timed(datagrams, |counter, datagram| {
            Ok(link.open(counter, datagram)?)
        })?;
        for datagram in &mut *datagrams {
            unwrap(layers, payload(datagram)?);
        }
        let open_payload = timed(datagrams, |counter, datagram| {
            Ok(session.open_payload(counter, payload(datagram)?)?)
        })?;
        Ok(Parts {
            seal_payload,
            layers: layered,
            seal_link,
            open_link,
            open_payload,
        })
    }
}

/// Does the same to all; nanoseconds for one.
fn timed(
    datagrams: &mut [Datagram],
    mut each: impl FnMut(u64, &mut Datagram) -> Result<()>,
) -> Result<f64> {
    let began = Instant::now();
    for (counter, datagram) in (0..).zip(&mut *datagrams) {
        each(counter, datagram)?;
    }
    Ok(nanoseconds(began.elapsed()) / datagrams.len() as f64)
}

fn payload(datagram: &mut Datagram) -> Result<&mut Payload> {
    let payload = &mut datagram[CELL_OFFSET + PATH_HEADER..DATAGRAM - TAG];
    Ok(payload.try_into()?)
}

fn wrap(layers: &[Hctr2; LAYERS], payload: &mut Payload) {
    for layer in layers {
        layer.encrypt(&[6; 16], payload);
    }
}

/// An endpoint encrypts when it takes layers off; that takes as long.
fn unwrap(layers: &[Hctr2; LAYERS], payload: &mut Payload) {
    for layer in layers.iter().rev() {
        layer.decrypt(&[6; 16], payload);
    }
}
