//! The relay's unit under systemd of a real machine: what it may do, and what befalls it.

use super::appliance::Lab;
use crate::pkg_test::checks::Checks;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// How exposed the unit may be by `systemd-analyze security`, 0 to 10.
const EXPOSURE: f64 = 2.0;
/// CAP_IPC_LOCK, with which limits of locked memory mean nothing (capabilities(7)).
const IPC_LOCK: u32 = 14;
/// Where a newer package is put.
const NEWER: &str = "/root/newer.deb";

/// Runs the checks.
pub fn run(checks: &mut Checks, lab: &mut Lab, newer: &Path) {
    checks.check(
        "the unit runs with Type=notify, and says what it does",
        || {
            lab.expect("systemctl is-active mixline-relay", "active")?;
            lab.expect(
                "systemctl show --value --property=Type mixline-relay",
                "notify",
            )?;
            lab.said("systemctl show --value --property=StatusText mixline-relay | grep .")
                .map(drop)
        },
    );
    checks.check(
        "LimitMEMLOCK=infinity holds for its user, without CAP_IPC_LOCK",
        || memory(lab),
    );
    checks.check("it is no more exposed than 2.0", || exposure(lab));
    checks.check("it reloads", || {
        let before = process(lab)?;
        lab.said("systemctl reload mixline-relay")?;
        if process(lab)? != before {
            bail!("another process runs");
        }
        Ok(())
    });
    checks.check("it restarts, and registers on AF_XDP again", || {
        anew(lab, |lab| {
            lab.said("systemctl restart mixline-relay").map(drop)
        })?;
        lab.registered_anew()?;
        lab.zero_copy()
    });
    checks.check("killed, it is started again by systemd", || {
        anew(lab, |lab| {
            lab.said("kill -9 $(systemctl show --value --property=MainPID mixline-relay)")
                .map(drop)
        })?;
        lab.expect(
            "systemctl show --value --property=NRestarts mixline-relay",
            "1",
        )?;
        lab.registered_anew()?;
        lab.zero_copy()
    });
    checks.check(
        "a newer package replaces the older one, with the same keys",
        || upgrade(lab, newer),
    );
    checks.check(
        "removed, it is stopped, and configuration and keys stay",
        || {
            lab.said("dpkg --remove mixline-relay")?;
            lab.expect("systemctl is-active mixline-relay", "inactive")?;
            lab.said(
                "test ! -e /usr/bin/mixline-relay && test -s /etc/mixline/relay.yaml && \
             test -s /var/lib/mixline-relay/identity.key && ! ip link | grep -q xdp",
            )
            .map(drop)
        },
    );
    checks.check("purged, nothing of it is left but its user", || {
        lab.said("dpkg --purge mixline-relay")?;
        lab.expect(
            "ls -d /etc/mixline /var/lib/mixline-relay /run/mixline-relay* 2>/dev/null",
            "",
        )?;
        lab.expect("getent passwd mixline-relay | cut -d: -f1", "mixline-relay")?;
        lab.expect("systemctl is-system-running", "running")
    });
}

/// The number of its process.
fn process(lab: &mut Lab) -> Result<u32> {
    let text = lab.said("systemctl show --value --property=MainPID mixline-relay")?;
    match text.trim().parse() {
        Ok(0) | Err(_) => bail!("no process: {text}"),
        Ok(process) => Ok(process),
    }
}

/// Does something after which another process is to run.
fn anew(lab: &mut Lab, act: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let before = process(lab)?;
    act(lab)?;
    lab.until_there(
        &format!(
            "pid=$(systemctl show --value --property=MainPID mixline-relay) && [ $pid != 0 ] && \
             [ $pid != {before} ] && systemctl is-active mixline-relay"
        ),
        120,
    )
}

fn memory(lab: &mut Lab) -> Result<()> {
    let process = process(lab)?;
    lab.expect(&format!("ps -o user= -p {process}"), "mixline-relay")
        .or_else(|_| {
            lab.expect(
                &format!("stat --format=%U /proc/{process}"),
                "mixline-relay",
            )
        })?;
    let limits = lab.said(&format!("grep '^Max locked memory' /proc/{process}/limits"))?;
    let words: Vec<&str> = limits.split_whitespace().collect();
    if words.get(3..5) != Some(&["unlimited", "unlimited"]) {
        bail!("{limits}");
    }
    for kind in ["CapEff", "CapPrm", "CapAmb", "CapBnd"] {
        let set = lab.said(&format!("grep '^{kind}:' /proc/{process}/status"))?;
        let set = set.split_whitespace().nth(1).unwrap_or_default();
        let bits = u64::from_str_radix(set, 16).context("a set of capabilities")?;
        if bits & (1 << IPC_LOCK) != 0 {
            bail!("{kind} {set} has CAP_IPC_LOCK");
        }
        println!("          {kind} {set}");
    }
    // More than any default limit: it is in use.
    let locked = lab.said(&format!(
        "grep '^VmLck\\|^VmPin\\|^VmRSS' /proc/{process}/status"
    ))?;
    println!(
        "          {}",
        locked.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

fn exposure(lab: &mut Lab) -> Result<()> {
    let said = lab.said("systemd-analyze security --no-pager mixline-relay")?;
    let value: f64 = said
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for "))
        .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok())
        .with_context(|| said.clone())?;
    println!("          {value}");
    if value > EXPOSURE {
        bail!("{value}");
    }
    Ok(())
}

fn upgrade(lab: &mut Lab, newer: &Path) -> Result<()> {
    let keys = "sha256sum < /var/lib/mixline-relay/identity.key";
    let before = lab.said(keys)?;
    lab.send(newer, NEWER)?;
    anew(lab, |lab| {
        lab.said(&format!("dpkg --install {NEWER}")).map(drop)
    })?;
    lab.expect(
        "dpkg-query --show --showformat='${Status} ${Version}' mixline-relay",
        &format!("install ok installed {}-2", env!("CARGO_PKG_VERSION")),
    )?;
    lab.expect(keys, before.trim())?;
    lab.registered_anew()
}
