//! A client with links to relays, over one real socket: for tests that ask a relay directly. It ends
//! the test when a relay answers what it must not.
#![expect(clippy::unwrap_used, reason = "an answer that is wrong fails the test")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime};

use mixline_protocol::identity::{X25519Public, X25519Secret};
use mixline_protocol::link::control::Control;
use mixline_protocol::link::{
    CellKind, DatagramType, Established, Initiator, SealKey, Timestamp, datagram_type,
    receiver_index,
};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{CELL_OFFSET, Cell, DATAGRAM, Datagram};

/// The client.
pub struct Client {
    socket: UdpSocket,
    secret: X25519Secret,
    links: Vec<Link>,
}

/// A link to a relay.
pub struct Link {
    address: SocketAddr,
    session: Established,
}

impl Client {
    /// A client on the loopback interface.
    pub fn local() -> Self {
        Self::at("127.0.0.1:0")
    }

    /// A client that sends from this address.
    pub fn at(address: &str) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self {
            socket,
            secret: X25519Secret::generate(&mut OsRandom::new()),
            links: Vec::new(),
        }
    }

    /// Makes a link to a relay; its number.
    pub fn connect(&mut self, address: SocketAddr, key: &X25519Public) -> usize {
        self.try_connect(address, key).expect("a response")
    }

    /// Makes a link to a relay; its number, or none if the relay does not answer in time.
    pub fn try_connect(&mut self, address: SocketAddr, key: &X25519Public) -> Option<usize> {
        let number = self.links.len();
        let at = Timestamp::from(SystemTime::now());
        let mut rng = OsRandom::new();
        let (mut initiator, datagram) =
            Initiator::start(&self.secret, key, number as u32, at, None, &mut rng).unwrap();
        self.socket.send_to(&datagram[..], address).ok()?;
        let session = loop {
            let datagram = self.receive()?;
            if datagram_type(&datagram) == Ok(DatagramType::Response) {
                break initiator.finish(&datagram).unwrap();
            }
        };
        self.links.push(Link { address, session });
        // The relay does not send under the session before it has heard something.
        self.send(number, &[0; 1368], CellKind::Cover);
        Some(number)
    }

    /// What seals datagrams of a link.
    pub fn seal_key(&self, link: usize) -> &SealKey {
        &self.links[link].session.seal
    }

    /// Sends a cell over a link.
    pub fn send(&self, link: usize, cell: &Cell, kind: CellKind) {
        let mut datagram = [0; DATAGRAM];
        datagram[CELL_OFFSET..][..cell.len()].copy_from_slice(cell);
        self.seal_key(link).seal(&mut datagram, kind).unwrap();
        self.send_raw(link, &datagram);
    }

    /// Sends bytes as they are to where a link leads. What the kernel does not send is lost, as on
    /// the way.
    pub fn send_raw(&self, link: usize, bytes: &[u8]) {
        let _ = self.socket.send_to(bytes, self.links[link].address);
    }

    /// Sends a control message.
    pub fn say(&self, link: usize, message: &Control) {
        let mut cell = [0; 1368];
        message.encode_into(&mut cell).unwrap();
        self.send(link, &cell, CellKind::Control);
    }

    /// Registers a mailbox and waits for the answer.
    pub fn register(&self, link: usize, token: MailboxToken) {
        self.say(
            link,
            &Control::Register {
                request: 5,
                tokens: vec![(token, 600)],
            },
        );
        loop {
            let (_, kind, cell) = self.open().expect("an answer");
            if kind == CellKind::Control {
                let wanted = Control::Registered {
                    request: 5,
                    refused: vec![],
                };
                return assert_eq!(Control::decode(&cell), Ok(wanted));
            }
        }
    }

    /// The next cell of any link; none if nothing comes for some time.
    pub fn cell(&self) -> Option<(usize, Cell)> {
        loop {
            let (link, kind, cell) = self.open()?;
            if kind == CellKind::Cell {
                return Some((link, cell));
            }
        }
    }

    /// The next control message of any link; none if nothing comes for some time.
    pub fn control(&self) -> Option<(usize, Control)> {
        loop {
            let (link, kind, cell) = self.open()?;
            if kind == CellKind::Control {
                return Some((link, Control::decode(&cell).unwrap()));
            }
        }
    }

    /// Waits for at most so long from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).unwrap();
    }

    fn open(&self) -> Option<(usize, CellKind, Cell)> {
        let mut datagram = self.receive()?;
        assert_eq!(datagram_type(&datagram), Ok(DatagramType::Data));
        let link = receiver_index(&datagram) as usize;
        let kind = self.links[link].session.open.open(&mut datagram).unwrap();
        Some((link, kind, *datagram[CELL_OFFSET..].first_chunk().unwrap()))
    }

    fn receive(&self) -> Option<Datagram> {
        let mut bytes = [0; 2048];
        let (length, _) = self.socket.recv_from(&mut bytes).ok()?;
        assert_eq!(length, DATAGRAM, "every datagram has this length");
        Some(*bytes.first_chunk().unwrap())
    }
}
