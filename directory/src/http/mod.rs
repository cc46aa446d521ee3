//! The public part: nothing here depends on who asks.
//!
//! | request | answer |
//! |---------|--------|
//! | `GET /v1/snapshot` | the newest snapshot; `ETag`, `If-None-Match`, `Cache-Control` |
//! | `POST /v1/relays` | registers a relay by its descriptor and the proof of its link key: 204, or 4xx or 503 with one line |
//! | `GET /` | a page for people |
//! | `GET /metrics` | counters, for Prometheus |
//! | `GET /healthz` | 200 if the directory works, else 503 with one line |

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
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::X25519Secret;
use mixline_protocol::rate_limit::{Rate, site};
use mixline_protocol::records::Registration;
use mixline_protocol::shares::Shares;
use mixline_protocol::time::UnixTime;

use crate::limit::SharedLimiter;
use crate::metrics::{Gauges, Metrics, count};
use crate::registry::{Counts, Decision, Refusal, Registry};
use crate::snapshot::{Published, Publisher};

/// Registrations of one source (an IPv4 address, an IPv6 /64). A relay sends a few a minute.
const REGISTRATIONS: Rate = Rate {
    burst: 60,
    interval: Duration::from_secs(1),
};
/// Sources whose registrations are counted at one time, which networks share.
const SOURCES: usize = 65_536;

/// What the handlers share.
pub struct App {
    registry: Arc<Registry>,
    publisher: Arc<Publisher>,
    metrics: Arc<Metrics>,
    registrations: SharedLimiter<IpAddr, Shares>,
    /// Of the directory's sessions: relays prove their link keys with it.
    session: X25519Secret,
}

impl App {
    /// The public part of a directory. `session`: the secret of its sessions.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        publisher: Arc<Publisher>,
        metrics: Arc<Metrics>,
        session: X25519Secret,
    ) -> Arc<Self> {
        let registrations = SharedLimiter::by_network(REGISTRATIONS, SOURCES);
        Arc::new(Self {
            registry,
            publisher,
            metrics,
            registrations,
            session,
        })
    }

    /// The routes. Requests need an [`Asker`] among their extensions.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/", get(page))
            .route("/v1/snapshot", get(snapshot))
            .route("/v1/relays", post(register))
            .route("/metrics", get(metrics))
            .route("/healthz", get(health))
            .layer(DefaultBodyLimit::max(Registration::MAX_ENCODED))
            .with_state(self.clone())
    }

    /// What a page or a scraper sees.
    fn look(&self, now: UnixTime) -> crate::Result<(Gauges, Arc<Published>)> {
        let Counts {
            services,
            names,
            leases,
        } = self.registry.counts()?;
        let published = self.publisher.newest();
        let snapshot = &published.snapshot;
        let gauges = Gauges {
            relays: self.registry.live_count() as u64,
            services,
            names,
            leases,
            tails: snapshot.directory_service.tails.len() as u64,
            suggested_effort: snapshot.directory_service.effort.suggested.into(),
            snapshot_bytes: published.bytes.len() as u64,
            snapshot_age: now.since(snapshot.issued),
            snapshot_left: snapshot.valid_until.since(now),
        };
        Ok((gauges, published))
    }
}

async fn snapshot(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let published = app.publisher.newest();
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
    let decision = if app.registrations.admit(site(source), Instant::now()) {
        let app = app.clone();
        let decided = move || decide(&app, &body, source);
        // Checking a signature and waiting for the disk are not for the thread that serves.
        tokio::task::spawn_blocking(decided)
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
        Ok(()) => {
            count(&app.metrics.registrations);
            plain(StatusCode::NO_CONTENT, "")
        }
        Err(refusal) => {
            count(&app.metrics.registrations_refused);
            tracing::debug!("registration from {source} refused: {}", refusal.text);
            let mut response = plain(status_of(refusal.code), &refusal.text);
            if refusal.code.again_later() {
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("60"));
            }
            response
        }
    }
}

fn decide(app: &App, body: &[u8], source: IpAddr) -> Decision<()> {
    let registration = Registration::decode(body)
        .map_err(|e| Refusal::new(RefusalCode::Malformed, e.to_string()))?;
    registration.verify_proof(&app.session).map_err(|_| {
        let text = "the link key is not proven to be this relay's, for this directory; again with \
                    the newest snapshot";
        Refusal::new(RefusalCode::BadSignature, text)
    })?;
    let now = SystemTime::now().into();
    app.registry
        .register_relay(registration.descriptor, Some(source), now)
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
            let text = page::render(&gauges, &published.snapshot, relays, now);
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
        Ok((gauges, _)) if gauges.snapshot_left == 0 => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "the snapshot has expired")
        }
        Ok(_) => plain(StatusCode::OK, "ok"),
        Err(error) => unhealthy(&error),
    }
}

fn unhealthy(error: &crate::Error) -> Response {
    error.log();
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
