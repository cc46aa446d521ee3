//! A report as text, for people.

use std::fmt::Write as _;
use std::net::SocketAddr;

use mixline_relay_engine::outcome::Outcome;

use crate::bytes::Bytes;

use super::report::{DirectoryReport, Report};

impl Report {
    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key:<12} {value}");
        };
        line(
            "relay",
            format!("{} {} ({})", self.name, self.short_id, self.version),
        );
        line("identity", self.id.clone());
        line("up", duration(self.uptime_s));
        line("listen", list(&self.listen));
        line("reached at", list(&self.advertise));
        line(
            "port",
            format!(
                "{}: {}; {}",
                self.port.kind,
                self.port.why,
                plural(self.workers, "worker")
            ),
        );
        if let Some(check) = &self.port.check {
            line("", check.clone());
        }
        for (number, queue) in self.port.queues.iter().enumerate() {
            line(
                "",
                format!(
                    "queue {number}: {} frames redirected, {} received",
                    queue.redirected, queue.received
                ),
            );
        }
        line(
            "memory",
            format!("{:.1} MiB", self.memory_bytes as f64 / (1 << 20) as f64),
        );
        let directory = &self.directory;
        line("directory", directory.url.clone());
        line("snapshot", directory.snapshot());
        line("registered", directory.registered());
        if self.leaving {
            line(
                "leaving",
                "it takes no new paths, and stops when none is in use".into(),
            );
        }
        if self.hibernating {
            line(
                "hibernating",
                "`monthly` is used up: it comes back with the next month".into(),
            );
        }
        if let Some(error) = &directory.last_error {
            line("problem", error.clone());
        }
        let epochs: Vec<String> = self.onion_epochs.iter().map(u32::to_string).collect();
        line(
            "onion keys",
            if epochs.is_empty() {
                "none yet".into()
            } else {
                epochs.join(", ")
            },
        );
        let links = &self.links;
        line(
            "links",
            format!(
                "{}, {}; {}, {}",
                plural(links.relays, "relay"),
                plural(links.clients, "client"),
                plural(links.sessions, "session"),
                plural(links.mailboxes, "mailbox"),
            ),
        );
        line(
            "paths",
            format!("{} of at most {}", self.paths.known, self.paths.most),
        );
        line(
            "replay",
            format!(
                "the last {} are remembered, {:.0} % full",
                duration(self.replay.horizon_s),
                self.replay.fill * 100.0
            ),
        );
        line(
            "load",
            format!("{} of {} datagrams/s", self.load, self.capacity),
        );
        if let Some(rate) = self.bandwidth {
            line("bandwidth", format!("at most {}/s are sent", Bytes(rate)));
        }
        if let Some(volume) = &self.volume {
            let most = self
                .monthly
                .map_or_else(String::new, |most| format!(" of at most {}", Bytes(most)));
            line(
                "volume",
                format!("{}{most} sent in {}", Bytes(volume.sent), volume.month),
            );
        }
        if let Some(contact) = &self.contact {
            line("contact", contact.clone());
        }
        for outcome in Outcome::ALL {
            let count = self.verdicts.get(outcome.name()).copied().unwrap_or(0);
            if count > 0 {
                line("", format!("{count:>12} {}", outcome.name()));
            }
        }
        let mut label = "xdp program";
        for (name, count) in self.xdp.iter().filter(|(_, count)| **count > 0) {
            line(label, format!("{count:>12} {name}"));
            label = "";
        }
        out
    }
}

impl DirectoryReport {
    fn snapshot(&self) -> String {
        match (self.relays, self.snapshot_age_s, self.snapshot_valid_for_s) {
            (Some(relays), Some(age), Some(0)) => {
                format!(
                    "EXPIRED: {}, made {} ago",
                    plural(relays, "relay"),
                    duration(age)
                )
            }
            (Some(relays), Some(age), Some(left)) => format!(
                "{}, made {} ago, good for {}{}",
                plural(relays, "relay"),
                duration(age),
                duration(left),
                if self.listed {
                    ""
                } else {
                    "; this relay is not in it"
                }
            ),
            _ => "none yet".into(),
        }
    }

    fn registered(&self) -> String {
        self.registered_s_ago
            .map_or("not yet".into(), |ago| format!("{} ago", duration(ago)))
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses
        .iter()
        .map(SocketAddr::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn plural(n: usize, what: &str) -> String {
    match (n, what) {
        (1, _) => format!("1 {what}"),
        (_, "mailbox") => format!("{n} mailboxes"),
        _ => format!("{n} {what}s"),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
