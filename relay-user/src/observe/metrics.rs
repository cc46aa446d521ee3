//! Counters and gauges for Prometheus, over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use mixline_protocol::size::DATAGRAM;
use tokio::net::TcpListener;

use super::collect::Source;
use super::exposition::Exposition;
use super::exposition::Kind::{Counter, Gauge, Histogram};
use super::report::{DirectoryReport, Report};
use crate::port::GIVEN_UP;

/// The text format's content type (Prometheus, "Exposition formats").
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Powers of two of a nanosecond that bound the buckets of the time inside: 4 µs to 8.6 s.
const BOUNDS: [u32; 22] = {
    let mut bounds = [12; 22];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] + 1;
        at += 1;
    }
    bounds
};

/// Opens the address where metrics are served.
///
/// # Errors
/// Those of `bind(2)`.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `/metrics`.
pub async fn serve(listener: TcpListener, source: Arc<Source>) {
    let app = Router::new()
        .route("/metrics", get(metrics))
        .with_state(source);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::warn!(%error, "metrics");
    }
}

async fn metrics(State(source): State<Arc<Source>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT)], render(&source))
}

/// All metrics in the text format.
#[must_use]
pub fn render(source: &Source) -> String {
    let report = source.report();
    let mut text = Exposition::default();
    text.family(
        "mixline_relay_build_info",
        Gauge,
        "1, with the version that runs.",
    )
    .sample(&[("version", &report.version)], 1);
    datagrams(&mut text, source, &report);
    inside(&mut text, source);
    frames(&mut text, &report);
    port(&mut text, &report);
    state(&mut text, &report);
    directory(&mut text, &report.directory);
    process(&mut text, &report);
    text.finish()
}

/// What the workers count.
fn datagrams(text: &mut Exposition, source: &Source, report: &Report) {
    let help = "Datagrams by what became of them.";
    text.family("mixline_relay_datagrams_total", Counter, help);
    for (worker, statistics) in source.workers().iter().enumerate() {
        for (outcome, count) in statistics.counters().iter() {
            let labels = [
                ("worker", &*worker.to_string()),
                ("verdict", outcome.name()),
            ];
            text.sample(&labels, count);
        }
    }
    // All datagrams are equally long.
    let bytes = DATAGRAM as u64;
    let help = "UDP payload of datagrams of the right length that workers received.";
    text.family("mixline_relay_received_bytes_total", Counter, help);
    for (number, worker) in report.per_worker.iter().enumerate() {
        text.sample(&[("worker", &number.to_string())], worker.received * bytes);
    }
    let help = "UDP payload that workers sent; handshakes and link upkeep are not in it.";
    text.family("mixline_relay_sent_bytes_total", Counter, help);
    for (number, worker) in report.per_worker.iter().enumerate() {
        text.sample(&[("worker", &number.to_string())], worker.sent * bytes);
    }
    let help = "Time that a worker has used of a core.";
    text.family("mixline_relay_worker_cpu_seconds_total", Counter, help);
    for (number, worker) in report.per_worker.iter().enumerate() {
        if let Some(cpu) = worker.cpu_s {
            text.sample(&[("worker", &number.to_string())], cpu);
        }
    }
}

/// How long datagrams were inside. The bounds are powers of two of a nanosecond, at which buckets
/// of the workers end, so that no datagram is counted in a bucket beside its own.
fn inside(text: &mut Exposition, source: &Source) {
    let help = "From receiving to sending of datagrams that left, by worker.";
    text.family("mixline_relay_inside_seconds", Histogram, help);
    for (number, worker) in source.workers().iter().enumerate() {
        // One reading of all buckets: bounds and count agree.
        let counts: Vec<(u64, u64)> = worker.inside.counts().collect();
        let below = |bound: u64| -> u64 {
            let within = counts.iter().take_while(|(time, _)| *time <= bound);
            within.map(|(_, count)| count).sum()
        };
        let buckets = BOUNDS.map(|power| {
            let bound = 1_u64 << power;
            (bound as f64 / 1e9, below(bound))
        });
        text.histogram(
            &[("worker", &number.to_string())],
            buckets,
            worker.inside.sum() as f64 / 1e9,
            below(u64::MAX),
        );
    }
}

/// What the XDP program and its queues count.
fn frames(text: &mut Exposition, report: &Report) {
    if !report.xdp.is_empty() {
        let help = "Frames by the XDP program's verdict.";
        text.family("mixline_relay_xdp_frames_total", Counter, help);
        for (name, count) in &report.xdp {
            text.sample(&[("verdict", name)], count);
        }
    }
    let queues = &report.port.queues;
    if queues.is_empty() {
        return;
    }
    let help = "Frames that the XDP program gave to a queue's socket.";
    text.family("mixline_relay_queue_redirected_frames_total", Counter, help);
    for (number, queue) in queues.iter().enumerate() {
        text.sample(&[("queue", &number.to_string())], queue.redirected);
    }
    let help = "Frames that came out of a queue's socket.";
    text.family("mixline_relay_queue_received_frames_total", Counter, help);
    for (number, queue) in queues.iter().enumerate() {
        text.sample(&[("queue", &number.to_string())], queue.received);
    }
}

/// The port in use.
fn port(text: &mut Exposition, report: &Report) {
    let check = report.port.check.as_deref().unwrap_or_default();
    text.family(
        "mixline_relay_port_info",
        Gauge,
        "1, with the kind of port in use, and what is known of one on XDP.",
    )
    .sample(&[("kind", &report.port.kind), ("check", check)], 1);
    text.family(
        "mixline_relay_port_given_up",
        Gauge,
        "1 after XDP was given up, and the relay went on by UDP.",
    )
    .sample(&[], u8::from(check == GIVEN_UP));
}

/// What there is, and how much of what there may be.
fn state(text: &mut Exposition, report: &Report) {
    let (links, paths) = (&report.links, &report.paths);
    for (name, help, value) in [
        ("workers", "Threads that forward.", report.workers),
        ("paths", "Known paths.", paths.known),
        (
            "paths_limit",
            "The most paths that can be known.",
            paths.most,
        ),
        (
            "sessions",
            "Link sessions that are received under.",
            links.sessions,
        ),
        ("links_relays", "Relays with a link.", links.relays),
        ("links_clients", "Clients with a link.", links.clients),
        ("mailboxes", "Registered mailbox tokens.", links.mailboxes),
        (
            "onion_keys",
            "Epochs that it has onion keys of.",
            report.onion_epochs.len(),
        ),
    ] {
        gauge(text, name, help, value as f64);
    }
    text.family(
        "mixline_relay_handshakes_refused_total",
        Counter,
        "Handshakes that were refused for want of room.",
    )
    .sample(&[], links.refused);
    let replay = &report.replay;
    for (name, help, value) in [
        (
            "replay_horizon_seconds",
            "Everything relayed in this time is surely remembered.",
            replay.horizon_s as f64,
        ),
        (
            "replay_fill",
            "Share of the current replay generation in use.",
            replay.fill,
        ),
        (
            "load",
            "Datagrams a second relayed of late, as the directory is told.",
            report.load.into(),
        ),
        (
            "capacity",
            "Datagrams a second that it says it is good for.",
            report.capacity.into(),
        ),
        (
            "memory_bytes",
            "Resident memory.",
            report.memory_bytes as f64,
        ),
        (
            "uptime_seconds",
            "Time since the start.",
            report.uptime_s as f64,
        ),
    ] {
        gauge(text, name, help, value);
    }
}

/// How it stands with the directory. What is not known yet is left out.
fn directory(text: &mut Exposition, directory: &DirectoryReport) {
    let known = [
        (
            "directory_problem",
            "1 while the directory cannot be reached or refuses.",
            Some(f64::from(u8::from(directory.last_error.is_some()))),
        ),
        (
            "listed",
            "1 while the newest snapshot has this relay.",
            Some(f64::from(u8::from(directory.listed))),
        ),
        (
            "snapshot_relays",
            "Relays in the newest snapshot.",
            directory.relays.map(|relays| relays as f64),
        ),
        (
            "snapshot_age_seconds",
            "Time since the newest snapshot was made.",
            directory.snapshot_age_s.map(|age| age as f64),
        ),
        (
            "snapshot_left_seconds",
            "Time until the newest snapshot ends; 0 if it has.",
            directory.snapshot_valid_for_s.map(|left| left as f64),
        ),
        (
            "last_registration_timestamp_seconds",
            "When the directory last took a registration, since 1970.",
            directory.registered_at.map(|at| at as f64),
        ),
        (
            "clock_ahead_seconds",
            "How far this machine's clock is ahead of the directory's, where that is told.",
            directory.clock_ahead_s.map(|ahead| ahead as f64),
        ),
    ];
    for (name, help, value) in known {
        if let Some(value) = value {
            gauge(text, name, help, value);
        }
    }
}

/// What every process shows, by the names that client libraries give it.
fn process(text: &mut Exposition, report: &Report) {
    let process = &report.process;
    let families = [
        (
            "process_cpu_seconds_total",
            Counter,
            "User and system time used.",
            Some(process.cpu_s),
        ),
        (
            "process_resident_memory_bytes",
            Gauge,
            "Resident memory.",
            Some(report.memory_bytes as f64),
        ),
        (
            "process_virtual_memory_bytes",
            Gauge,
            "Address space.",
            Some(process.virtual_bytes as f64),
        ),
        (
            "process_open_fds",
            Gauge,
            "Open file descriptors.",
            Some(process.open_fds as f64),
        ),
        (
            "process_max_fds",
            Gauge,
            "The most file descriptors that may be open.",
            process.max_fds.map(|most| most as f64),
        ),
        (
            "process_threads",
            Gauge,
            "Threads.",
            Some(process.threads as f64),
        ),
        (
            "process_start_time_seconds",
            Gauge,
            "When the process started, since 1970.",
            Some(process.started),
        ),
    ];
    for (name, kind, help, value) in families {
        if let Some(value) = value {
            text.family(name, kind, help).sample(&[], value);
        }
    }
}

fn gauge(text: &mut Exposition, name: &str, help: &str, value: f64) {
    text.family(&format!("mixline_relay_{name}"), Gauge, help)
        .sample(&[], value);
}
