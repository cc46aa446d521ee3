//! Cells that go to a relay and come back from it: over its card in both directions, through its
//! whole path, and each is looked at.

use anyhow::{Context, Result, ensure};
use mixline_protocol::link::CellKind;
use mixline_protocol::link::control::Control;
use mixline_protocol::records::ListedRelay;
use mixline_testnet::link_client::Client;
use mixline_testnet::link_path::Path;
use mixline_testnet::netns::{self, Namespace, ip_in};
use mixline_testnet::topology::{Node, RELAY_PORT, ROUTER};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Addresses of each family that circles begin at, on the router's end of a relay's wire. A card
/// chooses queues by addresses, so that there must be many.
const SOURCES: u8 = 24;
/// The first of them: what precedes it are the router and the relay.
const FIRST: u8 = 100;
/// How long an answer may take to come; a machine without hardware support is slow.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same of a link's first answer, which is asked for again and again.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// How often a link is asked for: a datagram may be lost where the neighbour is not known yet.
const TRIES: usize = 10;
/// Cells that are on their way at once: the client's socket has room for them.
const AT_ONCE: u64 = 20;

/// Numbers mailboxes: each circle has its own.
static MAILBOXES: AtomicU64 = AtomicU64::new(1);

/// Gives the router the addresses that circles begin at.
pub fn add_sources(relay: usize) -> Result<()> {
    let wire = Node::Relay(relay).name();
    let lines: String = (0..SOURCES)
        .map(|number| {
            let (v4, v6) = (source(relay, true, number), source(relay, false, number));
            format!("addr add {v4}/24 dev {wire}\naddr add {v6}/64 dev {wire} nodad\n")
        })
        .collect();
    // Those of version 6 stay when the link goes.
    let keep = format!("echo 1 > /proc/sys/net/ipv6/conf/{wire}/keep_addr_on_down");
    netns::said(netns::command(ROUTER, "sh").args(["-euc", &keep]))?;
    Ok(ip_in(ROUTER, &lines)?)
}

fn source(relay: usize, v4: bool, number: u8) -> IpAddr {
    let (node, last) = (Node::Relay(relay), FIRST + number % SOURCES);
    if v4 {
        let [a, b, c, _] = node.ipv4().octets();
        IpAddr::from([a, b, c, last])
    } else {
        let mut segments = node.ipv6().segments();
        segments[7] = last.into();
        IpAddr::from(segments)
    }
}

/// A client of a relay, with a path through it to a mailbox of its own there.
pub struct Circle {
    client: Client,
    link: usize,
    path: Path,
    sent: u64,
}

impl Circle {
    /// A circle that begins at the source of this number. None if the relay does not answer in time.
    /// To be called in the router's namespace.
    pub fn new(relay: usize, descriptor: &ListedRelay, v4: bool, number: u8) -> Option<Self> {
        let node = Node::Relay(relay);
        let to = if v4 {
            SocketAddr::new(node.ipv4().into(), RELAY_PORT)
        } else {
            SocketAddr::new(node.ipv6().into(), RELAY_PORT)
        };
        let mut client = Client::at(&SocketAddr::new(source(relay, v4, number), 0).to_string());
        client.set_patience(FIRST_ANSWER);
        let link = client.try_connect(to, &descriptor.descriptor.link)?;
        client.set_patience(PATIENCE);
        let mailbox = MAILBOXES.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(descriptor, descriptor, mailbox);
        client.say(
            link,
            &Control::Register {
                request: 1,
                tokens: vec![(path.token, 600)],
            },
        );
        loop {
            if let (_, Control::Registered { refused, .. }) = client.control()? {
                return refused.is_empty().then_some(Self {
                    client,
                    link,
                    path,
                    sent: 0,
                });
            }
        }
    }

    /// Sends cells round; gives how many came back. Ends the test if one has changed on the way.
    pub fn send(&mut self, cells: u64) -> u64 {
        let mut back = 0;
        let end = self.sent + cells;
        while self.sent < end {
            let burst = AT_ONCE.min(end - self.sent);
            for message in self.sent..self.sent + burst {
                let cell = self.path.cell(message);
                self.client.send(self.link, &cell, CellKind::Cell);
            }
            let before = back;
            while back < before + burst {
                let Some((_, cell)) = self.client.cell() else {
                    break;
                };
                // One that is late belongs to an earlier burst.
                if self.path.message(&cell) >= self.sent {
                    back += 1;
                }
            }
            self.sent += burst;
        }
        back
    }
}

/// Traffic through a relay that goes on whatever happens to its card.
pub struct Flow {
    stop: Arc<AtomicBool>,
    back: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flow {
    /// Begins; `number` is the source that it has to itself.
    pub fn begin(relay: usize, descriptor: ListedRelay, number: u8) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let back = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&back));
        let thread = thread::spawn(move || {
            Namespace::named(ROUTER)?.enter()?;
            let mut circle = None;
            while !stopped.load(Ordering::Relaxed) {
                match &mut circle {
                    None => circle = Circle::new(relay, &descriptor, true, number),
                    Some(running) => match running.send(AT_ONCE) {
                        // The link may be gone with the relay that it led to.
                        0 => circle = None,
                        cells => drop(count.fetch_add(cells, Ordering::Relaxed)),
                    },
                }
            }
            Ok(())
        });
        Self {
            stop,
            back,
            thread: Some(thread),
        }
    }

    /// How many cells have come back.
    pub fn back(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it runs once")?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends cells round from as many sources as there are; all have to come back. To be called in the
/// router's namespace.
pub fn pump(relay: usize, descriptor: &ListedRelay, cells: u64) -> Result<()> {
    let each = cells / u64::from(2 * SOURCES) + 1;
    for number in 0..SOURCES {
        for v4 in [true, false] {
            let mut circle = (0..TRIES)
                .find_map(|_| Circle::new(relay, descriptor, v4, number))
                .with_context(|| format!("no link from {}", source(relay, v4, number)))?;
            let back = circle.send(each);
            ensure!(
                back == each,
                "of {each} cells from {}, {back} came back",
                source(relay, v4, number)
            );
        }
    }
    Ok(())
}
