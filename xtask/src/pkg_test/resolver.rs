//! The client beside systemd-resolved: what happens to either, and what is asked of whom meanwhile.
//!
//! A wire leads outside, and all questions of DNS that leave by it are written down: one about a name
//! under `.anon` fails the last check.

use super::checks::{Checks, SHORT, expect, said, until};
use super::network::{NAME, resolves};
use anyhow::{Result, bail};
use mixline_machines::container::Container;
use std::time::Duration;

/// The wire's end here, and the name server behind it, which does not answer.
const WIRE: &str = "out0";
const OUTSIDE: &str = "203.0.113.1";
/// A search domain that the wire brings.
const SEARCH: &str = "corp.example";
/// Where the questions are written down.
const LOG: &str = "/tmp/questions";
/// The link of the client's that systemd-resolved knows it by.
const LINK: &str = "mixline-dns";
/// How systemd-resolved asks for names of ours.
const ROUTED: &str = "resolvectl domain mixline-dns | grep -qF '~anon '";
/// What keeps the unit from being started again.
const DROP_IN: &str = "/run/systemd/system/mixline-client.service.d";

/// Runs the checks.
pub fn run(checks: &mut Checks, container: &mut Container) {
    checks.check("a wire leads outside", || wire(container));
    checks.check("what is no name is asked of nobody else", || {
        missing(container)
    });
    checks.check("`resolvectl revert` is put back", || reverted(container));
    checks.check(
        "systemd-resolved may be started again, and search domains may change",
        || restarted(container),
    );
    checks.check(
        "a host that goes over to resolv.conf alone is followed, and back",
        || goes_over(container),
    );
    checks.check("systemd-resolved that comes later is told", || {
        comes_later(container)
    });
    checks.check("a killed client is asked, and nobody else", || {
        killed(container)
    });
    checks.check("`down` takes away what it left", || down(container));
    checks.check("no question about a name of ours left by the wire", || {
        nothing_left(container)
    });
}

fn wire(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "ip netns add outside && ip link add {WIRE} type veth peer name in0 netns outside && \
             ip link set {WIRE} up && ip addr add 203.0.113.2/24 dev {WIRE} && \
             ip -n outside link set in0 up && ip -n outside addr add {OUTSIDE}/24 dev in0 && \
             ip route add default via {OUTSIDE} metric 50"
        ),
    )?;
    said(
        container,
        &format!(
            "systemd-run --quiet --unit=questions sh -c 'exec tcpdump --immediate-mode -l -n -i {WIRE} \
             port 53 > {LOG}'"
        ),
    )?;
    until(container, &format!("test -e {LOG}"), 10)?;
    said(
        container,
        &format!("resolvectl dns {WIRE} {OUTSIDE} && resolvectl domain {WIRE} {SEARCH}"),
    )?;
    asks_outside(container)
}

/// Waits until a question about another name has been written down.
fn asks_outside(container: &mut Container) -> Result<()> {
    until(
        container,
        &format!("timeout 2 dig +tries=1 +time=1 $RANDOM.example.org; grep -q 'example.org' {LOG}"),
        20,
    )
}

fn missing(container: &mut Container) -> Result<()> {
    until(
        container,
        "dig nosuch.anon | grep -q 'status: NXDOMAIN'",
        60,
    )?;
    let found = container.run(
        "getent hosts nosuch.anon; getent ahosts www.nosuch.anon",
        SHORT,
    )?;
    if found.code == 0 {
        bail!("a name that is not there has addresses: {}", found.output);
    }
    // Whoever appends a search domain by itself is told that there is no such name.
    until(
        container,
        &format!("dig nosuch.anon.{SEARCH} | grep -q 'status: NXDOMAIN'"),
        20,
    )?;
    // And whoever asks the server outside hears nothing.
    let around = container.run(
        &format!("timeout 3 dig +tries=1 +time=1 @{OUTSIDE} around.anon"),
        SHORT,
    )?;
    if around.code == 0 {
        bail!("somebody answers: {}", around.output);
    }
    Ok(())
}

fn reverted(container: &mut Container) -> Result<()> {
    said(container, ROUTED)?;
    said(container, &format!("resolvectl revert {LINK}"))?;
    until(container, ROUTED, 15)?;
    resolves_by_host(container, 20)
}

fn restarted(container: &mut Container) -> Result<()> {
    said(container, "systemctl restart systemd-resolved")?;
    until(container, ROUTED, 10)?;
    resolves_by_host(container, 20)?;
    said(
        container,
        &format!(
            "resolvectl dns {WIRE} {OUTSIDE} && resolvectl domain {WIRE} {SEARCH} other.example"
        ),
    )?;
    until(
        container,
        "resolvectl domain mixline-dns | grep -qF '~anon.other.example'",
        10,
    )
}

fn goes_over(container: &mut Container) -> Result<()> {
    mode(container, "resolved")?;
    // Another program writes the file that was a link, and systemd-resolved ends.
    said(
        container,
        &format!(
            "rm /etc/resolv.conf && echo 'nameserver {OUTSIDE}' > /etc/resolv.conf && \
             systemctl stop systemd-resolved"
        ),
    )?;
    mode(container, "resolv-conf")?;
    until(
        container,
        &format!("dig +short A {NAME} | grep -q '^10\\.'"),
        20,
    )?;
    said(
        container,
        &format!("mixline-client status | grep -q 'other domains go to {OUTSIDE}'"),
    )?;
    asks_outside(container)?;
    said(
        container,
        "systemctl start systemd-resolved && \
         ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
    )?;
    mode(container, "resolved")?;
    resolves_by_host(container, 20)
}

fn comes_later(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "systemctl stop mixline-client systemd-resolved && rm /etc/resolv.conf && \
             echo 'nameserver {OUTSIDE}' > /etc/resolv.conf"
        ),
    )?;
    container.expect("systemctl start mixline-client", Duration::from_secs(90))?;
    mode(container, "resolv-conf")?;
    resolves(container, 60)?;
    // Programs that ask it by D-Bus do so although the file does not lead to it.
    said(container, "systemctl start systemd-resolved")?;
    until(container, ROUTED, 15)?;
    until(
        container,
        &format!("resolvectl query {NAME} | grep -q {LINK}"),
        20,
    )?;
    mode(container, "resolv-conf")?;
    said(
        container,
        "ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
    )?;
    mode(container, "resolved")?;
    said(
        container,
        &format!("resolvectl dns {WIRE} {OUTSIDE} && resolvectl domain {WIRE} {SEARCH}"),
    )
    .map(drop)
}

fn killed(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "mkdir -p {DROP_IN} && printf '[Service]\\nRestart=no\\n' > {DROP_IN}/dead.conf && \
             systemctl daemon-reload && systemctl kill --signal=KILL mixline-client"
        ),
    )?;
    until(
        container,
        "test $(systemctl is-active mixline-client) = failed",
        10,
    )?;
    for moment in ["killed", "with systemd-resolved started again"] {
        // It refuses at once, and does not wait for somebody outside.
        let asked = container.run(
            &format!("{ROUTED} && timeout 4 dig +tries=1 +time=3 $RANDOM.anon"),
            SHORT,
        )?;
        if !asked.output.contains("status: SERVFAIL") {
            bail!("{moment}: {}", asked.output);
        }
        let found = container.run(
            &format!(
                "resolvectl flush-caches; timeout 10 getent hosts other.anon || \
                 timeout 10 getent hosts {NAME}"
            ),
            SHORT,
        )?;
        if found.code == 0 {
            bail!("{moment}: {}", found.output);
        }
        said(container, "systemctl restart systemd-resolved")?;
        said(
            container,
            &format!("resolvectl dns {WIRE} {OUTSIDE} && resolvectl domain {WIRE} {SEARCH}"),
        )?;
    }
    asks_outside(container)
}

fn down(container: &mut Container) -> Result<()> {
    said(container, &format!("ip link show {LINK}"))?;
    container.run("mixline-client down", SHORT)?;
    expect(
        container,
        "ip -o link show | grep -c mixline; ip rule show | grep -c 28009; readlink /etc/resolv.conf",
        "0\n0\n/run/systemd/resolve/stub-resolv.conf",
    )?;
    said(
        container,
        &format!(
            "rm {DROP_IN}/dead.conf && systemctl daemon-reload && systemctl reset-failed mixline-client"
        ),
    )?;
    container.expect("systemctl start mixline-client", Duration::from_secs(90))?;
    resolves_by_host(container, 60)
}

fn nothing_left(container: &mut Container) -> Result<()> {
    said(container, "systemctl stop questions")?;
    let left = said(
        container,
        &format!("grep -i '\\banon\\b' {LOG} | head -n 5; true"),
    )?;
    said(
        container,
        &format!("ip link del {WIRE} && ip netns del outside"),
    )?;
    if !left.trim().is_empty() {
        bail!("{left}");
    }
    Ok(())
}

/// Waits until a program that knows nothing of Mixline finds the name.
fn resolves_by_host(container: &mut Container, seconds: u64) -> Result<()> {
    until(
        container,
        &format!(
            "getent ahostsv4 {NAME} | grep -q '^10\\.' && resolvectl query {NAME} | grep -q {LINK}"
        ),
        seconds,
    )
}

/// Waits until the client says that it is asked in this way.
fn mode(container: &mut Container, mode: &str) -> Result<()> {
    until(
        container,
        &format!("mixline-client status --json | grep -q '\"mode\": \"{mode}\"'"),
        20,
    )
}
