//! Where the directory listens, and how much of it its askers may take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Extension;
use mixline_daemon::http::{self, Bounds};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{App, Source};
use crate::metrics::{Metrics, count};
use crate::{Error, Result};

/// What askers may take: relays and clients by the thousand, each in a moment.
const BOUNDS: Bounds = Bounds {
    connections: 2048,
    per_site: 128,
    headers: Duration::from_secs(15),
    connection: Duration::from_secs(300),
    head_bytes: 16 * 1024,
};

/// Opens the listening socket.
///
/// # Errors
/// [`Error::Listen`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                "; another program listens there: stop it, or change `listen`"
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "; this machine does not have that address: change `listen`"
            }
            std::io::ErrorKind::PermissionDenied => "; use a port above 1023 in `listen`",
            _ => "",
        };
        Error::Listen {
            address,
            reason: format!("{e}{hint}"),
        }
    })
}

/// Serves until `stop` says so, then lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let routes = app.routes();
    let for_asker =
        |peer: std::net::IpAddr| routes.clone().layer(Extension(Source(peer.to_canonical())));
    let refused = || count(&metrics.connections_refused);
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    http::serve(listener, BOUNDS, for_asker, refused, stopped).await;
}
