//! What an operator does once the packages are installed: a network of a directory, a relay among others
//! and a client by their units, on addresses of one interface.

use super::attempts;
use super::capture::{Capture, around};
use super::checks::{Checks, expect, said, until};
use super::init;
use anyhow::{Context, Result, bail};
use mixline_machines::container::Container;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Relays beside the one by its unit: as few as a network may have, so that each path leads through it.
const OTHERS: std::ops::RangeInclusive<u8> = 2..=3;
/// Where the directory listens.
pub const DIRECTORY: &str = "172.16.0.1:8080";
/// The interface that has all addresses.
pub const CARD: &str = "wire0";
/// The address of the relay by its unit: one that others may reach.
pub const RELAY: &str = "192.0.2.1";
/// How long a client may take to join.
const JOIN: Duration = Duration::from_secs(90);
/// How long the doctor may look.
const DOCTOR: Duration = Duration::from_secs(90);
/// The name that the client claims.
pub const NAME: &str = "packages.anon";
/// One that a member of the group publishes for a while.
const MEMBERS: &str = "members.anon";

/// The address of another relay: no two are from one /16.
fn address(relay: u8) -> String {
    format!("172.{}.0.1", 16 + relay)
}

/// How the configurations of relay and client come about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Its example, edited.
    Example,
    /// `mixline-relay init` and `mixline-client join`.
    Init,
}

/// Brings it up.
pub fn run(checks: &mut Checks, container: &mut Container, by: By) {
    checks.check(
        "the directory starts by its unit, as its example says",
        || directory(container),
    );
    match by {
        By::Init => init::run(checks, container),
        By::Example => checks.check(
            "the relay starts by its unit, as its example says, and registers",
            || relay(container),
        ),
    }
    checks.check("`port: auto` may look for XDP", || auto(container));
    checks.check("other relays register", || others(container));
    checks.check("the client joins by its unit", || {
        // What a former release lets out is not looked at.
        let capture = match by {
            By::Init => Some(Capture::start(container)?),
            By::Example => None,
        };
        client(container, by)?;
        capture.map_or(Ok(()), |capture| capture.end(&[]))
    });
    match by {
        By::Init => around(checks, container, "names and members", &[], up),
        By::Example => up(checks, container),
    }
}

/// Runs those of a client that has joined.
fn up(checks: &mut Checks, container: &mut Container) {
    checks.check("it publishes a name, and systemd-resolved finds it", || {
        publish(container)
    });
    checks.check(
        "members of the group mixline ask it, and others hear of the group",
        || group(container),
    );
}

/// Runs the checks of a host whose client is up.
pub fn closed(checks: &mut Checks, container: &mut Container) {
    checks.check("`lock: always` closes the host without the client", || {
        lock(container)
    });
}

/// Makes what a machine that has booted has not: the card, and the relays beside the one by its unit.
pub fn again(container: &mut Container) -> Result<()> {
    card(container)?;
    said(
        container,
        &format!(
            "ip addr add {RELAY}/24 dev {CARD} && ip route add default dev {CARD} && \
             systemctl stop mixline-directory mixline-relay && \
             systemctl reset-failed mixline-directory mixline-relay; \
             systemctl start mixline-directory mixline-relay"
        ),
    )?;
    others(container)
}

/// The 52 characters of the directory's ID.
pub fn id(container: &mut Container) -> Result<String> {
    said(
        container,
        "mixline-directory id --config /etc/mixline/directory.yaml 2>/dev/null || cat /var/tmp/id",
    )
}

/// Makes a configuration from its example.
fn configure(container: &mut Container, name: &str, edits: &[(&str, &str)]) -> Result<()> {
    let script: String = edits
        .iter()
        .map(|(key, value)| format!(" -e 's|^#\\?{key}: .*|{key}: {value}|'"))
        .collect();
    said(
        container,
        &format!("sed{script} /etc/mixline/{name}.yaml.example > /etc/mixline/{name}.yaml"),
    )?;
    Ok(())
}

/// The interface with the addresses of directory and relays.
fn card(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!(
            "ip link add {CARD} type veth peer name wire1 && ip link set {CARD} up \
             && ip link set wire1 up && ip addr add 172.16.0.1/16 dev {CARD}"
        ),
    )?;
    for relay in OTHERS {
        said(
            container,
            &format!("ip addr add {}/16 dev {CARD}", address(relay)),
        )?;
    }
    Ok(())
}

fn directory(container: &mut Container) -> Result<()> {
    card(container)?;
    configure(
        container,
        "directory",
        &[
            ("listen", DIRECTORY),
            ("allow_private_addresses", "true"),
            ("check_source", "false"),
        ],
    )?;
    said(
        container,
        "install -d -o mixline-directory -g mixline-directory -m 700 /var/lib/mixline-directory && \
         setpriv --reuid=mixline-directory --regid=mixline-directory --clear-groups \
         mixline-directory init --config /etc/mixline/directory.yaml > /var/tmp/id && systemctl start mixline-directory",
    )?;
    let id = id(container)?;
    if id.trim().len() != 52 {
        bail!("`init` printed `{id}`");
    }
    expect(container, "systemctl is-active mixline-directory", "active")?;
    until(container, &format!("curl -sf http://{DIRECTORY}/healthz"))
}

fn relay(container: &mut Container) -> Result<()> {
    said(container, &format!("ip addr add {RELAY}/24 dev {CARD}"))?;
    let id = id(container)?;
    let at = format!("[\"{RELAY}:7000\"]");
    configure(
        container,
        "relay",
        &[
            ("name", "packaged"),
            ("listen", &at),
            ("advertise", &at),
            (
                "directory",
                &format!("{{url: \"http://{DIRECTORY}\", id: {}}}", id.trim()),
            ),
            ("workers", "1"),
        ],
    )?;
    said(container, "systemctl start mixline-relay")?;
    expect(container, "systemctl is-active mixline-relay", "active")?;
    registered(container)?;
    expect(
        container,
        "stat --format='%U %a' /var/lib/mixline-relay",
        "mixline-relay 700",
    )
}

/// Waits until the relay has registered.
pub fn registered(container: &mut Container) -> Result<()> {
    until(
        container,
        "mixline-relay status --config /etc/mixline/relay.yaml | grep '^registered .*ago'",
    )
}

/// The kind of port that the relay has, and why.
pub fn status(container: &mut Container) -> Result<(String, String)> {
    let status = said(
        container,
        "mixline-relay status --config /etc/mixline/relay.yaml --json",
    )?;
    let status: serde_json::Value = serde_json::from_str(&status).context("reading status")?;
    let text = |key: &str| status["port"][key].as_str().unwrap_or_default().to_owned();
    Ok((text("kind"), text("why")))
}

fn auto(container: &mut Container) -> Result<()> {
    let (kind, why) = status(container)?;
    // Pairs of veth have no zero-copy; who lacks a right does not come that far.
    if kind != "udp" || !why.contains("zero-copy") {
        bail!("{kind}: {why}");
    }
    Ok(())
}

fn others(container: &mut Container) -> Result<()> {
    let id = id(container)?;
    // A copy, which stays as it is when the package goes.
    said(
        container,
        "mkdir -p /var/tmp/others && cp /usr/bin/mixline-relay /var/tmp/others/",
    )?;
    for relay in OTHERS {
        // Not the port at which the one by its unit may listen on all addresses.
        let at = format!("{}:7001", address(relay));
        let yaml = format!(
            "name: other{relay}\nstate_dir: /var/lib/other{relay}\nlisten: [\"{at}\"]\nworkers: 1\nport: udp\n\
             directory: {{url: \"http://{DIRECTORY}\", id: {}}}\n",
            id.trim()
        );
        said(
            container,
            &format!(
                "printf '%s' '{yaml}' > /var/tmp/others/{relay}.yaml && systemd-run --quiet --unit=other{relay} \
                 -p StateDirectory=other{relay} -p StateDirectoryMode=0700 \
                 /var/tmp/others/mixline-relay --config /var/tmp/others/{relay}.yaml"
            ),
        )?;
    }
    let all = *OTHERS.end();
    until(
        container,
        &format!("curl -sf http://{DIRECTORY}/metrics | grep -qx 'mixline_directory_relays {all}'"),
    )
}

fn client(container: &mut Container, by: By) -> Result<()> {
    match by {
        By::Init => {
            let text = said(
                container,
                "mixline-client join $(mixline-directory link --config /etc/mixline/directory.yaml)",
            )?;
            let next = "next: sudo systemctl enable --now mixline-client";
            if !text.contains(next) {
                bail!("`join` does not say what comes next: {text}");
            }
        }
        By::Example => {
            let id = id(container)?;
            configure(
                container,
                "client",
                &[(
                    "directory",
                    &format!("{{url: \"http://{DIRECTORY}\", id: {}}}", id.trim()),
                )],
            )?;
        }
    }
    // It has started when packets can flow.
    container.expect("systemctl start mixline-client", JOIN)?;
    expect(container, "systemctl is-active mixline-client", "active")?;
    until(
        container,
        "mixline-client status --json | grep -q '\"state\": \"up\"' && ip -4 -o addr show mixline0 | grep -q ' 10\\.'",
    )?;
    // IPv6 is there as well: the unit lets the client see and set what it has to.
    said(container, "ip -6 -o addr show mixline0 | grep -q ' fd'")?;
    expect(
        container,
        "cat /proc/sys/net/ipv6/conf/mixline0/accept_ra",
        "0",
    )
}

fn publish(container: &mut Container) -> Result<()> {
    container.expect(
        &format!("mixline-client publish {NAME}"),
        Duration::from_secs(120),
    )?;
    resolves(container)?;
    until(
        container,
        &format!(
            "getent ahostsv4 {NAME} | grep -q '^10\\.' && resolvectl query {NAME} | grep -q mixline-dns"
        ),
    )
}

fn group(container: &mut Container) -> Result<()> {
    expect(
        container,
        "stat --format='%U %G %a' /run/mixline /run/mixline/client.sock",
        "root mixline 755\nroot mixline 660",
    )?;
    let member = "setpriv --reuid=4711 --regid=4711 --groups=$(getent group mixline | cut -d: -f3)";
    let stranger = "setpriv --reuid=4712 --regid=4712 --clear-groups";
    said(
        container,
        &format!("{member} mixline-client status | grep -q '^state  *up'"),
    )?;
    said(
        container,
        &format!("{member} mixline-client resolve {NAME} | grep -q '^ipv4  *10\\.'"),
    )?;
    said(
        container,
        &format!("{member} mixline-client ping {NAME} 2>&1 | grep -q 'own'"),
    )?;
    // A name that a member publishes is found, and a member takes it away.
    container.expect(
        &format!("{member} mixline-client publish {MEMBERS}"),
        Duration::from_secs(120),
    )?;
    until(
        container,
        &format!("getent ahostsv4 {MEMBERS} | grep -q '^10\\.'"),
    )?;
    said(
        container,
        &format!("{member} mixline-client status | grep -q {MEMBERS}"),
    )?;
    said(
        container,
        &format!("{member} mixline-client unpublish {MEMBERS}"),
    )?;
    said(
        container,
        &format!(
            "! mixline-client status | grep -q {MEMBERS} && mixline-client status | grep -q {NAME}"
        ),
    )?;
    // Whoever is root sees all, and a member what there is to see.
    for who in ["", member] {
        let answer = container.run(&format!("{who} mixline-client doctor"), DOCTOR)?;
        if answer.code != 0 || !answer.output.contains("the client works") {
            bail!(
                "{who} mixline-client doctor: {}\n{}",
                answer.code,
                answer.output
            );
        }
    }
    let refused = |container: &mut Container, command: &str, why: &str| {
        expect(
            container,
            &format!("{command} >/dev/null 2>/run/error; echo $?; grep -c '{why}' /run/error"),
            "1\n1",
        )
    };
    let is_for_root = [
        ("down", "down is for root"),
        ("reload", "reload is for root"),
        (
            "up",
            "is for root and the user that the client runs as: try",
        ),
        ("lock", "needs root, or CAP_NET_ADMIN"),
        ("unlock", "needs root, or CAP_NET_ADMIN"),
    ];
    for (command, why) in is_for_root {
        refused(
            container,
            &format!("{member} mixline-client {command}"),
            why,
        )?;
    }
    // A stranger may not even ask.
    let publish = format!("{stranger} mixline-client publish {MEMBERS}");
    refused(container, &publish, "a member of the group mixline")?;
    let status = format!("{stranger} mixline-client status");
    refused(container, &status, "a member of the group mixline")?;
    expect(container, "systemctl is-active mixline-client", "active")
}

fn lock(container: &mut Container) -> Result<()> {
    let closed = "ip route get 10.1.2.3 2>&1 | grep -q 'No route to host'";
    said(
        container,
        "echo 'lock: always' >> /etc/mixline/client.yaml && systemctl restart mixline-client-lock",
    )?;
    killed(container)?;
    until(container, closed)?;
    expect(
        container,
        "systemctl is-active mixline-client-lock",
        "active",
    )?;
    // Before the network, at the next boot.
    said(
        container,
        "systemctl show -p Before mixline-client-lock | grep -q network-pre.target \
         && systemctl is-enabled mixline-client-lock",
    )?;
    said(container, "! mixline-client unlock")?;
    // A mistake in the configuration opens nothing, at one start as at the next.
    said(container, "echo 'nonsense: 1' >> /etc/mixline/client.yaml")?;
    for _ in 0..2 {
        said(
            container,
            "systemctl stop mixline-client-lock && ip rule del to 10.0.0.0/8 \
             && systemctl start mixline-client-lock",
        )?;
        until(container, closed)?;
    }
    said(container, "sed -i '/^nonsense/d' /etc/mixline/client.yaml")?;
    container.expect("systemctl start mixline-client", JOIN)?;
    resolves(container)?;
    container.expect("systemctl stop mixline-client", JOIN)?;
    said(container, closed)?;
    attempts::paused(container, |container| {
        said(
            container,
            "sed -i '/^lock:/d' /etc/mixline/client.yaml && systemctl restart mixline-client-lock \
             && mixline-client unlock",
        )?;
        said(container, &format!("! {closed}"))?;
        container.expect("systemctl start mixline-client", JOIN)?;
        Ok(())
    })?;
    resolves(container)
}

/// A killed client's addresses of names stay nobody's when a neighbourhood comes that has them.
fn killed(container: &mut Container) -> Result<()> {
    let told = said(
        container,
        &format!("getent ahostsv4 {NAME} | head -1 | cut -d' ' -f1"),
    )?;
    let told: Ipv4Addr = told.trim().parse().context("no address of the name")?;
    expect(
        container,
        "stat --format='%U %a' /run/mixline/told",
        "root 600",
    )?;
    said(
        container,
        "systemctl kill --signal=KILL mixline-client; systemctl stop mixline-client",
    )?;
    let [a, b, c, d] = told.octets();
    let mut beside = [77, 78, 79].into_iter().filter(|number| *number != d);
    let mut other = || Ipv4Addr::new(a, b, c, beside.next().unwrap_or_default());
    let (here, neighbour) = (other(), other());
    said(container, &format!("ip addr add {here}/24 dev {CARD}"))?;
    until(
        container,
        &format!(
            "ip route get {neighbour} | grep -q {CARD} \
             && ip route get {told} 2>&1 | grep -q 'No route to host'"
        ),
    )?;
    said(container, &format!("ip addr del {here}/24 dev {CARD}")).map(drop)
}

/// Waits until the directory is reached through the relays, and answers.
pub fn resolves(container: &mut Container) -> Result<()> {
    until(container, &format!("mixline-client resolve {NAME}"))
}

/// Ends what runs beside the packages' own services.
pub fn end(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!("systemctl stop 'other*.service'; rm -rf /var/lib/other* && ip link del {CARD}"),
    )
    .map(drop)
}
