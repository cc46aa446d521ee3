//! What is measured, with what it is fed: a node, and the neighbours of the relay on it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mixline_protocol::size::DATAGRAM;
use rand_core::Rng as _;

use super::abi::Frame;
use super::addresses::{NEIGHBOURS, PORT, address, neighbour};
use super::directory::Directory;
use super::frame::frame_of;
use super::kernel::{Generator, Sent, settings};
use super::neighbours::Neighbours;
use super::node::{Kind, Node, RelayCommand, Task};
use super::relay_status::RelayStatus;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// What of a run does not count: queues fill.
const WARM_UP: f64 = 0.2;
/// How long the generator may take at least.
const SHORTEST: Duration = Duration::from_millis(20);
/// How long a relay has to work off what is in its queues.
const DRAIN: Duration = Duration::from_millis(60);

/// See the module's description.
pub struct Feed {
    node: Node,
    core: usize,
    relay: Option<Relay>,
}

/// A relay that is measured, and whom it talks to.
struct Relay {
    command: RelayCommand,
    directory: Directory,
    neighbours: Neighbours,
}

/// How a run is to be.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Honest datagrams offered a second.
    pub rate: f64,
    /// How many.
    pub count: u32,
    /// Frames of a flood, sent over and over in between; 0 is no flood.
    pub flood: u32,
}

/// What a run has shown.
#[derive(Debug, Clone, Default)]
pub struct Fed {
    /// Honest datagrams offered a second.
    pub offered: f64,
    /// Frames of a flood sent a second.
    pub flooded: f64,
    /// Datagrams that came back a second.
    pub returned: f64,
    /// Neighbours that they came back to.
    pub to: usize,
    /// The share of the time that the relay's core was busy.
    pub busy: f64,
    /// What became of the frames in the whole run, as far as the relay says: its verdicts and
    /// those of its XDP program.
    pub verdicts: BTreeMap<String, u64>,
    /// All that was sent in the whole run.
    pub sent: Sent,
}

impl Feed {
    /// Starts a process that does something with frames, and for a relay its neighbours, whom
    /// it knows when this returns, as it does a path to each. `program` is this benchmark's own.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(
        generator: &mut Generator,
        program: &Path,
        number: u8,
        directory: &Path,
        kind: &Kind,
        core: usize,
    ) -> Result<Self> {
        let directory = directory.join(number.to_string());
        fs::create_dir_all(&directory)?;
        let command = match kind {
            Kind::Echo => None,
            Kind::Relay { program, .. } => Some(RelayCommand {
                program: program.clone(),
                config: directory.join("relay.yaml"),
            }),
        };
        let task = Task {
            node: number,
            core,
            relay: command.clone(),
        };
        let node = Node::lay(generator, program, number, &directory, &task)?;
        let mut relay = None;
        // The relay starts when its wire is up, so its configuration can wait for the directory.
        if let (Some(command), Kind::Relay { more, .. }) = (command, kind) {
            let neighbours = Neighbours::new(number)?;
            let listen = SocketAddr::from((neighbour(number, 0), 8080));
            let directory = Directory::start(listen, &neighbours)?;
            let own = SocketAddr::from((address(number), PORT));
            let yaml = format!(
                "name: measured\nstate_dir: {}\nlisten: [\"{own}\"]\n\
                 directory: {{url: \"http://{listen}\", id: {}}}\nworkers: 1\n{more}\n",
                node.directory.join("state").display(),
                directory.id
            );
            fs::write(&command.config, yaml)?;
            relay = Some(Relay {
                command,
                directory,
                neighbours,
            });
        }
        let mut feed = Self { node, core, relay };
        feed.node.go()?;
        feed.meet()?;
        Ok(feed)
    }

    /// Waits for the relay to register, links the neighbours, and teaches it their paths.
    fn meet(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let Some(relay) = &self.relay else {
            return Ok(());
        };
        let (mut registered, seconds) = (None, relay.directory.epoch_seconds());
        while registered.is_none() {
            self.wait(until, "registration")?;
            registered = self
                .relay
                .as_ref()
                .and_then(|relay| relay.directory.registered());
        }
        let registered = registered.context("no descriptor")?;
        // It has to know the neighbours, too.
        while self.status()?.directory.relays.unwrap_or(0) < NEIGHBOURS {
            self.wait(until, "a snapshot")?;
        }
        let relay = self.relay.as_mut().context("no relay")?;
        relay.neighbours.meet(registered, seconds)?;
        let known = |status: &RelayStatus| (status.links.relays, status.paths.known);
        while known(&self.status()?) != (NEIGHBOURS, NEIGHBOURS) {
            if let Some(relay) = &mut self.relay {
                relay.neighbours.walk()?;
            }
            self.wait(until, "links and paths")?;
        }
        Ok(())
    }

    fn wait(&mut self, until: Instant, what: &str) -> Result<()> {
        self.node.check()?;
        ensure!(
            Instant::now() < until,
            "waited in vain for {what}: {}",
            self.node.last_words()
        );
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    }

    /// What the relay says of itself.
    ///
    /// # Errors
    /// If it does not answer, or there is none.
    pub fn status(&self) -> Result<RelayStatus> {
        let relay = self.relay.as_ref().context("no relay")?;
        RelayStatus::ask(&relay.command.program, &relay.command.config)
    }

    /// The address of a neighbour.
    #[must_use]
    pub fn neighbour(&self, at: usize) -> Ipv4Addr {
        neighbour(self.node.number, at)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The neighbours, if this is a relay.
    pub fn neighbours(&mut self) -> Option<&mut Neighbours> {
        Some(&mut self.relay.as_mut()?.neighbours)
    }

    /// A frame with a fresh datagram of neighbour `from` that goes on to neighbour `to`. An echo
    /// takes anything.
    ///
    /// # Errors
    /// None that happen.
    pub fn frame(
        &mut self,
        datagram: &mut [u8; DATAGRAM],
        from: usize,
        to: usize,
    ) -> Result<Frame> {
        if let Some(Relay { neighbours, .. }) = &mut self.relay {
            neighbours.fill(datagram, from, to)?;
        }
        Ok(frame_of(&self.node.ends, self.neighbour(from), datagram))
    }

    /// Seals datagrams between `hops` neighbours, has the generator send them, and counts.
    ///
    /// # Errors
    /// If the generator does not run, or what is measured has ended.
    pub fn run(&mut self, generator: &mut Generator, hops: usize, load: Load) -> Result<Fed> {
        self.seal(generator, hops, load.count)?;
        self.send(generator, load)
    }

    /// Seals datagrams between `hops` neighbours, for the generator to send.
    ///
    /// # Errors
    /// If what is measured has ended.
    pub fn seal(&mut self, generator: &mut Generator, hops: usize, count: u32) -> Result<()> {
        self.node.check()?;
        if let Some(Relay { neighbours, .. }) = &mut self.relay {
            neighbours.renew()?;
        }
        let mut rng = mixline_protocol::random::OsRandom::new();
        let mut random = vec![0; 2 * count as usize];
        rng.fill_bytes(&mut random);
        let mut datagram = [0x5a; DATAGRAM];
        datagram[..16].copy_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for (at, random) in (0..count).zip(random.chunks_exact(2)) {
            let [from, to] = [random[0], random[1]].map(|byte| usize::from(byte) % hops);
            let frame = self.frame(&mut datagram, from, to)?;
            generator.set(at, &frame)?;
        }
        Ok(())
    }

    /// Has the generator send what it has.
    ///
    /// # Errors
    /// If the generator does not run, or what is measured has ended.
    pub fn send(&mut self, generator: &mut Generator, load: Load) -> Result<Fed> {
        let before = self.verdicts()?;
        let interval = Duration::from_secs_f64(1.0 / load.rate.max(1.0));
        let settings = settings(self.node.device, interval, load.count, load.flood);
        let longest = (interval * load.count * 4).max(SHORTEST);
        let warm = (f64::from(load.count) * WARM_UP) as u64;
        let mut window: Option<(Counters, Counters)> = None;
        let (number, core) = (self.node.number, self.core);
        let sent = generator.run(settings, longest, |generator, sent| {
            if sent.honest >= warm {
                let now = Counters::read(generator, number, core, sent)?;
                let first = window
                    .take()
                    .map_or_else(|| now.clone(), |(first, _)| first);
                window = Some((first, now));
            }
            Ok(())
        })?;
        let (first, last) =
            window.with_context(|| format!("the generator sent too little: {sent:?}"))?;
        std::thread::sleep(DRAIN);
        self.node.check()?;
        let after = self.verdicts()?;
        let verdicts = after.into_iter().map(|(name, count)| {
            let before = before.get(&name).copied().unwrap_or(0);
            (name, count - before)
        });
        let mut fed = last.since(&first);
        fed.verdicts = verdicts.filter(|(_, count)| *count > 0).collect();
        fed.sent = sent;
        Ok(fed)
    }

    fn verdicts(&self) -> Result<BTreeMap<String, u64>> {
        if self.relay.is_none() {
            return Ok(BTreeMap::new());
        }
        let status = self.status()?;
        let xdp = status.xdp.into_iter();
        let xdp = xdp.map(|(name, count)| (format!("xdp {name}"), count));
        Ok(status.verdicts.into_iter().chain(xdp).collect())
    }
}

/// What is counted at one moment.
#[derive(Clone)]
struct Counters {
    at: Instant,
    sent: Sent,
    returned: Vec<u64>,
    busy: (u64, u64),
}

impl Counters {
    fn read(generator: &Generator, node: u8, core: usize, sent: Sent) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            sent,
            returned: generator.returned(node)?,
            busy: busy(core),
        })
    }

    fn since(&self, first: &Self) -> Fed {
        let seconds = (self.at - first.at).as_secs_f64();
        let rate = |new: u64, old: u64| (new - old) as f64 / seconds;
        let pairs = || self.returned.iter().zip(&first.returned);
        Fed {
            offered: rate(self.sent.honest, first.sent.honest),
            flooded: rate(self.sent.flooded, first.sent.flooded),
            returned: pairs().map(|(new, old)| rate(*new, *old)).sum(),
            to: pairs().filter(|(new, old)| new != old).count(),
            busy: (self.busy.0 - first.busy.0) as f64 / (self.busy.1 - first.busy.1).max(1) as f64,
            ..Fed::default()
        }
    }
}

/// Busy and all ticks of a core so far.
fn busy(core: usize) -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    let ticks: Vec<u64> = line
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal: proc_stat(5)
    let all: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}
