//! What happens around a card while a relay runs on it: neighbours that expire, a gateway that gets
//! another Ethernet address, tagged traffic of the host.

use anyhow::{Context, Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::netns::{self, Namespace, ip_in};
use mixline_testnet::topology::{Node, ROUTER};
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::faults::{Fault, meanwhile};
use crate::patient::{HEALING, Patient};

/// What happens around a card.
pub const FAULTS: [(&str, Fault); 3] = [
    ("gateway_changes", gateway_changes),
    ("tagged_beside", tagged_beside),
    ("neighbours_expire", neighbours_expire),
];

/// Makes the kernel verify its neighbours on the card within seconds, not a minute.
fn short_memory(patient: &Patient<'_>) -> Result<()> {
    let own = "\
        for f in ipv4 ipv6; do\n\
        cd /proc/sys/net/$f/neigh/eth0\n\
        echo 1000 > base_reachable_time_ms\n\
        echo 1 > gc_stale_time\n\
        echo 1 > delay_first_probe_time\n\
        echo 200 > retrans_time_ms\n\
        done\n";
    patient.run(&["sh", "-euc", own])?;
    Ok(())
}

/// Makes it remove those that are not used, however few there are. Its collector is one for all
/// namespaces.
fn collect() -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        let default = format!("/proc/sys/net/{family}/neigh/default");
        for (key, value) in [("gc_thresh1", "0"), ("base_reachable_time_ms", "1000")] {
            std::fs::write(format!("{default}/{key}"), value)?;
        }
    }
    Ok(())
}

/// Neighbours on the card that the kernel knows an Ethernet address of.
fn known(patient: &Patient<'_>) -> Result<String> {
    let mut all = String::new();
    for family in ["-4", "-6"] {
        let text = patient.run(&["ip", family, "neigh", "show", "dev", "eth0"])?;
        let lines = text.lines().filter(|line| line.contains("lladdr"));
        all.extend(lines.flat_map(|line| [line, "\n"]));
    }
    Ok(all)
}

/// The kernel forgets its neighbours, of both families, while little is sent and while much is: what
/// leaves by the ring, the kernel does not see.
fn neighbours_expire(network: &mut Network, relay: usize) -> Result<()> {
    let patient = Patient::new(network, relay);
    patient.is_healed("nothing")?;
    let forgotten = Forgotten::listen(&patient)?;
    short_memory(&patient)?;
    collect()?;
    forgotten.wait(|[v4, v6]| v4 > 0 && v6 > 0)?;
    patient.is_healed("the kernel forgot neighbours")?;
    meanwhile(network, relay, |network| {
        let forgotten = Forgotten::listen(&Patient::new(network, relay))?;
        // The one that all the traffic goes to, again and again.
        forgotten.wait(|[v4, _]| v4 > 1)
    })?;
    Patient::new(network, relay).is_healed("neighbours expired while traffic flowed")
}

/// Hears which neighbours the kernel forgets.
struct Forgotten {
    monitor: Child,
    heard: PathBuf,
    starts: [String; 2],
}

impl Forgotten {
    fn listen(patient: &Patient<'_>) -> Result<Self> {
        let node = patient.node();
        let heard = std::env::temp_dir().join("mixline-neighbours");
        let monitor = netns::command(&node.namespace(), "ip")
            .args(["monitor", "neigh"])
            .stdin(Stdio::null())
            .stdout(File::create(&heard)?)
            .spawn()?;
        // The networks of the wire: what precedes the last part of an address.
        let v4 = node.ipv4().to_string();
        let v6 = node.ipv6().to_string();
        let network = |text: &str, end: char| {
            let length = text.rfind(end).map_or(0, |at| at + 1);
            format!("Deleted {}", &text[..length])
        };
        Ok(Self {
            monitor,
            heard,
            starts: [network(&v4, '.'), network(&v6, ':')],
        })
    }

    /// Waits until it has forgotten enough of IPv4 and of IPv6.
    fn wait(&self, enough: impl Fn([usize; 2]) -> bool) -> Result<()> {
        let until = Instant::now() + HEALING;
        loop {
            let heard = std::fs::read_to_string(&self.heard)?;
            let counts = self.starts.each_ref().map(|start| {
                let lines = heard.lines().filter(|line| line.starts_with(start));
                lines.count()
            });
            if enough(counts) {
                eprintln!("  the kernel forgot {counts:?} neighbours, by family");
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "the kernel forgot {counts:?} neighbours, by family"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Forgotten {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

/// The gateway gets another Ethernet address and says nothing of it, as when one takes over from
/// another. Each client is a neighbour of its own, whose old address the kernel has to find dead.
fn gateway_changes(network: &mut Network, relay: usize) -> Result<()> {
    let wire = Node::Relay(relay).name();
    let show = format!("/sys/class/net/{wire}/address");
    let first = netns::said(netns::command(ROUTER, "cat").arg(&show))?;
    let first = first.trim();
    short_memory(&Patient::new(network, relay))?;
    let change = |address: &str| ip_in(ROUTER, &format!("link set {wire} address {address}\n"));
    let mut result = Ok(());
    for address in ["52:54:00:77:00:a1", first] {
        result = result.and_then(|()| {
            let after = format!("the gateway got the Ethernet address {address}");
            meanwhile(network, relay, |network| {
                change(address)?;
                Patient::new(network, relay).answers(&after)
            })?;
            let patient = Patient::new(network, relay);
            patient.is_healed(&after)?;
            let known = known(&patient)?;
            ensure!(known.contains(address), "after {after}: {known}");
            Ok(())
        });
    }
    // The card is found by its own.
    change(first)?;
    result
}

/// The host has a VLAN above the card that the relay has: tagged traffic passes the relay's program,
/// whether the card takes tags off and puts them on or not.
fn tagged_beside(network: &mut Network, relay: usize) -> Result<()> {
    let wire = Node::Relay(relay).name();
    let namespace = Node::Relay(relay).namespace();
    let patient = Patient::new(network, relay);
    let (near, far) = (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 1));
    patient.ip(&format!(
        "link add link eth0 name eth0.5 type vlan id 5\nlink set eth0.5 up\n\
         addr add {near}/24 dev eth0.5\n"
    ))?;
    ip_in(
        ROUTER,
        &format!(
            "link add link {wire} name tagged5 type vlan id 5\nlink set tagged5 up\n\
             addr add {far}/24 dev tagged5\n"
        ),
    )?;
    let mut result = Ok(());
    for setting in ["off", "on"] {
        let change = [
            "ethtool", "-K", "eth0", "rxvlan", setting, "txvlan", setting,
        ];
        if let Err(error) = patient.run(&change) {
            eprintln!("  the driver does not change VLAN offloads: {error:#}");
        }
        let shown = patient.run(&["ethtool", "-k", "eth0"])?;
        let shown: Vec<&str> = shown
            .lines()
            .filter(|line| line.contains("-vlan-offload"))
            .map(str::trim)
            .collect();
        let after = format!("VLAN offloads {setting}: {}", shown.join(", "));
        result = echoes(&namespace, near, far)
            .with_context(|| after.clone())
            .and_then(|()| patient.is_healed(&after));
        if result.is_err() {
            break;
        }
    }
    let _ = ip_in(ROUTER, "link del tagged5\n");
    let _ = patient.ip("link del eth0.5\n");
    result
}

/// Datagrams of full size go from the router to a namespace and back.
fn echoes(namespace: &str, near: Ipv4Addr, far: Ipv4Addr) -> Result<()> {
    /// A packet of 1500 bytes.
    const FULL: usize = 1500 - 28;
    let socket = Namespace::named(namespace)?.run(|| UdpSocket::bind((near, 7005)))??;
    let asker = Namespace::named(ROUTER)?.run(|| UdpSocket::bind((far, 0)))??;
    let short = Some(Duration::from_millis(500));
    socket.set_read_timeout(short)?;
    asker.set_read_timeout(short)?;
    let until = Instant::now() + HEALING;
    let mut back = 0;
    let mut buffer = [0; 2048];
    while back < 8 {
        ensure!(
            Instant::now() < until,
            "tagged datagrams do not pass: {back} came back"
        );
        asker.send_to(&[5; FULL], (near, 7005))?;
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        ensure!(length == FULL, "a tagged datagram has {length} bytes");
        socket.send_to(&buffer[..length], from)?;
        back += usize::from(asker.recv(&mut buffer).is_ok_and(|length| length == FULL));
    }
    Ok(())
}
