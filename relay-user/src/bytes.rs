//! Amounts of bytes as people write them.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The units, each a thousand times the one before.
const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

/// An amount of bytes: a number, or one with a unit such as `20 MB`, where a kB has 1000 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Not an amount of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount of bytes: a whole number, alone or with kB, MB, GB or TB")]
pub struct NoBytes(String);

/// Reads a number or a text. In a visitor, so that an error comes with key and line.
struct Amount;

impl Visitor<'_> for Amount {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount of bytes, such as 20 MB")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Amount)
    }
}

impl FromStr for Bytes {
    type Err = NoBytes;

    fn from_str(text: &str) -> Result<Self, NoBytes> {
        let wrong = || NoBytes(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &trimmed[digits.len()..];
        let power = match unit {
            "" => 0,
            unit => UNITS.iter().position(|u| *u == unit).ok_or_else(wrong)?,
        };
        let factor = 1000_u64.pow(u32::try_from(power).map_err(|_| wrong())?);
        let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = 0;
        let mut value = self.0 as f64;
        while value >= 1000.0 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        let places = if unit == 0 || value.fract() == 0.0 {
            0
        } else {
            1
        };
        write!(f, "{value:.places$} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, bytes) in [
            ("5", 5),
            ("20 MB", 20_000_000),
            ("20MB", 20_000_000),
            (" 3 kB ", 3000),
            ("2 TB", 2_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for wrong in ["", "MB", "-1", "1.5 GB", "20 Mbit", "20 mb", "20000000 TB"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
        assert_eq!(Bytes(20_000_000).to_string(), "20 MB");
        assert_eq!(Bytes(1_234_567).to_string(), "1.2 MB");
        assert_eq!(Bytes(7).to_string(), "7 B");
    }
}
