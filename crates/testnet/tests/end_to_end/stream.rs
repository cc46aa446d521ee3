//! A stream of UDP packets without checksums from the service to the client, whose receiver knows
//! what each has to contain.

use anyhow::{Context, Result, anyhow};
use mixline_testnet::Network;
use mixline_testnet::netns::Namespace;
use mixline_testnet::topology::Node;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use ring::digest;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PORT: u16 = 4711;
/// Bytes of a packet's content: its number, and what follows from that.
const CONTENT: usize = 1200;
/// Between two packets: 2.4 MB a second.
const INTERVAL: Duration = Duration::from_micros(500);
/// How many packets are the last ones: two seconds of them.
const LAST: u64 = 4000;
/// How long the last packet may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The stream, while it flows.
pub struct Stream {
    shared: Arc<Shared>,
    sender: JoinHandle<Result<()>>,
    receiver: JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    sent: AtomicU64,
    arrived: AtomicU64,
    changed: AtomicU64,
    /// The numbers of the last packets that arrived.
    recent: Mutex<BTreeSet<u64>>,
}

/// How it went.
#[derive(Debug)]
pub struct Report {
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that arrived as they were sent.
    pub arrived: u64,
    /// Packets that arrived changed.
    pub changed: u64,
    /// The last packets, of a few seconds: those sent,
    pub last_sent: u64,
    /// and those of them that arrived.
    pub last_arrived: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} were sent, {} arrived, {} arrived changed; of the last {}, {} arrived",
            self.sent, self.arrived, self.changed, self.last_sent, self.last_arrived
        )
    }
}

impl Stream {
    /// Starts the stream between the virtual IPv4 addresses.
    pub fn start(network: &Network) -> Result<Self> {
        let to = network.identity(Node::Client)?.ipv4;
        let incoming = Namespace::named(&Node::Client.namespace())?
            .run(|| UdpSocket::bind((to, PORT)))?
            .context("the receiver's socket")?;
        incoming.set_read_timeout(Some(Duration::from_millis(100)))?;
        // The kernel makes the checksums of UDP sockets; in raw sockets, UDP's header is ours.
        let outgoing = Namespace::named(&Node::Service.namespace())?
            .run(|| -> Result<OwnedFd> {
                Ok(socket(
                    AddressFamily::Inet,
                    SockType::Raw,
                    SockFlag::SOCK_CLOEXEC,
                    SockProtocol::Udp,
                )?)
            })?
            .context("the sender's socket")?;
        let shared = Arc::<Shared>::default();
        let (sending, receiving) = (Arc::clone(&shared), Arc::clone(&shared));
        Ok(Self {
            shared,
            sender: thread::spawn(move || send(&outgoing, to, &sending)),
            receiver: thread::spawn(move || receive(&incoming, &receiving)),
        })
    }

    /// Packets that have arrived as they were sent.
    pub fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Relaxed)
    }

    /// Whether almost all of the last packets have arrived.
    pub fn goes_on(&self) -> Result<bool> {
        let recent = self.shared.recent.lock();
        let recent = recent.map_err(|_| anyhow!("the stream panicked"))?;
        let sent = self.shared.sent.load(Ordering::Relaxed);
        let arrived = recent.range(sent.saturating_sub(LAST)..).count() as u64;
        Ok(sent >= LAST && arrived >= LAST * 95 / 100)
    }

    /// Ends it, once the last packet has had time to arrive.
    pub fn end(self) -> Result<Report> {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in [self.sender, self.receiver] {
            thread
                .join()
                .map_err(|_| anyhow!("the stream panicked"))??;
        }
        let sent = self.shared.sent.load(Ordering::Relaxed);
        let last_sent = sent.min(LAST);
        let recent = self.shared.recent.lock();
        let recent = recent.map_err(|_| anyhow!("the stream panicked"))?;
        Ok(Report {
            sent,
            arrived: self.shared.arrived.load(Ordering::Relaxed),
            changed: self.shared.changed.load(Ordering::Relaxed),
            last_sent,
            last_arrived: recent.range(sent - last_sent..).count() as u64,
        })
    }
}

fn send(socket: &OwnedFd, to: Ipv4Addr, shared: &Shared) -> Result<()> {
    let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
    while !shared.ended.load(Ordering::Relaxed) {
        let number = shared.sent.load(Ordering::Relaxed);
        let mut packet = Vec::with_capacity(8 + CONTENT);
        packet.extend(PORT.to_be_bytes());
        packet.extend(PORT.to_be_bytes());
        packet.extend(u16::try_from(8 + CONTENT)?.to_be_bytes());
        packet.extend([0, 0]); // no checksum (RFC 768)
        packet.extend(content(number));
        sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty()).context("sending")?;
        shared.sent.store(number + 1, Ordering::Relaxed);
        thread::sleep(INTERVAL);
    }
    Ok(())
}

fn receive(socket: &UdpSocket, shared: &Shared) -> Result<()> {
    let mut packet = [0; 2000];
    let mut until = None;
    loop {
        if shared.ended.load(Ordering::Relaxed) {
            let until = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
            if Instant::now() >= until {
                return Ok(());
            }
        }
        let Ok((length, _)) = socket.recv_from(&mut packet) else {
            continue; // nothing came in time
        };
        let packet = &packet[..length];
        let number = packet.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        match number.filter(|number| packet == content(*number)) {
            Some(number) => {
                shared.arrived.fetch_add(1, Ordering::Relaxed);
                let recent = shared.recent.lock();
                let mut recent = recent.map_err(|_| anyhow!("the stream panicked"))?;
                recent.insert(number);
                if recent.len() as u64 > 2 * LAST {
                    recent.pop_first();
                }
            }
            None => {
                shared.changed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What a packet has to contain: its number, and the number's hash over and over.
fn content(number: u64) -> Vec<u8> {
    let number = number.to_be_bytes();
    let hash = digest::digest(&digest::SHA256, &number);
    number
        .into_iter()
        .chain(hash.as_ref().iter().copied().cycle())
        .take(CONTENT)
        .collect()
}
