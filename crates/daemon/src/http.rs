//! Serving HTTP within bounds: connections in all, from one site and in time, and bytes of a request's
//! head.
//!
//! A site is an IPv4 address or an IPv6 /64. A client that is slow with a request's
//! headers is cut off, so that holding connections open costs the holder more than the daemon.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use mixline_protocol::rate_limit::site;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long requests under way have when the daemon stops.
const DRAIN: Duration = Duration::from_secs(3);
/// How long to wait when accepting fails, as when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// How much of a daemon its askers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at one time; what is over it is closed at once.
    pub connections: usize,
    /// Connections of one site at one time.
    pub per_site: usize,
    /// How long a request's headers may take, and how long a connection may idle.
    pub headers: Duration,
    /// How long a connection may last.
    pub connection: Duration,
    /// Bytes of a request's line and headers, 8192 or more.
    pub head_bytes: usize,
}

/// Serves what `routes` has for each asker until `stop` is done, then lets requests under way finish.
/// `refused` is called for each connection that finds no room.
pub async fn serve(
    listener: TcpListener,
    bounds: Bounds,
    routes: impl Fn(IpAddr) -> Router,
    refused: impl Fn(),
    stop: impl Future<Output = ()>,
) {
    let slots = Arc::new(Slots::new(bounds.connections, bounds.per_site));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.headers)
        .max_buf_size(bounds.head_bytes);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
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
            refused();
            continue;
        };
        let service = TowerToHyperService::new(routes(peer.ip()));
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A connection that breaks, or is cut off, concerns only its other end.
            let _ = tokio::time::timeout(bounds.connection, connection).await;
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
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        connections: 8,
        per_site: 3,
        headers: Duration::from_millis(300),
        connection: Duration::from_millis(1500),
        head_bytes: 8192,
    };

    /// A server on loopback, the runtime that it ends with, and how many it has refused.
    struct Server {
        address: SocketAddr,
        refused: Arc<AtomicUsize>,
        _runtime: tokio::runtime::Runtime,
    }

    impl Server {
        fn start() -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            let address = listener.local_addr().unwrap();
            let refused = Arc::new(AtomicUsize::new(0));
            let count = refused.clone();
            let routes = Router::new().route("/", axum::routing::get(|| async { "here" }));
            runtime.spawn(async move {
                let refuse = || {
                    count.fetch_add(1, Ordering::Relaxed);
                };
                let never = std::future::pending();
                serve(listener, BOUNDS, |_| routes.clone(), refuse, never).await;
            });
            Self {
                address,
                refused,
                _runtime: runtime,
            }
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.address).unwrap();
            let patience = Duration::from_secs(10);
            stream.set_read_timeout(Some(patience)).unwrap();
            stream
        }

        /// The answer to what is sent, until the other end closes.
        fn ask(&self, request: &[u8]) -> String {
            let mut stream = self.connect();
            // The other end may have had enough before the end.
            let _ = stream.write_all(request);
            rest(stream)
        }
    }

    fn rest(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    const GET: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

    #[test]
    fn who_holds_connections_open_is_cut_off_and_others_are_served() {
        let server = Server::start();
        let held: Vec<_> = (0..BOUNDS.per_site).map(|_| server.connect()).collect();
        // One more than there may be is closed at once, and counted.
        let began = Instant::now();
        assert_eq!(server.ask(GET), "");
        assert!(began.elapsed() < BOUNDS.headers);
        assert_eq!(server.refused.load(Ordering::Relaxed), 1);
        for stream in held {
            assert_eq!(rest(stream), "");
        }
        assert!((BOUNDS.headers..10 * BOUNDS.headers).contains(&began.elapsed()));
        assert!(server.ask(GET).ends_with("here"));
    }

    #[test]
    fn a_request_has_its_time_and_its_bytes() {
        let server = Server::start();
        // A byte now and then is no way to stay.
        let mut slow = server.connect();
        let began = Instant::now();
        for byte in b"GET / HTTP/1.1\r\nname: value-that-takes-its-time"
            .iter()
            .cycle()
        {
            if slow.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            assert!(began.elapsed() < 10 * BOUNDS.headers, "it is still there");
        }
        let long = [
            &b"GET / HTTP/1.0\r\nname: "[..],
            &[b'x'; 100_000],
            b"\r\n\r\n",
        ]
        .concat();
        let answer = server.ask(&long);
        assert!(!answer.contains("here"), "{answer}");
        // Nor is a body without an end.
        let endless = b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n";
        let began = Instant::now();
        let answer = server.ask(endless);
        assert!(answer.contains("here"), "{answer}");
        assert!(began.elapsed() < BOUNDS.connection + Duration::from_secs(1));
    }

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
