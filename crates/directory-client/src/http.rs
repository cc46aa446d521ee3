//! Requests to one server over plain HTTP, bounded in time and in the size of what comes back.
//!
//! There are no redirects and no proxies: both lead elsewhere than the configuration says.
//!
//! A connection is kept for the next request, and may be dead by then without anybody saying so: a
//! firewall has forgotten it, or this machine has another address. An answer to a request on a kept
//! connection has to begin soon, or else it is asked again on a fresh one. All requests here may be
//! asked twice.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, InvalidUri, Scheme, Uri};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

/// How long connecting may take, looking up the name included.
const CONNECT: Duration = Duration::from_secs(10);
/// An answer on a connection that was kept begins within this time, or a fresh one is made.
const KEPT: Duration = Duration::from_secs(3);
/// An answer on a fresh connection begins within this time, connecting included.
const BEGIN: Duration = Duration::from_secs(15);
/// More of a body comes within this time.
const GOES_ON: Duration = Duration::from_secs(10);
/// How long a whole exchange may take.
const EXCHANGE: Duration = Duration::from_secs(60);
/// After this silence a connection is probed, this often until it is given up.
const KEEP_ALIVE: (Duration, u32) = (Duration::from_secs(15), 3);
/// A connection on which nothing is acknowledged for so long is given up (TCP_USER_TIMEOUT).
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Why an address is not that of a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UrlError {
    /// It is no URL at all.
    #[error(transparent)]
    Form(#[from] InvalidUri),
    /// It has another scheme, or none.
    #[error("not an http address (what it gives is signed)")]
    NotHttp,
    /// It names a user: nobody has an account there.
    #[error("a directory has no users")]
    User,
    /// There is no such port.
    #[error("invalid port number")]
    Port,
}

/// Why there is no answer, or no whole one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The network, or the other end, does not do what it should: one line.
    #[error("{0}")]
    Network(String),
    /// The body is longer than this, in bytes.
    #[error("more than {0} bytes")]
    TooLong(usize),
}

/// A server, under one address. Connections are kept for the next request.
#[derive(Debug)]
pub(crate) struct Server {
    client: Client<Connector, Full<Bytes>>,
    /// Whether there may be a connection that was kept.
    kept: bool,
    authority: Authority,
    /// With a slash at both ends.
    path: String,
}

/// An answer whose body has not been read yet.
pub(crate) struct Answer {
    response: Response<Incoming>,
    deadline: Instant,
}

impl Server {
    /// The server at an address such as `http://host:port/path`. Connects to nothing yet.
    pub(crate) fn new(url: &str) -> Result<Self, UrlError> {
        let uri: Uri = url.trim().parse()?;
        let parts = uri.into_parts();
        let http = parts.scheme == Some(Scheme::HTTP);
        let authority = parts.authority.filter(|_| http).ok_or(UrlError::NotHttp)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let port = authority.as_str().strip_prefix(authority.host());
        let port = port.and_then(|port| port.strip_prefix(':'));
        if port.is_some_and(|port| !port.is_empty() && port.parse::<u16>().is_err()) {
            return Err(UrlError::Port);
        }
        let path = parts.path_and_query.as_ref().map_or("/", |p| p.path());
        let path = format!("{}/", path.trim_end_matches('/'));
        Ok(Self {
            client: client(),
            kept: false,
            authority,
            path,
        })
    }

    /// The address, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        let url = format!("http://{}{}", self.authority, self.path);
        url.trim_end_matches('/').to_owned()
    }

    /// Asks for what is at `path` below the server's address, and waits for the beginning of
    /// the answer.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let deadline = Instant::now() + EXCHANGE;
        let request = self.request(method, path, header, Bytes::from(body))?;
        if std::mem::take(&mut self.kept) {
            let began = timeout(KEPT, self.client.request(request.clone())).await;
            if let Ok(Ok(response)) = began {
                self.kept = true;
                return Ok(Answer { response, deadline });
            }
        }
        // None that was kept is used again.
        self.client = client();
        let response = timeout(BEGIN, self.client.request(request))
            .await
            .map_err(|error| failure(&error))?
            .map_err(|error| failure(&error))?;
        self.kept = true;
        Ok(Answer { response, deadline })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.path))
            .build();
        let uri = uri.map_err(|error| failure(&error))?;
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.extend(header);
        Ok(request)
    }
}

/// Makes connections, and keeps them.
fn client() -> Client<Connector, Full<Bytes>> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEP_ALIVE.0));
    tcp.set_keepalive_interval(Some(KEEP_ALIVE.0));
    tcp.set_keepalive_retries(Some(KEEP_ALIVE.1));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(Connector(tcp))
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The body, which has at most `most` bytes.
    pub(crate) async fn body(self, most: usize) -> Result<Vec<u8>, Failure> {
        let Self { response, deadline } = self;
        let more_by = || deadline.min(Instant::now() + GOES_ON);
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

/// Connects over TCP, within [`CONNECT`].
#[derive(Debug, Clone)]
struct Connector(HttpConnector);

type Connecting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Connecting<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = timeout(CONNECT, self.0.call(to));
        Box::pin(async move { Ok(connecting.await??) })
    }
}

/// The innermost cause: `Connection refused`, rather than that a request failed.
fn failure(error: &(dyn StdError + 'static)) -> Failure {
    let mut cause = error;
    loop {
        let system = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if cause.is::<Elapsed>() || system == Some(io::ErrorKind::TimedOut) {
            return Failure::Timeout;
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => return Failure::Network(one_line(&cause.to_string())),
        }
    }
}

/// Words from outside, fit for a log: one line of printable characters.
pub(crate) fn one_line(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    line.trim().chars().take(200).collect()
}
