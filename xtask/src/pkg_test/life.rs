//! What befalls units that run: reloads, deaths, newer versions.

use super::attempts;
use super::checks::{Checks, SHORT, expect, said, until};
use super::network::{registered, resolves};
use super::packages;
use anyhow::{Context, Result, bail};
use mixline_machines::container::Container;
use mixline_testnet::Programs;
use std::thread;
use std::time::Duration;

/// How exposed a unit may be by `systemd-analyze security`, 0 to 10.
const EXPOSURE: f64 = 2.0;
/// How soon a unit is killed that gives no sign of life, seconds; the least that a daemon takes.
const WATCHDOG: u64 = 10;

/// Whether programs try to get out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// As [`super::attempts`] does, but where the host may be open.
    AllTheTime,
    /// Nobody does.
    Never,
}

/// Runs the checks.
pub fn run(checks: &mut Checks, container: &mut Container) {
    checks.check("no unit is more exposed than 2.0", || exposure(container));
    checks.check("no unit's memory is written to a file", || cores(container));
    for name in Programs::NAMES {
        checks.check(&format!("{name} reloads, and says what it does"), || {
            reload(container, name)
        });
    }
    checks.check(
        "what a relay reloads counts, and what is wrong does not",
        || reload_relay(container),
    );
    checks.check("a relay that hangs is killed and started again", || {
        hangs(container)
    });
    for name in Programs::NAMES {
        checks.check(&format!("{name}, killed, is started again"), || {
            killed(container, name)
        });
    }
    checks.check("the network is whole after that", || resolves(container));
}

/// Installs the packages that come after, while programs try to get out or nobody does.
pub fn upgrades(checks: &mut Checks, container: &mut Container, tried: Tried) {
    checks.check(
        "a newer relay replaces an older one while paths lead through it",
        || upgrade(container),
    );
    checks.check("newer ones replace directory and client", || {
        upgrade_others(container, tried)
    });
}

/// Has the relay go over to XDP.
pub fn goes_over_to_xdp(checks: &mut Checks, container: &mut Container) {
    checks.check("`port: xdp` works with the unit's rights", || {
        xdp(container)
    });
}

fn exposure(container: &mut Container) -> Result<()> {
    for name in Programs::NAMES {
        let said = container.run(
            &format!("systemd-analyze security --no-pager {name}"),
            SHORT,
        )?;
        let value: f64 = said
            .output
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for "))
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok())
            .with_context(|| said.output.clone())?;
        println!("          {name}: {value}");
        if value > EXPOSURE {
            bail!("{name}: {value}");
        }
    }
    Ok(())
}

fn cores(container: &mut Container) -> Result<()> {
    for name in Programs::NAMES.into_iter().chain(["mixline-client-lock"]) {
        expect(
            container,
            &format!("systemctl show --value --property=LimitCORE {name}"),
            "0",
        )
        .context(name)?;
    }
    Ok(())
}

/// The main process of a unit.
pub fn main_process(container: &mut Container, name: &str) -> Result<u32> {
    let text = said(
        container,
        &format!("systemctl show --value --property=MainPID {name}"),
    )?;
    text.trim()
        .parse()
        .with_context(|| format!("main process of {name}: {text}"))
}

/// Whether a unit runs with another process than before.
pub fn anew(name: &str, before: u32) -> String {
    format!(
        "pid=$(systemctl show --value --property=MainPID {name}) && [ $pid != 0 ] && [ $pid != {before} ] \
         && systemctl is-active {name}"
    )
}

fn killed(container: &mut Container, name: &str) -> Result<()> {
    let before = main_process(container, name)?;
    said(
        container,
        &format!("systemctl reset-failed {name}; kill -9 {before}"),
    )?;
    until(container, &anew(name, before))?;
    expect(
        container,
        &format!("systemctl show --value --property=NRestarts {name}"),
        "1",
    )?;
    if name == "mixline-relay" {
        registered(container)?;
    }
    Ok(())
}

fn reload(container: &mut Container, name: &str) -> Result<()> {
    let before = main_process(container, name)?;
    said(container, &format!("systemctl reload {name}"))?;
    expect(
        container,
        &format!("systemctl is-active {name}; systemctl show --value --property=NRestarts {name}"),
        "active\n0",
    )?;
    if main_process(container, name)? != before {
        bail!("another process runs");
    }
    said(
        container,
        &format!("systemctl show --value --property=StatusText {name} | grep ."),
    )
    .map(drop)
}

fn reload_relay(container: &mut Container) -> Result<()> {
    said(
        container,
        "echo 'capacity: 4321' >> /etc/mixline/relay.yaml && systemctl reload mixline-relay",
    )?;
    until(
        container,
        "mixline-relay status --config /etc/mixline/relay.yaml --json | grep -q '\"capacity\": 4321'",
    )?;
    said(
        container,
        "cp /etc/mixline/relay.yaml /tmp/right && echo 'nonsense: 1' >> /etc/mixline/relay.yaml",
    )?;
    let wrong = container.run("systemctl reload mixline-relay", SHORT)?;
    said(container, "cp /tmp/right /etc/mixline/relay.yaml")?;
    if wrong.code == 0 {
        bail!("`systemctl reload` takes a wrong configuration for right");
    }
    expect(container, "systemctl is-active mixline-relay", "active")?;
    registered(container)
}

fn hangs(container: &mut Container) -> Result<()> {
    let drop_in = "/run/systemd/system/mixline-relay.service.d";
    said(
        container,
        &format!(
            "mkdir -p {drop_in} && printf '[Service]\\nWatchdogSec={WATCHDOG}\\n' > {drop_in}/watchdog.conf \
             && systemctl daemon-reload && systemctl restart mixline-relay"
        ),
    )?;
    let before = main_process(container, "mixline-relay")?;
    said(container, &format!("kill -STOP {before}"))?;
    let end = until(container, &anew("mixline-relay", before));
    said(
        container,
        &format!(
            "rm {drop_in}/watchdog.conf && systemctl daemon-reload && systemctl restart mixline-relay"
        ),
    )?;
    end?;
    said(
        container,
        "journalctl --no-pager --unit=mixline-relay --output=cat | grep -q 'Watchdog timeout'",
    )?;
    registered(container)
}

fn upgrade(container: &mut Container) -> Result<()> {
    resolves(container)?;
    paths(container)?;
    no_older_paths(container)?;
    let identity = "cat /var/lib/mixline-relay/identity.key | sha256sum";
    let before = said(container, identity)?;
    let [directory, relay, client] = Programs::NAMES;
    let old = main_process(container, relay)?;
    let others = (
        main_process(container, directory)?,
        main_process(container, client)?,
    );
    let began = said(container, "date +%s")?;
    packages::upgrade(container, relay)?;
    expect(container, "systemctl is-active mixline-relay", "active")?;
    if main_process(container, relay)? == old {
        bail!("it was not started anew");
    }
    expect(container, identity, before.trim())?;
    // It ended in order: nothing that it knew was thrown away.
    let log = said(
        container,
        &format!(
            "journalctl --no-pager --unit=mixline-relay --output=cat --since=@{}",
            began.trim()
        ),
    )?;
    if log.contains("did not stop in order") || log.contains("Failed with result") {
        bail!("the older one did not end in order:\n{log}");
    }
    registered(container)?;
    paths(container)?;
    resolves(container)?;
    still_opens(container)?;
    let now = (
        main_process(container, directory)?,
        main_process(container, client)?,
    );
    if now != others {
        bail!("directory or client was started anew as well");
    }
    Ok(())
}

/// Waits until paths lead through the relay.
fn paths(container: &mut Container) -> Result<()> {
    until(
        container,
        "mixline-relay status --config /etc/mixline/relay.yaml | grep -qE '^paths +[1-9]'",
    )
}

/// Waits until no more cells come that the relay has no onion key for: those of paths that led through it before
/// it died last. Who has them hears of its new keys from the directory, which may have died as well.
fn no_older_paths(container: &mut Container) -> Result<()> {
    let mut before = None;
    for _ in 0..20 {
        let now = verdicts(container)?.count("bad_header");
        if before == Some(now) {
            return Ok(());
        }
        before = Some(now);
        thread::sleep(Duration::from_secs(3));
    }
    bail!("cells of older paths go on coming");
}

/// Fails if cells came that the relay has no onion key for: those of paths from before an upgrade, which
/// are probed several times a second, if it has thrown its keys away.
fn still_opens(container: &mut Container) -> Result<()> {
    let verdicts = verdicts(container)?;
    let goes_on = verdicts.count("forwarded") + verdicts.count("delivered") > 0;
    if verdicts.count("bad_header") > 0 || !goes_on {
        bail!("paths from before do not go on: {}", verdicts.0);
    }
    Ok(())
}

/// What has become of the datagrams that came to the relay.
struct Verdicts(serde_json::Value);

impl Verdicts {
    fn count(&self, verdict: &str) -> u64 {
        self.0[verdict].as_u64().unwrap_or(0)
    }
}

fn verdicts(container: &mut Container) -> Result<Verdicts> {
    let status = said(
        container,
        "mixline-relay status --config /etc/mixline/relay.yaml --json",
    )?;
    let mut status: serde_json::Value = serde_json::from_str(&status).context("reading status")?;
    Ok(Verdicts(status["verdicts"].take()))
}

fn upgrade_others(container: &mut Container, tried: Tried) -> Result<()> {
    let [directory, _, client] = Programs::NAMES;
    let replace = |container: &mut Container, name: &str| {
        let old = main_process(container, name)?;
        packages::upgrade(container, name)?;
        until(container, &anew(name, old))
    };
    replace(container, directory)?;
    match tried {
        // The host is open from the end of one client to the start of the next unless `lock: always`.
        Tried::AllTheTime => {
            attempts::paused(container, |container| replace(container, client))?;
        }
        Tried::Never => replace(container, client)?,
    }
    resolves(container)
}

fn xdp(container: &mut Container) -> Result<()> {
    said(
        container,
        "sed -i '/^port:/d' /etc/mixline/relay.yaml && echo 'port: xdp' >> /etc/mixline/relay.yaml",
    )?;
    // Where the host lets nobody raise it, the unit's limit of locked memory means nothing; and the
    // test would be about the host.
    let limit = said(
        container,
        "grep 'Max locked memory' /proc/$(systemctl show --value --property=MainPID mixline-relay)/limits",
    )?;
    if !limit.contains("unlimited") {
        println!("          this host limits locked memory for all: with CAP_IPC_LOCK instead");
        said(
            container,
            "mkdir -p /run/systemd/system/mixline-relay.service.d && \
             printf '[Service]\\nAmbientCapabilities=CAP_IPC_LOCK\\nCapabilityBoundingSet=CAP_IPC_LOCK\\n' \
             > /run/systemd/system/mixline-relay.service.d/lock.conf && systemctl daemon-reload",
        )?;
    }
    said(container, "systemctl restart mixline-relay")?;
    let works = until(
        container,
        "mixline-relay status --config /etc/mixline/relay.yaml --json | grep -q '\"kind\": \"xdp\"'",
    );
    if works.is_err() {
        let said = said(
            container,
            "journalctl --no-pager --unit=mixline-relay --output=cat --lines=5",
        )?;
        bail!("{said}");
    }
    said(container, "ip link show wire0 | grep -q xdp")?;
    said(
        container,
        "systemctl stop mixline-relay && ! ip link show wire0 | grep -q xdp",
    )?;
    Ok(())
}
