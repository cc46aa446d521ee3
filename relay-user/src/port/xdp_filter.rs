//! The handle on the XDP program in front of a port.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mixline_relay_common::verdict::Verdict;
use mixline_xdp::{Counts, Program, Sessions};

/// The XDP program in front of the port. It is detached when this is dropped, and by the kernel
/// when the process ends in any other way.
pub struct XdpFilter {
    program: Mutex<Program>,
    /// Whether the log says already that its counts cannot be read.
    complained: AtomicBool,
}

impl XdpFilter {
    /// A handle on an attached program.
    pub(super) fn new(program: Program) -> Self {
        Self {
            program: Mutex::new(program),
            complained: AtomicBool::new(false),
        }
    }

    /// The set of indices that the program lets through.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.program().sessions()
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
        let program = self.program();
        program
            .counts()
            .inspect_err(|error| {
                if !self.complained.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "cannot read the counts of the XDP program");
                }
            })
            .ok()
    }

    /// Detaches the program: the kernel gets all frames from now on.
    ///
    /// # Errors
    /// If the kernel refuses. It does if the interface is gone, which has taken the attachment with
    /// it.
    pub fn detach(&self) -> mixline_xdp::Result<()> {
        self.program().detach()
    }

    fn program(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the replay filter when its time has come, and logs what the program has to say. To
    /// be called now and then.
    pub fn maintain(&self, now: Instant) {
        let mut program = self.program();
        program.flush_log();
        let filter = program.tag_filter();
        drop(program);
        filter.rotate(now);
    }
}
