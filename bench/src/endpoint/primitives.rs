//! The bare primitives that no endpoint can do without.

use std::time::Instant;

use anyhow::{Result, anyhow};
use mixline_protocol::size::{
    CELL_OFFSET, COUNTER, DATAGRAM, Datagram, FRAMES, PATH_HEADER, Payload, TAG,
};
use mixline_wide_crypto::gcm::Gcm;
use mixline_wide_crypto::hctr2::Hctr2;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::ends::CELLS;
use crate::testbed::nanoseconds;

/// Layers that an endpoint puts on, or takes off.
const LAYERS: usize = 3;

/// Payloads and datagrams sealed and opened, with a key for each layer and nothing around them.
pub struct Primitives {
    session: LessSafeKey,
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
    ///
    /// # Errors
    /// None that happen.
    pub fn new() -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &[1; 32]).map_err(|_| anyhow!("no key"))?;
        Ok(Self {
            session: LessSafeKey::new(key),
            layers: [2, 3, 4].map(|byte| Hctr2::new(&[byte; 32])),
            link: Gcm::new(&[5; 32]),
            datagrams: vec![[0; DATAGRAM]; CELLS],
        })
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
            seal(session, counter, payload(datagram)?)?;
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
            open(session, counter, payload(datagram)?)
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
            seal(session, counter, payload(datagram)?)
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
            open(session, counter, payload(datagram)?)
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

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn seal(key: &LessSafeKey, counter: u64, payload: &mut Payload) -> Result<()> {
    let (masked, rest) = payload.split_at_mut(COUNTER);
    let (frames, tag) = rest.split_at_mut(FRAMES);
    let made = key
        .seal_in_place_separate_tag(nonce(counter), Aad::from(&*masked), frames)
        .map_err(|_| anyhow!("a payload is not sealed"))?;
    tag.copy_from_slice(made.as_ref());
    Ok(())
}

fn open(key: &LessSafeKey, counter: u64, payload: &mut Payload) -> Result<()> {
    let (masked, sealed) = payload.split_at_mut(COUNTER);
    key.open_in_place(nonce(counter), Aad::from(&*masked), sealed)
        .map_err(|_| anyhow!("a payload does not open"))?;
    Ok(())
}
