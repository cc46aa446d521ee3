//! What an operator does with the packages once they are installed: a directory, a relay among others
//! and a client, all by their units, on addresses of one interface.

use super::checks::{Checks, SHORT, expect, said, until};
use super::packages;
use anyhow::{Context, Result, bail};
use mixline_machines::container::Container;
use mixline_testnet::Programs;

/// Relays beside the one by its unit: with it, two for each place of a path.
const OTHERS: std::ops::RangeInclusive<u8> = 2..=6;
/// Where the directory listens.
const DIRECTORY: &str = "172.16.0.1:8080";
/// How exposed a unit may be by `systemd-analyze security`, 0 to 10.
const EXPOSURE: f64 = 2.0;
/// The name that the client claims.
const NAME: &str = "packages.anon";

/// Where a relay listens: no two are from one /16.
fn address(relay: u8) -> String {
    format!("172.{}.0.1", 16 + relay)
}

/// Runs the checks.
pub fn run(checks: &mut Checks, container: &mut Container) {
    checks.check(
        "the directory starts by its unit, as its example says",
        || directory(container),
    );
    checks.check("the relay starts by its unit and registers", || {
        relay(container)
    });
    checks.check("`port: auto` may look for XDP", || auto(container));
    checks.check("other relays register", || others(container));
    checks.check("the client joins by its unit", || client(container));
    checks.check("it publishes a name, and systemd-resolved finds it", || {
        publish(container)
    });
    checks.check("no unit is more exposed than 2.0", || exposure(container));
    for name in Programs::NAMES {
        checks.check(&format!("{name}, killed, is started again"), || {
            killed(container, name)
        });
    }
    checks.check("the network is whole after that", || {
        resolves(container, 60)
    });
    checks.check(
        "a newer relay replaces an older one while paths lead through it",
        || upgrade(container),
    );
    checks.check("`port: xdp` works with the unit's rights", || {
        xdp(container)
    });
}

/// The 52 characters of the directory's ID.
fn id(container: &mut Container) -> Result<String> {
    said(
        container,
        "mixline-directory id --config /etc/mixline/directory.yaml 2>/dev/null || cat /tmp/id",
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

fn directory(container: &mut Container) -> Result<()> {
    said(
        container,
        "ip link add wire0 type veth peer name wire1 && ip link set wire0 up && ip link set wire1 up \
         && ip addr add 172.16.0.1/16 dev wire0",
    )?;
    for relay in 1..=*OTHERS.end() {
        said(
            container,
            &format!("ip addr add {}/16 dev wire0", address(relay)),
        )?;
    }
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
         mixline-directory init --config /etc/mixline/directory.yaml > /tmp/id && systemctl start mixline-directory",
    )?;
    let id = id(container)?;
    if id.trim().len() != 52 {
        bail!("`init` printed `{id}`");
    }
    expect(container, "systemctl is-active mixline-directory", "active")?;
    until(
        container,
        &format!("curl -sf http://{DIRECTORY}/healthz"),
        20,
    )
}

fn relay(container: &mut Container) -> Result<()> {
    let id = id(container)?;
    let at = format!("[\"{}:7000\"]", address(1));
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

fn registered(container: &mut Container) -> Result<()> {
    until(
        container,
        "mixline-relay status --config /etc/mixline/relay.yaml | grep '^registered .*ago'",
        30,
    )
}

/// What the relay says of its port.
fn port(container: &mut Container) -> Result<(String, String)> {
    let status = said(
        container,
        "mixline-relay status --config /etc/mixline/relay.yaml --json",
    )?;
    let status: serde_json::Value = serde_json::from_str(&status).context("reading status")?;
    let text = |key: &str| status["port"][key].as_str().unwrap_or_default().to_owned();
    Ok((text("kind"), text("why")))
}

fn auto(container: &mut Container) -> Result<()> {
    let (kind, why) = port(container)?;
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
        "mkdir -p /tmp/others && cp /usr/bin/mixline-relay /tmp/others/",
    )?;
    for relay in OTHERS {
        let at = format!("{}:7000", address(relay));
        let yaml = format!(
            "name: other{relay}\nstate_dir: /var/lib/other{relay}\nlisten: [\"{at}\"]\nworkers: 1\nport: udp\n\
             directory: {{url: \"http://{DIRECTORY}\", id: {}}}\n",
            id.trim()
        );
        said(
            container,
            &format!(
                "printf '%s' '{yaml}' > /tmp/others/{relay}.yaml && systemd-run --quiet --unit=other{relay} \
                 -p StateDirectory=other{relay} -p StateDirectoryMode=0700 \
                 /tmp/others/mixline-relay --config /tmp/others/{relay}.yaml"
            ),
        )?;
    }
    let all = *OTHERS.end();
    until(
        container,
        &format!("curl -sf http://{DIRECTORY}/metrics | grep -qx 'mixline_directory_relays {all}'"),
        30,
    )
}

fn client(container: &mut Container) -> Result<()> {
    let id = id(container)?;
    configure(
        container,
        "client",
        &[(
            "directory",
            &format!("{{url: \"http://{DIRECTORY}\", id: {}}}", id.trim()),
        )],
    )?;
    said(container, "systemctl start mixline-client")?;
    expect(container, "systemctl is-active mixline-client", "active")?;
    until(
        container,
        "mixline-client status --json | grep -q '\"state\": \"up\"' && ip -4 -o addr show mixline0 | grep -q ' 10\\.'",
        90,
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
        std::time::Duration::from_secs(120),
    )?;
    resolves(container, 60)?;
    until(
        container,
        &format!(
            "getent ahostsv4 {NAME} | grep -q '^10\\.' && resolvectl query {NAME} | grep -q mixline0"
        ),
        20,
    )
}

/// Whether the directory is reached through the relays, and answers.
fn resolves(container: &mut Container, seconds: u64) -> Result<()> {
    until(
        container,
        &format!("mixline-client resolve {NAME}"),
        seconds,
    )
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

fn main_process(container: &mut Container, name: &str) -> Result<u32> {
    let text = said(
        container,
        &format!("systemctl show --value --property=MainPID {name}"),
    )?;
    text.trim()
        .parse()
        .with_context(|| format!("main process of {name}: {text}"))
}

fn killed(container: &mut Container, name: &str) -> Result<()> {
    let before = main_process(container, name)?;
    said(container, &format!("kill -9 {before}"))?;
    until(
        container,
        &format!(
            "pid=$(systemctl show --value --property=MainPID {name}) && [ $pid != 0 ] && [ $pid != {before} ] \
             && systemctl is-active {name}"
        ),
        20,
    )?;
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

fn upgrade(container: &mut Container) -> Result<()> {
    resolves(container, 60)?;
    let identity = "cat /var/lib/mixline-relay/identity.key | sha256sum";
    let before = said(container, identity)?;
    let mut old = Vec::new();
    for name in Programs::NAMES {
        old.push(main_process(container, name)?);
    }
    let began = said(container, "date +%s")?;
    packages::upgrade(container)?;
    for (name, old) in Programs::NAMES.into_iter().zip(old) {
        expect(container, &format!("systemctl is-active {name}"), "active")?;
        if main_process(container, name)? == old {
            bail!("{name} was not started anew");
        }
    }
    expect(container, identity, before.trim())?;
    registered(container)?;
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
    resolves(container, 60)
}

fn xdp(container: &mut Container) -> Result<()> {
    said(
        container,
        "printf 'port: xdp\\ninterface: wire0\\n' >> /etc/mixline/relay.yaml",
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
        20,
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

/// Ends what runs beside the packages' own services.
pub fn end(container: &mut Container) -> Result<()> {
    said(
        container,
        "systemctl stop 'other*.service'; rm -rf /var/lib/other* && ip link del wire0",
    )
    .map(drop)
}
