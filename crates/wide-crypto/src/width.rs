//! Which instructions are used.

use std::fmt;
use std::sync::OnceLock;

/// The environment variable that forces a width: a name that [`Width::named`] takes.
pub const CPU: &str = "MIXLINE_CPU";

/// A width that this processor has.
///
/// It can be made only by asking for it, so whoever has one may run what is compiled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Width(pub(crate) Kind);

/// All widths, the narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// What `aes`, `polyval` and `ring` do by themselves.
    Scalar,
    /// AES-NI and PCLMULQDQ, one block in a vector.
    Aesni,
    /// VAES and VPCLMULQDQ, two blocks.
    Vaes256,
    /// The same with AVX-512, four blocks.
    Vaes512,
}

/// A width that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No such name.
    #[error("{CPU} is `{0}`, but it has to be scalar, aesni, vaes256 or vaes512")]
    Unknown(String),
    /// The processor has no such instructions.
    #[error(
        "{CPU} is `{name}`, but this processor has no such instructions; it has: {}",
        Width::all()
    )]
    Missing {
        /// The name.
        name: &'static str,
    },
}

/// Names, in the order of width.
const NAMES: [(&str, Kind); 4] = [
    ("scalar", Kind::Scalar),
    ("aesni", Kind::Aesni),
    ("vaes256", Kind::Vaes256),
    ("vaes512", Kind::Vaes512),
];

impl Width {
    /// The one in use: what [`CPU`] says, or else the widest. Looked up once.
    ///
    /// A name that cannot be used counts as `scalar`, since it may have been to keep something from being used;
    /// programs tell their user by [`Width::asked_for`] when they start.
    #[must_use]
    pub fn current() -> Self {
        static CURRENT: OnceLock<Width> = OnceLock::new();
        *CURRENT.get_or_init(|| Self::asked_for().unwrap_or(Self(Kind::Scalar)))
    }

    /// What [`CPU`] says, or the widest if it says nothing.
    ///
    /// # Errors
    /// [`Unavailable`] if it says something that this processor has not, or that is no width.
    pub fn asked_for() -> Result<Self, Unavailable> {
        match std::env::var_os(CPU) {
            None => Ok(Self::widest()),
            Some(name) => Self::named(&name.to_string_lossy()),
        }
    }

    /// The width of a name: `scalar`, `aesni`, `vaes256` or `vaes512`.
    ///
    /// # Errors
    /// [`Unavailable`] if this processor has it not, or there is none.
    pub fn named(name: &str) -> Result<Self, Unavailable> {
        let (name, kind) = NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| Unavailable::Unknown(name.to_owned()))?;
        Self::of(*kind).ok_or(Unavailable::Missing { name })
    }

    /// Those that this processor has, the narrowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        NAMES.iter().filter_map(|(_, kind)| Self::of(*kind))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, kind)| *kind == self.0)
            .map_or("", |(name, _)| *name)
    }

    fn widest() -> Self {
        Self::available().last().unwrap_or(Self(Kind::Scalar))
    }

    fn all() -> String {
        let names: Vec<_> = Self::available().map(Self::name).collect();
        names.join(", ")
    }

    /// The only place where one is made.
    fn of(kind: Kind) -> Option<Self> {
        kind.is_available().then_some(Self(kind))
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind {
    /// Whether processor and kernel have all that is named by `target_feature` in `lanes.rs`, and what the compiler
    /// takes each of those to mean.
    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        let aesni = || {
            is_x86_feature_detected!("aes")
                && is_x86_feature_detected!("pclmulqdq")
                && is_x86_feature_detected!("sse3")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1")
        };
        let vaes = || {
            aesni()
                && is_x86_feature_detected!("vaes")
                && is_x86_feature_detected!("vpclmulqdq")
                && is_x86_feature_detected!("sse4.2")
                && is_x86_feature_detected!("avx")
                && is_x86_feature_detected!("avx2")
        };
        match self {
            Self::Scalar => true,
            Self::Aesni => aesni(),
            Self::Vaes256 => vaes(),
            Self::Vaes512 => {
                vaes()
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Self::Scalar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_width_is_found_by_its_name() {
        let all: Vec<_> = Width::available().collect();
        assert!(!all.is_empty());
        for width in all {
            assert_eq!(Width::named(width.name()), Ok(width));
        }
    }

    #[test]
    fn what_is_no_width_is_named_in_the_error() {
        let error = Width::named("avx1024").unwrap_err();
        assert!(error.to_string().contains("`avx1024`"), "{error}");
        assert!(error.to_string().contains("vaes512"), "{error}");
    }

    #[test]
    fn what_is_missing_is_told_beside_what_there_is() {
        let error = Unavailable::Missing { name: "vaes512" };
        assert!(error.to_string().contains("it has: scalar"), "{error}");
    }
}
