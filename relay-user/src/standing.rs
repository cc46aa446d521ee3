//! How a relay stands to the network.

use serde::{Deserialize, Serialize};

/// How a relay stands to the network. Only one that is present is in the directory, and opens
/// new paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is there for all.
    #[default]
    Present,
    /// It has sent all that it may in this month, and comes back.
    Hibernating,
    /// It leaves, and stops.
    Leaving,
}
