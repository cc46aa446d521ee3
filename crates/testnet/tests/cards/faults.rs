//! What happens to a card while a relay runs on it and traffic flows. The relay heals by itself, or
//! goes on by UDP and says what to do; no queue stays deaf.

use anyhow::{Context, Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::netns::{self, ip_in};
use mixline_testnet::topology::{RELAY_PORT, ROUTER};
use std::thread;
use std::time::{Duration, Instant};

use crate::circle::Flow;
use crate::patient::{HEALING, Patient};

/// The source that traffic during a fault has to itself.
pub const OF_FLOW: u8 = 23;

/// Something that happens to the card of a network's relay.
pub type Fault = fn(&mut Network, usize) -> Result<()>;

/// What happens to a card that has zero-copy.
pub const FAULTS: [(&str, Fault); 7] = [
    ("link_flaps", link_flaps),
    ("rings_change", rings_change),
    ("mtu_changes", mtu_changes),
    ("jumbo_start", jumbo_start),
    ("killed", killed),
    ("another_program", another_program),
    ("driver_rebinds", driver_rebinds),
];

/// Does something to a card while traffic flows through its relay.
pub fn meanwhile<T>(
    network: &mut Network,
    relay: usize,
    fault: impl FnOnce(&mut Network) -> Result<T>,
) -> Result<T> {
    let descriptor = Patient::new(network, relay).descriptor()?;
    let flow = Flow::begin(relay, descriptor, OF_FLOW);
    let until = Instant::now() + HEALING;
    while flow.back() == 0 {
        ensure!(Instant::now() < until, "no traffic flows");
        thread::sleep(Duration::from_millis(50));
    }
    let before = flow.back();
    let result = fault(network);
    eprintln!(
        "  {before} cells had come back before, and {} did meanwhile",
        flow.back() - before
    );
    flow.end()?;
    result
}

/// The link goes and comes, by either end.
fn link_flaps(network: &mut Network, relay: usize) -> Result<()> {
    Patient::new(network, relay).is_healed("nothing")?;
    meanwhile(network, relay, |network| {
        let wire = Patient::new(network, relay).node().name();
        for _ in 0..3 {
            ip_in(ROUTER, &format!("link set {wire} down\n"))?;
            thread::sleep(Duration::from_millis(500));
            ip_in(ROUTER, &format!("link set {wire} up\n"))?;
        }
        Ok(())
    })?;
    Patient::new(network, relay).is_healed("the far end's link went and came")?;
    meanwhile(network, relay, |network| {
        let patient = Patient::new(network, relay);
        routes_back(&patient, || patient.ip("link set eth0 down\n"))
    })?;
    Patient::new(network, relay).is_healed("the card was set down and up")
}

/// Sets the card up again after something that took its routes.
fn routes_back(patient: &Patient<'_>, change: impl FnOnce() -> Result<()>) -> Result<()> {
    change()?;
    thread::sleep(Duration::from_millis(500));
    let node = patient.node();
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
fn rings_change(network: &mut Network, relay: usize) -> Result<()> {
    meanwhile(network, relay, |network| {
        let patient = Patient::new(network, relay);
        for rings in ["512", "256"] {
            let command = ["ethtool", "-G", "eth0", "rx", rings, "tx", rings];
            match patient.run(&command) {
                Ok(_) => patient.answers(&format!("the rings were given {rings} entries"))?,
                Err(error) => eprintln!("  the driver does not change its rings: {error:#}"),
            }
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
        Ok(())
    })?;
    Patient::new(network, relay).is_healed("rings and queues were changed")
}

/// The MTU changes. The kernel refuses one that does not fit into the frames of bound sockets.
fn mtu_changes(network: &mut Network, relay: usize) -> Result<()> {
    meanwhile(network, relay, |network| {
        let patient = Patient::new(network, relay);
        for mtu in ["1480", "9000", "1500"] {
            match patient.ip(&format!("link set eth0 mtu {mtu}\n")) {
                Ok(()) => patient.answers(&format!("the MTU was set to {mtu}"))?,
                Err(error) => {
                    eprintln!("  MTU {mtu}: {error:#}");
                    ensure!(mtu == "9000", "MTU {mtu}: {error:#}");
                }
            }
        }
        Ok(())
    })?;
    Patient::new(network, relay).is_healed("the MTU was changed")
}

/// The MTU is 9000 before the relay starts: it has no zero-copy then, and works with copies.
fn jumbo_start(network: &mut Network, relay: usize) -> Result<()> {
    let node = Patient::new(network, relay).node();
    for (mtu, wanted) in [("9000", "generic XDP"), ("1500", "native XDP")] {
        network.stop(node)?;
        ip_in(ROUTER, &format!("link set {node} mtu {mtu}\n"))?;
        Patient::new(network, relay).ip(&format!("link set eth0 mtu {mtu}\n"))?;
        network.start(node)?;
        is_back(network, relay)?;
        let patient = Patient::new(network, relay);
        let after = format!("a start with an MTU of {mtu}");
        patient.is_healed(&after)?;
        let (_, why) = patient.port()?;
        eprintln!("  after {after}: {why}");
        ensure!(why.starts_with(wanted), "after {after}: {why}");
    }
    Ok(())
}

/// Waits until the relay's program answers.
fn is_back(network: &Network, relay: usize) -> Result<()> {
    let until = Instant::now() + HEALING;
    while network.relay_status(relay).is_err() {
        ensure!(Instant::now() < until, "the relay does not come back");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The relay is killed and started again at once.
fn killed(network: &mut Network, relay: usize) -> Result<()> {
    meanwhile(network, relay, |network| {
        let node = Patient::new(network, relay).node();
        for _ in 0..3 {
            network.kill(node)?;
            network.start(node)?;
        }
        Ok(())
    })?;
    is_back(network, relay)?;
    // It may have been started while the card's link was on its way.
    Patient::new(network, relay).is_healed("it was killed and started again")
}

/// Another relay wants the card, which has an XDP program already: it does not start on XDP, and
/// says so.
fn another_program(network: &mut Network, relay: usize) -> Result<()> {
    let patient = Patient::new(network, relay);
    let files = network.files(patient.node());
    let text = std::fs::read_to_string(&files.config)?;
    let state = files.state.to_string_lossy().into_owned();
    let other = files.config.with_extension("other.yaml");
    for (port, wanted) in [
        ("xdp", "end the other program with an AF_XDP socket"),
        ("xdp-filter", "`ip link set dev eth0 xdp off`"),
    ] {
        let text = text
            .replace(&state, &format!("{state}-other"))
            .replace(&format!(":{RELAY_PORT}"), ":7100")
            .replace("9300", "9301")
            .replace("port: xdp\n", &format!("port: {port}\n"));
        std::fs::write(&other, text)?;
        let output = netns::command(&patient.node().namespace(), &network.programs().relay)
            .arg("--config")
            .arg(&other)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        eprintln!("  a second relay on the card says: {}", said.trim());
        ensure!(
            !output.status.success() && said.contains("eth0") && said.contains(wanted),
            "the second relay says: {said}"
        );
    }
    patient.is_healed("a second relay wanted the card")
}

/// The driver leaves the card and comes back: another interface is there then. The relay goes on by
/// UDP, and after a restart by XDP.
fn driver_rebinds(network: &mut Network, relay: usize) -> Result<()> {
    let node = Patient::new(network, relay).node();
    meanwhile(network, relay, |network| {
        let patient = Patient::new(network, relay);
        let device = patient.run(&["readlink", "-f", "/sys/class/net/eth0/device"])?;
        let device = device.trim();
        let mac = patient.run(&["cat", "/sys/class/net/eth0/address"])?;
        let slot = device.rsplit('/').find(|part| part.starts_with("0000:"));
        let slot = slot.context("not a card on PCI")?.to_owned();
        // On PCI, or on what the card brings with it (virtio).
        let driver = patient.run(&[
            "readlink",
            "-f",
            &format!("/sys/bus/pci/devices/{slot}/driver"),
        ])?;
        let driver = driver.trim();
        std::fs::write(format!("{driver}/unbind"), &slot)?;
        thread::sleep(Duration::from_secs(1));
        std::fs::write(format!("{driver}/bind"), &slot)?;
        let name = mixline_testnet::cards::name_when_back(mac.trim())?;
        netns::ip(&format!(
            "link set {name} netns {} name eth0\n",
            node.namespace()
        ))?;
        // As on all wires of this network, and before traffic goes on: QEMU's card does not cut trains
        // of datagrams as the driver asks it to.
        let off = [
            "tso",
            "off",
            "gso",
            "off",
            "gro",
            "off",
            "tx-udp-segmentation",
            "off",
        ];
        patient.run(&[&["ethtool", "-K", "eth0"], &off[..]].concat())?;
        routes_back(&patient, || {
            patient.ip(&format!(
                "link set eth0 up\naddr add {}/24 dev eth0\n",
                node.ipv4()
            ))
        })?;
        Ok(())
    })?;
    Patient::new(network, relay).is_on_udp("the driver left and came back", "gone")?;
    network.stop(node)?;
    network.start(node)?;
    is_back(network, relay)?;
    Patient::new(network, relay).is_healed("a restart on the card that came back")
}
