//! One request at a time.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::{CLOCK_SKEW, MAX_SNAPSHOT, RelayDescriptor, Snapshot};
use mixline_protocol::time::UnixTime;
use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, DATE, ETAG, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use crate::{ClockError, Error, Result};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a whole exchange may take.
const EXCHANGE: Duration = Duration::from_secs(60);
/// The most bytes that are read of a snapshot.
const MAX_BODY: usize = 8 << 20;
/// The most bytes that are read of a refusal.
const MAX_REFUSAL: usize = 1024;
/// The longest that an entity tag may be to be given back.
const MAX_ETAG: usize = 128;

const _: () = assert!(MAX_SNAPSHOT <= MAX_BODY);

/// What a fetch brings.
#[derive(Debug, Clone)]
pub enum Fetched {
    /// A snapshot, verified: signed by the directory, and valid now.
    Snapshot(Arc<Snapshot>),
    /// The one fetched before is still the newest.
    NotModified,
}

/// A directory's public part, under one address.
#[derive(Debug)]
pub struct DirectoryClient {
    http: Client,
    base: Url,
    id: AnonymousId,
    etag: Option<HeaderValue>,
    clock_ahead: Option<i64>,
    max_age: Option<Duration>,
    now: fn() -> SystemTime,
}

impl DirectoryClient {
    /// A client of the directory `id` at `url` (`http://host:port`). Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Url`] if the address is none, or not `http`.
    pub fn new(url: &str, id: AnonymousId) -> Result<Self> {
        Self::with_clock(url, id, SystemTime::now)
    }

    /// A client that reads another clock than the system's.
    ///
    /// # Errors
    /// As [`DirectoryClient::new`].
    pub fn with_clock(url: &str, id: AnonymousId, now: fn() -> SystemTime) -> Result<Self> {
        let wrong = |reason: String| Error::Url {
            url: url.to_owned(),
            reason,
        };
        let mut base: Url = url.trim().parse().map_err(|e| wrong(format!("{e}")))?;
        if base.scheme() != "http" {
            return Err(wrong(
                "not an http address (what it gives is signed)".into(),
            ));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // Proxies and redirects lead elsewhere than the configuration says.
        let http = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(EXCHANGE)
            .build()
            .map_err(|e| wrong(reason(&e)))?;
        Ok(Self {
            http,
            base,
            id,
            etag: None,
            clock_ahead: None,
            max_age: None,
            now,
        })
    }

    /// The directory's ID.
    #[must_use]
    pub fn id(&self) -> &AnonymousId {
        &self.id
    }

    /// Seconds that this machine's clock is ahead of the directory's (negative: behind),
    /// by the last answer's `Date`. Anybody on the way could have written that: a hint.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        self.clock_ahead
    }

    /// How long the directory says that the last snapshot stays fresh.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// The newest snapshot, or the news that there is none newer than the last.
    ///
    /// # Errors
    /// Everything but [`Error::Url`] and [`Error::Refused`].
    pub async fn fetch(&mut self) -> Result<Fetched> {
        let mut request = self.request(Method::GET, "v1/snapshot")?;
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if self.etag.is_some() => {
                self.max_age = max_age(&response);
                Ok(Fetched::NotModified)
            }
            StatusCode::OK => {
                let fresh = max_age(&response);
                let etag = response
                    .headers()
                    .get(ETAG)
                    .filter(|e| e.len() <= MAX_ETAG)
                    .cloned();
                let body = self.body(response, MAX_BODY).await?;
                let snapshot = self.verified(&body)?;
                self.etag = etag;
                self.max_age = fresh;
                Ok(Fetched::Snapshot(Arc::new(snapshot)))
            }
            status => Err(self.odd(format!("status {status}"))),
        }
    }

    /// Registers a relay, or renews its registration.
    ///
    /// # Errors
    /// [`Error::Refused`] with the directory's words, [`Error::Clock`] if it refuses and
    /// the clocks do not agree, [`Error::Unreachable`], [`Error::NotADirectory`].
    pub async fn register(&mut self, descriptor: &RelayDescriptor) -> Result<()> {
        let request = self
            .request(Method::POST, "v1/relays")?
            .header(
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            )
            .body(descriptor.encode());
        let response = self.send(request).await?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        if !status.is_client_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            return Err(self.odd(format!("status {status}")));
        }
        self.check_clock()?;
        let body = self.body(response, MAX_REFUSAL).await.unwrap_or_default();
        let text = one_line(&String::from_utf8_lossy(&body));
        let text = if text.is_empty() {
            format!("status {status}")
        } else {
            text
        };
        Err(Error::Refused {
            url: self.url(),
            text,
        })
    }

    /// The address without a trailing slash, as it was configured.
    pub(crate) fn url(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    pub(crate) fn now(&self) -> UnixTime {
        (self.now)().into()
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let url = self.base.join(path).map_err(|e| Error::Url {
            url: self.url(),
            reason: e.to_string(),
        })?;
        Ok(self.http.request(method, url))
    }

    async fn send(&mut self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|e| Error::Unreachable {
            url: self.url(),
            reason: reason(&e),
        })?;
        self.clock_ahead = response
            .headers()
            .get(DATE)
            .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok())
            .map(|theirs| {
                let signed = |time: UnixTime| i64::try_from(time.0).unwrap_or(i64::MAX);
                signed(self.now()) - signed(theirs.into())
            });
        Ok(response)
    }

    async fn body(&self, mut response: Response, most: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let broken = |e| Error::Unreachable {
            url: self.url(),
            reason: reason(&e),
        };
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > most {
                return Err(self.odd(format!("more than {most} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn verified(&self, body: &[u8]) -> Result<Snapshot> {
        use mixline_protocol::Error as Wire;
        let (url, now) = (self.url(), self.now());
        Snapshot::decode_and_verify(body, &self.id, now).or_else(|error| match error {
            Wire::Authentication { .. } => Err(Error::Signature {
                url,
                expected: self.id,
            }),
            Wire::Expired { at, .. } => {
                self.check_clock()?;
                Err(Error::Expired {
                    url,
                    seconds_ago: now.since(UnixTime(at)),
                })
            }
            Wire::NotYetValid { from, .. } => {
                self.check_clock()?;
                Err(Error::NotYetValid {
                    url,
                    seconds_ahead: UnixTime(from).since(now),
                })
            }
            other => Err(self.odd(other.to_string())),
        })
    }

    /// When a time was refused: is it this machine's clock?
    fn check_clock(&self) -> Result<()> {
        match self.clock_ahead {
            Some(ahead) if ahead.unsigned_abs() > CLOCK_SKEW => {
                Err(Error::Clock(ClockError { ahead }))
            }
            _ => Ok(()),
        }
    }

    fn odd(&self, reason: String) -> Error {
        Error::NotADirectory {
            url: self.url(),
            reason,
        }
    }
}

/// `max-age` of `Cache-Control`, if it says one.
fn max_age(response: &Response) -> Option<Duration> {
    let header = response.headers().get(CACHE_CONTROL)?.to_str().ok()?;
    let seconds = header
        .split(',')
        .find_map(|part| part.trim().strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// The innermost cause: `Connection refused`, rather than that a request failed.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(|c| c.source()) {
        cause = Some(deeper);
    }
    one_line(&cause.map_or_else(|| error.to_string(), ToString::to_string))
}

/// Words from outside, fit for a log: one line of printable characters.
fn one_line(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    line.trim().chars().take(200).collect()
}
