//! The responder's sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::responder::Responder;
use super::shares::Asker;
use super::{Backend, Transport};

/// TCP connections that wait in the kernel's queue.
const MAX_NEW_CONNECTIONS: u32 = 32;
/// The longest query taken.
const MAX_QUERY: usize = 4096;
/// How long a TCP connection may be silent (RFC 7766, section 6.2.3), and how long one
/// query may take: a little more than a stub resolver waits (resolv.conf(5)).
const IDLE: Duration = Duration::from_secs(10);

/// Bound sockets, not yet served.
#[derive(Debug)]
pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Server {
    /// Binds `address`, which is one of the interface `device`, for UDP and TCP.
    ///
    /// The sockets hear that interface alone. What a host sends to one of its own addresses
    /// counts as received on the interface that has the address (Linux,
    /// `ip_route_output_key_hash_rcu`), so this host is heard, and no neighbour on a wire.
    ///
    /// # Errors
    /// What the kernel says, as when another program holds the port.
    pub async fn bind(address: SocketAddr, device: &str) -> io::Result<Self> {
        let device_name = Some(device.as_bytes());
        let udp = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        // First: another may have the same address on another interface.
        udp.bind_device(device_name)?;
        udp.bind(&address.into())?;
        udp.set_nonblocking(true)?;
        let udp = UdpSocket::from_std(udp.into())?;
        let tcp = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Connections of an earlier run that linger do not hold the port.
        tcp.set_reuseaddr(true)?;
        tcp.bind_device(Some(device.as_bytes()))?;
        // The same port for both, also where the caller left the choice to the kernel.
        tcp.bind(udp.local_addr()?)?;
        let tcp = tcp.listen(MAX_NEW_CONNECTIONS)?;
        Ok(Self { udp, tcp })
    }

    /// The address that is bound.
    ///
    /// # Errors
    /// What the kernel says.
    #[cfg(feature = "testing")]
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers until dropped: the host itself, or those behind the interface with an index.
    pub async fn serve<B: Backend>(self, responder: Arc<Responder<B>>, behind: Option<u32>) {
        let asker = move |source: SocketAddr| match behind {
            None => Asker::Host,
            Some(link) => Asker::Behind {
                link,
                source: source.ip(),
            },
        };
        tokio::join!(
            serve_udp(Arc::new(self.udp), Arc::clone(&responder), asker),
            serve_tcp(self.tcp, responder, asker),
        );
    }
}

/// Whether a query from `source` may be answered on `local`.
///
/// The answers tell what this host looked up, so they are for this host. What has a virtual
/// source and is not the responder's own address, nor that of a network of the host's, comes from the
/// far end of a session.
fn is_own<B: Backend>(responder: &Responder<B>, local: IpAddr, source: IpAddr) -> bool {
    source == local || !responder.zone().is_virtual(source) || responder.leaves(source)
}

async fn serve_udp<B: Backend>(
    socket: Arc<UdpSocket>,
    responder: Arc<Responder<B>>,
    asker: impl Fn(SocketAddr) -> Asker,
) {
    let Ok(local) = socket.local_addr() else {
        return;
    };
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; MAX_QUERY];
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error for an earlier answer, or memory is short: neither is a
                // reason to stop, and neither must spin.
                tracing::debug!(%error, "DNS over UDP");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        if !is_own(&responder, local.ip(), source.ip()) {
            continue;
        }
        let asker = asker(source);
        let Some(place) = responder.queries.take(asker) else {
            continue;
        };
        let Some(request) = buffer.get(..length).map(<[u8]>::to_vec) else {
            continue;
        };
        let (socket, responder) = (Arc::clone(&socket), Arc::clone(&responder));
        tasks.spawn(async move {
            let _place = place;
            let answer = responder.answer(&request, Transport::Udp, asker);
            if let Ok(Some(answer)) = tokio::time::timeout(IDLE, answer).await
                && let Err(error) = socket.send_to(&answer, source).await
            {
                tracing::debug!(%error, "DNS answer not sent");
            }
        });
    }
}

async fn serve_tcp<B: Backend>(
    listener: TcpListener,
    responder: Arc<Responder<B>>,
    asker: impl Fn(SocketAddr) -> Asker,
) {
    let Ok(local) = listener.local_addr() else {
        return;
    };
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "DNS over TCP");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        if !is_own(&responder, local.ip(), source.ip()) {
            continue;
        }
        let asker = asker(source);
        let Some(place) = responder.connections.take(asker) else {
            continue;
        };
        let responder = Arc::clone(&responder);
        tasks.spawn(async move {
            let _place = place;
            if let Err(error) = connection(stream, &responder, asker).await {
                tracing::debug!(%error, "DNS connection");
            }
        });
    }
}

/// Answers the queries of one connection, one after the other.
async fn connection<B: Backend>(
    mut stream: TcpStream,
    responder: &Responder<B>,
    asker: Asker,
) -> io::Result<()> {
    let mut request = Vec::new();
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => usize::from(length),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        if length > MAX_QUERY {
            return Err(io::Error::other("query too long"));
        }
        request.resize(length, 0);
        tokio::time::timeout(IDLE, stream.read_exact(&mut request)).await??;
        let answer = tokio::time::timeout(IDLE, responder.answer(&request, Transport::Tcp, asker));
        let Ok(Some(answer)) = answer.await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
