//! The handshake: Noise IK, with an ephemeral ML-KEM-768 exchange in its payloads.
//!
//! ```text
//! Noise_IK_25519_AESGCM_SHA256, prologue "mixline/v1/link" | header of the initiation 16
//!
//! initiation  0 header(1, the initiator's index, counter 0)
//!            16 e 32 | s 48 | sealed { ML-KEM encapsulation key 1184
//!                                    | seconds 8 | nanoseconds 4 } + 16
//!          1308 nonce 16 | effort 4 | zero 48
//!          1376 mac1 16 | mac2 16
//! response    0 header(2, the initiator's index, counter 0)
//!            16 e 32 | sealed { ML-KEM ciphertext 1088 | the responder's index 4 } + 16
//!          1156 zero 220
//!          1376 mac1 16 | zero 16
//! ```
//!
//! The keys of both directions come from the raw split `k1 | k2` of Noise *and* the KEM's
//! secret: `HKDF-SHA256(salt = handshake hash, ikm = k1 | k2 | secret, info = "mixline/v1/link
//! keys")`, the initiator's sealing key first. Both must be broken for a recorded link to be
//! read. The other end's identity rests on X25519 alone, which is enough as long as no quantum
//! computer exists at the time of the handshake.
//!
//! Nonce and effort are for a responder under load, together with a cookie: see [`super::effort`]. Else they are
//! zero.
//!
//! Both indices are authenticated: the initiator's by the prologue, the responder's because
//! it is sealed. An initiation's mac1 keeps out anyone who does not know the responder's key, a response's
//! anyone but the two ends; see [`super`].

use super::cookie::{self, Cookie};
use super::effort;
use super::layout::{
    DatagramType, EFFORT_END, INDEX, INITIATION_END, KEM_CIPHERTEXT, KEM_KEY, MAC1, MAC2,
    RESPONSE_END, TIMESTAMP, expect_header, expect_zeros, receiver_index, write_header,
};
use super::mac::{self, MAC};
use super::transport::{OpenKey, SealKey};
use crate::effort::{Puzzle, Solution};
use crate::identity::{X25519Public, X25519Secret};
use crate::noise;
use crate::size::{DATAGRAM, Datagram, LINK_HEADER};
use crate::wire::Reader;
use crate::{Error, Result};
use ml_kem::kem::{Decapsulate, Encapsulate, KeyExport};
use ml_kem::{DecapsulationKey, EncapsulationKey, MlKem768};
use rand_core::CryptoRng;
use ring::hmac;
use snow::HandshakeState;
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::{Zeroize, Zeroizing};

/// One initiation accepts at most this many responses that do not authenticate. Only those with a right mac1
/// cost public-key work and count, and only the responder can make one.
pub const MAX_RESPONSES: u32 = 8;

/// The initiator's wall clock. It has to grow from one initiation of a static key to the
/// next, so that a recorded one is worth nothing; it need not be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: u64,
    /// Nanoseconds, below 10^9.
    pub nanos: u32,
}

impl Timestamp {
    /// The next larger one.
    #[must_use]
    pub fn next(self) -> Self {
        if self.nanos >= 999_999_999 {
            Self {
                seconds: self.seconds.saturating_add(1),
                nanos: 0,
            }
        } else {
            Self {
                nanos: self.nanos + 1,
                ..self
            }
        }
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 become 1970.
    fn from(time: SystemTime) -> Self {
        time.duration_since(UNIX_EPOCH).map_or_else(
            |_| Self::default(),
            |d| Self {
                seconds: d.as_secs(),
                nanos: d.subsec_nanos(),
            },
        )
    }
}

/// A finished handshake.
pub struct Established {
    /// The neighbour's static key.
    pub remote: X25519Public,
    /// What the neighbour calls this session.
    pub remote_index: u32,
    /// What we call it.
    pub local_index: u32,
    /// Seals what we send.
    pub seal: SealKey,
    /// Opens what we receive.
    pub open: OpenKey,
    /// Whether the handshake was ours. If not, nothing may be sealed before something was
    /// opened: only then is it known that the neighbour has the keys.
    pub initiated: bool,
    /// The time in the initiation.
    pub timestamp: Timestamp,
}

/// A handshake that we began and that is not answered yet.
pub struct Initiator {
    noise: HandshakeState,
    kem: DecapsulationKey<MlKem768>,
    remote: X25519Public,
    index: u32,
    timestamp: Timestamp,
    /// mac1 of our initiation: a cookie is bound to it.
    mac1: [u8; MAC],
    /// For the mac1 of the response.
    expected: hmac::Key,
    attempts: u32,
}

impl Initiator {
    /// Begins a handshake with the holder of `remote`; `index` is what we will call the
    /// session. Returns the initiation to be sent, in which there is no effort.
    ///
    /// # Errors
    /// [`Error::LowOrder`] if `remote` is a point of low order.
    pub fn start(
        local: &X25519Secret,
        remote: &X25519Public,
        index: u32,
        at: Timestamp,
        cookie: Option<&Cookie>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Self, Box<Datagram>)> {
        let draft = Draft::new(local, remote, index, at, rng)?;
        Ok(draft.finish(cookie, &Solution::default()))
    }

    /// What we will call the session.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Reads the response. After an error the handshake waits on for the true one.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not a response to this handshake, or the handshake is
    /// finished; [`Error::Authentication`] or [`Error::LowOrder`] if it was not made by the
    /// holder of the remote key; [`Error::Limit`] after [`MAX_RESPONSES`] with a right mac1.
    pub fn finish(&mut self, response: &Datagram) -> Result<Established> {
        const WHAT: &str = "link response";
        expect_header(response, DatagramType::Response, WHAT)?;
        if receiver_index(response) != self.index {
            return Err(Error::Malformed { what: WHAT });
        }
        expect_zeros(&response[RESPONSE_END..MAC1], WHAT)?;
        expect_zeros(&response[MAC2..], WHAT)?;
        if !mac::same(
            &mac::mac(&self.expected, &[&response[..MAC1]]),
            &response[MAC1..MAC2],
        ) {
            return Err(Error::Authentication { what: WHAT });
        }
        if self.attempts >= MAX_RESPONSES {
            return Err(Error::Limit {
                what: "link responses",
            });
        }
        self.attempts += 1;

        let mut payload = [0; KEM_CIPHERTEXT + INDEX];
        self.noise
            .read_message(&response[LINK_HEADER..RESPONSE_END], &mut payload)
            .map_err(noise::error(WHAT))?;
        let mut reader = Reader::new(&payload, WHAT);
        let ciphertext: [u8; KEM_CIPHERTEXT] = reader.array()?;
        let remote_index = reader.u32()?;
        let mut secret = self.kem.decapsulate(&ciphertext.into());
        let keys = keys(&mut self.noise, secret.as_ref());
        secret.zeroize();
        let (seal, open) = keys?;
        Ok(Established {
            remote: self.remote,
            remote_index,
            local_index: self.index,
            seal: SealKey::new(&seal, remote_index),
            open: OpenKey::new(&open, self.index),
            initiated: true,
            timestamp: self.timestamp,
        })
    }

    /// Reads the cookie that a responder under load has sent instead of a response. It goes
    /// into the next initiation.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not an answer to this handshake;
    /// [`Error::Authentication`] if it was not made for our initiation.
    pub fn open_cookie(&self, datagram: &Datagram) -> Result<Cookie> {
        if receiver_index(datagram) != self.index {
            return Err(Error::Malformed {
                what: "link cookie",
            });
        }
        cookie::open(datagram, &self.remote, &self.mac1)
    }
}

/// An initiation without its MACs: what effort is made for.
pub struct Draft {
    initiator: Initiator,
    datagram: Box<Datagram>,
}

impl Draft {
    /// As [`Initiator::start`] does.
    ///
    /// # Errors
    /// Those of [`Initiator::start`].
    pub fn new(
        local: &X25519Secret,
        remote: &X25519Public,
        index: u32,
        at: Timestamp,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self> {
        let mut datagram = Box::new([0; DATAGRAM]);
        write_header(&mut datagram, DatagramType::Initiation, index, 0);
        let mut noise = noise::initiator(local, remote, &prologue(&datagram), rng)?;

        let mut seed = Zeroizing::new([0; 64]);
        rng.fill_bytes(seed.as_mut());
        let mut array = ml_kem::Seed::from(*seed);
        let kem = DecapsulationKey::<MlKem768>::from_seed(array);
        array.zeroize();

        let mut payload = [0; KEM_KEY + TIMESTAMP];
        payload[..KEM_KEY].copy_from_slice(&kem.encapsulation_key().to_bytes());
        let expected = mac::response_key(&payload[..KEM_KEY]);
        payload[KEM_KEY..KEM_KEY + 8].copy_from_slice(&at.seconds.to_be_bytes());
        payload[KEM_KEY + 8..].copy_from_slice(&at.nanos.to_be_bytes());
        noise
            .write_message(&payload, &mut datagram[LINK_HEADER..INITIATION_END])
            .map_err(noise::error("link initiation"))?;
        let initiator = Initiator {
            noise,
            kem,
            remote: *remote,
            index,
            timestamp: at,
            mac1: [0; MAC],
            expected,
            attempts: 0,
        };
        Ok(Self {
            initiator,
            datagram,
        })
    }

    /// What we will call the session.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.initiator.index
    }

    /// What is to be solved to send it with this cookie.
    #[must_use]
    pub fn puzzle(&self, cookie: &Cookie) -> Puzzle {
        effort::puzzle(&self.initiator.remote, cookie, &self.datagram)
    }

    /// The initiation, to be sent.
    #[must_use]
    pub fn finish(
        self,
        cookie: Option<&Cookie>,
        solution: &Solution,
    ) -> (Initiator, Box<Datagram>) {
        let Self {
            mut initiator,
            mut datagram,
        } = self;
        effort::write(&mut datagram, solution);
        initiator.mac1 = mac::mac(&mac::mac1_key(&initiator.remote), &[&datagram[..MAC1]]);
        datagram[MAC1..MAC2].copy_from_slice(&initiator.mac1);
        if let Some(cookie) = cookie {
            let mac2 = cookie.mac2(&datagram[..MAC2]);
            datagram[MAC2..].copy_from_slice(&mac2);
        }
        (initiator, datagram)
    }
}

/// An initiation that authenticates and is newer than any before.
pub struct Incoming {
    noise: HandshakeState,
    remote: X25519Public,
    remote_index: u32,
    timestamp: Timestamp,
    kem: Box<[u8; KEM_KEY]>,
}

impl Incoming {
    /// Opens an initiation to `local`. Its MACs have been looked at.
    pub(super) fn open(
        local: &X25519Secret,
        datagram: &Datagram,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self> {
        const WHAT: &str = "link initiation";
        expect_header(datagram, DatagramType::Initiation, WHAT)?;
        // Effort is bound to a cookie: without one there is none.
        let has_cookie = datagram[MAC2..].iter().any(|byte| *byte != 0);
        let end = if has_cookie {
            EFFORT_END
        } else {
            INITIATION_END
        };
        expect_zeros(&datagram[end..MAC1], WHAT)?;
        let mut noise = noise::responder(local, &prologue(datagram), rng)?;
        let mut payload = [0; KEM_KEY + TIMESTAMP];
        noise
            .read_message(&datagram[LINK_HEADER..INITIATION_END], &mut payload)
            .map_err(noise::error(WHAT))?;
        let remote = noise::remote_static(&noise)?;
        let mut reader = Reader::new(&payload, WHAT);
        let kem = Box::new(reader.array()?);
        let timestamp = Timestamp {
            seconds: reader.u64()?,
            nanos: reader.u32()?,
        };
        reader.finish()?;
        if timestamp.nanos > 999_999_999 {
            return Err(Error::Malformed { what: WHAT });
        }
        Ok(Self {
            noise,
            remote,
            remote_index: receiver_index(datagram),
            timestamp,
            kem,
        })
    }

    /// The static key that it is from.
    #[must_use]
    pub fn remote(&self) -> X25519Public {
        self.remote
    }

    /// The time in it.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Answers it; `index` is what we will call the session. Returns the response to be sent.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the ML-KEM key is not one (FIPS 203, section 7.2);
    /// [`Error::LowOrder`] if the ephemeral key is a point of low order.
    pub fn respond(
        self,
        index: u32,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Established, Box<Datagram>)> {
        const WHAT: &str = "link initiation";
        let Self {
            mut noise,
            remote,
            remote_index,
            timestamp,
            kem,
        } = self;
        let response_key = mac::response_key(&*kem);
        let key = EncapsulationKey::<MlKem768>::new(&(*kem).into())
            .map_err(|_| Error::Malformed { what: "ML-KEM key" })?;
        let (ciphertext, mut secret) = key.encapsulate_with_rng(rng);

        let mut datagram = Box::new([0; DATAGRAM]);
        write_header(&mut datagram, DatagramType::Response, remote_index, 0);
        let mut payload = [0; KEM_CIPHERTEXT + INDEX];
        payload[..KEM_CIPHERTEXT].copy_from_slice(&ciphertext);
        payload[KEM_CIPHERTEXT..].copy_from_slice(&index.to_be_bytes());
        let written = noise
            .write_message(&payload, &mut datagram[LINK_HEADER..RESPONSE_END])
            .map_err(noise::error(WHAT));
        let keys = written.and_then(|_| keys(&mut noise, secret.as_ref()));
        secret.zeroize();
        let (open, seal) = keys?;
        let mac1 = mac::mac(&response_key, &[&datagram[..MAC1]]);
        datagram[MAC1..MAC2].copy_from_slice(&mac1);
        let established = Established {
            remote,
            remote_index,
            local_index: index,
            seal: SealKey::new(&seal, remote_index),
            open: OpenKey::new(&open, index),
            initiated: false,
            timestamp,
        };
        Ok((established, datagram))
    }
}

fn prologue(initiation: &Datagram) -> [u8; 15 + LINK_HEADER] {
    let mut out = [0; 15 + LINK_HEADER];
    out[..15].copy_from_slice(b"mixline/v1/link");
    out[15..].copy_from_slice(&initiation[..LINK_HEADER]);
    out
}

/// The keys of a finished handshake: initiator to responder, responder to initiator.
fn keys(noise: &mut HandshakeState, secret: &[u8]) -> Result<mac::TwoKeys> {
    let (mut k1, mut k2) = noise.dangerously_get_raw_split();
    let mut all = Zeroizing::new([0; 96]);
    all[..32].copy_from_slice(&k1);
    all[32..64].copy_from_slice(&k2);
    all[64..].copy_from_slice(secret);
    k1.zeroize();
    k2.zeroize();
    mac::two_keys(
        noise.get_handshake_hash(),
        all.as_ref(),
        "mixline/v1/link keys",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::link::Responder;
    use crate::random::OsRandom;

    #[test]
    fn a_responder_that_answers_wrongly_costs_a_bounded_amount_of_work() {
        let mut rng = OsRandom::new();
        let (local, remote) = (
            X25519Secret::generate(&mut rng),
            X25519Secret::generate(&mut rng),
        );
        let now = Timestamp::default();
        let (mut initiator, initiation) =
            Initiator::start(&local, &remote.public(), 7, now, None, &mut rng).unwrap();
        let mut responder = Responder::new(&remote, Instant::now(), &mut rng);
        let (_, response) = responder.respond(&initiation, 9, &mut rng).unwrap();
        let mut bent = response.clone();
        bent[100] ^= 1;
        let key = mac::response_key(&initiator.kem.encapsulation_key().to_bytes());
        let mac1 = mac::mac(&key, &[&bent[..MAC1]]);
        bent[MAC1..MAC2].copy_from_slice(&mac1);
        for _ in 0..MAX_RESPONSES {
            let refused = initiator.finish(&bent).err();
            assert!(matches!(refused, Some(Error::Authentication { .. })));
        }
        let refused = initiator.finish(&response).err();
        assert!(matches!(refused, Some(Error::Limit { .. })));
    }

    /// Otherwise one solution would be worth as many initiations as there are paddings.
    #[test]
    fn what_no_effort_covers_is_zeros() {
        let mut rng = OsRandom::new();
        let (local, remote) = (
            X25519Secret::generate(&mut rng),
            X25519Secret::generate(&mut rng),
        );
        let now = Timestamp::default();
        let (_, initiation) =
            Initiator::start(&local, &remote.public(), 7, now, None, &mut rng).unwrap();
        let responder = Responder::new(&remote, Instant::now(), &mut rng);
        responder.check_mac1(&initiation).unwrap();
        for at in [EFFORT_END, MAC1 - 1] {
            let mut padded = initiation.clone();
            padded[at] = 1;
            let mac1 = mac::mac(&mac::mac1_key(&remote.public()), &[&padded[..MAC1]]);
            padded[MAC1..MAC2].copy_from_slice(&mac1);
            let refused = responder.check_mac1(&padded).err();
            assert!(matches!(refused, Some(Error::Malformed { .. })), "{at}");
        }
    }
}
