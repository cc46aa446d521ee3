//! What happens to a card while a relay runs on it. The relay heals by itself, or goes on by UDP and
//! says what to do; no queue stays deaf.

use anyhow::{Context, Result, bail, ensure};
use mixline_protocol::identity::X25519Public;
use mixline_protocol::link::control::Control;
use mixline_testnet::Network;
use mixline_testnet::link_client::Client;
use mixline_testnet::netns::{self, Namespace, ip_in};
use mixline_testnet::topology::{Node, RELAY_PORT, ROUTER};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::RELAY;

/// Clients that ask the relay each time: enough that every queue has some.
const CLIENTS: usize = 24;
/// How long a fault may be felt: a card's link is back within a few seconds, and a machine without
/// hardware support is slow.
const HEALING: Duration = Duration::from_secs(60);

/// The relay under a fault.
pub struct Patient<'n> {
    network: &'n Network,
    address: SocketAddr,
    key: X25519Public,
}

impl<'n> Patient<'n> {
    /// The relay on the card.
    pub fn new(network: &'n Network) -> Result<Self> {
        let snapshot = network.snapshot()?;
        let name = Node::Relay(RELAY).name();
        let record = snapshot
            .relays
            .iter()
            .find(|relay| relay.name == name)
            .context("the relay is not in the snapshot")?;
        let key = record.link;
        let address = SocketAddr::new(Node::Relay(RELAY).ipv4().into(), RELAY_PORT);
        Ok(Self {
            network,
            address,
            key,
        })
    }

    /// Runs a command in the relay's namespace.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        run_in(&Node::Relay(RELAY).namespace(), command)
    }

    /// `ip` in the relay's namespace.
    pub fn ip(&self, lines: &str) -> Result<()> {
        Ok(ip_in(&Node::Relay(RELAY).namespace(), lines)?)
    }

    /// What the relay says of its port: kind, and why.
    pub fn port(&self) -> Result<(String, String)> {
        let status = self.network.relay_status(RELAY)?;
        let text = |key: &str| status["port"][key].as_str().unwrap_or_default().to_owned();
        Ok((text("kind"), text("why")))
    }

    /// Frames that each queue's socket was given, and that came out of it.
    fn queues(&self) -> Result<Vec<(u64, u64)>> {
        // The relay looks four times a second.
        thread::sleep(Duration::from_secs(1));
        let status = self.network.relay_status(RELAY)?;
        let queues = status["port"]["queues"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let count = |queue: &serde_json::Value, key: &str| queue[key].as_u64().unwrap_or_default();
        Ok(queues
            .iter()
            .map(|queue| (count(queue, "redirected"), count(queue, "received")))
            .collect())
    }

    /// Clients get a link and an answer over it, each of them, soon after a fault.
    pub fn answers(&self, after: &str) -> Result<()> {
        let router = Namespace::named(ROUTER)?;
        let until = Instant::now() + HEALING;
        let mut answered = 0;
        while answered < CLIENTS {
            if router.run(|| self.ask_once())? {
                answered += 1;
                continue;
            }
            ensure!(
                Instant::now() < until,
                "after {after}, {answered} of {CLIENTS} clients had an answer; port: {:?}",
                self.port()?
            );
        }
        Ok(())
    }

    /// One client with a port of its own: whether it had an answer.
    fn ask_once(&self) -> bool {
        let mut client = Client::at("0.0.0.0:0");
        client.set_patience(Duration::from_secs(3));
        let Some(link) = client.try_connect(self.address, &self.key) else {
            return false;
        };
        client.say(link, &Control::Ping(7));
        client.control() == Some((link, Control::Pong(7)))
    }

    /// The relay is still on AF_XDP and answers; and once it does, each client has its answer at
    /// once, and whatever any queue's socket is given comes out of it.
    pub fn is_healed(&self, after: &str) -> Result<()> {
        self.answers(after)?;
        let (kind, why) = self.port()?;
        ensure!(kind == "xdp", "after {after}, the port is {kind}: {why}");
        let before = self.queues()?;
        let router = Namespace::named(ROUTER)?;
        let mut missed = 0;
        for _ in 0..CLIENTS {
            missed += usize::from(!router.run(|| self.ask_once())?);
        }
        let now = self.queues()?;
        eprintln!("  after {after}: (redirected, received) by queue {before:?}, then {now:?}");
        ensure!(
            missed <= 1,
            "after {after}, {missed} of {CLIENTS} clients had no answer"
        );
        let mut received = 0;
        for (queue, (before, now)) in before.iter().zip(&now).enumerate() {
            let (given, taken) = (now.0 - before.0, now.1 - before.1);
            received += taken;
            ensure!(
                given.abs_diff(taken) <= 2 + given / 50,
                "after {after}, queue {queue} was given {given} frames and {taken} came out"
            );
        }
        // A cover datagram and a ping of each.
        ensure!(
            received >= 2 * (CLIENTS as u64 - 1),
            "after {after}, only {received} frames came out of the queues"
        );
        Ok(())
    }

    /// The relay has given XDP up within seconds, says why, and answers by UDP.
    pub fn is_on_udp(&self, after: &str, reason: &str) -> Result<()> {
        let until = Instant::now() + HEALING;
        loop {
            let (kind, why) = self.port()?;
            if kind == "udp" {
                eprintln!("  after {after}: {why}");
                ensure!(why.contains(reason), "after {after}, it says: {why}");
                break;
            }
            ensure!(
                Instant::now() < until,
                "after {after}, the port is {kind}: {why}"
            );
            thread::sleep(Duration::from_millis(200));
        }
        self.answers(after)
    }
}

fn run_in(namespace: &str, command: &[&str]) -> Result<String> {
    let (program, arguments) = command.split_first().context("no command")?;
    Ok(netns::said(
        netns::command(namespace, program).args(arguments),
    )?)
}

/// The link goes and comes, by either end.
pub fn link_flaps(network: &mut Network) -> Result<()> {
    let patient = Patient::new(network)?;
    patient.is_healed("nothing")?;
    for _ in 0..3 {
        ip_in(ROUTER, "link set relay1 down\n")?;
        thread::sleep(Duration::from_millis(500));
        ip_in(ROUTER, "link set relay1 up\n")?;
        // Its addresses of version 6 went with the link.
        let _ = ip_in(
            ROUTER,
            &format!(
                "addr replace {}/64 dev relay1 nodad\n",
                Node::Relay(RELAY).gateway_ipv6()
            ),
        );
    }
    patient.is_healed("the far end's link went and came")?;
    routes_back(&patient, || patient.ip("link set eth0 down\n"))?;
    patient.is_healed("the card was set down and up")
}

/// Sets the card up again after something that took its routes.
fn routes_back(patient: &Patient<'_>, change: impl FnOnce() -> Result<()>) -> Result<()> {
    change()?;
    thread::sleep(Duration::from_millis(500));
    let node = Node::Relay(RELAY);
    patient.ip(&format!(
        "link set eth0 up\n\
         addr replace {}/64 dev eth0 nodad\n\
         route replace default via {}\n\
         route replace default via {}\n",
        node.ipv6(),
        node.gateway_ipv4(),
        node.gateway_ipv6()
    ))
}

/// The rings' lengths and the number of queues change.
pub fn rings_change(network: &mut Network) -> Result<()> {
    let patient = Patient::new(network)?;
    match patient.run(&["ethtool", "-G", "eth0", "rx", "512", "tx", "512"]) {
        Ok(_) => patient.is_healed("the rings were made longer")?,
        Err(error) => eprintln!("  the driver does not change its rings: {error:#}"),
    }
    for queues in ["1", "2"] {
        match patient.run(&["ethtool", "-L", "eth0", "combined", queues]) {
            Ok(_) => {
                let after = format!("the card was given {queues} queues");
                patient.answers(&after)?;
                eprintln!("  after {after}: {:?}", patient.port()?);
            }
            // The kernel keeps queues that have zero-copy sockets.
            Err(error) => eprintln!("  {queues} queues: {error:#}"),
        }
    }
    patient.is_healed("queues were taken and given")
}

/// The MTU changes.
pub fn mtu_changes(network: &mut Network) -> Result<()> {
    let patient = Patient::new(network)?;
    for mtu in ["1480", "1500", "9000"] {
        match patient.ip(&format!("link set eth0 mtu {mtu}\n")) {
            Ok(()) => patient.is_healed(&format!("the MTU was set to {mtu}"))?,
            Err(error) => eprintln!("  MTU {mtu}: {error:#}"),
        }
    }
    Ok(())
}

/// The gateway gets another Ethernet address, as when one takes over from another; and what the kernel
/// knows of its neighbours is forgotten.
pub fn gateway_changes(network: &mut Network) -> Result<()> {
    let patient = Patient::new(network)?;
    for last in ["a1", "a2"] {
        // Some cards take an address only while they are down; its routes stay, its addresses of
        // version 6 do not.
        let node = Node::Relay(RELAY);
        ip_in(
            ROUTER,
            &format!(
                "link set relay1 down\n\
                 link set relay1 address 52:54:00:77:00:{last}\n\
                 link set relay1 up\n\
                 addr replace {}/64 dev relay1 nodad\n",
                node.gateway_ipv6()
            ),
        )?;
        patient.ip("neigh flush dev eth0\n")?;
        patient.is_healed("the gateway got another Ethernet address")?;
    }
    Ok(())
}

/// The relay is killed and started again at once.
pub fn killed(network: &mut Network) -> Result<()> {
    for _ in 0..3 {
        network.kill(Node::Relay(RELAY))?;
        network.start(Node::Relay(RELAY))?;
    }
    let until = Instant::now() + HEALING;
    while network.relay_status(RELAY).is_err() {
        ensure!(Instant::now() < until, "the relay does not come back");
        thread::sleep(Duration::from_millis(200));
    }
    // It may have been started while the card's link was on its way.
    Patient::new(network)?.is_healed("it was killed and started again")
}

/// The driver leaves the card and comes back: another interface is there then.
pub fn driver_rebinds(network: &mut Network) -> Result<()> {
    let patient = Patient::new(network)?;
    let node = Node::Relay(RELAY);
    let device = patient.run(&["readlink", "-f", "/sys/class/net/eth0/device"])?;
    let device = device.trim();
    let mac = patient.run(&["cat", "/sys/class/net/eth0/address"])?;
    let slot = device.rsplit('/').find(|part| part.starts_with("0000:"));
    let slot = slot.context("not a card on PCI")?.to_owned();
    let driver = format!("/sys/bus/pci/devices/{slot}/driver");
    let driver = patient.run(&["readlink", "-f", &driver])?;
    let driver = driver.trim();
    std::fs::write(format!("{driver}/unbind"), &slot)?;
    thread::sleep(Duration::from_secs(1));
    std::fs::write(format!("{driver}/bind"), &slot)?;
    let name = mixline_testnet::cards::name_when_back(mac.trim())?;
    netns::ip(&format!(
        "link set {name} netns {} name eth0\n",
        node.namespace()
    ))?;
    routes_back(&patient, || {
        patient.ip(&format!(
            "link set eth0 up\naddr add {}/24 dev eth0\n",
            node.ipv4()
        ))
    })?;
    patient.is_on_udp("the driver left and came back", "gone")
}

/// Another XDP program is on the card: the relay does not start on XDP, and says so.
pub fn another_program(network: &mut Network) -> Result<()> {
    let node = Node::Relay(RELAY);
    // A second relay with the same card.
    let files = network.files(node);
    let text = std::fs::read_to_string(&files.config)?;
    let state = files.state.to_string_lossy().into_owned();
    let other = files.config.with_extension("other.yaml");
    let text = text
        .replace(&state, &format!("{state}-other"))
        .replace(&format!(":{RELAY_PORT}"), ":7100")
        .replace("9300", "9301");
    std::fs::write(&other, text)?;
    let output = netns::command(&node.namespace(), &network.programs().relay)
        .arg("--config")
        .arg(&other)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!("  a second relay on the card says: {}", said.trim());
    if output.status.success() || !said.contains("eth0") {
        bail!("the second relay says: {said}");
    }
    Patient::new(network)?.is_healed("a second relay wanted the card")
}
