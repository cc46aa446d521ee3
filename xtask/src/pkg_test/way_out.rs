//! The container's wire, as systemd-networkd has it: an address and a gateway of both families. Whoever is
//! at the other end answers any name with the same address, at two ports, and hands out leases.

use super::checks::{said, until};
use anyhow::{Context, Result, bail, ensure};
use mixline_machines::container::Container;
use mixline_testnet::programs::find_tool;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The wire's end in the container.
pub const LINK: &str = "host0";
/// Who is at the other end.
pub const GATEWAY: &str = "198.18.0.1";
pub const GATEWAY6: &str = "3fff:18::1";
/// The port beside 53 at which it answers, of which a packet filter knows nothing.
pub const OTHER_PORT: u16 = 5300;
/// What it says any name has.
pub const ANSWER: &str = "192.0.2.77";
/// What systemd-networkd knows of the wire.
pub const NETWORK: &str = "/etc/systemd/network/10-host0.network";
/// How long one of them may take to begin.
const DNSMASQ: Duration = Duration::from_secs(20);

/// The programs at the other end. They end with this.
pub struct Outside {
    servers: Vec<Child>,
    leases: Option<Child>,
}

impl Outside {
    /// Gives both ends their addresses.
    pub fn make(container: &mut Container) -> Result<Self> {
        for address in [format!("{GATEWAY}/24"), format!("{GATEWAY6}/64")] {
            let done = there(container, "ip")?
                .args(["address", "add", &address, "dev", "outside", "nodad"])
                .output()
                .context("running ip")?;
            ensure!(done.status.success(), "{done:?}");
        }
        let mut outside = Self {
            servers: Vec::new(),
            leases: None,
        };
        for port in [53, OTHER_PORT] {
            let at = [format!("{GATEWAY}:{port}"), format!("[{GATEWAY6}]:{port}")];
            let port = format!("--port={port}");
            let any = format!("--address=/#/{ANSWER}");
            outside
                .servers
                .push(dnsmasq(container, &at, &[&port, &any, "--no-resolv"])?);
        }
        configure(container, "")?;
        said(
            container,
            "systemctl start systemd-networkd && networkctl reload",
        )?;
        is_there(container)?;
        Ok(outside)
    }

    /// Hands out leases from now on, with a route for the virtual network and one for all else.
    pub fn hand_out(&mut self, container: &Container) -> Result<()> {
        let routes = format!("--dhcp-option=121,10.0.0.0/8,{GATEWAY},0.0.0.0/0,{GATEWAY}");
        self.leases = Some(dnsmasq(
            container,
            &["0.0.0.0%outside:67".to_owned()],
            &[
                "--port=0",
                "--dhcp-range=198.18.0.100,198.18.0.110,2m",
                "--dhcp-authoritative",
                "--dhcp-leasefile=/dev/null",
                "--leasefile-ro",
                &format!("--dhcp-option=option:dns-server,{GATEWAY}"),
                &routes,
            ],
        )?);
        Ok(())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for server in self.servers.iter_mut().chain(&mut self.leases) {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A program of this host at the other end, which ends with this process.
fn there(container: &Container, program: &str) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "nsenter"])
        .arg(format!("--net={}", container.outside()?.display()))
        .arg(find_tool(program)?)
        .stdin(Stdio::null());
    Ok(command)
}

/// Starts it, and waits until it listens: what is sent from then on is answered.
fn dnsmasq(container: &Container, at: &[String], more: &[&str]) -> Result<Child> {
    let mut server = there(container, "dnsmasq")?
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
        ])
        .args(["--pid-file=", "--user=root", "--bind-interfaces"])
        .args(["--interface=outside", "--log-facility=/dev/null"])
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .context("running dnsmasq")?;
    let end = Instant::now() + DNSMASQ;
    while !listens(container, at)? {
        if let Some(status) = server.try_wait()? {
            bail!("dnsmasq {more:?}: {status}");
        }
        if Instant::now() > end {
            server.kill()?;
            server.wait()?;
            bail!("dnsmasq {more:?} does not listen");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(server)
}

/// Whether somebody at the other end listens at all of these, by UDP.
fn listens(container: &Container, at: &[String]) -> Result<bool> {
    let shown = there(container, "ss")?
        .arg("-Hlun")
        .output()
        .context("running ss")?;
    ensure!(shown.status.success(), "{shown:?}");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let there: Vec<&str> = shown.split_whitespace().collect();
    Ok(at.iter().all(|at| there.contains(&at.as_str())))
}

/// Writes the configuration down, with more lines in its section `Network`. Other routes come before its own.
pub fn configure(container: &mut Container, more: &str) -> Result<()> {
    said(
        container,
        &format!(
            "cat > {NETWORK} <<'EOF'\n[Match]\nName={LINK}\n[Network]\nAddress=198.18.0.2/24\n\
             Address=3fff:18::2/64\nIPv6AcceptRA=no\n\
             IPv6DuplicateAddressDetection=0\n{more}[Route]\nGateway={GATEWAY}\nMetric=2000\n[Route]\n\
             Gateway={GATEWAY6}\nMetric=2000\nEOF\nchmod 644 {NETWORK}"
        ),
    )
    .map(drop)
}

/// Waits until the wire can be used.
pub fn is_there(container: &mut Container) -> Result<()> {
    until(
        container,
        &format!(
            "ping -c 1 -W 1 {GATEWAY} && ping -c 1 -W 1 {GATEWAY6} && ip route show default | grep -q {LINK} && \
             ip -6 route show default | grep -q {LINK}"
        ),
    )
}

/// systemd-networkd has nothing to do with the wire any more, and the wire is gone.
pub fn end(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!("rm {NETWORK} && ip link set {LINK} down"),
    )
    .map(drop)
}
