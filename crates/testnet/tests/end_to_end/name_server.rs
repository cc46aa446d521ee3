//! A name server outside, as a provider or a Pi-hole is one: a real dnsmasq, and what it was asked.

use crate::capture::nothing_but;
use crate::frames::Frame;
use crate::leaks::VIRTUAL;
use crate::tools::{eventually, on_client, output, succeed};
use anyhow::{Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::process::{Process, Program};
use mixline_testnet::topology::{Node, ROUTER};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// What it has an address for: this name, and all below it.
pub const OTHER: &str = "other.example";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// A dnsmasq that answers for [`OTHER`], and says of all else below `example`, `lan` and `anon` that there
/// is no such name. It ends with the value.
pub struct NameServer {
    _process: Process,
    log: PathBuf,
}

impl NameServer {
    /// At all addresses of the router's end of the client's wire, now and later.
    pub fn outside(network: &Network) -> Result<Self> {
        let listens = format!("--interface={}", Node::Client);
        Self::start(network, ROUTER, &[&listens, "--bind-dynamic"])
    }

    /// In a namespace; `more` says at least where it listens.
    pub fn start(network: &Network, namespace: &str, more: &[&str]) -> Result<Self> {
        let address = format!("--address=/{OTHER}/{ADDRESS}");
        let own = [
            "--no-resolv",
            "--local=/example/",
            "--local=/lan/",
            "--local=/anon/",
            &address,
        ];
        Self::asking_others(network, namespace, &[&own[..], more].concat())
    }

    /// One that has no name itself; `more` says where it listens, and whom it asks.
    pub fn asking_others(network: &Network, namespace: &str, more: &[&str]) -> Result<Self> {
        let log = network
            .directory()
            .join(format!("logs/dnsmasq-{namespace}.log"));
        let _ = fs::remove_file(&log);
        let fixed = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
            "--user=root",
            "--pid-file=",
            "--log-queries",
            "--log-facility=-",
        ];
        let arguments = fixed.iter().chain(more).copied();
        let mut process = Program {
            namespace: namespace.into(),
            executable: "dnsmasq".into(),
            arguments: arguments.map(Into::into).collect(),
            environment: Vec::new(),
            log: log.clone(),
        }
        .start()?;
        eventually("dnsmasq", 10, || {
            process.check_running()?;
            Ok(fs::read_to_string(&log)?.contains("started"))
        })?;
        Ok(Self {
            _process: process,
            log,
        })
    }

    /// Whether it was asked for a name, in whatever case.
    pub fn was_asked(&self, name: &str) -> Result<bool> {
        Ok(self.times_asked(name)? > 0)
    }

    /// How often it was asked for a name, in whatever case.
    pub fn times_asked(&self, name: &str) -> Result<usize> {
        let log = fs::read_to_string(&self.log)?.to_lowercase();
        let questions = log.lines().filter(|line| line.contains(": query["));
        let about = format!("] {name} from ");
        Ok(questions.filter(|line| line.contains(&about)).count())
    }

    /// All that it logs.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks, as any program on the client's host does, for a name that this server has, and sees that
    /// it was asked. `what` is in the name: it is asked for once.
    pub fn answers(&self, what: &str) -> Result<()> {
        let name = format!("{what}.{OTHER}");
        // With the root's dot: a host that searches `anon` asks for that first, and hears nothing.
        let whole = format!("{name}.");
        let found = succeed(on_client(20, "getent").args(["ahostsv4", &whole]))?;
        ensure!(found.starts_with(&ADDRESS.to_string()), "{name}: {found}");
        ensure!(self.was_asked(&name)?, "{name}: somebody else answers");
        Ok(())
    }
}

/// What any program on the client's host finds for a name: its addresses, each once; none if there is no
/// such name.
pub fn addresses_of(name: &str) -> Result<Vec<IpAddr>> {
    let found = output(on_client(40, "getent").args(["ahosts", name]))?;
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    let mut all: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let address = line.split_whitespace().next().unwrap_or_default().parse()?;
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// Runs `work`, in which nothing virtual leaves either host, and no question but those about other names
/// that the client's host asks of these servers. `but` is what else may, as a filter of captures, if anything.
pub fn asking(
    network: &mut Network,
    servers: &[IpAddr],
    but: &str,
    work: impl FnOnce(&mut Network) -> Result<()>,
) -> Result<()> {
    let wires = [Node::Client, Node::Service].map(|node| (ROUTER, node.name(), "in"));
    let filter = match but {
        "" => VIRTUAL.to_owned(),
        but => format!("({VIRTUAL}) and not ({but})"),
    };
    let may = |frame: &Frame<'_>| match frame {
        Frame::Udp {
            to, ports, payload, ..
        }
        | Frame::Tcp {
            to, ports, payload, ..
        } => ports[1] == 53 && servers.contains(to) && !is_about_ours(payload),
        _ => false,
    };
    nothing_but(network, &wires, &filter, may, work)
}

/// Whether the label `anon` is in there, in whatever case.
fn is_about_ours(payload: &[u8]) -> bool {
    let label = b"\x04anon";
    payload
        .windows(label.len())
        .any(|bytes| bytes.eq_ignore_ascii_case(label))
}
