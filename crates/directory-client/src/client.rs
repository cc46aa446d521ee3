//! One request at a time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mixline_http_client::header::{CACHE_CONTROL, DATE, HeaderValue, IF_NONE_MATCH};
use mixline_http_client::{Answer, Failure, Request, Server, StatusCode, one_line};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::{CLOCK_SKEW, MAX_SNAPSHOT, Registration, Snapshot};
use mixline_protocol::time::UnixTime;

use crate::{ClockError, Error, Result};

/// The most bytes that are read of a snapshot.
const MAX_BODY: usize = 8 << 20;
/// The most bytes that are read of a refusal.
const MAX_REFUSAL: usize = 1024;

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
    server: Server,
    id: AnonymousId,
    /// Of the last snapshot from here: what is asked with.
    tag: Option<HeaderValue>,
    /// The newest snapshot: when it was made, and until when it may be used.
    newest: Option<(UnixTime, UnixTime)>,
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
        let server = Server::new(url).map_err(|error| Error::Url {
            url: url.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            server,
            id,
            tag: None,
            newest: None,
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

    /// Takes none that was made before this one, as long as this one holds.
    pub(crate) fn start_after(&mut self, snapshot: &Snapshot) {
        self.newest = Some((snapshot.issued, snapshot.valid_until));
    }

    /// The newest snapshot, or the news that there is none newer than the last.
    ///
    /// # Errors
    /// Everything but [`Error::Url`] and [`Error::Refused`].
    pub async fn fetch(&mut self) -> Result<Fetched> {
        let mut request = Request::get("v1/snapshot");
        if let Some(tag) = &self.tag {
            request = request.header(IF_NONE_MATCH, tag.clone());
        }
        let answer = self.ask(request).await?;
        match answer.status() {
            StatusCode::NOT_MODIFIED if self.tag.is_some() => {
                self.max_age = max_age(&answer);
                Ok(Fetched::NotModified)
            }
            StatusCode::OK => {
                let fresh = max_age(&answer);
                let body = answer.body(MAX_BODY).await;
                let body = body.map_err(|failure| self.failed(failure))?;
                let snapshot = self.verified(&body)?;
                self.check_newer(&snapshot)?;
                // Made from the bytes: what a server writes there would be repeated in every network.
                self.tag = HeaderValue::try_from(Snapshot::entity_tag(&body)).ok();
                self.newest = Some((snapshot.issued, snapshot.valid_until));
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
    pub async fn register(&mut self, registration: &Registration) -> Result<()> {
        let request = Request::post("v1/relays", registration.encode());
        let answer = self.ask(request).await?;
        let status = answer.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        if !status.is_client_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            return Err(self.odd(format!("status {status}")));
        }
        self.check_clock()?;
        let body = answer.body(MAX_REFUSAL).await.unwrap_or_default();
        let text = one_line(&String::from_utf8_lossy(&body));
        let text = if text.is_empty() {
            format!("status {status}")
        } else {
            text
        };
        Err(Error::Refused {
            url: self.url(),
            forbidden: status == StatusCode::FORBIDDEN,
            text,
        })
    }

    /// The address without a trailing slash, as it was configured.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn now(&self) -> UnixTime {
        (self.now)().into()
    }

    async fn ask(&mut self, request: Request) -> Result<Answer> {
        let answer = self.server.ask(request).await;
        let answer = answer.map_err(|failure| self.failed(failure))?;
        self.clock_ahead = answer
            .headers()
            .get(DATE)
            .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok())
            .map(|theirs| {
                let signed = |time: UnixTime| i64::try_from(time.0).unwrap_or(i64::MAX);
                signed(self.now()) - signed(theirs.into())
            });
        Ok(answer)
    }

    fn failed(&self, failure: Failure) -> Error {
        let (url, reason) = (self.url(), failure.to_string());
        match failure {
            Failure::TooLong(_) => Error::NotADirectory { url, reason },
            Failure::Unsent(_) | Failure::Timeout | Failure::Network(_) => {
                Error::Unreachable { url, reason }
            }
        }
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

    /// Whoever is on the way can show again what the directory signed a while ago; nobody goes back
    /// for that.
    fn check_newer(&self, snapshot: &Snapshot) -> Result<()> {
        let now = self.now();
        // One from a time when this clock was ahead is no measure.
        let holds = |until: UnixTime, from: UnixTime| now < until && from.since(now) <= CLOCK_SKEW;
        match self.newest {
            Some((issued, valid_until))
                if snapshot.issued < issued && holds(valid_until, issued) =>
            {
                Err(Error::Older {
                    url: self.url(),
                    seconds: issued.since(snapshot.issued),
                })
            }
            _ => Ok(()),
        }
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
fn max_age(answer: &Answer) -> Option<Duration> {
    let header = answer.headers().get(CACHE_CONTROL)?.to_str().ok()?;
    let seconds = header
        .split(',')
        .find_map(|part| part.trim().strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}
