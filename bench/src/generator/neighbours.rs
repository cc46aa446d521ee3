//! The neighbours of a relay under measurement: relays with real links to it, which send over
//! paths that it knows, whose next hops are the neighbours again.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use mixline_protocol::epoch;
use mixline_protocol::identity::{IdentityKey, SIGNATURE, X25519Secret};
use mixline_protocol::link::{
    CellKind, DatagramType, Initiator, SealKey, Timestamp, datagram_type,
};
use mixline_protocol::path::{Hop, OnionSecret};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{ListedRelay, OnionKeys, RelayDescriptor, RelayFlags, RelayRecord};
use mixline_protocol::size::{CELL_OFFSET, DATAGRAM, Datagram, Header, PATH_HEADER};
use mixline_protocol::time::UnixTime;

use super::addresses::{NEIGHBOURS, PORT, address, neighbour};
use crate::testbed::header_over;

/// Links are made anew after so long: they end after three minutes, and neither side shall do
/// so by itself while something is measured.
const RENEW: Duration = Duration::from_secs(60);
/// How often an initiation is repeated.
const ATTEMPTS: usize = 10;

/// All neighbours of one relay.
pub struct Neighbours {
    node: u8,
    all: Vec<Neighbour>,
    /// Of the relay.
    relay: Option<RelayDescriptor>,
    /// What the cells begin with that go to each neighbour.
    headers: Vec<Header>,
    connected: Option<Instant>,
    message: u64,
}

struct Neighbour {
    address: Ipv4Addr,
    identity: IdentityKey,
    link: X25519Secret,
    socket: UdpSocket,
    seal: Option<SealKey>,
}

impl Neighbours {
    /// The neighbours of this node, whose addresses this namespace has.
    ///
    /// # Errors
    /// Of the network.
    pub fn new(node: u8) -> Result<Self> {
        let rng = &mut OsRandom::new();
        let all = (0..NEIGHBOURS).map(|at| {
            let address = neighbour(node, at);
            let socket = UdpSocket::bind((address, PORT))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(Neighbour {
                address,
                identity: IdentityKey::generate(rng),
                link: X25519Secret::generate(rng),
                socket,
                seal: None,
            })
        });
        Ok(Self {
            node,
            all: all.collect::<Result<_>>()?,
            relay: None,
            headers: Vec::new(),
            connected: None,
            message: 0,
        })
    }

    /// What the directory says of them.
    ///
    /// # Errors
    /// None that happen.
    pub fn listed(&self, epoch_seconds: u32) -> Result<Vec<ListedRelay>> {
        let rng = &mut OsRandom::new();
        let now = UnixTime::from(SystemTime::now());
        let mut onion = OnionKeys::new();
        let secret = OnionSecret::generate(rng);
        onion.push((epoch::current(now, epoch_seconds), secret.public()));
        let all = self.all.iter().enumerate().map(|(at, neighbour)| {
            let descriptor = RelayDescriptor {
                id: neighbour.identity.relay_id(),
                version: now.0,
                issued: now,
                expires: now.plus(12 * 3600),
                link: neighbour.link.public(),
                addresses: vec![SocketAddr::from((neighbour.address, PORT))],
                capacity: 1,
                family: None,
                name: format!("neighbour-{at}"),
                software: String::new(),
                signature: [0; SIGNATURE],
            };
            Ok(ListedRelay {
                capacity: descriptor.capacity,
                descriptor: descriptor.sign(&neighbour.identity)?,
                onion: onion.clone(),
                since: now,
                flags: RelayFlags::default(),
            })
        });
        all.collect()
    }

    /// Links all of them with the relay, and makes a path to each.
    ///
    /// # Errors
    /// If the relay does not answer.
    pub fn meet(&mut self, relay: RelayRecord, epoch_seconds: u32) -> Result<()> {
        let current = epoch::current(UnixTime::from(SystemTime::now()), epoch_seconds);
        let mut onion = relay.onion.iter();
        let onion = onion.find(|(epoch, _)| *epoch == current);
        let (_, onion) = onion.context("no onion key of this epoch")?;
        let hop = Hop {
            relay: relay.descriptor.short_id(),
            onion: *onion,
        };
        let headers = self.all.iter();
        let headers = headers.map(|next| header_over(&hop, next.identity.relay_id().short()));
        self.headers = headers.collect::<Result<_>>()?;
        self.relay = Some(relay.descriptor);
        self.renew()
    }

    /// Makes new links if the present ones get old. To be called before each measurement.
    ///
    /// # Errors
    /// If the relay does not answer.
    pub fn renew(&mut self) -> Result<()> {
        if self.connected.is_some_and(|at| at.elapsed() < RENEW) {
            return Ok(());
        }
        let relay = self.relay.as_ref().context("no relay")?;
        let to = SocketAddr::from((address(self.node), PORT));
        for (at, neighbour) in (0..).zip(&mut self.all) {
            neighbour
                .connect(relay, to, at)
                .with_context(|| format!("linking {} with {to}", neighbour.address))?;
        }
        self.connected = Some(Instant::now());
        Ok(())
    }

    /// Sends one datagram over each path, from its neighbour's socket: so the relay learns them.
    ///
    /// # Errors
    /// Of the network.
    pub fn walk(&mut self) -> Result<()> {
        let to = SocketAddr::from((address(self.node), PORT));
        let mut datagram = [0; DATAGRAM];
        for at in 0..NEIGHBOURS {
            self.fill(&mut datagram, 0, at)?;
            self.all[0].socket.send_to(&datagram, to)?;
        }
        Ok(())
    }

    /// A handle of a neighbour's socket.
    ///
    /// # Errors
    /// Of the system, or if there is no such neighbour.
    pub fn socket(&self, at: usize) -> Result<UdpSocket> {
        let neighbour = self.all.get(at).context("no such neighbour")?;
        Ok(neighbour.socket.try_clone()?)
    }

    /// The address of a neighbour.
    #[must_use]
    pub fn address(&self, at: usize) -> Ipv4Addr {
        neighbour(self.node, at)
    }

    /// The relay's link key.
    #[must_use]
    pub fn relay(&self) -> Option<&RelayDescriptor> {
        self.relay.as_ref()
    }

    /// A datagram of neighbour `from` whose next hop is neighbour `to`: the next under its
    /// link, with a message that no other has.
    ///
    /// # Errors
    /// Without a link.
    pub fn fill(&mut self, datagram: &mut Datagram, from: usize, to: usize) -> Result<()> {
        self.message += 1;
        datagram[CELL_OFFSET..CELL_OFFSET + PATH_HEADER].copy_from_slice(&self.headers[to]);
        datagram[CELL_OFFSET + PATH_HEADER..][..8].copy_from_slice(&self.message.to_be_bytes());
        let seal = self.all[from].seal.as_ref().context("no link")?;
        Ok(seal.seal(datagram, CellKind::Cell)?)
    }
}

impl Neighbour {
    fn connect(&mut self, relay: &RelayDescriptor, to: SocketAddr, index: u32) -> Result<()> {
        let rng = &mut OsRandom::new();
        for _ in 0..ATTEMPTS {
            let at = Timestamp::from(SystemTime::now());
            let (mut initiator, initiation) =
                Initiator::start(&self.link, &relay.link, index, at, None, rng)?;
            self.socket.send_to(&initiation[..], to)?;
            let mut datagram = [0; DATAGRAM];
            // Until nothing more comes: it may be an answer to an earlier attempt.
            while let Ok((DATAGRAM, _)) = self.socket.recv_from(&mut datagram) {
                if datagram_type(&datagram) != Ok(DatagramType::Response) {
                    continue;
                }
                let Ok(session) = initiator.finish(&datagram) else {
                    continue;
                };
                // The relay does not send under the session before it has heard something.
                datagram = [0; DATAGRAM];
                session.seal.seal(&mut datagram, CellKind::Cover)?;
                self.socket.send_to(&datagram, to)?;
                self.seal = Some(session.seal);
                return Ok(());
            }
        }
        ensure!(false, "no answer");
        Ok(())
    }
}
