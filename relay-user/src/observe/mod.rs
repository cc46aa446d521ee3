//! What a running relay shows of itself, and how it is told: over a socket in its state directory, as JSON for
//! programs and as text for people, and as metrics over HTTP.

mod collect;
mod exposition;
pub(crate) mod metrics;
mod process;
mod quantiles;
mod report;
pub(crate) mod socket;
mod text;

pub use crate::drain::Progress;
pub use crate::volume::Volume;
pub(crate) use collect::Source;
pub(crate) use quantiles::Times;
pub use report::{
    DirectoryReport, InsideReport, LinksReport, OneDirectoryReport, PathsReport, PortReport,
    ProcessReport, QueueReport, RegisteredReport, ReplayReport, Report, WorkerReport,
};
pub use socket::{AskError, ask, drain, reload};
pub(crate) use text::{duration, short_time};
