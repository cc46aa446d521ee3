//! Cookies: under load, a source proves that it receives at its address before anyone does
//! public-key work for it (WireGuard's whitepaper, section 5.4.7).
//!
//! ```text
//! cookie 16 = HMAC-SHA256(secret, address 16 | port 2)[..16]
//! datagram  = header(3, the initiator's index, counter 0) | nonce 12
//!           | AES-256-GCM(SHA-256("mixline/v1/cookie" | responder's public key), nonce,
//!                         aad = mac1 of the initiation) { cookie 16 | effort 4 } + 16 | zero 1344
//! mac2      = HMAC-SHA256(cookie, all before mac2)[..16]
//! ```
//!
//! An IPv4 address is written as an IPv4-mapped IPv6 one. The secret changes every
//! [`COOKIE_LIFE`], and the one before is still good, so a cookie is good for at least that
//! long. The effort is what the responder suggests for the next initiation ([`super::effort`]). The datagram is as long as the initiation: nothing is amplified.

use super::effort;
use super::layout::{
    DatagramType, MAC1, MAC2, expect_header, expect_zeros, receiver_index, write_header,
};
use super::mac::{self, MAC};
use crate::effort::{EFFORT, Effort};
use crate::identity::X25519Public;
use crate::size::{DATAGRAM, Datagram, LINK_HEADER, TAG};
use crate::{Error, Result};
use rand_core::CryptoRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// How long a cookie is used, and how often the secret behind it changes.
pub const COOKIE_LIFE: Duration = Duration::from_secs(120);

/// Where the sealed cookie begins.
const SEALED: usize = LINK_HEADER + NONCE_LEN;
/// Bytes that are sealed: the cookie and the effort.
const PLAIN: usize = MAC + EFFORT;
/// Where they end.
const END: usize = SEALED + PLAIN + TAG;

/// What proves to one responder that we receive at our address.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Cookie {
    bytes: [u8; MAC],
    effort: Effort,
}

impl Cookie {
    #[cfg(test)]
    pub(super) fn new(bytes: [u8; MAC], effort: Effort) -> Self {
        Self { bytes, effort }
    }

    /// Whether it is this one, with the same effort.
    pub(super) fn is(&self, other: &Self) -> bool {
        mac::same(&self.bytes, &other.bytes) && self.effort == other.effort
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same one with its effort, or with none.
    pub(super) fn with_effort(&self, effort: bool) -> Self {
        Self {
            bytes: self.bytes,
            effort: if effort { self.effort } else { 0 },
        }
    }

    /// What the responder suggests, no more than [`super::MAX_EFFORT`]; 0 if it is not busy.
    #[must_use]
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// mac2 over what stands before it.
    pub(super) fn mac2(&self, before: &[u8]) -> [u8; MAC] {
        mac::mac(&hmac::Key::new(hmac::HMAC_SHA256, &self.bytes), &[before])
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
    let mut sealed = [0; PLAIN + TAG];
    sealed.copy_from_slice(&datagram[SEALED..END]);
    let opened = key(responder)?.open_in_place(nonce, Aad::from(mac1), &mut sealed);
    let opened = opened.map_err(failed)?;
    let (mut bytes, mut effort) = ([0; MAC], [0; EFFORT]);
    bytes.copy_from_slice(&opened[..MAC]);
    effort.copy_from_slice(&opened[MAC..]);
    let effort = Effort::from_be_bytes(effort).min(effort::MAX_EFFORT);
    Ok(Cookie { bytes, effort })
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

    /// Changes the secret when it is time; whether it did. Cookies of the one before the last are good no more.
    pub(super) fn tick(&mut self, now: Instant, rng: &mut (impl CryptoRng + ?Sized)) -> bool {
        let age = now.saturating_duration_since(self.changed);
        let due = age >= COOKIE_LIFE;
        if due {
            let last = std::mem::replace(&mut self.current, secret(rng));
            self.previous = (age < 2 * COOKIE_LIFE).then_some(last);
            self.changed = now;
        }
        due
    }

    /// The cookie of ours for `source` that mac2 is made with, if it is.
    pub(super) fn check(&self, datagram: &Datagram, source: SocketAddr) -> Option<Cookie> {
        let before = &datagram[..MAC2];
        let secrets = [Some(&self.current), self.previous.as_ref()];
        let mut cookies = secrets.into_iter().flatten().map(|secret| Cookie {
            bytes: mac::mac(secret, &[&address(source)]),
            effort: 0,
        });
        cookies.find(|cookie| mac::same(&cookie.mac2(before), &datagram[MAC2..]))
    }

    /// The datagram that gives `source` its cookie, and suggests an effort. The nonce comes from the secret and
    /// from what is sealed, so the same nonce never seals two things.
    pub(super) fn answer(
        &self,
        datagram: &Datagram,
        source: SocketAddr,
        effort: Effort,
    ) -> Result<Box<Datagram>> {
        let failed = Error::Limit { what: "cookie" };
        let seal = self.seal.as_ref().ok_or(failed.clone())?;
        let (address, mac1) = (address(source), &datagram[MAC1..MAC2]);
        let effort = effort.to_be_bytes();
        let mut plain = [0; PLAIN];
        plain[..MAC].copy_from_slice(&mac::mac(&self.current, &[&address]));
        plain[MAC..].copy_from_slice(&effort);
        let mut nonce = [0; NONCE_LEN];
        let drawn = mac::mac(&self.current, &[b"nonce", mac1, &address, &effort]);
        nonce.copy_from_slice(&drawn[..NONCE_LEN]);

        let mut out = Box::new([0; DATAGRAM]);
        write_header(&mut out, DatagramType::Cookie, receiver_index(datagram), 0);
        out[LINK_HEADER..SEALED].copy_from_slice(&nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = seal
            .seal_in_place_separate_tag(nonce, Aad::from(mac1), &mut plain)
            .map_err(|_| failed)?;
        out[SEALED..SEALED + PLAIN].copy_from_slice(&plain);
        out[SEALED + PLAIN..END].copy_from_slice(tag.as_ref());
        Ok(out)
    }
}

fn secret(rng: &mut (impl CryptoRng + ?Sized)) -> hmac::Key {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(bytes.as_mut());
    hmac::Key::new(hmac::HMAC_SHA256, bytes.as_ref())
}

/// An address and port as they are hashed, and written.
pub(super) fn address(source: SocketAddr) -> [u8; 18] {
    let ip = match source.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut out = [0; 18];
    out[..16].copy_from_slice(&ip.octets());
    out[16..].copy_from_slice(&source.port().to_be_bytes());
    out
}
