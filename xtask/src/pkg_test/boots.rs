//! `lock: always` in a machine that really boots, in order or after a power cut, with the client enabled or
//! not: nothing of ours leaves by its wire, which is captured since before it boots.
//!
//! Programs try from the first moment on, before anything that has to do with a network, and until
//! all is killed at the end. systemd-resolved is given a server at a port of which the packet
//! filter knows nothing, so that what it was told before it started is all that keeps it from asking there.

use super::attempts;
use super::capture::Capture;
use super::checks::{Checks, SHORT, expect, said, until};
use super::leaks::{Kind, Leak};
use super::network;
use super::resolver::resolves_by_host;
use super::way_out::{self, ANSWER, GATEWAY, OTHER_PORT};
use anyhow::{Result, bail, ensure};
use mixline_machines::container::{Container, End};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The unit that tries. Nothing comes before it, and nothing ends it but the end of all.
const UNIT: &str = "early-attempts";
/// How often it has to have tried once there is a network.
const ROUNDS: u32 = 2;
/// How long it may take until all has left an open host once.
const TRIED: Duration = Duration::from_secs(300);

/// Runs the checks.
pub fn run(checks: &mut Checks, container: &mut Container) {
    checks.check("programs try from the first moment of a boot on", || {
        prepare(container)
    });
    checks.check("a host without the lock leaks when it boots", || {
        open(container)
    });
    for (client, end) in [
        ("disabled", End::PowerOff),
        ("disabled", End::PowerCut),
        ("enabled", End::PowerOff),
        ("enabled", End::PowerCut),
    ] {
        let what = format!("`lock: always`, client {client}, {end:?}: closed from boot on");
        checks.check(&what, || closed(container, client, end));
    }
    checks.check("the client of a machine that has booted comes up", || {
        comes_up(container)
    });
}

fn prepare(container: &mut Container) -> Result<()> {
    attempts::write(container)?;
    way_out::configure(
        container,
        &format!("DNS={GATEWAY}:{OTHER_PORT}\nDomains=~.\n"),
    )?;
    said(
        container,
        &format!(
            "printf '[Unit]\\nDefaultDependencies=no\\n[Service]\\nExecStart={}\\nNice=10\\n\
             [Install]\\nWantedBy=sysinit.target\\n' > /etc/systemd/system/{UNIT}.service && \
             systemctl enable {UNIT} 2>&1 && systemctl disable mixline-client 2>&1",
            attempts::SCRIPT
        ),
    )
    .map(drop)
}

/// Boots the machine, and waits until programs have tried with and without a network.
fn boot(container: &mut Container, end: End) -> Result<()> {
    container.boot_again(end)?;
    way_out::is_there(container)?;
    expect(container, &format!("systemctl is-active {UNIT}"), "active")?;
    // It was there before the network.
    said(
        container,
        &format!(
            "before() {{ systemctl show --value --property=ActiveEnterTimestampMonotonic $1; }}; \
             test $(before {UNIT}) -lt $(before systemd-networkd)"
        ),
    )?;
    more_rounds(container)?;
    // Other names are asked outside, by systemd-resolved at the other port.
    until(
        container,
        &format!("dig +short +time=1 $RANDOM.example | grep -q {ANSWER}"),
    )
}

/// Waits until programs have tried some more.
fn more_rounds(container: &mut Container) -> Result<()> {
    let already = attempts::rounds(container)?;
    until(
        container,
        &format!("test $(cat /run/attempts) -ge {}", already + ROUNDS),
    )
}

/// What the checks below would see.
fn open(container: &mut Container) -> Result<()> {
    let capture = Capture::on_the_wire(container)?;
    boot(container, End::PowerOff)?;
    let mut leaks = capture.leaks(&[])?;
    // A machine that has much to do gives who tries little time.
    let end = Instant::now() + TRIED;
    while let Some(missing) = missing(&leaks)? {
        ensure!(Instant::now() < end, "an open host showed no {missing}");
        let capture = Capture::on_the_wire(container)?;
        more_rounds(container)?;
        leaks.extend(capture.leaks(&[])?);
    }
    expect(container, "dig +short @127.0.0.53 first.anon", ANSWER)?;
    said(
        container,
        "echo 'lock: always' >> /etc/mixline/client.yaml && systemctl restart mixline-client-lock",
    )
    .map(drop)
}

/// What has not left of all that is tried, if anything.
fn missing(leaks: &[Leak]) -> Result<Option<String>> {
    let seen = |is: &dyn Fn(&Kind) -> bool| leaks.iter().any(|leak| is(&leak.kind));
    for (is_ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
        if !seen(&|kind| matches!(kind, Kind::Packet { to, .. } if to.is_ipv4() == is_ipv4)) {
            return Ok(Some(format!("packet of {family}")));
        }
    }
    for (server, wanted) in [
        (GATEWAY, "anon"),
        (GATEWAY, "10.in-addr"),
        (way_out::GATEWAY6, "anon"),
    ] {
        let server: IpAddr = server.parse()?;
        let question = |kind: &Kind| matches!(kind, Kind::Question { to, labels, .. } if *to == server && *labels == wanted);
        if !seen(&question) {
            return Ok(Some(format!("question with {wanted} to {server}")));
        }
    }
    Ok(None)
}

fn closed(container: &mut Container, client: &str, end: End) -> Result<()> {
    let enable = client.trim_end_matches('d');
    said(
        container,
        &format!("systemctl {enable} mixline-client 2>&1"),
    )?;
    let capture = Capture::on_the_wire(container)?;
    boot(container, end)?;
    let state = match client {
        "enabled" => "activating",
        _ => "inactive",
    };
    // The client waits for a network that is online.
    until(
        container,
        &format!("test $(systemctl is-active mixline-client) = {state}"),
    )?;
    expect(
        container,
        "systemctl is-active mixline-client-lock",
        "active",
    )?;
    let asked = container.run("dig +tries=1 +time=20 @127.0.0.53 first.anon", SHORT)?;
    if !asked.output.contains("status: SERVFAIL") {
        bail!("{}", asked.output);
    }
    capture.end(&[])
}

/// The relays and the directory are there again, and the client with them.
fn comes_up(container: &mut Container) -> Result<()> {
    let capture = Capture::start(container)?;
    network::again(container)?;
    resolves_by_host(container)?;
    capture.end(&[])?;
    said(
        container,
        &format!(
            "systemctl disable --now {UNIT} 2>&1; rm /etc/systemd/system/{UNIT}.service && systemctl daemon-reload && \
             sed -i '/^lock:/d' /etc/mixline/client.yaml && systemctl restart mixline-client-lock && \
             mixline-client reload"
        ),
    )?;
    way_out::configure(container, "")?;
    said(container, "networkctl reload")?;
    way_out::is_there(container)?;
    said(
        container,
        "systemctl stop systemd-networkd.socket systemd-networkd",
    )?;
    resolves_by_host(container)
}
