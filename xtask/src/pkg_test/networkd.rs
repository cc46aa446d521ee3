//! systemd-networkd, which has the container's wire and takes rules and routes for its own that it has not
//! made (networkd.conf(5): `ManageForeignRoutingPolicyRules`, `ManageForeignRoutes`).

use super::checks::{Checks, expect, said, until};
use super::network::NAME;
use super::way_out::{self, GATEWAY, LINK, Outside};
use anyhow::{Context, Result, ensure};
use mixline_machines::container::Container;
use mixline_testnet::programs::find_tool;
use std::process::Command;
use std::time::{Duration, Instant};

/// A name that the network outside knows.
pub const OTHER: &str = "elsewhere.example";
/// What of the client's a host has: rules, routes, links, addresses, both families.
const WHOLE: &str = "ip rule | grep -q 'to 10.0.0.0/8 lookup 28009' \
     && ip -6 rule | grep -q 'to fd00::/8 lookup 28009' \
     && ip route show table 28009 | grep -q '^10.0.0.0/8 dev mixline0' \
     && ip route show table 28009 | grep -q '^unreachable' \
     && ip -6 route show table 28009 | grep -q '^fd00::/8 dev mixline0' \
     && ip -6 route show table 28009 | grep -q '^unreachable' \
     && ip -4 -o addr show mixline0 | grep -q ' 10\\.' && ip -6 -o addr show mixline0 | grep -q ' fd' \
     && ip -o addr show mixline-dns | grep -q 10.0.0.53/32";

/// Runs the checks.
pub fn run(checks: &mut Checks, container: &mut Container, outside: &mut Outside) {
    checks.check(
        "systemd-networkd that has the wire leaves all of ours, or it is back at once",
        || fixed(container),
    );
    checks.check("also with a lease that routes the virtual network", || {
        leased(container, outside)
    });
    checks.check("it ends, and the host stays closed", || ended(container));
}

/// Fails unless everything of the client's is there at once, and names are found.
fn whole(container: &mut Container, after: &str) -> Result<()> {
    until(container, WHOLE).with_context(|| after.to_owned())?;
    filter(container).with_context(|| after.to_owned())?;
    until(
        container,
        &format!("mixline-client resolve {NAME} && getent ahostsv4 {NAME} | grep -q '^10\\.'"),
    )
    .with_context(|| after.to_owned())
}

/// Both tables of the packet filter are there.
fn filter(container: &Container) -> Result<()> {
    let namespace = format!("--net={}", container.network().display());
    let said = Command::new("nsenter")
        .args([
            &namespace,
            &find_tool("nft")?.to_string_lossy().into_owned(),
        ])
        .args(["list", "tables"])
        .output()
        .context("running nft")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for table in ["inet mixline", "arp mixline"] {
        ensure!(said.contains(table), "no table {table} in {said}");
    }
    Ok(())
}

/// systemd-networkd has the wire, and nothing else.
fn managed(container: &mut Container) -> Result<()> {
    until(
        container,
        &format!(
            "networkctl --no-pager --no-legend list {LINK} | grep -qE ' configured *$' && \
             networkctl --no-pager --no-legend list mixline0 | grep -q unmanaged"
        ),
    )
}

/// What is done to it, and what comes of it.
fn stirred(container: &mut Container, commands: &[&str]) -> Result<()> {
    for command in commands {
        let began = Instant::now();
        container.expect(&command.replace("LINK", LINK), Duration::from_secs(60))?;
        whole(container, command)?;
        println!(
            "          {command}: whole after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        // The command may have ended before systemd-networkd did anything.
        managed(container)?;
        whole(container, &format!("{command}, once it is done"))?;
    }
    Ok(())
}

fn fixed(container: &mut Container) -> Result<()> {
    managed(container)?;
    whole(container, "before anything")?;
    // A change that it takes over, and what configures the link from the beginning.
    way_out::configure(container, "Address=198.18.0.3/24\n")?;
    stirred(
        container,
        &[
            "networkctl reload",
            "networkctl reconfigure LINK",
            "systemctl restart systemd-networkd",
            "networkctl down LINK && networkctl up LINK",
        ],
    )?;
    said(
        container,
        &format!("ip -o addr show {LINK} | grep -q 198.18.0.3/24"),
    )?;
    way_out::is_there(container)
}

/// A gateway that has the host route virtual addresses to it (RFC 3442), as in CVE-2024-3661.
fn leased(container: &mut Container, outside: &mut Outside) -> Result<()> {
    outside.hand_out(container)?;
    said(
        container,
        &format!(
            "printf '[Match]\\nName={LINK}\\n[Network]\\nDHCP=ipv4\\nAddress=3fff:18::2/64\\nIPv6AcceptRA=no\\n\
             [DHCPv4]\\nUseDomains=yes\\n' > {}",
            way_out::NETWORK
        ),
    )?;
    stirred(container, &["networkctl reload"])?;
    until(
        container,
        &format!(
            "ip route show table main | grep -q '^10.0.0.0/8 via {GATEWAY} dev {LINK} proto dhcp' && \
             resolvectl dns {LINK} | grep -q {GATEWAY}"
        ),
    )?;
    until(
        container,
        "mixline-client status | grep -q '10.0.0.0/8 by host0 is overruled'",
    )?;
    // Its own names are found there, and ours are not asked of it, which would answer anything.
    until(
        container,
        &format!("getent ahostsv4 {OTHER} | grep -q '^192.0.2.77'"),
    )?;
    expect(container, "getent ahosts nosuch.anon", "")?;
    stirred(
        container,
        &[
            "networkctl renew LINK",
            "networkctl reconfigure LINK",
            "systemctl restart systemd-networkd",
        ],
    )?;
    way_out::configure(container, "")?;
    stirred(container, &["networkctl reload"])?;
    way_out::is_there(container)
}

fn ended(container: &mut Container) -> Result<()> {
    said(
        container,
        "systemctl stop systemd-networkd.socket systemd-networkd",
    )?;
    whole(container, "systemd-networkd ended")
}
