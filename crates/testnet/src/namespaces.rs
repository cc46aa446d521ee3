//! The network's namespaces and the wires between them, as one whole.
//!
//! Everything here works by name, so that it also removes what a killed run left behind.

use crate::cards::{CardWire, name_when_back};
use crate::error::{Result, StepContext as _, SystemContext as _};
use crate::guests;
use crate::netns::{self, ip_in};
use crate::topology::{Node, ROUTER};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Where `ip netns exec` looks for files to lay over those in `/etc`.
pub(crate) const NETNS_ETC: &str = "/etc/netns";

/// A namespace beside the network that leads nowhere, for what is compared with it.
pub const BESIDE: &str = "mixline-beside";

/// What tests put behind the client's host: a container, and pods of a cluster.
pub const CONTAINER: &str = "mixline-container";
/// See [`CONTAINER`].
pub const PODS: [&str; 2] = ["mixline-pod1", "mixline-pod2"];

/// Kernel settings of every namespace: addresses usable at once (no duplicate address detection),
/// no filter on return paths (answers may leave by another address than the one asked).
pub(crate) const SETTINGS: &str = "\
for conf in all default; do
  echo 0 > /proc/sys/net/ipv4/conf/$conf/rp_filter
  echo 0 > /proc/sys/net/ipv6/conf/$conf/accept_dad
  echo 0 > /proc/sys/net/ipv6/conf/$conf/accept_ra
  echo 0 > /proc/sys/net/ipv6/conf/$conf/disable_ipv6
done
";

/// What the router needs beyond [`SETTINGS`].
const FORWARDING: &str = "\
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
";

/// Makes all namespaces and wires, some of which may be network cards that are there already. Fails
/// when one of them already exists.
pub fn create(cards: &[CardWire]) -> Result<()> {
    let mut batch = format!("netns add {ROUTER}\n");
    for node in Node::all() {
        let (namespace, wire) = (node.namespace(), node.name());
        let _ = writeln!(batch, "netns add {namespace}");
        match cards.iter().find(|card| card.node == node) {
            Some(card) => {
                let (near, far) = (name_when_back(&card.near)?, name_when_back(&card.far)?);
                let _ = writeln!(batch, "link set {near} netns {namespace} name eth0");
                let _ = writeln!(batch, "link set {far} netns {ROUTER} name {wire}");
            }
            None => {
                let _ = writeln!(
                    batch,
                    "link add eth0 netns {namespace} type veth peer name {wire} netns {ROUTER}"
                );
            }
        }
    }
    netns::ip(&batch).step("making the namespaces")?;
    shell(ROUTER, &format!("{SETTINGS}{FORWARDING}"))?;

    let mut router = String::from("link set lo up\n");
    for node in Node::all() {
        shell(&node.namespace(), SETTINGS)?;
        let mut own = String::from("link set lo up\nlink set eth0 up\n");
        let _ = writeln!(own, "addr add {}/24 dev eth0", node.ipv4());
        let _ = writeln!(own, "addr add {}/64 dev eth0 nodad", node.ipv6());
        let _ = writeln!(own, "route add default via {}", node.gateway_ipv4());
        let _ = writeln!(own, "route add default via {}", node.gateway_ipv6());
        ip_in(&node.namespace(), &own).step(format!("setting up {node}"))?;

        let _ = writeln!(router, "link set {node} up");
        let _ = writeln!(router, "addr add {}/24 dev {node}", node.gateway_ipv4());
        let _ = writeln!(
            router,
            "addr add {}/64 dev {node} nodad",
            node.gateway_ipv6()
        );
    }
    ip_in(ROUTER, &router).step("setting up the router")?;
    for node in [Node::Service, Node::Client] {
        write_etc(&node.namespace())?;
    }
    Ok(())
}

/// Makes a namespace with nothing in it but a loopback interface.
pub fn create_lonely(namespace: &str) -> Result<()> {
    netns::add(namespace)?;
    shell(namespace, SETTINGS)?;
    ip_in(namespace, "link set lo up\n")?;
    write_etc(namespace)
}

/// Removes one namespace with what is in it, processes included.
pub fn remove_one(namespace: &str) -> Result<()> {
    kill_processes(namespace);
    if netns::exists(namespace) {
        netns::delete(namespace)?;
    }
    let _ = fs::remove_dir_all(Path::new(NETNS_ETC).join(namespace));
    let _ = fs::remove_dir(NETNS_ETC); // only when it is empty
    Ok(())
}

/// Removes all that there is of the network: processes inside, wires, namespaces, files in `/etc`.
pub fn remove() -> Result<()> {
    let names: Vec<String> = Node::all()
        .map(Node::namespace)
        .chain([ROUTER, BESIDE, CONTAINER].map(str::to_owned))
        .chain(PODS.map(str::to_owned))
        .chain(guests::ALL.map(|guest| guest.namespace.to_owned()))
        .collect();
    for namespace in &names {
        remove_one(namespace).step(format!("removing {namespace}"))?;
    }
    Ok(())
}

/// The namespace's own `/etc/resolv.conf`.
pub fn resolv_conf(namespace: &str) -> PathBuf {
    Path::new(NETNS_ETC).join(namespace).join("resolv.conf")
}

/// Switches segmentation in the kernel on or off on every wire. Off, each datagram crosses alone,
/// and a capture shows what a wire of copper would; on, a veth carries trains of datagrams as one
/// packet, which is what makes so many hops on one machine fast.
pub fn set_offloads(on: bool) -> Result<()> {
    let value = if on { "on" } else { "off" };
    for node in Node::all() {
        for (namespace, device) in [
            (node.namespace(), "eth0".to_owned()),
            (ROUTER.into(), node.name()),
        ] {
            netns::said(
                netns::command(&namespace, "ethtool")
                    .args(["-K", &device, "tso", value, "gso", value, "gro", "off"])
                    .args(["tx-udp-segmentation", value]),
            )?;
        }
    }
    Ok(())
}

/// Lays a resolver configuration of its own over the host's, which leads outside: an empty one that
/// the client fills, and a name service switch that asks files and DNS only (a resolver reached by
/// socket would be the host's).
fn write_etc(namespace: &str) -> Result<()> {
    let directory = Path::new(NETNS_ETC).join(namespace);
    fs::create_dir_all(&directory).file("making", &directory)?;
    let resolv_conf = directory.join("resolv.conf");
    fs::write(&resolv_conf, "# no resolver but Mixline's\n").file("writing", &resolv_conf)?;
    if let Ok(switch) = fs::read_to_string("/etc/nsswitch.conf") {
        let switch: String = switch
            .lines()
            .map(|line| {
                let hosts = line.trim_start().starts_with("hosts:");
                if hosts {
                    "hosts: files dns\n".to_owned()
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
        let path = directory.join("nsswitch.conf");
        fs::write(&path, switch).file("writing", &path)?;
    }
    Ok(())
}

/// Kills what runs in a namespace. What is in a namespace of this name was started by a
/// testnet or by its user to look around in it, and has no network left once it is gone.
fn kill_processes(namespace: &str) {
    for pid in netns::processes(namespace) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
}

/// Runs shell lines in a namespace.
pub(crate) fn shell(namespace: &str, script: &str) -> Result<()> {
    netns::said(netns::command(namespace, "sh").args(["-euc", script]))?;
    Ok(())
}
