//! The clock, without which the directory's records look expired or not yet valid.

use super::command;
use super::finding::Finding;

/// Whether something keeps the clock right: what systemd knows of it; none if it does not
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock(pub Option<bool>);

impl Clock {
    /// Looks at the machine.
    #[must_use]
    pub fn read() -> Self {
        let said = command::output(
            "timedatectl",
            &["show", "--property=NTPSynchronized", "--value"],
        );
        Self(said.and_then(|text| match text.trim() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }))
    }

    /// Compares it with what the daemons need.
    #[must_use]
    pub fn judge(self) -> Finding {
        let check = "clock";
        match self.0 {
            Some(true) => Finding::ok(check, "synchronised"),
            Some(false) => Finding::warning(
                check,
                "not synchronised; it must be right to five minutes",
                "timedatectl set-ntp true",
            ),
            None => Finding::ok(
                check,
                "not looked at (`timedatectl` does not say); it must be right to five minutes",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn only_a_clock_that_is_said_to_be_wrong_is_warned_of() {
        assert_eq!(Clock(Some(true)).judge().level, Level::Ok);
        assert_eq!(Clock(Some(false)).judge().level, Level::Warning);
        assert_eq!(Clock(None).judge().level, Level::Ok);
    }
}
