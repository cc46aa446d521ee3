//! A relay on a card under a fault: what it says of its port, and whether all of it works.

use anyhow::{Context, Result, bail, ensure};
use mixline_protocol::records::ListedRelay;
use mixline_testnet::Network;
use mixline_testnet::netns::{self, Namespace, ip_in};
use mixline_testnet::topology::{Node, ROUTER};
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};

use crate::circle::Circle;

/// How long a fault may be felt: a card's link is back within a few seconds, and a machine without
/// hardware support is slow.
pub const HEALING: Duration = Duration::from_secs(60);
/// Clients of each family, each with an address of its own: enough that every queue has some.
const CLIENTS: u8 = 6;
/// As often, others are tried for a queue that none of them came to.
const OTHERS: u8 = 3;
/// Cells that each sends.
const CELLS: u64 = 20;

/// The relay under a fault.
pub struct Patient<'n> {
    network: &'n Network,
    /// Its number.
    pub relay: usize,
}

impl<'n> Patient<'n> {
    /// A relay on a card.
    pub fn new(network: &'n Network, relay: usize) -> Self {
        Self { network, relay }
    }

    /// What the directory says of it.
    pub fn descriptor(&self) -> Result<ListedRelay> {
        let name = self.node().name();
        let relays = self.network.snapshot()?.relays;
        let descriptor = relays
            .into_iter()
            .find(|relay| relay.descriptor.name == name);
        descriptor.context("the relay is not in the snapshot")
    }

    /// Its node.
    pub fn node(&self) -> Node {
        Node::Relay(self.relay)
    }

    /// Runs a command in the relay's namespace.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let (program, arguments) = command.split_first().context("no command")?;
        let mut command = netns::command(&self.node().namespace(), program);
        Ok(netns::said(command.args(arguments))?)
    }

    /// `ip` in the relay's namespace.
    pub fn ip(&self, lines: &str) -> Result<()> {
        Ok(ip_in(&self.node().namespace(), lines)?)
    }

    /// What `doctor` says of the machine.
    pub fn doctor(&self) -> Result<String> {
        let programs = self.network.programs();
        let mut command = netns::command(&self.node().namespace(), &programs.relay);
        command
            .args(["doctor", "--config"])
            .arg(self.network.files(self.node()).config);
        let output = command.output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the relay says of its port: kind, and why.
    pub fn port(&self) -> Result<(String, String)> {
        let status = self.network.relay_status(self.relay)?;
        let text = |key: &str| status["port"][key].as_str().unwrap_or_default().to_owned();
        Ok((text("kind"), text("why")))
    }

    /// Frames that each queue's socket was given, and that came out of it.
    fn queues(&self) -> Result<Vec<(u64, u64)>> {
        // The relay looks four times a second.
        thread::sleep(Duration::from_secs(1));
        let status = self.network.relay_status(self.relay)?;
        let queues = status["port"]["queues"].as_array();
        let count = |queue: &Value, key: &str| queue[key].as_u64().unwrap_or_default();
        let of = |queue| (count(queue, "redirected"), count(queue, "received"));
        Ok(queues.into_iter().flatten().map(of).collect())
    }

    /// Datagrams that the kernel's UDP sockets have sent.
    fn sent_by_kernel(&self) -> Result<u64> {
        // Udp: InDatagrams NoPorts InErrors OutDatagrams
        let v4 = self.run(&["cat", "/proc/net/snmp"])?;
        let v4 = v4.lines().filter(|line| line.starts_with("Udp: ")).nth(1);
        let v4 = v4.and_then(|line| line.split_whitespace().nth(4));
        let v6 = self.run(&["cat", "/proc/net/snmp6"])?;
        let v6 = v6
            .lines()
            .find_map(|line| line.strip_prefix("Udp6OutDatagrams"));
        let v4: u64 = v4.context("no counters of UDP")?.parse()?;
        let v6: u64 = v6.unwrap_or("0").trim().parse()?;
        Ok(v4 + v6)
    }

    /// Soon after a fault, clients get a link, and cells through the relay.
    fn answers_from(&self, after: &str, first: u8) -> Result<Vec<Circle>> {
        let until = Instant::now() + HEALING;
        let router = Namespace::named(ROUTER)?;
        let mut circles = Vec::new();
        for number in first..first + CLIENTS {
            for v4 in [true, false] {
                let circle = loop {
                    // Its keys are others after it was killed, which the snapshot says a little later.
                    let descriptor = self.descriptor()?;
                    let new = || {
                        let mut circle = Circle::new(self.relay, &descriptor, v4, number)?;
                        (circle.send(1) == 1).then_some(circle)
                    };
                    if let Some(circle) = router.run(new)? {
                        break circle;
                    }
                    ensure!(
                        Instant::now() < until,
                        "after {after}, {} of {} clients had an answer; port: {:?}",
                        circles.len(),
                        2 * CLIENTS,
                        self.port()?
                    );
                };
                circles.push(circle);
            }
        }
        Ok(circles)
    }

    /// Soon after a fault, clients get a link, and cells through the relay.
    pub fn answers(&self, after: &str) -> Result<()> {
        self.answers_from(after, 0).map(drop)
    }

    /// The relay is still on AF_XDP and answers; and once it does, every cell comes back, by the TX
    /// ring, and whatever any queue's socket is given comes out of it. Each queue is given some.
    pub fn is_healed(&self, after: &str) -> Result<()> {
        let mut idle = Vec::new();
        for round in 0..OTHERS {
            let mut circles = self.answers_from(after, round * CLIENTS)?;
            let (kind, why) = self.port()?;
            ensure!(kind == "xdp", "after {after}, the port is {kind}: {why}");
            let before = self.queues()?;
            let by_kernel = self.sent_by_kernel()?;
            let cells = circles.len() as u64 * CELLS;
            let send = || circles.iter_mut().map(|circle| circle.send(CELLS)).sum();
            let back: u64 = Namespace::named(ROUTER)?.run(send)?;
            let by_kernel = self.sent_by_kernel()? - by_kernel;
            let now = self.queues()?;
            eprintln!(
                "  after {after}: {back} of {cells} cells came back, {by_kernel} datagrams through \
                 the kernel; (redirected, received) by queue {before:?}, then {now:?}"
            );
            ensure!(
                back == cells,
                "after {after}, {back} of {cells} cells came back"
            );
            ensure!(
                !why.contains("TX ring") || by_kernel <= cells / 4,
                "after {after}, the TX ring is not used: {by_kernel} datagrams left through the \
                 kernel"
            );
            let mut received = 0;
            idle.resize(now.len(), true);
            for (queue, (before, now)) in before.iter().zip(&now).enumerate() {
                let (given, taken) = (now.0 - before.0, now.1 - before.1);
                received += taken;
                idle[queue] &= taken == 0;
                // The two are not read at the same moment.
                ensure!(
                    given.abs_diff(taken) <= 8 + given / 50,
                    "after {after}, queue {queue} was given {given} frames and {taken} came out"
                );
            }
            ensure!(
                received >= cells,
                "after {after}, only {received} frames came out of the queues"
            );
            if !idle.contains(&true) {
                return Ok(());
            }
        }
        bail!("after {after}, nothing came to queues: {idle:?}")
    }

    /// The relay has given XDP up within seconds, says why and what to do, and answers by UDP.
    pub fn is_on_udp(&self, after: &str, reason: &str) -> Result<()> {
        let until = Instant::now() + HEALING;
        loop {
            let (kind, why) = self.port()?;
            if kind == "udp" {
                eprintln!("  after {after}: {why}");
                ensure!(
                    why.contains(reason) && why.contains("a restart of the relay tries XDP again"),
                    "after {after}, it says: {why}"
                );
                break;
            }
            ensure!(
                Instant::now() < until,
                "after {after}, the port is {kind}: {why}"
            );
            thread::sleep(Duration::from_millis(200));
        }
        let found = self.doctor()?;
        ensure!(
            found.contains(reason) && found.contains("systemctl restart mixline-relay"),
            "after {after}, doctor says: {found}"
        );
        self.answers(after)
    }
}
