//! Accepting connections, bounded: in all, from one site, and in time.
//!
//! A site is an IPv4 address or an IPv6 /64. A client that is slow with a request's
//! headers is cut off, so that holding connections open costs the holder more than the directory.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use mixline_protocol::rate_limit::site;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{App, Source};
use crate::metrics::{Metrics, count};
use crate::{Error, Result};

/// Connections at one time.
const CONNECTIONS: usize = 2048;
/// Connections of one site at one time.
const PER_SITE: usize = 128;
/// How long a request's headers may take, and how long a connection may idle.
const HEADERS: Duration = Duration::from_secs(15);
/// How long a connection may last.
const CONNECTION: Duration = Duration::from_secs(300);
/// How long requests under way have when the daemon stops.
const DRAIN: Duration = Duration::from_secs(3);
/// How long to wait when accepting fails, as when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

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
    let slots = Arc::new(Slots::new(CONNECTIONS, PER_SITE));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(16 * 1024);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(slot) = slots.take(peer.ip()) else {
            count(&metrics.connections_refused);
            continue;
        };
        let service = routes
            .clone()
            .layer(Extension(Source(peer.ip().to_canonical())));
        let connection =
            http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A connection that breaks, or is cut off, concerns only its other end.
            let _ = tokio::time::timeout(CONNECTION, connection).await;
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("connections were cut off");
    }
}

/// As many connections as there may be, in all and from each site.
struct Slots {
    all: Arc<Semaphore>,
    per_site: usize,
    sites: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's slot, given back when dropped.
struct Slot {
    slots: Arc<Slots>,
    site: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    fn new(all: usize, per_site: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            per_site,
            sites: Mutex::default(),
        }
    }

    fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Slot> {
        let permit = self.all.clone().try_acquire_owned().ok()?;
        let site = site(ip);
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = sites.entry(site).or_insert(0);
        if *taken >= self.per_site {
            return None;
        }
        *taken += 1;
        drop(sites);
        Some(Slot {
            slots: self.clone(),
            site,
            _permit: permit,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut sites = self
            .slots
            .sites
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = sites.get_mut(&self.site) {
            *taken -= 1;
            if *taken == 0 {
                sites.remove(&self.site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_given_back() {
        let slots = Arc::new(Slots::new(3, 2));
        let (a, b): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let (first, second) = (slots.take(a), slots.take(a));
        assert!(first.is_some() && second.is_some());
        assert!(slots.take(a).is_none(), "a site has its bound");
        let other = slots.take(b);
        assert!(other.is_some());
        assert!(
            slots.take([192, 0, 2, 3].into()).is_none(),
            "and so have all"
        );
        drop(first);
        assert!(slots.take(a).is_some());
        drop((second, other));
        assert!(slots.sites.lock().unwrap().is_empty(), "no trace is left");
    }
}
