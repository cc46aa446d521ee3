//! One directory, under one address.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mixline_http_client::header::{CACHE_CONTROL, DATE, HeaderValue, IF_NONE_MATCH};
use mixline_http_client::{Answer, Failure, Request, Server, StatusCode, one_line};
use mixline_protocol::identity::NetworkId;
use mixline_protocol::records::{
    CLOCK_SKEW, Heartbeat, MAX_SNAPSHOT, Registration, Roster, Snapshot,
};
use mixline_protocol::time::UnixTime;

use crate::{ClockError, Error, Known, Result};

/// The most bytes that are read of a snapshot.
const MAX_BODY: usize = 8 << 20;
/// The most bytes that are read of a chain of rosters: some hundreds of them.
const MAX_CHAIN: usize = 1 << 20;
/// The most bytes that are read of a refusal.
const MAX_REFUSAL: usize = 1024;

const _: () = assert!(MAX_SNAPSHOT <= MAX_BODY);

/// What a fetch brings.
#[derive(Debug, Clone)]
pub enum Fetched {
    /// A snapshot, verified: signed by a quorum of the directories, and valid now.
    Snapshot(Arc<Snapshot>),
    /// The one fetched before is still the newest.
    NotModified,
}

/// The last snapshot: what is asked with, and which round it is of.
pub(crate) type Seen = (HeaderValue, UnixTime);

/// A directory's public part, under one address.
#[derive(Debug)]
pub struct DirectoryClient {
    server: Server,
    known: Known,
    seen: Option<Seen>,
    clock_ahead: Option<i64>,
    max_age: Option<Duration>,
    now: fn() -> SystemTime,
}

impl DirectoryClient {
    /// A client of a directory of `network` at `url` (`http://host:port`). A network of one directory is
    /// called by that directory's ID. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Url`] if the address is none, or not `http`.
    pub fn new(url: &str, network: impl Into<NetworkId>) -> Result<Self> {
        Self::with_clock(url, network, SystemTime::now)
    }

    /// A client that reads another clock than the system's.
    ///
    /// # Errors
    /// As [`DirectoryClient::new`].
    pub fn with_clock(
        url: &str,
        network: impl Into<NetworkId>,
        now: fn() -> SystemTime,
    ) -> Result<Self> {
        let server = Server::new(url).map_err(|error| Error::Url {
            url: url.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            server,
            known: Known::nothing(network.into()),
            seen: None,
            clock_ahead: None,
            max_age: None,
            now,
        })
    }

    /// The network's ID.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.known.network()
    }

    /// What is known of the network.
    #[must_use]
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Goes on from what is known of the network: from its newest roster, and its last round.
    pub fn set_known(&mut self, known: Known) {
        self.known = known;
    }

    /// Asks only for what is newer than a snapshot that was fetched elsewhere. Its tag is the same there, and
    /// says nothing that one directory could have another one told.
    pub(crate) fn set_seen(&mut self, seen: Option<Seen>) {
        self.seen = seen;
    }

    pub(crate) fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
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

    /// The newest snapshot, or the news that there is none newer than the last. If it is signed by a version
    /// of the network's roster that is not known, the directory is asked for the rosters, too.
    ///
    /// # Errors
    /// Everything but [`Error::Url`], [`Error::Refused`] and [`Error::NotRegistered`].
    pub async fn fetch(&mut self) -> Result<Fetched> {
        let mut request = Request::get("v2/snapshot");
        if let Some((tag, _)) = &self.seen {
            request = request.header(IF_NONE_MATCH, tag.clone());
        }
        let answer = self.ask(request).await?;
        let fresh = max_age(&answer);
        match (answer.status(), &self.seen) {
            (StatusCode::NOT_MODIFIED, Some((_, round))) => {
                self.check_round(*round)?;
                self.max_age = fresh;
                Ok(Fetched::NotModified)
            }
            (StatusCode::OK, _) => {
                let body = answer.body(MAX_BODY).await;
                let body = body.map_err(|failure| self.failed(failure))?;
                let snapshot = self.verified(&body).await?;
                self.check_round(snapshot.issued)?;
                // Made from the bytes: what a server writes there would be repeated in every network.
                let tag = HeaderValue::try_from(Snapshot::entity_tag(&body)).ok();
                self.seen = tag.map(|tag| (tag, snapshot.issued));
                self.known.saw(&snapshot);
                self.max_age = fresh;
                Ok(Fetched::Snapshot(Arc::new(snapshot)))
            }
            (status, _) => Err(self.odd(format!("status {status}"))),
        }
    }

    /// Registers a relay, or renews its registration.
    ///
    /// # Errors
    /// [`Error::Refused`] with the directory's words, [`Error::Clock`] if it refuses and
    /// the clocks do not agree, [`Error::Unreachable`], [`Error::NotADirectory`].
    pub async fn register(&mut self, registration: &Registration) -> Result<()> {
        self.post("v2/relays", registration.encode()).await
    }

    /// Says that a relay is there that has been registered.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if the directory does not have the record; otherwise as
    /// [`DirectoryClient::register`].
    pub async fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<()> {
        let sent = self.post("v2/heartbeats", heartbeat.encode()).await;
        sent.map_err(|error| match error {
            Error::Refused {
                url,
                status: StatusCode::NOT_FOUND,
                ..
            } => Error::NotRegistered { url },
            error => error,
        })
    }

    async fn post(&mut self, path: &str, body: Vec<u8>) -> Result<()> {
        let answer = self.ask(Request::post(path, body)).await?;
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
            status,
            text,
        })
    }

    /// The address without a trailing slash, as it was configured.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn clock(&self) -> fn() -> SystemTime {
        self.now
    }

    fn now(&self) -> UnixTime {
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

    /// A snapshot from here, signed by a quorum of the roster that counts. What its head says is believed
    /// only as far as it leads to that.
    async fn verified(&mut self, body: &[u8]) -> Result<Snapshot> {
        let peeked = Snapshot::peek(body);
        let (network, version, _) = peeked.map_err(|error| self.odd(error.to_string()))?;
        if network != self.network() {
            return Err(self.badly_signed());
        }
        let roster = self.roster(version).await?;
        let now = self.now();
        let verified = Snapshot::decode_and_verify(body, &roster, now);
        verified.or_else(|error| Err(self.refused(error, body, &roster, now)?))
    }

    /// The roster of a version, if that is the one that counts.
    async fn roster(&mut self, said: u32) -> Result<Arc<Roster>> {
        let held = |known: &Known| known.roster().map_or(0, |roster| roster.version);
        if self.known.roster_of(said).is_none() && said > held(&self.known) {
            self.fetch_rosters().await?;
        }
        self.known.roster_of(said).ok_or_else(|| {
            let (url, held) = (self.url(), held(&self.known));
            if said < held {
                Error::Retired { url, said, held }
            } else {
                let reason = format!("there is no version {said}, which its snapshot has");
                Error::Roster { url, reason }
            }
        })
    }

    async fn fetch_rosters(&mut self) -> Result<()> {
        let answer = self.ask(Request::get("v2/roster")).await?;
        match answer.status() {
            StatusCode::OK => {}
            // It says that it is alone, and that its snapshot is signed by several.
            StatusCode::NO_CONTENT => return Ok(()),
            status => return Err(self.odd(format!("status {status}"))),
        }
        let body = answer.body(MAX_CHAIN).await;
        let body = body.map_err(|failure| self.failed(failure))?;
        let taken = self.known.take_chain(&body);
        taken.map_err(|error| Error::Roster {
            url: self.url(),
            reason: error.to_string(),
        })
    }

    /// Why a snapshot is not believed.
    fn refused(
        &self,
        error: mixline_protocol::Error,
        body: &[u8],
        roster: &Roster,
        now: UnixTime,
    ) -> Result<Error> {
        use mixline_protocol::Error as Wire;
        let url = self.url();
        Ok(match error {
            Wire::Authentication { .. } => match Snapshot::count_signatures(body) {
                Ok(signed) if signed < roster.quorum() => Error::Quorum {
                    url,
                    signed,
                    quorum: roster.quorum(),
                },
                _ => self.badly_signed(),
            },
            Wire::Expired { at, .. } => {
                self.check_clock()?;
                Error::Expired {
                    url,
                    seconds_ago: now.since(UnixTime(at)),
                }
            }
            Wire::NotYetValid { from, .. } => {
                self.check_clock()?;
                Error::NotYetValid {
                    url,
                    seconds_ahead: UnixTime(from).since(now),
                }
            }
            other => self.odd(other.to_string()),
        })
    }

    fn badly_signed(&self) -> Error {
        Error::Signature {
            url: self.url(),
            expected: self.network(),
        }
    }

    /// Whoever is on the way can show again what was signed a while ago; nobody goes back for that.
    fn check_round(&self, round: UnixTime) -> Result<()> {
        match self.known.behind(round, self.now()) {
            Some(seconds) => Err(Error::Older {
                url: self.url(),
                seconds,
            }),
            None => Ok(()),
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
