//! The handle on the XDP program in front of a port.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mixline_relay_common::verdict::Verdict;
use mixline_xdp::{Counts, Program, Sessions};

/// The XDP program in front of the port. It is detached when this is dropped, and by the kernel
/// when the process ends in any other way.
pub struct XdpFilter(Mutex<Program>);

impl XdpFilter {
    /// A handle on an attached program.
    pub(super) fn new(program: Program) -> Self {
        Self(Mutex::new(program))
    }

    /// The set of indices that the program lets through.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sessions()
    }

    /// Verdicts of the program and how often each was given.
    #[must_use]
    pub fn verdicts(&self) -> Vec<(&'static str, u64)> {
        self.counts().map_or_else(Vec::new, |counts| {
            let names = Verdict::ALL.iter().map(|verdict| verdict.name());
            names.zip(counts.verdicts).collect()
        })
    }

    /// All that the program has counted; none, with a line in the log, if it cannot be read.
    #[must_use]
    pub fn counts(&self) -> Option<Counts> {
        let program = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        program
            .counts()
            .inspect_err(
                |error| tracing::warn!(%error, "cannot read the counts of the XDP program"),
            )
            .ok()
    }

    /// Detaches the program: the kernel gets all frames from now on.
    pub fn detach(&self) {
        let mut program = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = program.detach() {
            // An interface that is gone has taken the attachment with it.
            tracing::debug!(%error, "the XDP program was not attached");
        }
    }

    /// Renews the replay filter when its time has come, and logs what the program has to say. To
    /// be called now and then.
    pub fn maintain(&self, now: Instant) {
        let mut program = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        program.flush_log();
        let filter = program.tag_filter();
        drop(program);
        filter.rotate(now);
    }
}
