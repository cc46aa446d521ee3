//! The public part: nothing here depends on who asks.
//!
//! | request | answer |
//! |---------|--------|
//! | `GET /v2/snapshot` | the newest snapshot; `ETag`, `If-None-Match`, `Cache-Control` |
//! | `POST /v2/relays` | registers a relay by its record and the proof of its link key: 204, or 4xx or 503 with one line |
//! | `POST /v2/heartbeats` | a relay is there: 204; 404 if it is to register; or 4xx or 503 with one line |
//! | `GET /` | a page for people |
//! | `GET /metrics` | counters, for Prometheus |
//! | `GET /healthz` | 200 if the directory works, else 503 with one line |
//!
//! What directories ask each other is in [`directories`].

pub mod directories;
pub mod listen;
mod page;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use mixline_daemon::http::Asker;
use mixline_directory_engine::Message;
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::X25519Secret;
use mixline_protocol::rate_limit::{Rate, site};
use mixline_protocol::records::{Heartbeat, Registration};
use mixline_protocol::shares::Shares;
use mixline_protocol::time::UnixTime;

use crate::board::{Board, Published};
use crate::limit::SharedLimiter;
use crate::metrics::{Gauges, Metrics, count};
use crate::registry::{Counts, Decision, Heard, Refusal, Registry};
use crate::rounds::Maker;

/// The longest body of a request, bytes: a registration, a message of a directory, or digests of records.
const LONGEST_BODY: usize = {
    let (a, b) = (Registration::MAX_ENCODED, Message::MAX_ENCODED);
    let (most, records) = (if a > b { a } else { b }, directories::MAX_RECORDS * 32);
    if most > records { most } else { records }
};
/// Registrations of one source (an IPv4 address, an IPv6 /64). A relay sends a few a minute.
const REGISTRATIONS: Rate = Rate {
    burst: 60,
    interval: Duration::from_secs(1),
};
/// Sources whose registrations are counted at one time, which networks share.
const SOURCES: usize = 65_536;

/// Requests of one source that directories make of each other: hundreds in a round, at once.
const DIRECTORIES: Rate = Rate {
    burst: 1000,
    interval: Duration::from_millis(20),
};

/// What the handlers share.
pub struct App {
    registry: Arc<Registry>,
    board: Arc<Board>,
    maker: Maker,
    metrics: Arc<Metrics>,
    registrations: SharedLimiter<IpAddr, Shares>,
    directories: SharedLimiter<IpAddr, Shares>,
    /// Of the directory's sessions: relays prove their link keys with it.
    session: X25519Secret,
}

impl App {
    /// The public part of a directory. `session`: the secret of its sessions.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        board: Arc<Board>,
        maker: Maker,
        metrics: Arc<Metrics>,
        session: X25519Secret,
    ) -> Arc<Self> {
        let registrations = SharedLimiter::by_network(REGISTRATIONS, SOURCES);
        let directories = SharedLimiter::by_network(DIRECTORIES, SOURCES);
        Arc::new(Self {
            registry,
            board,
            maker,
            metrics,
            registrations,
            directories,
            session,
        })
    }

    /// The routes. Requests need an [`Asker`] among their extensions.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/", get(page))
            .route("/v2/snapshot", get(snapshot))
            .route("/v2/relays", post(register))
            .route("/v2/heartbeats", post(heartbeat))
            .route("/v2/roster", get(directories::roster))
            .route("/v2/log/{from}", get(directories::log))
            .route("/v2/log/{old}/{new}", get(directories::consistency))
            .route("/v2/contradictions", get(directories::contradictions))
            .route("/v2/directories/messages", post(directories::message))
            .route("/v2/directories/votes/{digest}", get(directories::vote))
            .route("/v2/directories/bodies/{digest}", get(directories::body))
            .route("/v2/directories/records", post(directories::records))
            .route("/metrics", get(metrics))
            .route("/healthz", get(health))
            .layer(DefaultBodyLimit::max(LONGEST_BODY))
            .with_state(self.clone())
    }

    /// What a page or a scraper sees. There may be no snapshot yet.
    fn look(&self, now: UnixTime) -> crate::Result<(Gauges, Option<Arc<Published>>)> {
        let Counts {
            services,
            names,
            leases,
        } = self.registry.counts()?;
        let published = self.board.newest();
        let own = self.board.service();
        let mut gauges = Gauges {
            relays: self.registry.live_count() as u64,
            services,
            names,
            leases,
            tails: own.as_ref().map_or(0, |own| own.tails.len() as u64),
            suggested_effort: own.map_or(0, |own| own.effort.suggested.into()),
            ..Gauges::default()
        };
        if let Some(published) = &published {
            gauges.snapshot_bytes = published.bytes.len() as u64;
            gauges.snapshot_age = now.since(published.snapshot.issued);
            gauges.snapshot_left = published.snapshot.valid_until.since(now);
        }
        Ok((gauges, published))
    }
}

async fn snapshot(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let Some(published) = app.board.newest() else {
        let text = "there is no snapshot yet: the directories have not made one; again soon";
        return again_later(plain(StatusCode::SERVICE_UNAVAILABLE, text), "5");
    };
    let fresh = headers.get_all(IF_NONE_MATCH).iter().any(|header| {
        header
            .to_str()
            .is_ok_and(|tags| none_match_has(tags, &published.etag))
    });
    let cache = format!("public, max-age={}", published.max_age);
    let response = Response::builder()
        .header(ETAG, &published.etag)
        .header(CACHE_CONTROL, cache)
        .header(CONTENT_TYPE, "application/octet-stream");
    let response = if fresh {
        count(&app.metrics.snapshots_unchanged);
        response
            .status(StatusCode::NOT_MODIFIED)
            .body(Body::empty())
    } else {
        count(&app.metrics.snapshots_sent);
        response.body(Body::from(published.bytes.clone()))
    };
    response.unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))
}

/// `If-None-Match`: `*`, or a list of entity tags, weakly compared (RFC 9110, section 13.1.2).
fn none_match_has(header: &str, etag: &str) -> bool {
    header
        .split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

async fn register(
    State(app): State<Arc<App>>,
    Extension(Asker(source)): Extension<Asker>,
    body: Bytes,
) -> Response {
    decided(app, source, move |app| {
        let registration = Registration::decode(&body).map_err(|e| malformed(&e))?;
        let now = SystemTime::now().into();
        app.registry
            .register_relay(registration, Some(source), &app.session, now)
            .map(|()| Heard::Yes)
    })
    .await
}

async fn heartbeat(
    State(app): State<Arc<App>>,
    Extension(Asker(source)): Extension<Asker>,
    body: Bytes,
) -> Response {
    decided(app, source, move |app| {
        let heartbeat = Heartbeat::decode(&body).map_err(|e| malformed(&e))?;
        let now = SystemTime::now().into();
        app.registry
            .hear(&heartbeat, Some(source), &app.session, now)
    })
    .await
}

fn malformed(error: &mixline_protocol::Error) -> Refusal {
    Refusal::new(RefusalCode::Malformed, error.to_string())
}

/// The answer to a relay, which is decided elsewhere.
async fn decided(
    app: Arc<App>,
    source: IpAddr,
    decide: impl FnOnce(&App) -> Decision<Heard> + Send + 'static,
) -> Response {
    let decision = if app.registrations.admit(site(source), Instant::now()) {
        let app = app.clone();
        // Checking a signature and waiting for the disk are not for the thread that serves.
        tokio::task::spawn_blocking(move || decide(&app))
            .await
            .unwrap_or_else(|_| {
                Err(Refusal::new(
                    RefusalCode::Unavailable,
                    "internal error; again later",
                ))
            })
    } else {
        let text = "too many registrations from your address; again in a minute";
        Err(Refusal::new(RefusalCode::TooFast, text))
    };
    match decision {
        Ok(Heard::Yes) => {
            count(&app.metrics.registrations);
            plain(StatusCode::NO_CONTENT, "")
        }
        Ok(Heard::Unknown) => plain(
            StatusCode::NOT_FOUND,
            "no relay is there with this record: register it",
        ),
        Err(refusal) => {
            count(&app.metrics.registrations_refused);
            tracing::debug!("registration from {source} refused: {}", refusal.text);
            let response = plain(status_of(refusal.code), &refusal.text);
            if refusal.code.again_later() {
                return again_later(response, "60");
            }
            response
        }
    }
}

fn again_later(mut response: Response, seconds: &'static str) -> Response {
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    response
}

fn status_of(code: RefusalCode) -> StatusCode {
    match code {
        RefusalCode::Malformed | RefusalCode::Expired | RefusalCode::NotYetValid => {
            StatusCode::BAD_REQUEST
        }
        RefusalCode::BadSignature | RefusalCode::NotAllowed => StatusCode::FORBIDDEN,
        RefusalCode::Older | RefusalCode::Taken | RefusalCode::NoAddress => StatusCode::CONFLICT,
        RefusalCode::TooFast => StatusCode::TOO_MANY_REQUESTS,
        RefusalCode::Full | RefusalCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn page(State(app): State<Arc<App>>) -> Response {
    let now = SystemTime::now().into();
    match app.look(now) {
        Ok((gauges, published)) => {
            let relays = app.registry.live_relays();
            let text = page::render(&gauges, published.as_deref(), relays, now);
            let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", text);
            // The page needs nothing from anywhere.
            let policy = "default-src 'none'; style-src 'unsafe-inline'";
            let policy = HeaderValue::from_static(policy);
            response
                .headers_mut()
                .insert(CONTENT_SECURITY_POLICY, policy);
            response
        }
        Err(error) => unhealthy(&error),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.look(SystemTime::now().into()) {
        Ok((gauges, _)) => {
            let text = app.metrics.render(&gauges);
            with_type(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                text,
            )
        }
        Err(error) => unhealthy(&error),
    }
}

async fn health(State(app): State<Arc<App>>) -> Response {
    match app.look(SystemTime::now().into()) {
        Ok((_, None)) => plain(StatusCode::SERVICE_UNAVAILABLE, "there is no snapshot yet"),
        Ok((gauges, _)) if gauges.snapshot_left == 0 => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "the snapshot has expired")
        }
        Ok(_) => plain(StatusCode::OK, "ok"),
        Err(error) => unhealthy(&error),
    }
}

fn unhealthy(error: &crate::Error) -> Response {
    tracing::error!("{error}");
    plain(StatusCode::SERVICE_UNAVAILABLE, "the store does not work")
}

/// One line of text.
fn plain(status: StatusCode, text: &str) -> Response {
    let line = if text.is_empty() {
        String::new()
    } else {
        format!("{text}\n")
    };
    with_type(status, "text/plain; charset=utf-8", line)
}

fn with_type(status: StatusCode, content_type: &'static str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags() {
        assert!(none_match_has("\"a\"", "\"a\""));
        assert!(none_match_has("\"b\", W/\"a\"", "\"a\""));
        assert!(none_match_has("*", "\"a\""));
        assert!(!none_match_has("\"b\"", "\"a\""));
        assert!(!none_match_has("", "\"a\""));
    }
}
