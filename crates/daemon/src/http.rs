//! Serving HTTP within bounds: connections in all and by network, their time, and bytes of a request's
//! head.
//!
//! Connections are shared as [`Shares`] says, with a reserve for those whom the daemon knows, which they
//! share in turn. A client that is slow with a request's headers is cut off, so that holding connections open
//! costs the holder more than the daemon.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use mixline_protocol::shares::{Claimant, Shares};
use tokio::net::TcpListener;

/// How long requests under way have when the daemon stops.
const DRAIN: Duration = Duration::from_secs(3);
/// How long to wait when accepting fails, as when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// How much of a daemon its askers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at one time; what is over it is closed at once.
    pub connections: usize,
    /// How many of them strangers do not get.
    pub reserve: usize,
    /// How long a request's headers may take, and how long a connection may idle.
    pub headers: Duration,
    /// How long a connection may last.
    pub connection: Duration,
    /// Bytes of a request's line and headers, 8192 or more.
    pub head_bytes: usize,
}

/// Where a request came from, an address that a TCP handshake has proven: among each request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker(pub IpAddr);

/// Who serves.
pub trait Host {
    /// What there is, which is the same for all connections. Requests carry their [`Asker`].
    fn routes(&self) -> Router;

    /// Whether it is one for whom the reserve is kept. Asked only when a stranger would be refused.
    fn knows(&self, asker: IpAddr) -> bool;

    /// A connection found no room.
    fn refused(&self);
}

/// Serves what the host has until `stop` is done, then lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    bounds: Bounds,
    host: impl Host,
    stop: impl Future<Output = ()>,
) {
    let slots = Arc::new(Slots::new(&bounds));
    let routes = TowerToHyperService::new(host.routes());
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
        let peer = peer.ip().to_canonical();
        let Some(slot) = slots.take(peer, || host.knows(peer)) else {
            host.refused();
            continue;
        };
        let routes = routes.clone();
        let service = service_fn(move |mut request| {
            let _ = request.extensions_mut().insert(Asker(peer));
            routes.call(request)
        });
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

/// The connections there may be.
struct Slots(Mutex<Shares>);

/// A connection's slot, given back when dropped.
struct Slot {
    slots: Arc<Slots>,
    holder: Claimant,
}

impl Slots {
    fn new(bounds: &Bounds) -> Self {
        Self(Mutex::new(Shares::new(bounds.connections, bounds.reserve)))
    }

    fn take(self: &Arc<Self>, peer: IpAddr, known: impl FnOnce() -> bool) -> Option<Slot> {
        let (stranger, reserved) = (Claimant::Stranger(peer), Claimant::Known(peer));
        let holder = if self.shares().take(stranger) {
            stranger
        } else if known() && self.shares().take(reserved) {
            reserved
        } else {
            return None;
        };
        Some(Slot {
            slots: Arc::clone(self),
            holder,
        })
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.shares().give_back(self.holder);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use axum::extract::Extension;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        connections: 8,
        reserve: 2,
        headers: Duration::from_millis(300),
        connection: Duration::from_millis(1500),
        head_bytes: 8192,
    };

    /// Connections that one site gets of those: as many as are left to its neighbours, and so on.
    const OF_A_SITE: usize = 2;

    /// Knows nobody but 127.0.0.3 and 127.50.0.3.
    struct Here(Arc<AtomicUsize>);

    impl Host for Here {
        fn routes(&self) -> Router {
            let asker = |Extension(Asker(asker))| async move { format!("here, {asker}") };
            Router::new().route("/", axum::routing::get(asker))
        }

        fn knows(&self, asker: IpAddr) -> bool {
            [[127, 0, 0, 3], [127, 50, 0, 3]]
                .map(IpAddr::from)
                .contains(&asker)
        }

        fn refused(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

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
            let here = Here(refused.clone());
            runtime.spawn(serve(listener, BOUNDS, here, std::future::pending()));
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
        let held: Vec<_> = (0..OF_A_SITE).map(|_| server.connect()).collect();
        // One more than there may be is closed at once, and counted.
        let began = Instant::now();
        assert_eq!(server.ask(GET), "");
        assert!(began.elapsed() < BOUNDS.headers);
        assert_eq!(server.refused.load(Ordering::Relaxed), 1);
        for stream in held {
            assert_eq!(rest(stream), "");
        }
        assert!((BOUNDS.headers..10 * BOUNDS.headers).contains(&began.elapsed()));
        assert!(server.ask(GET).ends_with("here, 127.0.0.1"));
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

    /// Connected from an address of loopback.
    fn connect_from(server: &Server, from: [u8; 4]) -> TcpStream {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&server.address.into()).unwrap();
        socket.into()
    }

    #[test]
    fn neighbours_of_many_addresses_leave_room_for_others_and_for_the_known() {
        let server = Server::start();
        // Everything of 127.0.0.0/16 and then of the other networks of loopback.
        let held: Vec<_> = (0..40)
            .map(|n: u8| connect_from(&server, [127, n / 20, 1 + n / 4, 10 + n]))
            .collect();
        let mut other = connect_from(&server, [127, 200, 0, 1]);
        other.write_all(GET).unwrap();
        assert!(rest(other).ends_with("here, 127.200.0.1"));
        // Strangers from everywhere have all that is theirs.
        let more: Vec<_> = (0..40)
            .map(|n: u8| connect_from(&server, [127, 100 + n, 0, 1]))
            .collect();
        let mut known = connect_from(&server, [127, 0, 0, 3]);
        known.write_all(GET).unwrap();
        assert!(rest(known).ends_with("here, 127.0.0.3"));
        assert!(server.refused.load(Ordering::Relaxed) >= 70);
        drop((held, more));
    }

    #[test]
    fn one_that_is_known_leaves_room_for_strangers_and_for_others_that_are() {
        let server = Server::start();
        let held: Vec<_> = (0..40)
            .map(|_| connect_from(&server, [127, 0, 0, 3]))
            .collect();
        let mut stranger = connect_from(&server, [127, 200, 0, 1]);
        stranger.write_all(GET).unwrap();
        assert!(rest(stranger).ends_with("here, 127.200.0.1"));
        // Strangers from everywhere, and there is still one for another that is known.
        let more: Vec<_> = (0..40)
            .map(|n: u8| connect_from(&server, [127, 100 + n, 0, 1]))
            .collect();
        let mut known = connect_from(&server, [127, 50, 0, 3]);
        known.write_all(GET).unwrap();
        assert!(rest(known).ends_with("here, 127.50.0.3"));
        drop((held, more));
    }
}
