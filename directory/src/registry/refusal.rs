//! Why a request is refused, in the words that the asker gets.

use mixline_protocol::directory::RefusalCode;
use mixline_protocol::records::CLOCK_SKEW;
use mixline_protocol::time::UnixTime;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people, one line.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// Because of a record's form, signature or time.
    pub(super) fn of(error: &mixline_protocol::Error, now: UnixTime) -> Self {
        use mixline_protocol::Error as E;
        match error {
            E::Authentication { .. } => Self::new(
                RefusalCode::BadSignature,
                "the record's signature does not hold",
            ),
            E::NotYetValid { what, from } => Self::new(
                RefusalCode::NotYetValid,
                format!(
                    "{what}: your clock is {} ahead of the directory's; set it",
                    span(UnixTime(*from).since(now))
                ),
            ),
            E::Expired { what, at } => Self::new(
                RefusalCode::Expired,
                format!(
                    "{what}: ended {} ago by the directory's clock; send a new one, or set your \
                     clock if it is behind",
                    span(now.since(UnixTime(*at)))
                ),
            ),
            other => Self::new(RefusalCode::Malformed, other.to_string()),
        }
    }
}

/// A request's result: granted, or refused with a reason.
pub type Decision<T> = std::result::Result<T, Refusal>;

/// The store does not work: nothing that the asker did, and nothing that it may rely on.
pub(super) fn unavailable(error: &crate::Error) -> Refusal {
    error.log();
    Refusal::new(
        RefusalCode::Unavailable,
        "the directory cannot store at present; again later",
    )
}

/// Others kept changing what the decision rests on.
pub(super) fn contended() -> Refusal {
    Refusal::new(
        RefusalCode::Unavailable,
        "too many requests about the same; again later",
    )
}

/// A record that a directory has stored and cannot read: its disk is damaged.
pub(super) fn damaged(error: impl std::fmt::Display) -> Refusal {
    unavailable(&crate::Error::Store(format!("damaged record: {error}")))
}

pub(super) fn older() -> Refusal {
    Refusal::new(
        RefusalCode::Older,
        "the directory has a newer version of this record; is the same key used twice, or the \
         clock set back?",
    )
}

/// How many seconds what a relay sends may be ahead: a relay that was started again goes on from what it had set aside, and
/// one that is started again and again is ahead by some of that each time.
const AHEAD: u64 = 900;

/// The sender's clock is right, by what is made when it is sent.
pub(super) fn check_clock(what: &str, made: UnixTime, now: UnixTime) -> Decision<()> {
    let refuse = |code, by, way| {
        let text = format!(
            "{what}: your clock is {} {way} the directory's; set it",
            span(by)
        );
        Err(Refusal::new(code, text))
    };
    let (behind, ahead) = (now.since(made), made.since(now));
    if behind > CLOCK_SKEW {
        return refuse(RefusalCode::Expired, behind, "behind");
    }
    if ahead > AHEAD {
        return refuse(RefusalCode::NotYetValid, ahead, "ahead of");
    }
    Ok(())
}

/// A time span for people, rounded.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7170 => format!("{} minutes", (seconds + 30) / 60),
        7170..171_000 => format!("{} hours", (seconds + 1800) / 3600),
        _ => format!("{} days", (seconds + 43_200) / 86_400),
    }
}
