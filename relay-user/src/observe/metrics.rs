//! Counters and gauges for Prometheus, over HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use mixline_daemon::http::{self, Bounds, Host};
use mixline_daemon::place::Place;
use mixline_protocol::size::DATAGRAM;
use tokio::net::TcpListener;

use super::collect::Source;
use super::exposition::Exposition;
use super::exposition::Kind::{self, Counter, Gauge, Histogram};
use super::report::{OneDirectoryReport, Report};
use crate::port::GIVEN_UP;

/// The text format's content type (Prometheus, "Exposition formats").
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What askers may take: a few that scrape, each over a connection that may last.
const BOUNDS: Bounds = Bounds {
    connections: 32,
    reserve: 8,
    headers: Duration::from_secs(30),
    connection: Duration::from_secs(300),
    head_bytes: 8192,
};

/// Powers of two of a nanosecond that bound the buckets of the time inside: 4 µs to 8.6 s.
const BUCKETS: [u32; 22] = {
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

/// Where metrics are served, which may change: at an address where `listener` listens, or nowhere.
#[must_use]
pub fn place(source: &Arc<Source>, at: Option<(SocketAddr, TcpListener)>) -> Place {
    let desk = Desk {
        source: Arc::clone(source),
        refused: Arc::new(AtomicU64::new(0)),
    };
    let mut place =
        Place::new(move |listener, stop| http::serve(listener, BOUNDS, desk.clone(), stop));
    if let Some((address, listener)) = at {
        place.open(address, listener);
    }
    place
}

/// What answers.
#[derive(Clone)]
struct Desk {
    source: Arc<Source>,
    /// Connections that found no room.
    refused: Arc<AtomicU64>,
}

impl Host for Desk {
    fn routes(&self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }

    /// Programs of this host.
    fn knows(&self, asker: IpAddr) -> bool {
        asker.is_loopback()
    }

    fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

async fn metrics(State(desk): State<Desk>) -> impl IntoResponse {
    let refused = desk.refused.load(Ordering::Relaxed);
    ([(CONTENT_TYPE, TEXT)], render(&desk.source, refused))
}

/// All metrics in the text format; `refused`: connections to this address that found no room.
#[must_use]
fn render(source: &Source, refused: u64) -> String {
    let report = source.report();
    let mut text = Exposition::default();
    text.family(
        "mixline_relay_build_info",
        Gauge,
        "1, with the version that runs, and the processor's instructions that it uses.",
    )
    .sample(&[("version", &report.version), ("cpu", &report.cpu)], 1);
    text.family(
        "mixline_relay_info",
        Gauge,
        "1, with what people call the relay, its short ID, and how they reach the operator.",
    )
    .sample(
        &[
            ("name", &report.name),
            ("short_id", &report.short_id),
            ("contact", report.contact.as_deref().unwrap_or_default()),
        ],
        1,
    );
    datagrams(&mut text, source, &report);
    inside(&mut text, source);
    frames(&mut text, &report);
    port(&mut text, &report);
    directories(&mut text, &report);
    for (kind, name, help, value) in SINGLE {
        if let Some(value) = value(&report) {
            text.family(name, *kind, help).sample(&[], value);
        }
    }
    let help = "Connections to this address that were closed for want of room.";
    text.family(
        "mixline_relay_metrics_connections_refused_total",
        Counter,
        help,
    )
    .sample(&[], refused);
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
        let buckets = BUCKETS.map(|power| {
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

/// How it stands with each directory. Their names are the roster's; one that is alone has none.
fn directories(text: &mut Exposition, report: &Report) {
    let directories = &report.directory.directories;
    let family =
        |text: &mut Exposition, name, help, value: fn(&OneDirectoryReport) -> Option<f64>| {
            let family = text.family(name, Gauge, help);
            for directory in directories {
                if let Some(value) = value(directory) {
                    let name = directory.name.as_deref().unwrap_or_default();
                    family.sample(&[("name", name), ("url", &directory.url)], value);
                }
            }
        };
    family(
        text,
        "mixline_relay_directory_failing",
        "1 if the directory did not answer as it should when it was asked last, or does not take this relay.",
        |of| {
            let registered = of.registered.as_ref();
            let fails = registered.is_some_and(|registered| registered.problem.is_some());
            Some(is(of.problem.is_some() || fails))
        },
    );
    family(
        text,
        "mixline_relay_directory_registration_timestamp_seconds",
        "When the directory last took a registration or a heartbeat, since 1970.",
        |of| of.registered.as_ref()?.at.map(|at| at as f64),
    );
}

/// A family with one sample: what it is, its name, its help, and where its value is in a report. What is
/// not known, or has no limit, is left out.
type Single = (Kind, &'static str, &'static str, fn(&Report) -> Option<f64>);

#[rustfmt::skip]
const SINGLE: &[Single] = &[
    // What there is, and how much of what there may be.
    (Gauge, "mixline_relay_workers", "Threads that forward.",
        |r| Some(r.workers as f64)),
    (Gauge, "mixline_relay_paths", "Known paths.",
        |r| Some(r.paths.known as f64)),
    (Gauge, "mixline_relay_paths_limit", "The most paths that can be known.",
        |r| Some(r.paths.most as f64)),
    (Gauge, "mixline_relay_sessions", "Link sessions that are received under.",
        |r| Some(r.links.sessions as f64)),
    (Gauge, "mixline_relay_links_relays", "Relays with a link.",
        |r| Some(r.links.relays as f64)),
    (Gauge, "mixline_relay_links_clients", "Clients with a link.",
        |r| Some(r.links.clients as f64)),
    (Gauge, "mixline_relay_mailboxes", "Registered mailbox tokens.",
        |r| Some(r.links.mailboxes as f64)),
    (Gauge, "mixline_relay_onion_keys", "Epochs that it has onion keys of.",
        |r| Some(r.onion_epochs.len() as f64)),
    (Counter, "mixline_relay_handshakes_refused_total", "Handshakes that were refused for want of room.",
        |r| Some(r.links.refused as f64)),
    (Gauge, "mixline_relay_replay_horizon_seconds", "Everything relayed in this time is surely remembered.",
        |r| Some(r.replay.horizon_s as f64)),
    (Gauge, "mixline_relay_replay_fill", "Share of the current replay generation in use.",
        |r| Some(r.replay.fill)),
    (Gauge, "mixline_relay_load", "Datagrams a second relayed of late, as the directory is told.",
        |r| Some(r.load.into())),
    (Gauge, "mixline_relay_capacity", "Datagrams a second that it says it is good for.",
        |r| Some(r.capacity.into())),
    (Gauge, "mixline_relay_memory_bytes", "Resident memory.",
        |r| Some(r.memory_bytes as f64)),
    (Gauge, "mixline_relay_uptime_seconds", "Time since the start.",
        |r| Some(r.uptime_s as f64)),
    // What it may send, and whether it takes part.
    (Gauge, "mixline_relay_bandwidth_limit_bytes", "Bytes that it sends in a second at most, headers included.",
        |r| r.bandwidth.map(|most| most as f64)),
    (Gauge, "mixline_relay_monthly_limit_bytes", "Bytes that it sends in a month of UTC at most, headers included.",
        |r| r.monthly.map(|most| most as f64)),
    (Gauge, "mixline_relay_monthly_sent_bytes", "Bytes sent in this month of UTC, headers included.",
        |r| r.volume.as_ref().map(|volume| volume.sent as f64)),
    (Gauge, "mixline_relay_hibernating", "1 while all that it may send in this month is sent.",
        |r| Some(is(r.hibernating))),
    (Gauge, "mixline_relay_leaving", "1 while it takes no new paths, and stops when none is in use.",
        |r| Some(is(r.leaving))),
    // How it stands with the directory.
    (Gauge, "mixline_relay_directory_problem", "1 while no directory is of use, or too few take this relay.",
        |r| Some(is(r.directory.last_error.is_some()))),
    (Gauge, "mixline_relay_listed", "1 while the newest snapshot has this relay.",
        |r| Some(is(r.directory.listed))),
    (Gauge, "mixline_relay_snapshot_relays", "Relays in the newest snapshot.",
        |r| r.directory.relays.map(|relays| relays as f64)),
    (Gauge, "mixline_relay_snapshot_age_seconds", "Time since the newest snapshot was made.",
        |r| r.directory.snapshot_age_s.map(|age| age as f64)),
    (Gauge, "mixline_relay_snapshot_left_seconds", "Time until the newest snapshot ends; 0 if it has.",
        |r| r.directory.snapshot_valid_for_s.map(|left| left as f64)),
    (Gauge, "mixline_relay_last_registration_timestamp_seconds", "When a directory last took a registration or a heartbeat, since 1970.",
        |r| r.directory.registered_at.map(|at| at as f64)),
    (Gauge, "mixline_relay_clock_ahead_seconds", "How far this machine's clock is ahead of the directory's, where that is told.",
        |r| r.directory.clock_ahead_s.map(|ahead| ahead as f64)),
    // What every process shows, by the names that client libraries give it.
    (Counter, "process_cpu_seconds_total", "User and system time used.",
        |r| Some(r.process.cpu_s)),
    (Gauge, "process_resident_memory_bytes", "Resident memory.",
        |r| Some(r.memory_bytes as f64)),
    (Gauge, "process_virtual_memory_bytes", "Address space.",
        |r| Some(r.process.virtual_bytes as f64)),
    (Gauge, "process_open_fds", "Open file descriptors.",
        |r| Some(r.process.open_fds as f64)),
    (Gauge, "process_max_fds", "The most file descriptors that may be open.",
        |r| r.process.max_fds.map(|most| most as f64)),
    (Gauge, "process_threads", "Threads.",
        |r| Some(r.process.threads as f64)),
    (Gauge, "process_start_time_seconds", "When the process started, since 1970.",
        |r| Some(r.process.started)),
];

/// A condition as a number.
fn is(so: bool) -> f64 {
    f64::from(u8::from(so))
}
