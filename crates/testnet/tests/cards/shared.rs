//! The network that the tests share: each pair of cards is the wire of one of its relays, and what
//! differs from test to test is how those relays run.

use anyhow::{Result, bail, ensure};
use mixline_testnet::process::tail;
use mixline_testnet::topology::{Node, RELAYS};
use mixline_testnet::{CardWire, Network, Options, Port, Programs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use crate::{PATIENCE, Pair, circle};

/// The network, and how the relays on cards run.
pub struct Shared {
    pairs: Vec<Pair>,
    network: Option<Network>,
    running: Vec<(Port, String)>,
}

impl Shared {
    /// With these cards; it is not up yet.
    pub fn new(pairs: Vec<Pair>) -> Self {
        Self {
            pairs,
            network: None,
            running: Vec::new(),
        }
    }

    /// The numbers of the relays on cards of which this holds.
    pub fn relays(&self, of: impl Fn(&Pair) -> bool) -> Vec<usize> {
        let pairs = (1..).zip(&self.pairs);
        pairs
            .filter(|(_, pair)| of(pair))
            .map(|(relay, _)| relay)
            .collect()
    }

    /// The cards of a relay.
    pub fn pair(&self, relay: usize) -> &Pair {
        &self.pairs[relay - 1]
    }

    /// Takes the network down, so that the cards are free.
    pub fn down(&mut self) -> Result<()> {
        self.running.clear();
        self.network
            .take()
            .map_or(Ok(()), |network| Ok(network.down()?))
    }

    /// Runs a test on the network, with these relays on a port and with more lines in their
    /// configurations. After one that fails, the next has a new network.
    pub fn on(
        &mut self,
        relays: &[usize],
        port: Port,
        more: &str,
        test: impl FnOnce(&mut Network) -> Result<()>,
    ) -> Result<()> {
        let result = self.run(relays, port, more).and_then(|network| {
            let result = catch_unwind(AssertUnwindSafe(|| test(network)));
            let result = result.unwrap_or_else(|_| bail!("it panicked: see above"));
            if result.is_err() {
                tell(network, relays);
            }
            result
        });
        if result.is_err() {
            self.down()?;
        }
        result
    }

    fn run(&mut self, relays: &[usize], port: Port, more: &str) -> Result<&mut Network> {
        let wanted = (port, more.to_owned());
        if self.network.is_none() {
            let mut all = vec![(Port::Udp, String::new()); RELAYS];
            for relay in self.relays(|_| true) {
                all[relay - 1] = wanted.clone();
            }
            self.network = Some(self.up(&all)?);
            self.running = all;
            for relay in self.relays(|_| true) {
                circle::add_sources(relay)?;
            }
        }
        let Some(network) = &mut self.network else {
            bail!("no network");
        };
        for relay in relays {
            if self.running[relay - 1] == wanted {
                continue;
            }
            let node = Node::Relay(*relay);
            network.stop(node)?;
            self.running[relay - 1] = wanted.clone();
            set(network.options_mut(), &self.running);
            network.start(node)?;
            let until = Instant::now() + PATIENCE;
            while network
                .relay_status(*relay)
                .map_or(true, |status| status["directory"]["listed"] != true)
            {
                ensure!(Instant::now() < until, "{node} does not come back");
                thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(network)
    }

    fn up(&self, all: &[(Port, String)]) -> Result<Network> {
        let cards = (1..).zip(&self.pairs).map(|(relay, pair)| CardWire {
            node: Node::Relay(relay),
            near: pair.near.clone(),
            far: pair.far.clone(),
        });
        let mut options = Options {
            // An igb of QEMU's takes segmentation of UDP for fragmentation.
            offloads: false,
            cards: cards.collect(),
            patience: PATIENCE,
            ..Options::default()
        };
        set(&mut options, all);
        Ok(Network::up(Programs::release()?, options, |line| {
            eprintln!("  {line}");
        })?)
    }
}

/// How each relay is to run.
fn set(options: &mut Options, all: &[(Port, String)]) {
    options.ports = all.iter().map(|(port, _)| *port).collect();
    let more = (1..)
        .zip(all)
        .map(|(relay, (_, more))| (Node::Relay(relay), more.clone()));
    options.more = more.collect();
}

/// What relays said last.
fn tell(network: &Network, relays: &[usize]) {
    for relay in relays {
        let log = network.files(Node::Relay(*relay)).log;
        eprintln!("the end of the log of relay{relay}:\n{}", tail(&log, 20));
        if let Ok(status) = network.relay_status(*relay) {
            eprintln!(
                "its port: {}\nits verdicts: {}",
                status["port"], status["verdicts"]
            );
        }
    }
}
