//! Cookies: under load, a source proves that it receives at its address before anyone does
//! public-key work for it (WireGuard's whitepaper, section 5.4.7).
//!
//! ```text
//! cookie 16 = HMAC-SHA256(secret, address 16 | port 2)[..16]
//! datagram  = header(3, the initiator's index, counter 0) | nonce 12
//!           | AES-256-GCM(SHA-256("mixline/v1/cookie" | responder's public key), nonce,
//!                         aad = mac1 of the initiation) { cookie 16 } + 16 | zero 1348
//! mac2      = HMAC-SHA256(cookie, all before mac2)[..16]
//! ```
//!
//! An IPv4 address is written as an IPv4-mapped IPv6 one. The secret changes every
//! [`COOKIE_LIFE`], and the one before is still good, so a cookie is good for at least that
//! long. The datagram is as long as the initiation: nothing is amplified.

use super::handshake::{MAC1, MAC2};
use super::mac::{self, MAC};
use super::{DatagramType, expect_header, expect_zeros, receiver_index, write_header};
use crate::identity::X25519Public;
use crate::size::{DATAGRAM, Datagram, LINK_HEADER, TAG};
use crate::{Error, Result};
use rand_core::CryptoRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// How long a cookie is used, and how often the secret behind it changes.
pub const COOKIE_LIFE: Duration = Duration::from_secs(120);

/// Where the sealed cookie begins.
const SEALED: usize = LINK_HEADER + NONCE_LEN;
/// Where it ends.
const END: usize = SEALED + MAC + TAG;

/// What proves to one responder that we receive at our address.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Cookie([u8; MAC]);

impl Cookie {
    /// mac2 over what stands before it.
    pub(super) fn mac2(&self, before: &[u8]) -> [u8; MAC] {
        mac::mac(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), &[before])
    }
}

/// Opens a cookie datagram from the holder of `responder`, bound to our initiation's `mac1`.
pub(super) fn open(
    datagram: &Datagram,
    responder: &X25519Public,
    mac1: &[u8; MAC],
) -> Result<Cookie> {
    const WHAT: &str = "link cookie";
    expect_header(datagram, DatagramType::Cookie, WHAT)?;
    expect_zeros(&datagram[END..], WHAT)?;
    let failed = |_| Error::Authentication { what: WHAT };
    let nonce = Nonce::try_assume_unique_for_key(&datagram[LINK_HEADER..SEALED]).map_err(failed)?;
    let mut sealed = [0; MAC + TAG];
    sealed.copy_from_slice(&datagram[SEALED..END]);
    let opened = key(responder)?.open_in_place(nonce, Aad::from(mac1), &mut sealed);
    let mut cookie = [0; MAC];
    cookie.copy_from_slice(opened.map_err(failed)?);
    Ok(Cookie(cookie))
}

fn key(responder: &X25519Public) -> Result<LessSafeKey> {
    UnboundKey::new(
        &AES_256_GCM,
        &mac::public_key("mixline/v1/cookie", responder),
    )
    .map(LessSafeKey::new)
    .map_err(|_| Error::Length {
        what: "cookie key",
        expected: 32,
        got: 32,
    })
}

/// Makes cookies and checks them; keeps nothing about those it made.
pub(super) struct CookieMaker {
    seal: Option<LessSafeKey>,
    current: hmac::Key,
    previous: Option<hmac::Key>,
    changed: Instant,
}

impl CookieMaker {
    pub(super) fn new(
        local: &X25519Public,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        Self {
            seal: key(local).ok(),
            current: secret(rng),
            previous: None,
            changed: now,
        }
    }

    pub(super) fn tick(&mut self, now: Instant, rng: &mut (impl CryptoRng + ?Sized)) {
        let age = now.saturating_duration_since(self.changed);
        if age >= COOKIE_LIFE {
            let last = std::mem::replace(&mut self.current, secret(rng));
            self.previous = (age < 2 * COOKIE_LIFE).then_some(last);
            self.changed = now;
        }
    }

    /// Whether mac2 is made with a cookie of ours for `source`.
    pub(super) fn check(&self, datagram: &Datagram, source: SocketAddr) -> bool {
        let before = &datagram[..MAC2];
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|secret| {
                let cookie = Cookie(mac::mac(secret, &[&address(source)]));
                mac::same(&cookie.mac2(before), &datagram[MAC2..])
            })
    }

    /// The datagram that gives `source` its cookie. The nonce comes from the secret and from
    /// what is sealed, so the same nonce never seals two things.
    pub(super) fn answer(&self, datagram: &Datagram, source: SocketAddr) -> Result<Box<Datagram>> {
        let failed = Error::Limit { what: "cookie" };
        let seal = self.seal.as_ref().ok_or(failed.clone())?;
        let (address, mac1) = (address(source), &datagram[MAC1..MAC2]);
        let mut cookie = mac::mac(&self.current, &[&address]);
        let mut nonce = [0; NONCE_LEN];
        let drawn = mac::mac(&self.current, &[b"nonce", mac1, &address]);
        nonce.copy_from_slice(&drawn[..NONCE_LEN]);

        let mut out = Box::new([0; DATAGRAM]);
        write_header(&mut out, DatagramType::Cookie, receiver_index(datagram), 0);
        out[LINK_HEADER..SEALED].copy_from_slice(&nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = seal
            .seal_in_place_separate_tag(nonce, Aad::from(mac1), &mut cookie)
            .map_err(|_| failed)?;
        out[SEALED..SEALED + MAC].copy_from_slice(&cookie);
        out[SEALED + MAC..END].copy_from_slice(tag.as_ref());
        Ok(out)
    }
}

fn secret(rng: &mut (impl CryptoRng + ?Sized)) -> hmac::Key {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(bytes.as_mut());
    hmac::Key::new(hmac::HMAC_SHA256, bytes.as_ref())
}

fn address(source: SocketAddr) -> [u8; 18] {
    let ip = match source.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut out = [0; 18];
    out[..16].copy_from_slice(&ip.octets());
    out[16..].copy_from_slice(&source.port().to_be_bytes());
    out
}

/// A responder that is given more initiations than this in a second is under load. One costs
/// about 0.3 ms, so this is some six percent of a core.
pub const LOAD_INITIATIONS_PER_SECOND: u32 = 200;

/// It stays so for this long after.
pub const LOAD_HOLD: Duration = Duration::from_secs(2);

/// Decides when a responder is under load.
#[derive(Debug, Clone, Default)]
pub struct LoadMeter {
    second: Option<Instant>,
    count: u32,
    until: Option<Instant>,
}

impl LoadMeter {
    /// A meter that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one initiation that has arrived; true if the responder is under load.
    pub fn observe(&mut self, now: Instant) -> bool {
        let age = self
            .second
            .map(|second| now.saturating_duration_since(second));
        if age.is_none_or(|age| age >= Duration::from_secs(1)) {
            self.second = Some(now);
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        if self.count > LOAD_INITIATIONS_PER_SECOND {
            self.until = now.checked_add(LOAD_HOLD);
        }
        self.until.is_some_and(|until| now < until)
    }
}

/// A source may have so many initiations processed at once.
pub const SOURCE_BURST: u32 = 20;

/// And one more each time this has passed.
pub const SOURCE_REFILL: Duration = Duration::from_millis(100);

/// At most so many sources are kept account of; others are refused until some have
/// recovered, which takes [`SOURCE_BURST`] times [`SOURCE_REFILL`].
pub const MAX_SOURCES: usize = 16_384;

/// Bounds the public-key work that one source costs, for initiations that have passed
/// [`super::Responder::check_macs`] under load (so the source is where it says it is). A source is an
/// IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, Default)]
pub struct SourceLimiter {
    /// When the source's tokens would be full again.
    full_at: HashMap<u64, Instant>,
    swept: Option<Instant>,
}

impl SourceLimiter {
    /// A limiter that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an initiation from `source` is processed now; counts it if so.
    pub fn allow(&mut self, source: SocketAddr, now: Instant) -> bool {
        let source = prefix(source.ip());
        let full_at = self.full_at.get(&source).copied().filter(|at| *at > now);
        if full_at.is_none() && self.full_at.len() >= MAX_SOURCES {
            self.sweep(now);
            if self.full_at.len() >= MAX_SOURCES {
                return false;
            }
        }
        let next = full_at.unwrap_or(now) + SOURCE_REFILL;
        if next.saturating_duration_since(now) > SOURCE_REFILL * SOURCE_BURST {
            return false;
        }
        self.full_at.insert(source, next);
        true
    }

    /// Forgets the sources that have recovered; it looks at all of them, so not too often.
    fn sweep(&mut self, now: Instant) {
        let swept = self.swept.map(|swept| now.saturating_duration_since(swept));
        if swept.is_none_or(|age| age >= SOURCE_REFILL) {
            self.full_at.retain(|_, at| *at > now);
            self.swept = Some(now);
        }
    }
}

/// IPv4: the address, in a part of IPv6 that is never routed. IPv6: the first 64 bits.
fn prefix(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => u64::from(u32::from(ip)),
            None => {
                let mut front = [0; 8];
                front.copy_from_slice(&ip.octets()[..8]);
                u64::from_be_bytes(front)
            }
        },
    }
}
