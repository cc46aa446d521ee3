//! Where the directory listens, and how much of it its askers may take.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Extension;
use mixline_daemon::http::{self, Bounds};
use mixline_daemon::place::{Place, Stop};
use tokio::net::TcpListener;

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
    TcpListener::bind(address)
        .await
        .map_err(|error| failed(address, &error))
}

/// Why nobody can listen at an address, and what to do.
pub fn failed(address: SocketAddr, error: &io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there: stop it, or change `listen`",
        io::ErrorKind::AddrNotAvailable => {
            "; this machine does not have that address: change `listen`"
        }
        io::ErrorKind::PermissionDenied => "; use a port above 1023 in `listen`",
        _ => "",
    };
    Error::Listen {
        address,
        reason: format!("{error}{hint}"),
    }
}

/// Serves at an address where `listener` listens, and wherever else it is moved to.
pub fn place(
    address: SocketAddr,
    listener: TcpListener,
    app: Arc<App>,
    metrics: Arc<Metrics>,
) -> Place {
    let mut place = Place::new(move |listener, stop| {
        serve(listener, Arc::clone(&app), Arc::clone(&metrics), stop)
    });
    place.open(address, listener);
    place
}

/// Serves until `stop` says so, then lets requests under way finish.
async fn serve(listener: TcpListener, app: Arc<App>, metrics: Arc<Metrics>, stop: Stop) {
    let routes = app.routes();
    let for_asker =
        |peer: std::net::IpAddr| routes.clone().layer(Extension(Source(peer.to_canonical())));
    let refused = || count(&metrics.connections_refused);
    http::serve(listener, BOUNDS, for_asker, refused, stop).await;
}
