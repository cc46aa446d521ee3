//! Connections over TCP.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::http::uri::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

/// After this silence a connection is probed, this often until it is given up.
const KEEP_ALIVE: (Duration, u32) = (Duration::from_secs(15), 3);
/// A connection on which nothing is acknowledged for so long is given up (TCP_USER_TIMEOUT).
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Connects over TCP, within a time.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    within: Duration,
}

/// Makes connections, and keeps them.
pub(crate) type Connections = Client<Connector, Full<Bytes>>;

/// None are kept yet.
pub(crate) fn connections(within: Duration) -> Connections {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEP_ALIVE.0));
    tcp.set_keepalive_interval(Some(KEEP_ALIVE.0));
    tcp.set_keepalive_retries(Some(KEEP_ALIVE.1));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(Connector { tcp, within })
}

type Connecting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Connecting<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = timeout(self.within, self.tcp.call(to));
        Box::pin(async move { Ok(connecting.await??) })
    }
}
