//! The client beside systemd-resolved: what happens to either, and what is asked of whom meanwhile. The
//! server outside would answer any name.

use super::attempts;
use super::checks::{Checks, SHORT, expect, said, until};
use super::network::{NAME, resolves};
use super::way_out::{ANSWER, GATEWAY, LINK as WIRE};
use anyhow::{Result, bail};
use mixline_machines::container::Container;
use std::time::Duration;

/// A search domain that the wire brings.
const SEARCH: &str = "corp.example";
/// The link of the client's that systemd-resolved knows it by.
pub const LINK: &str = "mixline-dns";
/// How systemd-resolved asks for names of ours.
pub const ROUTED: &str = "resolvectl domain mixline-dns | grep -qF '~anon '";
/// That it does so, and whom it asks.
const SERVED: &str = "resolvectl domain mixline-dns | grep -qF '~anon ' && \
     resolvectl dns mixline-dns | grep -q '10\\.0\\.0\\.53'";
/// What keeps the unit from being started again.
pub const DROP_IN: &str = "/run/systemd/system/mixline-client.service.d";

/// Runs the checks.
pub fn run(checks: &mut Checks, container: &mut Container) {
    checks.check("systemd-resolved asks a server outside", || wire(container));
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
    checks.check(
        "without the directory names are refused, and asked of nobody else",
        || directory_away(container),
    );
    checks.check("a killed client is asked, and nobody else", || {
        killed(container)
    });
    checks.check("`down` takes away what it left", || down(container));
}

/// systemd-resolved hears of the server outside, and asks it.
fn wire(container: &mut Container) -> Result<()> {
    told_of_the_wire(container)?;
    asks_outside(container)
}

/// What systemd-resolved knows of the wire is lost when it starts again.
fn told_of_the_wire(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!("resolvectl dns {WIRE} {GATEWAY} && resolvectl domain {WIRE} {SEARCH}"),
    )
    .map(drop)
}

/// Waits until another name is found outside.
fn asks_outside(container: &mut Container) -> Result<()> {
    until(
        container,
        &format!("timeout 2 dig +short +tries=1 +time=1 $RANDOM.example.org | grep -q {ANSWER}"),
    )
}

fn missing(container: &mut Container) -> Result<()> {
    until(container, "dig nosuch.anon | grep -q 'status: NXDOMAIN'")?;
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
    )?;
    // And whoever asks the server outside hears nothing.
    let around = container.run(
        &format!("timeout 3 dig +tries=1 +time=1 @{GATEWAY} around.anon"),
        SHORT,
    )?;
    if around.code == 0 {
        bail!("somebody answers: {}", around.output);
    }
    Ok(())
}

fn reverted(container: &mut Container) -> Result<()> {
    for undone in ["revert LINK", "domain LINK ''", "dns LINK ''"] {
        said(container, SERVED)?;
        said(
            container,
            &format!("resolvectl {}", undone.replace("LINK", LINK)),
        )?;
        // The unit of the client may not look into what systemd-resolved keeps, and hears of it all the same.
        until(container, SERVED)?;
    }
    resolves_by_host(container)
}

fn restarted(container: &mut Container) -> Result<()> {
    said(container, "systemctl restart systemd-resolved")?;
    until(container, ROUTED)?;
    resolves_by_host(container)?;
    said(
        container,
        &format!(
            "resolvectl dns {WIRE} {GATEWAY} && resolvectl domain {WIRE} {SEARCH} other.example"
        ),
    )?;
    until(
        container,
        "resolvectl domain mixline-dns | grep -qF '~anon.other.example'",
    )
}

fn goes_over(container: &mut Container) -> Result<()> {
    mode(container, "resolved")?;
    // Another program writes the file that was a link, and systemd-resolved ends.
    said(
        container,
        &format!(
            "rm /etc/resolv.conf && echo 'nameserver {GATEWAY}' > /etc/resolv.conf && \
             systemctl stop systemd-resolved"
        ),
    )?;
    mode(container, "resolv-conf")?;
    until(
        container,
        &format!("dig +short A {NAME} | grep -q '^10\\.'"),
    )?;
    said(
        container,
        &format!("mixline-client status | grep -q 'other domains go to {GATEWAY}'"),
    )?;
    asks_outside(container)?;
    said(
        container,
        "systemctl start systemd-resolved && \
         ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
    )?;
    mode(container, "resolved")?;
    resolves_by_host(container)
}

fn comes_later(container: &mut Container) -> Result<()> {
    attempts::paused(container, |container| {
        said(
            container,
            &format!(
                "systemctl stop mixline-client systemd-resolved && rm /etc/resolv.conf && \
                 echo 'nameserver {GATEWAY}' > /etc/resolv.conf"
            ),
        )?;
        container.expect("systemctl start mixline-client", Duration::from_secs(90))?;
        Ok(())
    })?;
    mode(container, "resolv-conf")?;
    resolves(container)?;
    // Programs that ask it by D-Bus do so although the file does not lead to it.
    said(container, "systemctl start systemd-resolved")?;
    until(container, ROUTED)?;
    until(
        container,
        &format!("resolvectl query {NAME} | grep -q {LINK}"),
    )?;
    mode(container, "resolv-conf")?;
    said(
        container,
        "ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
    )?;
    mode(container, "resolved")?;
    told_of_the_wire(container)
}

fn directory_away(container: &mut Container) -> Result<()> {
    said(container, "systemctl stop mixline-directory")?;
    let refused = refused(container);
    container.expect("systemctl start mixline-directory", Duration::from_secs(90))?;
    refused?;
    resolves(container)?;
    resolves_by_host(container)
}

/// Nobody can be asked for a name that was not asked for before, and others are.
fn refused(container: &mut Container) -> Result<()> {
    until(
        container,
        "mixline-client resolve --json away$RANDOM.anon | grep -qE '\"step\": ?\"directory\"'",
    )?;
    let asked = container.run("dig +tries=1 +time=25 away$RANDOM.anon", SHORT)?;
    if !asked.output.contains("status: SERVFAIL") {
        bail!("{}", asked.output);
    }
    let found = container.run("timeout 25 getent hosts away.nosuch.anon", SHORT)?;
    if found.code == 0 {
        bail!(
            "a name that nobody can tell has an address: {}",
            found.output
        );
    }
    asks_outside(container)
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
    )?;
    for moment in ["killed", "with systemd-resolved started again"] {
        // It refuses at once, and does not wait for somebody outside.
        let asked = container.run(
            &format!("{ROUTED} && dig +tries=1 +time=20 $RANDOM.anon"),
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
        told_of_the_wire(container)?;
    }
    asks_outside(container)
}

fn down(container: &mut Container) -> Result<()> {
    said(container, &format!("ip link show {LINK}"))?;
    attempts::paused(container, |container| {
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
        Ok(())
    })?;
    resolves_by_host(container)
}

/// Waits until a program that knows nothing of Mixline finds the name.
pub fn resolves_by_host(container: &mut Container) -> Result<()> {
    until(
        container,
        &format!(
            "getent ahostsv4 {NAME} | grep -q '^10\\.' && resolvectl query {NAME} | grep -q {LINK}"
        ),
    )
}

/// Waits until the client says that it is asked in this way.
pub fn mode(container: &mut Container, mode: &str) -> Result<()> {
    until(
        container,
        &format!("mixline-client status --json | grep -q '\"mode\": \"{mode}\"'"),
    )
}
