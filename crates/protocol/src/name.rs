//! `.anon` names: a label that the directory ties to an ID, or the ID itself.

use std::fmt;
use std::str::FromStr;

use arrayvec::ArrayString;

use crate::identity::{AnonymousId, DOMAIN, ID_TEXT};
use crate::{Error, Result};

/// The most characters in a label. Fewer than in an ID, so that none passes for the other.
pub const MAX_LABEL: usize = 40;

const _: () = assert!(MAX_LABEL < ID_TEXT);

/// A name without its `.anon`: 1 to 40 of `a-z 0-9 -`, the hyphen neither first nor last.
///
/// Hyphens in both the third and the fourth position are refused too (RFC 5891, section
/// 4.2.3.1): programs would show such a label as the Unicode text that it stands for,
/// and text that looks the same is the tool of impostors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(ArrayString<MAX_LABEL>);

impl Label {
    /// The label, in lower case.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not of the form above.
    pub fn new(text: &str) -> Result<Self> {
        let malformed = Error::Malformed { what: "name" };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let bytes = text.as_bytes();
        if bytes.is_empty()
            || !bytes.iter().copied().all(allowed)
            || bytes.first() == Some(&b'-')
            || bytes.last() == Some(&b'-')
            || bytes.get(2..4) == Some(b"--")
        {
            return Err(malformed);
        }
        let mut label = ArrayString::from(text).map_err(|_| malformed)?;
        label.make_ascii_lowercase();
        Ok(Self(label))
    }

    /// The label by itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that applications use: `label.anon`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}.{DOMAIN}", self.0)
    }
}

impl fmt::Display for Label {
    /// The label by itself; [`Label::host`] is the whole name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = Error;

    /// The label by itself, without `.anon`.
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

/// What stands before `.anon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnonName {
    /// A label, of which the directory knows the ID.
    Label(Label),
    /// The ID itself.
    Id(AnonymousId),
}

impl FromStr for AnonName {
    type Err = Error;

    /// `label.anon` or `<52 characters>.anon`, in either case, with or without the root's
    /// dot. Anything in front of that (`www.label.anon`) is refused.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let (front, domain) = text
            .rsplit_once('.')
            .ok_or(Error::Malformed { what: "name" })?;
        if !domain.eq_ignore_ascii_case(DOMAIN) {
            return Err(Error::Malformed { what: "name" });
        }
        if front.len() == ID_TEXT {
            front.parse().map(Self::Id)
        } else {
            Label::new(front).map(Self::Label)
        }
    }
}

impl fmt::Display for AnonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "{label}.{DOMAIN}"),
            Self::Id(id) => write!(f, "{id}.{DOMAIN}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels() {
        let longest = "a".repeat(MAX_LABEL);
        for good in ["a", "freespeech", "a-b", "0", "a--b", longest.as_str()] {
            assert_eq!(Label::new(good).unwrap().as_str(), good);
        }
        assert_eq!(Label::new("FreeSpeech").unwrap().host(), "freespeech.anon");
        let too_long = "a".repeat(MAX_LABEL + 1);
        for bad in [
            "",
            "-a",
            "a-",
            "a.b",
            "a_b",
            "ä",
            "xn--a",
            "a b",
            too_long.as_str(),
        ] {
            assert!(Label::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names() {
        let label = AnonName::Label(Label::new("x").unwrap());
        for good in ["x.anon", "X.ANON", "x.anon."] {
            assert_eq!(good.parse(), Ok(label), "{good}");
        }
        let id = AnonymousId([9; 32]);
        assert_eq!(id.host().parse(), Ok(AnonName::Id(id)));
        assert_eq!(id.host().to_ascii_uppercase().parse(), Ok(AnonName::Id(id)));
        for bad in [
            "x",
            "anon",
            ".anon",
            "www.x.anon",
            "x.anon..",
            "x.example",
            "x.anonx",
            "",
        ] {
            assert!(bad.parse::<AnonName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,80}") {
            if let Ok(name) = text.parse::<AnonName>() {
                prop_assert_eq!(name.to_string().parse(), Ok(name));
            }
        }

        #[test]
        fn text_of_a_label(text in "[a-z0-9]([a-z0-9]{0,38}[a-z0-9])?") {
            let label = Label::new(&text).unwrap();
            prop_assert_eq!(label.host().parse(), Ok(AnonName::Label(label)));
        }
    }
}
