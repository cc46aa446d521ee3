//! systemd-resolved under `lock: always`, before a client was up: names are asked of nobody.
//!
//! It asks a server outside at a port of its own, which the packet filter has nothing to say about, and
//! which would answer any name.

use super::attempts;
use super::checks::{Checks, SHORT, expect, said, until};
use super::resolver::{LINK, ROUTED, resolves_by_host};
use super::way_out::{ANSWER, GATEWAY, LINK as WIRE, OTHER_PORT};
use anyhow::{Result, bail};
use mixline_machines::container::Container;
use std::time::Duration;

/// What systemd-resolved is configured by.
const DROP_IN: &str = "/run/systemd/resolved.conf.d";

/// Runs the checks.
pub fn run(checks: &mut Checks, container: &mut Container) {
    checks.check("a server outside is asked at a port of its own", || {
        wire(container)
    });
    checks.check(
        "`lock: always`: a systemd-resolved that starts asks nobody for names, without D-Bus",
        || before_it_starts(container),
    );
    checks.check("and is told again by D-Bus, whatever happens to it", || {
        by_dbus(container)
    });
    checks.check("and the client comes up", || comes_up(container));
}

fn wire(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "mkdir -p {DROP_IN} && \
             printf '[Resolve]\\nDNS={GATEWAY}:{OTHER_PORT}\\nDomains=~.\\n' > {DROP_IN}/outside.conf"
        ),
    )
    .map(drop)
}

/// Puts the host into the state of a machine that has just booted, as far as this can be: nothing was
/// ever told to systemd-resolved, which does not run.
fn before_it_starts(container: &mut Container) -> Result<()> {
    attempts::paused(container, |container| {
        said(
            container,
            "systemctl stop mixline-client && mixline-client unlock && systemctl stop systemd-resolved && \
             rm -rf /run/systemd/resolve && echo 'lock: always' >> /etc/mixline/client.yaml && \
             systemctl restart mixline-client-lock",
        )
        .map(drop)
    })?;
    expect(
        container,
        &format!(
            "ip -o addr show {LINK} | grep -c 10.0.0.53/32; stat --format=%a /run/systemd/resolve/netif/*"
        ),
        "1\n644",
    )?;
    said(
        container,
        "systemctl show -p Before mixline-client-lock | grep -q systemd-resolved.service",
    )?;
    // So that nobody tells it by D-Bus; the host stays closed.
    said(
        container,
        "systemctl stop mixline-client-lock && systemctl start systemd-resolved",
    )?;
    for name in ["first.anon", "-x 10.9.8.7", "-x fd12::1"] {
        let asked = container.run(&format!("dig +tries=1 +time=20 @127.0.0.53 {name}"), SHORT)?;
        if !asked.output.contains("status: SERVFAIL") {
            bail!("{name}: {}", asked.output);
        }
    }
    said(container, ROUTED)?;
    expect(
        container,
        "stat --format='%U %a' /run/systemd/resolve /run/systemd/resolve/netif",
        "systemd-resolve 755\nsystemd-resolve 700",
    )?;
    // It keeps what it is told of other links, too.
    said(
        container,
        &format!(
            "resolvectl domain {WIRE} kept.example && systemctl restart systemd-resolved && \
             resolvectl domain {WIRE} | grep -q kept.example && {ROUTED}"
        ),
    )?;
    // All else is asked outside.
    until(
        container,
        &format!(
            "timeout 2 dig +short +tries=1 +time=1 @127.0.0.53 $RANDOM.example.org | grep -q {ANSWER}"
        ),
    )
}

fn by_dbus(container: &mut Container) -> Result<()> {
    // Until it is told again it asks the server at the port that the filter knows nothing of.
    attempts::paused(container, |container| {
        said(container, &format!("resolvectl revert {LINK}"))?;
        said(container, "systemctl start mixline-client-lock")?;
        until(container, ROUTED)?;
        said(container, &format!("resolvectl revert {LINK}"))?;
        until(container, ROUTED)
    })?;
    said(container, &format!("resolvectl domain {WIRE} corp.example"))?;
    until(
        container,
        &format!("resolvectl domain {LINK} | grep -qF '~anon.corp.example'"),
    )?;
    said(
        container,
        &format!("systemctl restart systemd-resolved && {ROUTED}"),
    )?;
    let asked = container.run("dig +tries=1 +time=20 second.anon", SHORT)?;
    if !asked.output.contains("status: SERVFAIL") {
        bail!("{}", asked.output);
    }
    Ok(())
}

fn comes_up(container: &mut Container) -> Result<()> {
    container.expect("systemctl start mixline-client", Duration::from_secs(90))?;
    resolves_by_host(container)?;
    said(
        container,
        &format!(
            "sed -i '/^lock:/d' /etc/mixline/client.yaml && systemctl restart mixline-client-lock && \
             rm {DROP_IN}/outside.conf && systemctl restart systemd-resolved && mixline-client reload"
        ),
    )?;
    resolves_by_host(container)
}
