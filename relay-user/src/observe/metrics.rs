//! Counters and gauges for Prometheus, over HTTP.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::collect::Source;

/// The text format's content type (Prometheus, "Exposition formats").
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

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
    let mut out = String::new();
    let _ = writeln!(
        out,
        "# HELP mixline_relay_datagrams_total Datagrams by what became of them."
    );
    let _ = writeln!(out, "# TYPE mixline_relay_datagrams_total counter");
    for (worker, statistics) in source.workers().iter().enumerate() {
        for (outcome, count) in statistics.counters().iter() {
            let name = outcome.name();
            let _ = writeln!(
                out,
                "mixline_relay_datagrams_total{{worker=\"{worker}\",verdict=\"{name}\"}} {count}"
            );
        }
    }
    if !report.xdp.is_empty() {
        let _ = writeln!(
            out,
            "# HELP mixline_relay_xdp_frames_total Frames by the XDP program's verdict."
        );
        let _ = writeln!(out, "# TYPE mixline_relay_xdp_frames_total counter");
        for (name, count) in &report.xdp {
            let _ = writeln!(
                out,
                "mixline_relay_xdp_frames_total{{verdict=\"{name}\"}} {count}"
            );
        }
    }
    let directory = &report.directory;
    let gauges: &[(&str, &str, f64)] = &[
        ("paths", "Known paths.", report.paths.known as f64),
        (
            "sessions",
            "Link sessions that are received under.",
            report.links.sessions as f64,
        ),
        (
            "links_relays",
            "Relays with a link.",
            report.links.relays as f64,
        ),
        (
            "links_clients",
            "Clients with a link.",
            report.links.clients as f64,
        ),
        (
            "mailboxes",
            "Registered mailbox tokens.",
            report.links.mailboxes as f64,
        ),
        (
            "replay_horizon_seconds",
            "Everything relayed in this time is surely remembered.",
            report.replay.horizon_s as f64,
        ),
        (
            "replay_fill",
            "Share of the current replay generation in use.",
            report.replay.fill,
        ),
        (
            "directory_problem",
            "1 while the directory cannot be reached or refuses.",
            f64::from(u8::from(directory.last_error.is_some())),
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
    ];
    for (name, help, value) in gauges {
        gauge(&mut out, name, help, *value);
    }
    if let Some(age) = directory.snapshot_age_s {
        let help = "Time since the newest snapshot was made.";
        gauge(&mut out, "snapshot_age_seconds", help, age as f64);
    }
    out
}

fn gauge(out: &mut String, name: &str, help: &str, value: f64) {
    let _ = writeln!(out, "# HELP mixline_relay_{name} {help}");
    let _ = writeln!(out, "# TYPE mixline_relay_{name} gauge");
    let _ = writeln!(out, "mixline_relay_{name} {value}");
}
