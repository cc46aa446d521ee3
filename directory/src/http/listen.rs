//! Where the directory listens, and how much of it its askers may take.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mixline_daemon::http::{self, Bounds, Host};
use mixline_daemon::place::Place;
use tokio::net::TcpListener;

use super::App;
use crate::metrics::{Metrics, count};
use crate::{Error, Result};

/// What askers may take: relays and clients by the thousand, each in a moment. The reserve is for relays of
/// the snapshot, which have to be heard every minute; they share it.
const BOUNDS: Bounds = Bounds {
    connections: 2048,
    reserve: 512,
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
    let desk = Desk { app, metrics };
    let mut place =
        Place::new(move |listener, stop| http::serve(listener, BOUNDS, desk.clone(), stop));
    place.open(address, listener);
    place
}

/// What answers.
#[derive(Clone)]
struct Desk {
    app: Arc<App>,
    metrics: Arc<Metrics>,
}

impl Host for Desk {
    fn routes(&self) -> Router {
        self.app.routes()
    }

    fn knows(&self, asker: IpAddr) -> bool {
        self.app.registry.has_relay_at(asker)
    }

    fn refused(&self) {
        count(&self.metrics.connections_refused);
    }
}
