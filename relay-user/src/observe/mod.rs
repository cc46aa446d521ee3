//! What a running relay shows of itself, and how it is told: over a socket in its state directory, as JSON for
//! programs and as text for people, and as metrics over HTTP.

mod collect;
pub(crate) mod metrics;
mod report;
pub(crate) mod socket;
mod text;

pub use crate::drain::Progress;
pub use crate::volume::Volume;
pub(crate) use collect::Source;
pub use report::{
    DirectoryReport, LinksReport, PathsReport, PortReport, QueueReport, ReplayReport, Report,
};
pub use socket::{AskError, ask, drain, reload};
