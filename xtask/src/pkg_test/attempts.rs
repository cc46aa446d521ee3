//! Programs in the container that would leak all the time if they could: they ask names, and send to
//! virtual addresses.

use super::checks::{expect, said, until};
use super::network::NAME;
use super::way_out::{GATEWAY, GATEWAY6};
use anyhow::{Result, ensure};
use mixline_machines::container::Container;

/// The script, and the number of its rounds so far, which ends with the machine.
pub const SCRIPT: &str = "/root/attempts";
const ROUNDS: &str = "/run/attempts";
/// Its unit.
const UNIT: &str = "attempts";
/// The fewest rounds that show anything.
const FEWEST: u32 = 3;

/// Names below `.anon`: one that there is, others, and one with a search domain behind it. Virtual addresses of
/// both families: UDP, TCP, ICMP.
fn script() -> String {
    format!(
        r#"#!/bin/bash
round=0
while :; do
    round=$((round + 1))
    octets=$((RANDOM % 256)).$((1 + RANDOM % 254))
    for address in 10.44.$octets fd44::$RANDOM; do
        echo x > /dev/udp/$address/9
        timeout 0.3 bash -c "> /dev/tcp/$address/80" &
        ping -c 1 -W 0.3 $address &
        timeout 1.2 getent hosts $address &
    done
    for question in "@{GATEWAY} around$round.anon" "@{GATEWAY} -x 10.44.$octets" \
        "+tcp @{GATEWAY6} tcp$round.anon.corp.example"; do
        timeout 1.2 dig +tries=1 +time=1 $question &
    done
    timeout 1.2 getent ahosts nosuch$round.anon &
    timeout 1.2 getent hosts {NAME} &
    wait
    echo $round > {ROUNDS}
    sleep 0.2
done >/dev/null 2>&1
"#
    )
}

/// Puts the script where it can be run.
pub fn write(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "cat > {SCRIPT} <<'EOF'\n{}EOF\nchmod 755 {SCRIPT}",
            script()
        ),
    )
    .map(drop)
}

/// Starts them, and waits until they have tried.
pub fn start(container: &mut Container) -> Result<()> {
    write(container)?;
    go_on(container)
}

fn go_on(container: &mut Container) -> Result<()> {
    said(
        container,
        // So that the kernel does not try for minutes. A check that failed may have left the unit.
        &format!(
            "sysctl -qw net.ipv4.tcp_orphan_retries=1; systemctl stop {UNIT} 2>/dev/null; \
             systemctl reset-failed {UNIT} 2>/dev/null; rm -f {ROUNDS}; \
             systemd-run --quiet --unit={UNIT} --nice=10 {SCRIPT}"
        ),
    )?;
    until(container, &format!("test -s {ROUNDS}"))
}

/// How often they have tried.
pub fn rounds(container: &mut Container) -> Result<u32> {
    let rounds = said(container, &format!("cat {ROUNDS} 2>/dev/null || echo 0"))?;
    Ok(rounds.trim().parse()?)
}

/// Ends them; fails if they have not tried to the end.
pub fn end(container: &mut Container) -> Result<()> {
    expect(container, &format!("systemctl is-active {UNIT}"), "active")?;
    until(container, &format!("test $(cat {ROUNDS}) -ge {FEWEST}"))?;
    said(container, &format!("systemctl stop {UNIT}")).map(drop)
}

/// What the kernel has yet to send for programs that are gone: questions over TCP that the filter drops.
const LEFT: &str = "ss -Htan | grep -vE '^(LISTEN|TIME-WAIT|FIN-WAIT-2)' | grep -E ':53( |$)'";

/// Does what opens the host, and closes it again, while nobody tries.
pub fn paused(
    container: &mut Container,
    work: impl FnOnce(&mut Container) -> Result<()>,
) -> Result<()> {
    let rounds = rounds(container)?;
    ensure!(rounds > 0, "nothing was tried before");
    said(container, &format!("systemctl stop {UNIT}"))?;
    until(container, &format!("! {LEFT}"))?;
    work(container)?;
    go_on(container)
}
