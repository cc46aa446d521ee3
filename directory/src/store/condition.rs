//! Whether a store may be used, or is on its way to another.

use super::Store;
use crate::{Error, Result};

/// Whether a store may be used. It is kept in the store itself, so that nobody uses half of one, or one
/// that others have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It is in use, or may be.
    Ready,
    /// Records are being moved into it.
    Filling,
    /// Its records are being moved into another.
    Moving,
    /// Its records are in another.
    Moved,
}

impl Condition {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Ready, "ready"),
        (Self::Filling, "filling"),
        (Self::Moving, "moving"),
        (Self::Moved, "moved"),
    ];

    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        let known = Self::ALL.iter().find(|(condition, _)| *condition == self);
        known.map_or("", |(_, word)| word)
    }

    /// What a word stands for.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(_, known)| *known == word);
        known.map(|(condition, _)| *condition)
    }

    /// As a number.
    pub(super) fn code(self) -> u64 {
        match self {
            Self::Ready => 0,
            Self::Filling => 1,
            Self::Moving => 2,
            Self::Moved => 3,
        }
    }

    /// What a number stands for.
    pub(super) fn of_code(code: u64) -> Option<Self> {
        let mut all = Self::ALL.iter().map(|(condition, _)| *condition);
        all.find(|condition| condition.code() == code)
    }

    /// Only a store that is ready may be used.
    ///
    /// # Errors
    /// [`Error::Condition`], with what to do.
    pub(super) fn usable(self, store: &str) -> Result<()> {
        let reason = match self {
            Self::Ready => return Ok(()),
            Self::Filling => {
                "records are being moved into it, or an attempt at that was not finished; run \
                 `mixline-directory migrate` once more"
            }
            Self::Moving => {
                "its records are being moved to another store, or an attempt at that was not finished; run \
                 `mixline-directory migrate` once more, or give it up by `migrate --cancel`"
            }
            Self::Moved => {
                "its records were moved to another store; `store` in the configuration must name that one"
            }
        };
        Err(Error::Condition {
            store: store.to_owned(),
            reason: reason.to_owned(),
        })
    }
}

/// A store whose records can be moved into another one.
pub trait Movable: Store {
    /// Where it is, for people.
    fn place(&self) -> String;

    /// Its condition, as it is now.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn condition(&self) -> Result<Condition>;

    /// Changes its condition, durably. Whoever else uses the store writes nothing more that was begun under
    /// the one before.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn set_condition(&self, condition: Condition) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_told_apart() {
        for (condition, word) in Condition::ALL {
            assert_eq!(condition.word(), word);
            assert_eq!(Condition::of_word(word), Some(condition));
            assert_eq!(Condition::of_code(condition.code()), Some(condition));
        }
        assert_eq!(Condition::of_word("else"), None);
        assert_eq!(Condition::of_code(4), None);
    }

    #[test]
    fn only_a_store_that_is_ready_is_used() {
        assert!(Condition::Ready.usable("s").is_ok());
        for condition in [Condition::Filling, Condition::Moving, Condition::Moved] {
            let text = condition.usable("s").unwrap_err().to_string();
            assert!(
                text.starts_with("s: ") && text.lines().count() == 1,
                "{text}"
            );
        }
    }
}
