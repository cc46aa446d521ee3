//! Which instructions of the processor datagrams are sealed and opened with.

use mixline_wide_crypto::{CPU, Unavailable, Width};

use crate::doctor::Finding;

/// Looks whether what the environment asks for can be had. To be called when a program starts: what it cannot have
/// would count as not asked for.
///
/// # Errors
/// [`Unavailable`].
pub fn asked() -> Result<(), Unavailable> {
    Width::asked_for().map(drop)
}

/// The name of those in use: `scalar`, `aesni`, `vaes256` or `vaes512`.
#[must_use]
pub fn in_use() -> &'static str {
    Width::current().name()
}

/// What a doctor says of them.
#[must_use]
pub fn judge() -> Finding {
    let widest = Width::available().last().map_or("", Width::name);
    finding(in_use(), widest)
}

fn finding(used: &str, widest: &str) -> Finding {
    let check = "instructions";
    let about = match used {
        "vaes512" => "VAES and VPCLMULQDQ, 512 bits",
        "vaes256" => "VAES and VPCLMULQDQ, 256 bits",
        "aesni" => "AES-NI and PCLMULQDQ; processors with VAES take half the time for a datagram",
        _ => "none for vectors; processors with VAES take half the time for a datagram",
    };
    if used == widest {
        Finding::ok(check, format!("{used}: {about}"))
    } else {
        Finding::warning(
            check,
            format!("{used}: {about}; {CPU} asks for it, and this processor has {widest}"),
            format!("unset {CPU}, also in the unit"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn what_is_narrower_than_it_could_be_is_told() {
        let told = finding("aesni", "vaes512");
        assert_eq!(told.level, Level::Warning);
        assert!(told.found.contains("has vaes512"), "{}", told.found);
        for name in ["scalar", "aesni", "vaes256", "vaes512"] {
            assert_eq!(finding(name, name).level, Level::Ok);
        }
        let expected = if Width::current() == Width::available().last().unwrap() {
            Level::Ok
        } else {
            Level::Warning
        };
        assert_eq!(judge().level, expected);
    }
}
