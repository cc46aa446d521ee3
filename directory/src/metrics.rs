//! Counters, and how Prometheus reads them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened since the start. Sums only: nothing here is about one asker.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Snapshots sent.
    pub snapshots_sent: AtomicU64,
    /// Answers that the asker's snapshot is the newest.
    pub snapshots_unchanged: AtomicU64,
    /// Snapshots made.
    pub snapshots_made: AtomicU64,
    /// Relay registrations granted.
    pub registrations: AtomicU64,
    /// Relay registrations refused.
    pub registrations_refused: AtomicU64,
    /// Private requests answered.
    pub requests: AtomicU64,
    /// Private requests refused.
    pub requests_refused: AtomicU64,
    /// Connections that found no slot.
    pub connections_refused: AtomicU64,
}

/// What is so at the moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Live relays.
    pub relays: u64,
    /// Published services.
    pub services: u64,
    /// Names.
    pub names: u64,
    /// Leases.
    pub leases: u64,
    /// Tails of the directory in the snapshot.
    pub tails: u64,
    /// The effort that the directory suggests to those who open sessions with it, hashes.
    pub suggested_effort: u64,
    /// Bytes of the snapshot.
    pub snapshot_bytes: u64,
    /// Seconds since it was made.
    pub snapshot_age: u64,
    /// Seconds until its end.
    pub snapshot_left: u64,
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    /// In Prometheus' text format.
    #[must_use]
    pub fn render(&self, now: &Gauges) -> String {
        let mut text = String::new();
        let gauges = [
            ("relays", "Live relays.", now.relays),
            ("services", "Published services.", now.services),
            ("names", "Names that are held.", now.names),
            (
                "leases",
                "Virtual IPv4 addresses that are held.",
                now.leases,
            ),
            (
                "tails",
                "Tails of the directory itself in the snapshot.",
                now.tails,
            ),
            (
                "suggested_effort",
                "Hashes that are suggested for a session with the directory.",
                now.suggested_effort,
            ),
            (
                "snapshot_bytes",
                "Size of the snapshot.",
                now.snapshot_bytes,
            ),
            (
                "snapshot_age_seconds",
                "Age of the snapshot.",
                now.snapshot_age,
            ),
            (
                "snapshot_left_seconds",
                "Until the snapshot ends.",
                now.snapshot_left,
            ),
        ];
        for (name, help, value) in gauges {
            metric(&mut text, name, "gauge", help, value);
        }
        let counters = [
            (
                "snapshots_sent_total",
                "Snapshots sent.",
                &self.snapshots_sent,
            ),
            (
                "snapshots_unchanged_total",
                "Answers 304.",
                &self.snapshots_unchanged,
            ),
            (
                "snapshots_made_total",
                "Snapshots made and signed.",
                &self.snapshots_made,
            ),
            (
                "registrations_total",
                "Relay registrations granted.",
                &self.registrations,
            ),
            (
                "registrations_refused_total",
                "Relay registrations refused.",
                &self.registrations_refused,
            ),
            (
                "requests_total",
                "Private requests answered.",
                &self.requests,
            ),
            (
                "requests_refused_total",
                "Private requests refused.",
                &self.requests_refused,
            ),
            (
                "connections_refused_total",
                "Connections closed for want of room.",
                &self.connections_refused,
            ),
        ];
        for (name, help, value) in counters {
            metric(
                &mut text,
                name,
                "counter",
                help,
                value.load(Ordering::Relaxed),
            );
        }
        text
    }
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "# HELP mixline_directory_{name} {help}\n# TYPE mixline_directory_{name} {kind}\n\
         mixline_directory_{name} {value}"
    );
}
