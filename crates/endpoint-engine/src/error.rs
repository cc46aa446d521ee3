//! What can go wrong.

/// A number in the configuration is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration: {key} is {got}, but has to be {allowed}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// What it says.
    pub got: usize,
    /// What it may say.
    pub allowed: &'static str,
}

/// Why a question to the directory has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// No answer before the deadline. Says what the last obstacle was.
    #[error("the directory did not answer: {0}")]
    Timeout(String),
    /// The directory says no, and why.
    #[error("the directory refused: {0}")]
    Refused(String),
    /// The answer does not verify, or answers something else.
    #[error("the directory's answer is not valid: {0}")]
    Invalid(String),
    /// More questions under way than [`crate::MAX_QUERIES`].
    #[error("too many questions to the directory at once")]
    Busy,
    /// The endpoint has stopped.
    #[error("the endpoint has stopped")]
    Stopped,
}
