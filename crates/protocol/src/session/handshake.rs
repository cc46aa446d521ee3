//! The two messages that make a session.

use rand_core::CryptoRng;
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use snow::HandshakeState;
use zeroize::{Zeroize, Zeroizing};

use super::certificate::Certificate;
use super::data::SessionKeys;
use super::effort::FRONT;
use super::offers;
use crate::authorisation::{Authorisation, TOKEN};
use crate::identity::{AnonymousId, X25519Public, X25519Secret};
use crate::noise;
use crate::records::TailOffer;
use crate::size::{PAYLOAD, Payload, TAG};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// How far an initiation's timestamp may be from the responder's clock, milliseconds.
pub const TIMESTAMP_TOLERANCE_MS: u64 = 10 * 60 * 1000;

const PROLOGUE: &[u8] = b"mixline/v1/session";
const KEYS_INFO: &[u8] = b"mixline/v1/session keys";
const VERSION: u8 = 1;
/// Bytes that Noise IK leaves for what is said: in the initiation through a private tail (e 32, s 32 + 16) ...
const PRIVATE: usize = PAYLOAD - 32 - 48 - TAG;
/// ... in that through a public one, which begins with the effort ...
const PUBLIC: usize = PRIVATE - FRONT;
/// ... and in the response (e 32).
const RESPONSE: usize = PAYLOAD - 32 - TAG;

/// The two forms of an initiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For one of the tails in the responder's descriptor, which everybody knows. It begins with the effort
    /// that was spent on it: [`effort`](super::effort).
    Public,
    /// For a tail that the responder has named to this initiator alone.
    Private,
}

/// A handshake that we began.
pub struct SessionInitiator {
    noise: HandshakeState,
}

impl SessionInitiator {
    /// Begins a session with the ID whose descriptor says that its session key is `remote`.
    /// `local` is the key that `certificate` names; the answer will come through one of
    /// `tails` (one to four). `authorisation` is for a responder that has a list of clients.
    ///
    /// The payload is for one of the responder's tails. In that of the public form the first
    /// [`FRONT`] bytes are zero: [`effort::write`](super::effort::write) comes next.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the certificate is not for `local`; [`Error::LowOrder`] if
    /// `remote` is no key; [`Error::Limit`] for a wrong number of tails.
    #[expect(clippy::too_many_arguments, reason = "all that an initiation says")]
    pub fn start(
        local: &X25519Secret,
        remote: &X25519Public,
        remote_id: &AnonymousId,
        form: Form,
        certificate: &Certificate,
        tails: &[TailOffer],
        authorisation: Option<&Authorisation>,
        now_ms: u64,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Self, Box<Payload>)> {
        if local.public() != certificate.session {
            return Err(Error::Malformed {
                what: "certificate",
            });
        }
        let mut said = Writer::new();
        said.u8(VERSION).u64(now_ms);
        said.bytes(&authorisation.map_or([0; TOKEN], |it| it.proof(&certificate.session, now_ms)));
        certificate.write(&mut said);
        offers::write(tails, &mut said)?;
        let mut noise = noise::initiator(local, remote, &prologue(remote_id), rng)?;
        let payload = match form {
            Form::Public => write::<PUBLIC>(&mut noise, said.written(), FRONT)?,
            Form::Private => write::<PRIVATE>(&mut noise, said.written(), 0)?,
        };
        Ok((Self { noise }, payload))
    }

    /// Reads the response: the keys, and the private tails through which to send from now on.
    ///
    /// A response that does not authenticate changes nothing: the right one may still come.
    ///
    /// # Errors
    /// [`Error::Authentication`] if it does not authenticate; [`Error::Malformed`],
    /// [`Error::Length`] or [`Error::Limit`] if the responder itself made it wrongly.
    pub fn finish(&mut self, response: &Payload) -> Result<(SessionKeys, Vec<TailOffer>)> {
        let (what, mut said) = ("session response", [0; RESPONSE]);
        let mut from = Reader::new(read(&mut self.noise, response, &mut said, what)?, what);
        let tails = offers::read(&mut from)?;
        from.zeros()?;
        Ok((keys(&mut self.noise)?, tails))
    }
}

/// An initiation that authenticates, of an ID that it proves.
pub struct Initiation {
    /// Who wants a session, and what vouches for it. Verified.
    pub certificate: Certificate,
    /// Through which to answer, and to send from then on.
    pub tails: Vec<TailOffer>,
    /// When it was made, by the initiator's clock; within the tolerance of ours. One that is not
    /// newer than the last of the same ID is a replay.
    pub timestamp_ms: u64,
    proof: [u8; TOKEN],
    noise: HandshakeState,
}

/// Reads the initiation of a session with us.
///
/// `local` is the session key in the descriptor of `own_id`; `directory` is whose leases are
/// believed. All that an initiation claims is checked here, but for its effort
/// ([`effort::spent`](super::effort::spent)): a caller has only to compare the timestamp with the last one of
/// that ID.
///
/// # Errors
/// [`Error::Authentication`] if it is not for us, was changed, or its certificate or lease is
/// not signed as it should be; [`Error::Expired`] and [`Error::NotYetValid`] for a
/// certificate, lease or timestamp; [`Error::Version`], [`Error::Malformed`], [`Error::Length`],
/// [`Error::Limit`], [`Error::LowOrder`].
pub fn accept(
    local: &X25519Secret,
    own_id: &AnonymousId,
    directory: &AnonymousId,
    form: Form,
    payload: &Payload,
    now_ms: u64,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Initiation> {
    let mut noise = noise::responder(local, &prologue(own_id), rng)?;
    let what = "session initiation";
    let (mut public, mut private);
    let said: &[u8] = match form {
        Form::Public => {
            public = [0; PUBLIC];
            read(&mut noise, &payload[FRONT..], &mut public, what)?
        }
        Form::Private => {
            private = [0; PRIVATE];
            read(&mut noise, payload, &mut private, what)?
        }
    };
    let mut from = Reader::new(said, what);
    if from.u8()? != VERSION {
        return Err(Error::Version { what });
    }
    let timestamp_ms = from.u64()?;
    let proof = from.array()?;
    let certificate = Certificate::read(&mut from)?;
    let tails = offers::read(&mut from)?;
    from.zeros()?;

    let at = timestamp_ms / 1000;
    if timestamp_ms > now_ms.saturating_add(TIMESTAMP_TOLERANCE_MS) {
        return Err(Error::NotYetValid { what, from: at });
    }
    if now_ms > timestamp_ms.saturating_add(TIMESTAMP_TOLERANCE_MS) {
        return Err(Error::Expired { what, at });
    }
    // Noise has proved that the initiator holds its static key; the certificate has to be for it.
    if noise::remote_static(&noise)? != certificate.session {
        return Err(Error::Authentication {
            what: "session key of the certificate",
        });
    }
    certificate.verify(UnixTime(now_ms / 1000), directory)?;
    Ok(Initiation {
        certificate,
        tails,
        timestamp_ms,
        proof,
        noise,
    })
}

impl Initiation {
    /// Which client of a list has made it: its public key. None if it is of none of them.
    #[must_use]
    pub fn client_of(&self, list: &[Authorisation]) -> Option<X25519Public> {
        let made = |it: &&Authorisation| {
            it.has_made(&self.proof, &self.certificate.session, self.timestamp_ms)
        };
        list.iter().find(made).map(|it| it.client)
    }

    /// Answers, offering `tails` (one to four) that only this initiator will know. The payload
    /// is for one of the initiator's tails.
    ///
    /// # Errors
    /// [`Error::Limit`] for a wrong number of tails.
    pub fn respond(mut self, tails: &[TailOffer]) -> Result<(SessionKeys, Box<Payload>)> {
        let mut said = Writer::new();
        offers::write(tails, &mut said)?;
        let payload = write::<RESPONSE>(&mut self.noise, said.written(), 0)?;
        Ok((keys(&mut self.noise)?, payload))
    }
}

/// What both sides mix in first: whom the session is with.
fn prologue(responder: &AnonymousId) -> Vec<u8> {
    [PROLOGUE, &responder.0].concat()
}

/// A message that says `said`, filled with zeros to `N` bytes, after `front` zeros.
fn write<const N: usize>(
    noise: &mut HandshakeState,
    said: &[u8],
    front: usize,
) -> Result<Box<Payload>> {
    let limit = Error::Limit {
        what: "session handshake",
    };
    let mut padded = [0; N];
    let beginning = padded.get_mut(..said.len()).ok_or(limit)?;
    beginning.copy_from_slice(said);
    let mut payload = Box::new([0; PAYLOAD]);
    noise
        .write_message(&padded, &mut payload[front..])
        .map_err(noise::error("session handshake"))?;
    Ok(payload)
}

/// What a message says, zeros included.
fn read<'a>(
    noise: &mut HandshakeState,
    message: &[u8],
    said: &'a mut [u8],
    what: &'static str,
) -> Result<&'a [u8]> {
    noise
        .read_message(message, said)
        .map_err(noise::error(what))?;
    Ok(said)
}

struct KeysLength;

impl KeyType for KeysLength {
    fn len(&self) -> usize {
        128
    }
}

fn keys(noise: &mut HandshakeState) -> Result<SessionKeys> {
    let failed = Error::Malformed {
        what: "session keys",
    };
    let (mut one, mut two) = noise.dangerously_get_raw_split();
    let input = Zeroizing::new([one, two].concat());
    one.zeroize();
    two.zeroize();
    let mut secrets = Zeroizing::new([0; 128]);
    Salt::new(HKDF_SHA256, noise.get_handshake_hash())
        .extract(&input)
        .expand(&[KEYS_INFO], KeysLength)
        .and_then(|okm| okm.fill(secrets.as_mut()))
        .map_err(|_| failed)?;
    SessionKeys::derive(&secrets, noise.is_initiator())
}
