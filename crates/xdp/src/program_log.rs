//! What the program logs, as lines of this process's log.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};

/// The program's log: a ring buffer of some hundred lines that has to be emptied now and then.
pub struct ProgramLog(EbpfLogger<ToTracing>);

impl ProgramLog {
    /// Takes the ring buffer out of the loaded object. None if it has none: a log is not worth
    /// refusing to run for.
    pub fn of(ebpf: &mut Ebpf) -> Option<Self> {
        match EbpfLogger::init_with_logger(ebpf, ToTracing) {
            Ok(log) => Some(Self(log)),
            Err(error) => {
                tracing::debug!(%error, "the XDP program has no log");
                None
            }
        }
    }

    /// Writes what has been logged since the last time.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

/// Hands records to `tracing`, which the rest of the relay logs with.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args();
        match record.level() {
            Level::Error | Level::Warn => tracing::warn!("XDP program: {text}"),
            Level::Info => tracing::info!("XDP program: {text}"),
            Level::Debug | Level::Trace => tracing::debug!("XDP program: {text}"),
        }
    }

    fn flush(&self) {}
}
