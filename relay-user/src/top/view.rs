//! What is on the screen: lines, made of the newest report and of what happened since the one before.

use std::time::Duration;

use mixline_protocol::size::DATAGRAM;
use mixline_relay_engine::outcome::Outcome;
use ratatui::Frame;
use ratatui::style::{Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::rates::{Count, Rates};
use crate::observe::{InsideReport, Report, duration, short_time};

/// What is known, and what is asked for.
#[derive(Debug, Default)]
pub struct State {
    /// The newest report.
    pub report: Option<Report>,
    /// What happened since the one before; none until there are two.
    pub rates: Option<Rates>,
    /// Why the relay does not answer now.
    pub silent: Option<String>,
    /// How often it is asked.
    pub interval: Duration,
    /// The keys and columns are explained instead.
    pub help: bool,
    /// Lines that are above the screen.
    pub scroll: u16,
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let lines = if state.help { help() } else { lines(state) };
    // The last line stays on the screen.
    let most = u16::try_from(lines.len().saturating_sub(1)).unwrap_or(u16::MAX);
    state.scroll = state.scroll.min(most);
    let text = Paragraph::new(lines).scroll((state.scroll, 0));
    frame.render_widget(text, frame.area());
}

fn lines(state: &State) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let every = state.interval.as_secs_f64();
    let Some(report) = &state.report else {
        lines.push(Line::from("asking the relay ..."));
        return lines;
    };
    let title = format!(
        "{} {} ({}), up {}; every {every} s; q: quit, ?: help",
        report.name,
        report.short_id,
        report.version,
        duration(report.uptime_s),
    );
    lines.push(Line::from(title).bold());
    if let Some(why) = &state.silent {
        let text = format!("THE RELAY DOES NOT ANSWER: {why}; below is its last answer");
        lines.push(Line::from(text).red().bold());
    }
    lines.extend(summary(report, state.rates.as_ref()));
    lines.extend(workers(report, state.rates.as_ref()));
    let rates = state.rates.as_ref();
    lines.extend(queues(report, rates));
    let outcomes = Outcome::ALL.iter().map(|outcome| {
        let name = outcome.name();
        (name, report.verdicts.get(name).copied().unwrap_or_default())
    });
    let of = rates.map(|rates| &rates.outcomes[..]);
    lines.extend(counts("OUTCOME", outcomes, of));
    if !report.xdp.is_empty() {
        let verdicts = report.xdp.iter().map(|(name, count)| (&**name, *count));
        let of = rates.map(|rates| &rates.xdp[..]);
        lines.extend(counts("XDP VERDICT", verdicts, of));
    }
    lines
}

/// A line for each part of the relay.
fn summary(report: &Report, rates: Option<&Rates>) -> Vec<Line<'static>> {
    let line = |key: &str, value: String| Line::from(format!("{key:<10} {value}"));
    let port = match &report.port.check {
        Some(check) => format!("{}: {check}", report.port.kind),
        None => format!("{}: {}", report.port.kind, report.port.why),
    };
    let directory = &report.directory;
    let cpu = rates.map_or("-".into(), |rates| percent(rates.cpu));
    let mut lines = vec![
        line("port", port),
        line(
            "directory",
            format!(
                "{}; registered {}; {}",
                if directory.listed {
                    "listed"
                } else {
                    "NOT LISTED"
                },
                directory.registered(),
                directory.snapshot()
            ),
        ),
    ];
    lines.extend(report.rows().into_iter().map(|(key, value)| match key {
        "problem" | "leaving" | "hibernating" => line(key, value).red(),
        _ => line(key, value),
    }));
    lines.extend([
        line(
            "process",
            format!(
                "CPU {cpu}, {:.1} MiB, {} threads, {} open files",
                report.memory_bytes as f64 / f64::from(1 << 20),
                report.process.threads,
                report.process.open_fds
            ),
        ),
        line(
            "inside",
            format!(
                "now: {}",
                rates.map_or("-".into(), |rates| quantiles(&rates.inside))
            ),
        ),
        line(
            "",
            format!("since the start: {}", quantiles(&report.inside)),
        ),
    ]);
    lines
}

fn workers(report: &Report, rates: Option<&Rates>) -> Vec<Line<'static>> {
    let mut lines = heading(&format!(
        "{:<8}{:>10}{:>10}{:>11}{:>8}{:>9}{:>9}{:>9}{:>6}",
        "WORKER", "IN/s", "OUT/s", "OUT Mbit/s", "PATHS", "p50", "p99", "p99.9", "CPU"
    ));
    for (number, worker) in report.per_worker.iter().enumerate() {
        let now = rates.and_then(|rates| rates.workers.get(number));
        let dash = || "-".to_owned();
        let rate = |value: Option<f64>| value.map_or_else(dash, whole);
        let time = |of: fn(&InsideReport) -> f64| {
            now.filter(|now| now.inside.datagrams > 0)
                .map_or_else(dash, |now| short_time(of(&now.inside)))
        };
        let bits = now.map(|now| now.sent * DATAGRAM as f64 * 8.0 / 1e6);
        lines.push(Line::from(format!(
            "{number:<8}{:>10}{:>10}{:>11}{:>8}{:>9}{:>9}{:>9}{:>6}",
            rate(now.map(|now| now.received)),
            rate(now.map(|now| now.sent)),
            bits.map_or_else(dash, |bits| format!("{bits:.1}")),
            worker.paths,
            time(|inside| inside.p50_us),
            time(|inside| inside.p99_us),
            time(|inside| inside.p999_us),
            now.and_then(|now| now.cpu).map_or_else(dash, percent),
        )));
    }
    lines
}

fn queues(report: &Report, rates: Option<&Rates>) -> Vec<Line<'static>> {
    if report.port.queues.is_empty() {
        return Vec::new();
    }
    let mut lines = heading(&format!(
        "{:<8}{:>14}{:>14}{:>16}{:>16}",
        "QUEUE", "REDIRECTED/s", "RECEIVED/s", "redirected", "received"
    ));
    for (number, queue) in report.port.queues.iter().enumerate() {
        let now = rates.and_then(|rates| rates.queues.get(number));
        let rate = |value: Option<f64>| value.map_or("-".into(), whole);
        lines.push(Line::from(format!(
            "{number:<8}{:>14}{:>14}{:>16}{:>16}",
            rate(now.map(|now| now.redirected)),
            rate(now.map(|now| now.received)),
            queue.redirected,
            queue.received
        )));
    }
    lines
}

/// Those of some counters that are not zero.
fn counts<'a>(
    what: &str,
    totals: impl Iterator<Item = (&'a str, u64)>,
    rates: Option<&[Count]>,
) -> Vec<Line<'static>> {
    let mut lines = heading(&format!(
        "{what:<20}{:>12}{:>18}",
        "PER SECOND", "SINCE THE START"
    ));
    for (name, total) in totals.filter(|(_, total)| *total > 0) {
        let rate = rates.and_then(|rates| rates.iter().find(|count| count.name == name));
        let rate = rate.map_or("-".into(), |count| whole(count.rate));
        lines.push(Line::from(format!("{name:<20}{rate:>12}{total:>18}")));
    }
    lines
}

fn heading(text: &str) -> Vec<Line<'static>> {
    vec![
        Line::default(),
        Line::styled(text.to_owned(), Style::new().reversed()),
    ]
}

fn quantiles(inside: &InsideReport) -> String {
    if inside.datagrams == 0 {
        return "-".into();
    }
    inside.text()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A rate as a whole number; one that is less than one and not nothing says so.
fn whole(rate: f64) -> String {
    if rate > 0.0 && rate < 0.5 {
        "<1".into()
    } else {
        format!("{rate:.0}")
    }
}

fn help() -> Vec<Line<'static>> {
    [
        "q, Esc, Ctrl-C   quit",
        "?                this text, and back",
        "Up, Down, k, j   scroll",
        "",
        "IN/s, OUT/s      datagrams a second that a worker received and sent. Each is 1408 bytes.",
        "p50, p99, p99.9  how long datagrams that left in the last interval were inside, from the",
        "                 reading out of the kernel to the end of sending; not how long they waited",
        "                 for the relay to read them. A mixing delay counts.",
        "CPU              share of one core.",
        "REDIRECTED/s     frames that the XDP program gave to a queue's socket; RECEIVED/s: frames",
        "                 that the relay took out of it. A queue with the one and not the other is",
        "                 deaf.",
        "OUTCOME          what became of datagrams; docs/operations.md says what each means.",
    ]
    .map(Line::from)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::sample::report;
    use super::*;

    fn screen(state: &mut State, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(80, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        terminal.backend().to_string()
    }

    /// After two readings, with traffic in between.
    fn state() -> State {
        let before = report();
        let mut after = before.clone();
        after.per_worker[0].received += 20_000;
        after.per_worker[0].sent += 19_000;
        after.per_worker[0].cpu_s = Some(10.5);
        after.per_worker[0].inside_ns = vec![(20_480, 1500), (1_048_576, 500)];
        after.port.queues[1].redirected += 60;
        *after.verdicts.get_mut("forwarded").unwrap() += 19_000;
        State {
            rates: Rates::between(&before, &after, Duration::from_secs(1)),
            report: Some(after),
            interval: Duration::from_secs(1),
            ..State::default()
        }
    }

    #[test]
    fn everything_is_on_one_screen() {
        let text = screen(&mut state(), 34);
        for wanted in [
            "relay1 6f0c (0.1.0), up 5 h; every 1 s; q: quit, ?: help",
            "port       xdp: proven: full-sized frames arrive whole",
            "directory  listed; registered 11 s ago; 12 relays, made 20 s ago, good for 9 min",
            "links      11 relays, 40 clients; 62 sessions, 160 mailboxes; 0 refused",
            "replay     the last 40 min are remembered, 12 % full",
            "load       20311 of 400000 datagrams/s",
            "inside     now: p50 21 µs, p99 1.1 ms, p99.9 1.1 ms",
            "           since the start: p50 21 µs, p99 21 µs, p99.9 21 µs",
            "process    CPU 0 %, 52.0 MiB, 5 threads, 44 open files",
            "WORKER        IN/s     OUT/s OUT Mbit/s   PATHS      p50      p99    p99.9   CPU",
            "0            20000     19000      214.0     206    21 µs   1.1 ms   1.1 ms  50 %",
            "1                0         0        0.0     206        -        -        -     -",
            "1                   60             0            2060            1990",
            "forwarded                  19000             24000",
            "link_down                      0                 3",
            "redirected                     0              3000",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        assert!(
            !text.contains("loop") && !text.contains("problem"),
            "{text}"
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut state = state();
        state.silent = Some("Connection refused".into());
        state.rates = None;
        let report = state.report.as_mut().unwrap();
        report.directory.listed = false;
        report.directory.last_error = Some("directory is unreachable".into());
        report.hibernating = true;
        let text = screen(&mut state, 40);
        for wanted in [
            "THE RELAY DOES NOT ANSWER: Connection refused",
            "directory  NOT LISTED",
            "problem    directory is unreachable",
            "hibernating `monthly` is used up",
            "0                -         -          -     206        -        -        -     -",
            "forwarded                      -             24000",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        assert!(screen(&mut State::default(), 3).contains("asking the relay"));
    }

    #[test]
    fn small_screens_scroll_and_help_explains_the_keys() {
        let mut state = state();
        state.scroll = 3;
        let text = screen(&mut state, 5);
        assert!(!text.contains("relay1") && text.contains("links"), "{text}");
        state.scroll = u16::MAX;
        let text = screen(&mut state, 5);
        assert!(text.contains("redirected"), "{text}");
        state = State {
            help: true,
            ..state
        };
        state.scroll = 0;
        assert!(screen(&mut state, 20).contains("q, Esc, Ctrl-C   quit"));
    }
}
