//! What directories ask each other, and what everybody may ask about the rounds.
//!
//! | request | answer |
//! |---------|--------|
//! | `GET /v2/roster` | the rosters of the network; 204 if the directory is alone |
//! | `GET /v2/log/FROM` | rounds of the log, `round 8, digest 32` each, from number FROM on |
//! | `GET /v2/log/OLD/NEW` | the proof that the first OLD rounds of the first NEW were the log before |
//! | `GET /v2/contradictions` | what directories have said against themselves |
//! | `POST /v2/directories/messages` | a message of another directory: 204 |
//! | `GET /v2/directories/votes/DIGEST` | a vote |
//! | `POST /v2/directories/records`, digests | `length 2, relay record` each |
//! | `GET /v2/directories/bodies/DIGEST` | the body of a snapshot that is being signed |
//!
//! All of it is signed, and none of it is secret: that only directories have a use for some of it is no reason to
//! ask who it is. Each source has its share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use mixline_daemon::http::Asker;
use mixline_directory_engine::Message;
use mixline_protocol::identity::Digest;
use mixline_protocol::rate_limit::site;
use mixline_protocol::round_log::{Leaf, RoundLog};
use mixline_protocol::wire::Writer;

use super::{App, plain};
use crate::rounds::Maker;
use crate::rounds::several::Several;

/// Rounds in one answer.
pub const MAX_LEAVES: usize = 65_536;
/// Records in one answer.
pub const MAX_RECORDS: usize = 512;

/// The rosters of the network.
pub(super) async fn roster(
    State(app): State<Arc<App>>,
    Extension(Asker(source)): Extension<Asker>,
) -> Response {
    if !app.directories.admit(site(source), Instant::now()) {
        return too_many();
    }
    match app.maker.rosters() {
        Some(rosters) => binary(rosters),
        None => plain(StatusCode::NO_CONTENT, ""),
    }
}

/// Rounds of the log.
pub(super) async fn log(
    State(app): State<Arc<App>>,
    Extension(Asker(source)): Extension<Asker>,
    Path(from): Path<u64>,
) -> Response {
    if !app.directories.admit(site(source), Instant::now()) {
        return too_many();
    }
    heavy(move || {
        app.maker.with_log(|log| {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let leaves = log.leaves().iter().skip(from).take(MAX_LEAVES);
            Some(leaves.flat_map(Leaf::encode).collect())
        })
    })
    .await
}

/// The proof that the log began as it was.
pub(super) async fn consistency(
    State(app): State<Arc<App>>,
    Extension(Asker(source)): Extension<Asker>,
    Path((old, new)): Path<(u64, u64)>,
) -> Response {
    if !app.directories.admit(site(source), Instant::now()) {
        return too_many();
    }
    heavy(move || {
        let mut log = app.maker.with_log(|log: &RoundLog| {
            let size = usize::try_from(new).ok()?;
            (size <= log.leaves().len()).then(|| log.clone())
        })?;
        // Not while others wait for the log.
        log.truncate(usize::try_from(new).ok()?);
        log.consistency(old).ok()
    })
    .await
}

/// What directories have said against themselves.
pub(super) async fn contradictions(State(app): State<Arc<App>>) -> Response {
    let Maker::Several(several) = &app.maker else {
        return binary(Vec::new());
    };
    let proofs = several.proofs();
    binary(
        proofs
            .iter()
            .flat_map(|proof| proof.contradiction.encode())
            .collect(),
    )
}

/// A message of another directory.
pub(super) async fn message(
    State(app): State<Arc<App>>,
    Extension(Asker(source)): Extension<Asker>,
    body: Bytes,
) -> Response {
    let Maker::Several(several) = &app.maker else {
        return alone();
    };
    if !app.directories.admit(site(source), Instant::now()) {
        return too_many();
    }
    match Message::decode(&body) {
        Err(error) => plain(StatusCode::BAD_REQUEST, &error.to_string()),
        Ok(message) => {
            if several.receive(message) {
                plain(StatusCode::NO_CONTENT, "")
            } else {
                plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many messages; again soon",
                )
            }
        }
    }
}

/// A vote.
pub(super) async fn vote(
    State(app): State<Arc<App>>,
    Extension(Asker(source)): Extension<Asker>,
    Path(digest): Path<String>,
) -> Response {
    named(&app, source, &digest, |several, digest| {
        several.vote_with(digest)
    })
    .await
}

/// The body of a snapshot.
pub(super) async fn body(
    State(app): State<Arc<App>>,
    Extension(Asker(source)): Extension<Asker>,
    Path(digest): Path<String>,
) -> Response {
    named(&app, source, &digest, |several, digest| {
        several.body_with(digest)
    })
    .await
}

/// Records of relays.
pub(super) async fn records(
    State(app): State<Arc<App>>,
    Extension(Asker(source)): Extension<Asker>,
    body: Bytes,
) -> Response {
    let Maker::Several(several) = &app.maker else {
        return alone();
    };
    if !app.directories.admit(site(source), Instant::now()) {
        return too_many();
    }
    let (wanted, rest) = body.as_chunks::<32>();
    if !rest.is_empty() || wanted.len() > MAX_RECORDS {
        let text = format!("not digests of 32 bytes, or more than {MAX_RECORDS}");
        return plain(StatusCode::BAD_REQUEST, &text);
    }
    let (several, wanted) = (several.clone(), wanted.to_vec());
    heavy(move || {
        let mut writer = Writer::new();
        let found = wanted
            .iter()
            .filter_map(|digest| several.record_with(&Digest(*digest)));
        for record in found {
            let bytes = record.encode();
            writer
                .u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX))
                .bytes(&bytes);
        }
        Some(writer.into_bytes())
    })
    .await
}

async fn named(
    app: &App,
    source: IpAddr,
    digest: &str,
    find: impl FnOnce(&Several, &Digest) -> Option<Vec<u8>> + Send + 'static,
) -> Response {
    let Maker::Several(several) = &app.maker else {
        return alone();
    };
    if !app.directories.admit(site(source), Instant::now()) {
        return too_many();
    }
    let Ok(digest) = digest.parse::<Digest>() else {
        return plain(
            StatusCode::BAD_REQUEST,
            "not a digest of 64 hexadecimal digits",
        );
    };
    let several = several.clone();
    heavy(move || find(&several, &digest)).await
}

/// What takes a while, or waits for the task that takes part in rounds.
async fn heavy(work: impl FnOnce() -> Option<Vec<u8>> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Some(bytes)) => binary(bytes),
        Ok(None) => plain(StatusCode::NOT_FOUND, "there is no such thing here"),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    }
}

fn too_many() -> Response {
    plain(
        StatusCode::TOO_MANY_REQUESTS,
        "too many requests from your address; again soon",
    )
}

fn alone() -> Response {
    plain(StatusCode::NOT_FOUND, "this directory is alone")
}

fn binary(bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    let media = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, media);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
