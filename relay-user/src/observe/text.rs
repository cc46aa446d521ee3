//! A report as text, for people.

use std::fmt::Write as _;
use std::net::SocketAddr;

use mixline_relay_engine::outcome::Outcome;

use super::report::{DirectoryReport, InsideReport, OneDirectoryReport, Report};
use crate::bytes::Bytes;

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
                "{}: {}; {}; {}",
                self.port.kind,
                self.port.why,
                plural(self.workers, "worker"),
                self.cpu
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
        if directory.directories.len() < 2 {
            line("directory", directory.url.clone());
        }
        let mut label = "directories";
        for one in directory.several() {
            line(label, one.text());
            label = "";
        }
        line("snapshot", directory.snapshot());
        line("registered", directory.registered());
        for (key, value) in self.rows() {
            line(key, value);
        }
        if self.inside.datagrams > 0 {
            line("inside", self.inside.text());
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

impl Report {
    /// What `status` and `top` say alike: words, each with a line on it.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if self.leaving {
            let text = "it takes no new paths, and stops when none is in use";
            rows.push(("leaving", text.into()));
        }
        if self.hibernating {
            let text = "`monthly` is used up: it comes back with the next month";
            rows.push(("hibernating", text.into()));
        }
        if let Some(error) = &self.directory.last_error {
            rows.push(("problem", error.clone()));
        }
        let epochs: Vec<String> = self.onion_epochs.iter().map(u32::to_string).collect();
        let (links, paths, replay) = (&self.links, &self.paths, &self.replay);
        rows.extend([
            (
                "onion keys",
                match &epochs[..] {
                    [] => "none yet".into(),
                    epochs => epochs.join(", "),
                },
            ),
            (
                "links",
                format!(
                    "{}, {}; {}, {}; {} refused",
                    plural(links.relays, "relay"),
                    plural(links.clients, "client"),
                    plural(links.sessions, "session"),
                    plural(links.mailboxes, "mailbox"),
                    links.refused
                ),
            ),
            (
                "paths",
                format!("{} of at most {}", paths.known, paths.most),
            ),
            (
                "replay",
                format!(
                    "the last {} are remembered, {:.0} % full",
                    duration(replay.horizon_s),
                    replay.fill * 100.0
                ),
            ),
            (
                "load",
                format!("{} of {} datagrams/s", self.load, self.capacity),
            ),
        ]);
        if let Some(rate) = self.bandwidth {
            rows.push(("bandwidth", format!("at most {}/s are sent", Bytes(rate))));
        }
        if let Some(volume) = &self.volume {
            let most = self
                .monthly
                .map_or_else(String::new, |most| format!(" of at most {}", Bytes(most)));
            let text = format!("{}{most} sent in {}", Bytes(volume.sent), volume.month);
            rows.push(("volume", text));
        }
        rows
    }
}

impl InsideReport {
    /// The quantiles, for people.
    pub(crate) fn text(&self) -> String {
        format!(
            "p50 {}, p99 {}, p99.9 {}",
            short_time(self.p50_us),
            short_time(self.p99_us),
            short_time(self.p999_us)
        )
    }
}

impl OneDirectoryReport {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = match &self.name {
            Some(name) => format!("{name}, {}", self.url),
            None => self.url.clone(),
        };
        match (&self.problem, self.answered_s_ago) {
            (Some(problem), _) => text += &format!(": {problem}"),
            (None, Some(ago)) => text += &format!(": answered {} ago", duration(ago)),
            (None, None) => text += ": not asked yet",
        }
        let Some(registered) = &self.registered else {
            return text;
        };
        text += &match (&registered.problem, registered.s_ago) {
            (Some(problem), _) => format!("; not registered: {problem}"),
            (None, Some(ago)) => format!("; registered {} ago", duration(ago)),
            (None, None) => "; not registered yet".into(),
        };
        text
    }
}

impl DirectoryReport {
    /// Each directory, if there are several.
    pub(crate) fn several(&self) -> &[OneDirectoryReport] {
        match &self.directories[..] {
            [_] => &[],
            directories => directories,
        }
    }

    /// The newest snapshot, for people.
    pub(crate) fn snapshot(&self) -> String {
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

    /// When it last registered, for people.
    pub(crate) fn registered(&self) -> String {
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

/// A time of microseconds to seconds, with the digits that say something.
pub(crate) fn short_time(us: f64) -> String {
    match us {
        ..10.0 => format!("{us:.1} µs"),
        ..1e3 => format!("{us:.0} µs"),
        ..1e4 => format!("{:.1} ms", us / 1e3),
        ..1e6 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

fn plural(n: usize, what: &str) -> String {
    match (n, what) {
        (1, _) => format!("1 {what}"),
        (_, "mailbox") => format!("{n} mailboxes"),
        _ => format!("{n} {what}s"),
    }
}

pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_the_digits_that_say_something() {
        for (us, text) in [
            (3.21, "3.2 µs"),
            (31.4, "31 µs"),
            (1234.0, "1.2 ms"),
            (56_700.0, "57 ms"),
            (2_500_000.0, "2.5 s"),
        ] {
            assert_eq!(short_time(us), text);
        }
    }
}
