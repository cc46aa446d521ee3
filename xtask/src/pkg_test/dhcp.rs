//! Networks that hand out another name server while the client is up: by the scripts of dhclient, and by
//! NetworkManager.
//!
//! A dnsmasq at the other end of a wire hands out leases that are renewed every few seconds, and answers
//! names.

use super::checks::{Checks, expect, said, until};
use super::network::{NAME, resolves};
use super::resolver::{mode, resolves_by_host};
use anyhow::Result;
use mixline_machines::container::Container;
use std::time::Duration;

/// The wire's end here.
const WIRE: &str = "lan0";
/// The two servers that are handed out, one after the other. Both answer.
const FIRST: &str = "198.51.100.1";
const SECOND: &str = "198.51.100.2";
/// A name that they know.
const OTHER: &str = "printer.example";

/// Runs the checks.
pub fn run(checks: &mut Checks, container: &mut Container) {
    checks.check("a wire has a DHCP server", || wire(container));
    checks.check(
        "what dhclient writes is taken back, with the server of the lease",
        || dhclient(container),
    );
    checks.check(
        "NetworkManager's, too, and it leaves the host closed",
        || network_manager(container),
    );
    checks.check("NetworkManager that speaks to systemd-resolved", || {
        with_resolved(container)
    });
    checks.check("the wire goes, and the host is as it was", || {
        gone(container)
    });
}

/// Has the server hand out a name server from now on.
fn hand_out(container: &mut Container, server: &str) -> Result<()> {
    said(
        container,
        &format!(
            "systemctl stop lan-server 2>/dev/null; systemd-run --quiet --unit=lan-server \
             -p NetworkNamespacePath=/run/netns/lan dnsmasq --keep-in-foreground --conf-file=/dev/null \
             --no-hosts --no-resolv --pid-file= --user=root --bind-interfaces --interface=lan1 \
             --dhcp-leasefile=/tmp/lan-leases --dhcp-range=198.51.100.10,198.51.100.20,2m \
             --dhcp-option-force=option:T1,5 --dhcp-option=option:dns-server,{server} \
             --dhcp-authoritative --address=/{OTHER}/192.0.2.7 --local=/#/ --ptr-record=5.0.1.10.in-addr.arpa,{OTHER}"
        ),
    )
    .map(drop)
}

fn wire(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "ip netns add lan && ip link add {WIRE} type veth peer name lan1 netns lan && \
             ip -n lan link set lo up && ip -n lan link set lan1 up && \
             ip -n lan addr add {FIRST}/24 dev lan1 && ip -n lan addr add {SECOND}/24 dev lan1 && \
             ip link set {WIRE} up"
        ),
    )?;
    hand_out(container, FIRST)
}

/// Waits until the client asks this server for other names, and is asked itself for all.
fn follows(container: &mut Container, server: &str) -> Result<()> {
    until(
        container,
        &format!("mixline-client status | grep -q 'other domains go to {server}$'"),
    )?;
    until(
        container,
        "grep -q '^nameserver 10\\.' /etc/resolv.conf && ! grep -q '^nameserver 198' /etc/resolv.conf",
    )?;
    answers(container)
}

/// Whether both kinds of names are found.
fn answers(container: &mut Container) -> Result<()> {
    until(
        container,
        &format!("getent ahostsv4 {NAME} | grep -q '^10\\.'"),
    )?;
    until(
        container,
        &format!("getent ahostsv4 {OTHER} | grep -q '^192.0.2.7'"),
    )
}

/// Whether the network's own addresses inside the virtual network have their names, and others have not.
fn answers_reverse(container: &mut Container) -> Result<()> {
    // Who configures the interface takes away what is not its own.
    said(
        container,
        &format!("ip addr replace 10.1.0.7/16 dev {WIRE}"),
    )?;
    until(
        container,
        &format!("getent hosts 10.1.0.5 | grep -q {OTHER}"),
    )?;
    said(
        container,
        &format!(
            "resolved=$(mixline-client resolve {NAME} | sed -n 's/^ipv4  *//p'); getent hosts $resolved | grep -q {NAME}"
        ),
    )?;
    said(container, "! getent hosts 10.99.98.97").map(drop)
}

/// Names are looked up without a pause while something happens.
fn busy(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "systemctl stop lan-busy 2>/dev/null; rm -f /tmp/busy; systemd-run --quiet --unit=lan-busy sh -c \
             'while sleep 0.05; do getent ahostsv4 {NAME} >> /tmp/busy; getent hosts nosuch.anon; \
             getent hosts 10.99.98.97; done'"
        ),
    )
    .map(drop)
}

/// A host whose programs ask by resolv.conf alone.
fn without_resolved(container: &mut Container) -> Result<()> {
    // As long as the file leads to it, the client starts it again.
    said(
        container,
        "rm /etc/resolv.conf && echo 'nameserver 192.0.2.99' > /etc/resolv.conf && \
         systemctl stop systemd-resolved",
    )?;
    mode(container, "resolv-conf")
}

fn dhclient(container: &mut Container) -> Result<()> {
    without_resolved(container)?;
    busy(container)?;
    // Its exit hooks of other packages are for systemd-resolved, which does not run.
    container.expect(
        &format!("dhclient -v -pf /run/dhclient.pid -lf /tmp/dhclient.leases {WIRE} 2>&1"),
        Duration::from_secs(60),
    )?;
    said(
        container,
        &format!("ip -4 -o addr show {WIRE} | grep -q 198.51.100."),
    )?;
    follows(container, FIRST)?;
    hand_out(container, SECOND)?;
    follows(container, SECOND)?;
    said(container, "test -s /tmp/busy")?;
    answers_reverse(container)?;
    // A lease that is given back.
    container.expect(
        &format!("dhclient -r -pf /run/dhclient.pid -lf /tmp/dhclient.leases {WIRE} 2>&1"),
        Duration::from_secs(60),
    )?;
    until(container, "grep -q '^nameserver 10\\.' /etc/resolv.conf")?;
    resolves(container)
}

fn network_manager(container: &mut Container) -> Result<()> {
    hand_out(container, FIRST)?;
    manage(container, "default")?;
    follows(container, FIRST)?;
    hand_out(container, SECOND)?;
    follows(container, SECOND)?;
    // It restarts, and takes nothing that is not its own.
    container.expect("systemctl restart NetworkManager", Duration::from_secs(60))?;
    until(
        container,
        "ip rule | grep -q 'to 10.0.0.0/8 lookup 28009' && \
         ip route show table 28009 | grep -q '10.0.0.0/8 dev mixline0'",
    )?;
    follows(container, SECOND)
}

/// Starts NetworkManager, which writes names down in this way, with a connection for the wire.
fn manage(container: &mut Container, dns: &str) -> Result<()> {
    said(
        container,
        &format!(
            "mkdir -p /run/NetworkManager/conf.d && printf '[main]\\ndns={dns}\\nrc-manager=file\\n\
             no-auto-default=*\\n' > /run/NetworkManager/conf.d/test.conf && \
             systemctl unmask NetworkManager.service NetworkManager-dispatcher.service 2>&1"
        ),
    )?;
    container.expect("systemctl restart NetworkManager", Duration::from_secs(60))?;
    let known = container.run("nmcli -g NAME connection", Duration::from_secs(30))?;
    if !known.output.contains("lan") {
        said(
            container,
            &format!(
                "nmcli connection add type ethernet ifname {WIRE} con-name lan ipv6.method ignore"
            ),
        )?;
    }
    said(container, &format!("nmcli device set {WIRE} managed yes"))?;
    container.expect("nmcli connection up lan", Duration::from_secs(60))?;
    Ok(())
}

fn with_resolved(container: &mut Container) -> Result<()> {
    // One that runs writes the file.
    said(
        container,
        "systemctl stop NetworkManager && systemctl start systemd-resolved && \
         ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
    )?;
    mode(container, "resolved")?;
    manage(container, "systemd-resolved")?;
    until(
        container,
        &format!("resolvectl dns {WIRE} | grep -q {SECOND}"),
    )?;
    resolves_by_host(container)?;
    hand_out(container, FIRST)?;
    until(
        container,
        &format!("resolvectl dns {WIRE} | grep -q {FIRST}"),
    )?;
    resolves_by_host(container)?;
    answers(container)?;
    said(
        container,
        &format!("ip addr replace 10.1.0.7/16 dev {WIRE}"),
    )?;
    answers_reverse(container)
}

fn gone(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "systemctl stop lan-busy; nmcli connection delete lan; \
             systemctl stop NetworkManager NetworkManager-dispatcher; \
             systemctl mask NetworkManager.service NetworkManager-dispatcher.service 2>&1; \
             rm -rf /run/NetworkManager/conf.d /var/lib/NetworkManager/*; systemctl stop lan-server; \
             ip link del {WIRE} && ip netns del lan"
        ),
    )?;
    expect(
        container,
        "readlink /etc/resolv.conf",
        "/run/systemd/resolve/stub-resolv.conf",
    )?;
    resolves_by_host(container)
}
