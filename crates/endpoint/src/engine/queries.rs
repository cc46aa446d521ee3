//! Questions to the directory under way.

use std::time::Duration;

/// Questions under way at once; more are refused.
pub const MAX_QUERIES: usize = 256;
/// How long a question is repeated before it counts as unanswered.
pub const QUERY_DEADLINE: Duration = Duration::from_secs(12);
