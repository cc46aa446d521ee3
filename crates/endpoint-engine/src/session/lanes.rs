//! Cells that are being filled for a peer, and where each goes.

use mixline_protocol::frames::{COPY_FRAME, Packer};
use mixline_protocol::size::FRAMES;

use crate::policy::PathPolicy;

/// Copies of control frames and messages: what answers a probe must not depend on one path.
pub const CONTROL_COPIES: usize = 3;

/// Where a cell goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Over this path, or the best one if it is gone.
    Path(u32),
    /// Over the next path in rotation.
    NextPath,
    /// Over so many paths.
    Copies(usize),
}

impl Route {
    /// Where the packets of a flow go. A flow without a path that is known to work has its
    /// packets copied until there is one.
    #[must_use]
    pub fn of(policy: PathPolicy, path: Option<u32>) -> Self {
        match (policy, path) {
            (PathPolicy::PerFlow, Some(path)) => Self::Path(path),
            (PathPolicy::PerFlow, None) => Self::Copies(CONTROL_COPIES),
            (PathPolicy::PerPacket, _) => Self::NextPath,
            (PathPolicy::Duplicate(copies), _) => Self::Copies(copies),
        }
    }
}

impl Route {
    /// Bytes at the beginning of its cells for the frame that says which copy one is.
    #[must_use]
    pub fn reserved(self) -> usize {
        match self {
            Self::Copies(_) => COPY_FRAME,
            Self::Path(_) | Self::NextPath => 0,
        }
    }
}

/// A cell that is being filled.
pub struct Lane {
    pub(super) route: Route,
    pub(super) packer: Packer,
    pub(super) frames: Box<[u8; FRAMES]>,
}
