//! Questions about the path to a relay, which is answered to whoever knows the relay's link key.
//!
//! All that a link sends has one length, so where a path lets only shorter packets through nothing
//! comes back at all. A probe may be shorter, and says how long the answer is to be: so it is found
//! out what a path lets through, in each direction, and what the sender's address looks like from
//! there. It is for diagnosis, and no part of a link.
//!
//! ```text
//! probe   n   0 header(5, number 4, 0)
//!            16 length of the answer 2 | delay in seconds 2 | zero 12
//!            32 zero n - 48
//!        n-16 mac 16
//! answer  m   0 header(6, the probe's number, 0)
//!            16 n 2 | address 16 | port 2 | zero 12
//!            48 zero m - 64
//!        m-16 mac 16
//!
//! mac of a probe    = HMAC16(SHA-256("mixline/v1/probe" | relay's static link key), all before)
//! mac of an answer  = HMAC16(SHA-256("mixline/v1/probe answer" | the same key),
//!                            mac of the probe | all before)
//! ```
//!
//! `64 <= m <= n <= 1408`: nothing is amplified. A relay remembers of a source how much it has asked,
//! no more, and of some answers that they are to be given later, which shows how long a NAT keeps a
//! mapping. Who sees the probe on the wire, and knows the relay's key, can make an answer: it is a
//! hint for a person, and decides nothing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use mixline_relay_common::wire::{
    COUNTER_OFFSET, INDEX_OFFSET, MIN_PROBE_LENGTH, TYPE_OFFSET, TYPE_PROBE, TYPE_PROBE_ANSWER,
};
use ring::hmac;

use super::cookie::address;
use super::mac::{self, MAC};
use crate::identity::X25519Public;
use crate::rate_limit::{Rate, RateLimiter, site};
use crate::shares::{Claimant, Shares};
use crate::size::{DATAGRAM, Datagram, LINK_HEADER};
use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// Bytes of the shortest probe, and of the shortest answer.
pub const MIN_PROBE: usize = MIN_PROBE_LENGTH;

/// The longest delay of an answer.
pub const MAX_DELAY: Duration = Duration::from_secs(120);

/// Probes of one source (IPv4 address or IPv6 /64) that are answered at once ...
pub const SOURCE_BURST: u32 = 100;
/// ... and one more each time this has passed.
pub const SOURCE_REFILL: Duration = Duration::from_millis(20);
/// Sources that are told apart; more are not answered until some have recovered.
pub const MAX_SOURCES: usize = 4096;
/// Probes of all sources that are answered at once ...
pub const TOTAL_BURST: u32 = 500;
/// ... and one more each time this has passed.
pub const TOTAL_REFILL: Duration = Duration::from_millis(2);
/// Answers that wait for their time, of all sources, which networks share ([`Shares`]), and of one.
pub const MAX_WAITING: usize = 256;
/// See [`MAX_WAITING`].
pub const MAX_WAITING_OF_ONE: usize = 16;

const WHAT: &str = "probe";

/// A question about the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Chosen by the sender, repeated in the answer.
    pub number: u32,
    /// Bytes of the answer, from [`MIN_PROBE`] to as many as the probe has.
    pub answer: u16,
    /// When to answer, seconds; at most [`MAX_DELAY`].
    pub delay: u16,
}

/// A probe as it is sent, and what its answer is known by.
#[derive(Debug, Clone)]
pub struct SentProbe {
    /// What to send.
    pub bytes: Vec<u8>,
    number: u32,
    relay: X25519Public,
}

/// What a relay has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// Bytes of the probe as it arrived.
    pub length: u16,
    /// Where it came from.
    pub seen: SocketAddr,
}

impl Probe {
    /// The probe to the relay with this link key, of `length` bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] if the length is not one of a probe, or the answer is longer.
    pub fn encode(&self, length: usize, relay: &X25519Public) -> Result<SentProbe> {
        let answer = usize::from(self.answer);
        if !(MIN_PROBE..=DATAGRAM).contains(&length)
            || !(MIN_PROBE..=length).contains(&answer)
            || Duration::from_secs(self.delay.into()) > MAX_DELAY
        {
            return Err(Error::Limit { what: WHAT });
        }
        let mut out = header(TYPE_PROBE, self.number);
        out.u16(self.answer).u16(self.delay);
        let mut bytes = out.written().to_vec();
        bytes.resize(length - MAC, 0);
        let mac = mac::mac(&probe_key(relay), &[&bytes]);
        bytes.extend_from_slice(&mac);
        Ok(SentProbe {
            bytes,
            number: self.number,
            relay: *relay,
        })
    }

    fn decode(bytes: &[u8], key: &hmac::Key) -> Result<Self> {
        let body = open(bytes, TYPE_PROBE, |before| mac::mac(key, &[before]))?;
        let mut reader = Reader::new(body, WHAT);
        let number = read_header(&mut reader)?;
        let (answer, delay) = (reader.u16()?, reader.u16()?);
        reader.zeros()?;
        if !(MIN_PROBE..=bytes.len()).contains(&usize::from(answer))
            || Duration::from_secs(delay.into()) > MAX_DELAY
        {
            return Err(Error::Limit { what: WHAT });
        }
        Ok(Self {
            number,
            answer,
            delay,
        })
    }
}

impl SentProbe {
    /// The number of the probe.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Malformed`] if it is none or another's;
    /// [`Error::Authentication`] if it was not made for this probe by one who knows the relay's key.
    pub fn answered(&self, bytes: &[u8]) -> Result<ProbeAnswer> {
        let key = answer_key(&self.relay);
        let mac = &self.bytes[self.bytes.len() - MAC..];
        let body = open(bytes, TYPE_PROBE_ANSWER, |before| {
            mac::mac(&key, &[mac, before])
        })?;
        let mut reader = Reader::new(body, WHAT);
        if read_header(&mut reader)? != self.number {
            return Err(Error::Malformed { what: WHAT });
        }
        let length = reader.u16()?;
        let ip = IpAddr::from(Ipv6Addr::from(reader.array::<16>()?)).to_canonical();
        let seen = SocketAddr::new(ip, reader.u16()?);
        reader.zeros()?;
        Ok(ProbeAnswer { length, seen })
    }
}

/// The number in an answer, to find its probe by. `None` if it is no answer.
#[must_use]
pub fn answer_number(bytes: &[u8]) -> Option<u32> {
    let [TYPE_PROBE_ANSWER, 0, 0, 0, number @ ..] = bytes.first_chunk::<8>()? else {
        return None;
    };
    Some(u32::from_be_bytes(*number))
}

/// Whether a UDP payload may be a probe that is shorter than other datagrams.
#[must_use]
pub fn is_short_probe(bytes: &[u8]) -> bool {
    (MIN_PROBE..DATAGRAM).contains(&bytes.len())
        && bytes.starts_with(&[TYPE_PROBE, 0, 0, 0])
        && bytes[COUNTER_OFFSET..LINK_HEADER] == [0; 8]
}

/// Lets a short probe, the first `length` bytes of `slot`, pass for a datagram of the usual length
/// within this program: the rest is zero, and the counter in the header, which is zero in a probe on
/// the wire, says the length. False, and nothing is changed, if it is none.
pub fn lengthen(slot: &mut Datagram, length: usize) -> bool {
    let (Some(probe), Ok(length_field)) = (slot.get(..length), u64::try_from(length)) else {
        return false;
    };
    if !is_short_probe(probe) {
        return false;
    }
    slot[length..].fill(0);
    slot[COUNTER_OFFSET..LINK_HEADER].copy_from_slice(&length_field.to_be_bytes());
    true
}

/// The probe as it was on the wire, of which [`lengthen`] may have made a datagram.
fn on_the_wire(datagram: &Datagram) -> Option<Vec<u8>> {
    let length = usize::try_from(super::counter(datagram)).ok()?;
    let length = if length == 0 { DATAGRAM } else { length };
    let mut probe = datagram.get(..length)?.to_vec();
    probe.get_mut(COUNTER_OFFSET..LINK_HEADER)?.fill(0);
    Some(probe)
}

/// An answer to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What to send: [`MIN_PROBE`] to [`DATAGRAM`] bytes.
    pub bytes: Vec<u8>,
    /// Where to.
    pub to: SocketAddr,
}

/// Answers probes to one static link key.
pub struct ProbeResponder {
    probe: hmac::Key,
    answer: hmac::Key,
    sources: RateLimiter<IpAddr, Shares>,
    /// When the bucket of all sources is full again.
    total: Instant,
    waiting: Vec<(Instant, Answer)>,
    /// Who has how many of those.
    places: Shares,
}

const TOTAL: Rate = Rate {
    burst: TOTAL_BURST,
    interval: TOTAL_REFILL,
};

impl ProbeResponder {
    /// A responder for the holder of this key.
    #[must_use]
    pub fn new(local: &X25519Public, now: Instant) -> Self {
        let rate = Rate {
            burst: SOURCE_BURST,
            interval: SOURCE_REFILL,
        };
        Self {
            probe: probe_key(local),
            answer: answer_key(local),
            sources: RateLimiter::by_network(rate, MAX_SOURCES),
            total: now,
            waiting: Vec::new(),
            places: Shares::new(MAX_WAITING, 0),
        }
    }

    /// Takes a datagram of type probe, which may have come by [`lengthen`]. What to send back now;
    /// `None` if it is no probe to us, is too much, or is to be answered later.
    pub fn respond(
        &mut self,
        datagram: &Datagram,
        source: SocketAddr,
        now: Instant,
    ) -> Option<Answer> {
        let bytes = on_the_wire(datagram)?;
        let probe = Probe::decode(&bytes, &self.probe).ok()?;
        let from = site(source.ip());
        if !self.sources.admit(from, now) || !TOTAL.take(&mut self.total, now) {
            return None;
        }
        let length = u16::try_from(bytes.len()).ok()?;
        let mut out = header(TYPE_PROBE_ANSWER, probe.number);
        out.u16(length).bytes(&address(source));
        let mut answer = out.written().to_vec();
        answer.resize(usize::from(probe.answer) - MAC, 0);
        let mac = mac::mac(&self.answer, &[&bytes[bytes.len() - MAC..], &answer]);
        answer.extend_from_slice(&mac);
        let answer = Answer {
            bytes: answer,
            to: source,
        };
        if probe.delay == 0 {
            return Some(answer);
        }
        let of_one = |(_, other): &&(Instant, Answer)| site(other.to.ip()) == from;
        if self.waiting.iter().filter(of_one).count() < MAX_WAITING_OF_ONE
            && self.places.take(Claimant::Stranger(from))
        {
            let at = now + Duration::from_secs(probe.delay.into());
            self.waiting.push((at, answer));
        }
        None
    }

    /// The answers whose time has come.
    pub fn due(&mut self, now: Instant) -> Vec<Answer> {
        let due: Vec<_> = self
            .waiting
            .extract_if(.., |(at, _)| now >= *at)
            .map(|(_, answer)| answer)
            .collect();
        for answer in &due {
            let from = Claimant::Stranger(site(answer.to.ip()));
            self.places.give_back(from);
        }
        due
    }
}

fn probe_key(relay: &X25519Public) -> hmac::Key {
    let key = mac::public_key("mixline/v1/probe", relay);
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

fn answer_key(relay: &X25519Public) -> hmac::Key {
    let key = mac::public_key("mixline/v1/probe answer", relay);
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

fn header(kind: u8, number: u32) -> Writer {
    let mut out = Writer::new();
    out.bytes(&[kind, 0, 0, 0]).u32(number).u64(0);
    out
}

/// What stands before the MAC of a probe or an answer, if length, type and MAC are right.
fn open(bytes: &[u8], kind: u8, mac: impl FnOnce(&[u8]) -> [u8; MAC]) -> Result<&[u8]> {
    if !(MIN_PROBE..=DATAGRAM).contains(&bytes.len()) {
        return Err(Error::Length {
            what: WHAT,
            expected: MIN_PROBE,
            got: bytes.len(),
        });
    }
    if bytes[TYPE_OFFSET..INDEX_OFFSET] != [kind, 0, 0, 0] {
        return Err(Error::Malformed { what: WHAT });
    }
    let (before, said) = bytes.split_at(bytes.len() - MAC);
    if !mac::same(&mac(before), said) {
        return Err(Error::Authentication { what: WHAT });
    }
    Ok(before)
}

/// The number in a header whose type has been looked at.
fn read_header(reader: &mut Reader<'_>) -> Result<u32> {
    let _ = reader.u32()?;
    let number = reader.u32()?;
    if reader.u64()? != 0 {
        return Err(Error::Malformed { what: WHAT });
    }
    Ok(number)
}
