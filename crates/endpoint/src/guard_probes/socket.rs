//! A socket that asks one relay.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use mixline_protocol::identity::X25519Public;
use mixline_protocol::link::probe::{Probe, ProbeAnswer, SentProbe, answer_number};
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::DATAGRAM;
use mixline_udp::{BatchSocket, BindOptions};
use nix::libc::EMSGSIZE;
use nix::sys::socket::{getsockopt, sockopt};
use rand_core::Rng as _;
use tokio::net::UdpSocket as AsyncSocket;
use tokio::time::{Instant, sleep, timeout_at};

use super::search::Search;

/// Between two questions of a search: relays answer some fifty a second.
const PACE: Duration = Duration::from_millis(12);
/// How often a length is tried.
const TRIES: usize = 3;

/// A socket like those of links, which does not fragment, and takes no heed of what the kernel
/// believes about the path.
pub fn open(v4: bool) -> io::Result<AsyncSocket> {
    let any: SocketAddr = if v4 {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let options = BindOptions {
        gro: false,
        gso: false,
        buffer_bytes: 0,
        ..BindOptions::default()
    };
    let socket = BatchSocket::bind(any, &options)?;
    let socket = UdpSocket::from(socket.as_fd().try_clone_to_owned()?);
    AsyncSocket::from_std(socket)
}

/// A socket that is connected to a relay.
pub struct ProbeSocket {
    socket: AsyncSocket,
    relay: X25519Public,
    error: Option<io::Error>,
}

/// What a question has brought: the round trip, and the answer.
pub type Found = Option<(Duration, ProbeAnswer)>;

impl ProbeSocket {
    /// A socket to this address. In a runtime.
    ///
    /// # Errors
    /// What the system says: above all that there is no route.
    pub fn connect(address: SocketAddr, relay: X25519Public) -> io::Result<Self> {
        let socket = open(address.is_ipv4())?;
        // Connected by the twin: a UDP socket needs no waiting for that.
        UdpSocket::from(socket.as_fd().try_clone_to_owned()?).connect(address)?;
        Ok(Self {
            socket,
            relay,
            error: None,
        })
    }

    /// The own address.
    pub fn local(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// The MTU of the way as the kernel knows it; IPv4 only.
    pub fn known_mtu(&self) -> Option<u16> {
        let mtu = getsockopt(&self.socket, sockopt::IpMtu).ok()?;
        u16::try_from(mtu).ok()
    }

    /// The last thing that the system refused, other than that a datagram is too long.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Asks questions, each of so many bytes and for an answer of so many, up to `tries` times.
    pub async fn ask(
        &mut self,
        questions: &[(usize, usize)],
        tries: usize,
        patience: Duration,
        pace: Duration,
    ) -> Vec<Found> {
        let mut found: Vec<Found> = vec![None; questions.len()];
        for _ in 0..tries {
            let mut sent: HashMap<u32, (usize, SentProbe, Instant)> = HashMap::new();
            for (at, (length, answer)) in questions.iter().enumerate() {
                if found[at].is_none()
                    && let Some(probe) = self.question(*length, *answer)
                {
                    let now = Instant::now();
                    if self.send(&probe).await {
                        sent.insert(probe.number(), (at, probe, now));
                    }
                    self.listen(&mut sent, &mut found, now + pace).await;
                }
            }
            let until = Instant::now() + patience;
            self.listen(&mut sent, &mut found, until).await;
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        found
    }

    /// The greatest length up to `most` that passes. `shape` makes the question of a length: its
    /// own bytes, and those of its answer.
    pub async fn search(
        &mut self,
        most: usize,
        patience: Duration,
        shape: impl Fn(usize) -> (usize, usize),
    ) -> usize {
        let mut search = Search::new(most);
        let mut first = true;
        loop {
            let tried = search.next(first);
            if tried.is_empty() {
                return search.found();
            }
            first = false;
            let questions: Vec<_> = tried.iter().map(|length| shape(*length)).collect();
            let found = self.ask(&questions, TRIES, patience, PACE).await;
            let passed: Vec<bool> = found.iter().map(Option::is_some).collect();
            search.learn(&tried, &passed);
        }
    }

    fn question(&self, length: usize, answer: usize) -> Option<SentProbe> {
        question(&self.relay, length, answer, 0)
    }

    /// Whether it was sent. One that is too long for the interface is not.
    async fn send(&mut self, probe: &SentProbe) -> bool {
        match self.socket.send(&probe.bytes).await {
            Ok(_) => true,
            Err(error) => {
                self.note(error);
                false
            }
        }
    }

    fn note(&mut self, error: io::Error) {
        if error.raw_os_error() != Some(EMSGSIZE) {
            self.error = Some(error);
        }
    }

    /// Takes answers until this time, or until all that were sent for are there.
    async fn listen(
        &mut self,
        sent: &mut HashMap<u32, (usize, SentProbe, Instant)>,
        found: &mut [Found],
        until: Instant,
    ) {
        let mut buffer = [0; DATAGRAM];
        while !sent.is_empty() {
            let Ok(received) = timeout_at(until, self.socket.recv(&mut buffer)).await else {
                return;
            };
            let length = match received {
                Ok(length) => length,
                Err(error) => {
                    // Somebody on the way says no; others may yet answer.
                    self.note(error);
                    sleep(Duration::from_millis(1)).await;
                    continue;
                }
            };
            let Some((at, probe, since)) =
                answer_number(&buffer[..length]).and_then(|number| sent.get(&number))
            else {
                continue;
            };
            if let Ok(answer) = probe.answered(&buffer[..length]) {
                found[*at].get_or_insert((since.elapsed(), answer));
                let number = probe.number();
                sent.remove(&number);
            }
        }
    }
}

/// A question with a random number.
pub fn question(
    relay: &X25519Public,
    length: usize,
    answer: usize,
    delay: u16,
) -> Option<SentProbe> {
    let probe = Probe {
        number: OsRandom::new().next_u32(),
        answer: u16::try_from(answer).ok()?,
        delay,
    };
    probe.encode(length, relay).ok()
}
