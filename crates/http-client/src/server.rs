//! A server that is asked, and its answers.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use hyper_util::client::legacy;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connector::{Connections, connections};
use crate::failure::{Failure, failure};
use crate::patience::Patience;
use crate::request::Request;
use crate::url::{Place, UrlError};

/// A server, under one address. Several requests may be under way at once; connections are kept for
/// the next ones.
#[derive(Debug)]
pub struct Server {
    place: Place,
    patience: Patience,
    kept: Mutex<Kept>,
}

/// The connections of a time.
#[derive(Debug, Clone)]
struct Kept {
    connections: Connections,
    /// Whether there may be one that was kept.
    used: bool,
    /// Grows when they are given up.
    generation: u64,
}

/// An answer whose body has not been read yet.
pub struct Answer {
    response: Response<Incoming>,
    patience: Patience,
    deadline: Instant,
}

impl Server {
    /// The server at an address such as `http://host:port/path`. Connects to nothing yet.
    ///
    /// # Errors
    /// [`UrlError`] if the address is none, or not `http`.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        Self::with_patience(url, Patience::default())
    }

    /// The same, for which one waits so long and no longer.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn with_patience(url: &str, patience: Patience) -> Result<Self, UrlError> {
        Ok(Self {
            place: Place::parse(url)?,
            patience,
            kept: Mutex::new(Kept {
                connections: connections(patience.connect),
                used: false,
                generation: 0,
            }),
        })
    }

    /// The address, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        self.place.url()
    }

    /// Its name or IP address, that of IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.place.host()
    }

    /// Asks, and waits for the beginning of the answer. To be called on a Tokio runtime that lives on: it
    /// drives the connections that are kept.
    ///
    /// # Errors
    /// Every [`Failure`] but [`Failure::TooLong`].
    pub async fn ask(&self, request: Request) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.patience.exchange;
        let hyper = request.to(&self.place).map_err(Failure::before_sending)?;
        let mut kept = self.locked().clone();
        if kept.used && request.is_repeatable() {
            let asked = kept.connections.request(hyper.clone());
            if let Ok(Ok(response)) = timeout(self.patience.kept, asked).await {
                return Ok(self.answer(response, deadline));
            }
            kept = self.give_up(&kept);
        }
        let response = self.begin(&kept, hyper).await?;
        Ok(self.answer(response, deadline))
    }

    /// Asks without repeating anything.
    async fn begin(
        &self,
        kept: &Kept,
        request: hyper::Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let asked = timeout(self.patience.begin, kept.connections.request(request)).await;
        let failed = match asked {
            Ok(Ok(response)) => {
                self.used(kept);
                return Ok(response);
            }
            Ok(Err(error)) => failed(&error),
            Err(error) => failure(&error),
        };
        self.give_up(kept);
        Err(failed)
    }

    fn answer(&self, response: Response<Incoming>, deadline: Instant) -> Answer {
        Answer {
            response,
            patience: self.patience,
            deadline,
        }
    }

    /// One of these connections may be kept from now on.
    fn used(&self, these: &Kept) {
        let mut kept = self.locked();
        kept.used |= kept.generation == these.generation;
    }

    /// None of these is used again; the connections instead of them.
    fn give_up(&self, these: &Kept) -> Kept {
        let mut kept = self.locked();
        if kept.generation == these.generation {
            *kept = Kept {
                connections: connections(self.patience.connect),
                used: false,
                generation: these.generation.wrapping_add(1),
            };
        }
        kept.clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What hyper says about a request without an answer.
fn failed(error: &legacy::Error) -> Failure {
    let failure = failure(error);
    if error.is_connect() {
        failure.before_sending()
    } else {
        failure
    }
}

impl Answer {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The body, which has at most `most` bytes.
    ///
    /// # Errors
    /// [`Failure::TooLong`] if it is longer, [`Failure::Timeout`] or [`Failure::Network`] if it does not
    /// come whole.
    pub async fn body(self, most: usize) -> Result<Vec<u8>, Failure> {
        let Self {
            response,
            patience,
            deadline,
        } = self;
        let more_by = || deadline.min(Instant::now() + patience.goes_on);
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = timeout_at(more_by(), incoming.frame())
            .await
            .map_err(|error| failure(&error))?
        {
            let frame = frame.map_err(|error| failure(&error))?;
            let chunk = frame.data_ref().map_or(&[][..], |chunk| chunk);
            if body.len() + chunk.len() > most {
                return Err(Failure::TooLong(most));
            }
            body.extend_from_slice(chunk);
        }
        Ok(body)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
