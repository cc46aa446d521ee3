//! `mixline-relay init`, as an operator runs it under systemd: without a terminal, with one, and again.

use super::checks::{Checks, SHORT, expect, said, until};
use super::network::{CARD, DIRECTORY, RELAY, id, registered, status};
use anyhow::{Result, bail};
use mixline_machines::container::Container;

const CONFIG: &str = "/etc/mixline/relay.yaml";
const STATE: &str = "/var/lib/mixline-relay";

/// Runs the checks; after them the relay runs.
pub fn run(checks: &mut Checks, container: &mut Container) {
    checks.check(
        "`init` without a terminal names what is missing, and makes nothing",
        || missing(container),
    );
    checks.check(
        "a unit that may not start is an error, and the keys are its user's all the same",
        || masked(container),
    );
    checks.check(
        "one line makes a relay that registers: configuration, keys, unit",
        || from_one_line(container),
    );
    checks.check("a second `init` refuses, and changes nothing", || {
        again(container)
    });
    checks.check("a relay that drains stays stopped", || drained(container));
    checks.check(
        "at a terminal `init` asks, and takes no for an answer",
        || declined(container),
    );
    checks.check("at a terminal, what was asked for makes a relay", || {
        asked(container)
    });
}

/// The line that names the network.
fn network(container: &mut Container) -> Result<String> {
    Ok(format!(
        "mixline:{}@http://{DIRECTORY}",
        id(container)?.trim()
    ))
}

/// Fails unless a command fails, and says this.
fn refused(container: &mut Container, command: &str, wanted: &str) -> Result<()> {
    let answer = container.run(command, SHORT)?;
    if answer.code == 0 || !answer.output.contains(wanted) {
        bail!(
            "`{command}` gave {} and `{}`, not an error with `{wanted}`",
            answer.code,
            answer.output
        );
    }
    Ok(())
}

fn missing(container: &mut Container) -> Result<()> {
    let init = format!("mixline-relay init {}", network(container)?);
    refused(
        container,
        &init,
        "missing: --name NAME, --advertise ADDRESS:PORT",
    )?;
    // From here on the way out has an address that others may reach.
    said(
        container,
        &format!("ip addr add {RELAY}/24 dev {CARD} && ip route add default dev {CARD}"),
    )?;
    let answer = container.run(&init, SHORT)?;
    if answer.code == 0 || !answer.output.trim().ends_with("missing: --name NAME") {
        bail!("`{init}`: {}", answer.output);
    }
    nothing(container)
}

/// Fails if there is a configuration or a key.
fn nothing(container: &mut Container) -> Result<()> {
    said(
        container,
        &format!("test ! -e {CONFIG} && test ! -e {STATE}/identity.key"),
    )
    .map(drop)
}

/// Fails unless configuration, state directory and keys are whose they should be, and open to nobody else.
fn owned(container: &mut Container) -> Result<()> {
    expect(
        container,
        &format!("stat --format='%U %a %n' {CONFIG} {STATE} {STATE}/identity.key {STATE}/link.key"),
        &format!(
            "root 644 {CONFIG}\nmixline-relay 700 {STATE}\nmixline-relay 600 {STATE}/identity.key\n\
             mixline-relay 600 {STATE}/link.key"
        ),
    )?;
    expect(
        container,
        &format!("find {STATE} ! -user mixline-relay"),
        "",
    )
}

fn masked(container: &mut Container) -> Result<()> {
    let init = format!("mixline-relay init {} --name packaged", network(container)?);
    said(container, "systemctl mask mixline-relay")?;
    let answer = refused(
        container,
        &init,
        "the relay does not run: systemctl enable --now mixline-relay.service: ",
    );
    said(container, "systemctl unmask mixline-relay")?;
    answer?;
    // systemd gives a state directory to the unit's user when that starts: it has not.
    owned(container)?;
    said(container, &format!("rm -r {CONFIG} {STATE}")).map(drop)
}

fn from_one_line(container: &mut Container) -> Result<()> {
    said(container, "systemctl disable mixline-relay")?;
    let network = network(container)?;
    let text = said(
        container,
        &format!("mixline-relay init {network} --name packaged"),
    )?;
    // The doctor's word is in it, and what became of the unit.
    for wanted in [
        &format!("{CONFIG} and the keys in {STATE} are made"),
        "port: auto, interface wire0",
        "the relay runs as configured",
        "The relay runs, and does so after each start of the machine.",
    ] {
        if !text.contains(wanted) {
            bail!("no `{wanted}` in:\n{text}");
        }
    }
    made(container, "packaged")
}

/// Fails unless configuration, keys and unit are as they should be after `init`, and the directory has
/// the relay.
fn made(container: &mut Container, name: &str) -> Result<()> {
    owned(container)?;
    // Nobody listens on IPv6 where the card has no public address of it.
    expect(
        container,
        &format!("grep -E '^(name|listen|advertise|port):' {CONFIG}"),
        &format!(
            "name: {name}\nlisten: [\"0.0.0.0:7000\"]\nadvertise: [\"{RELAY}:7000\"]\nport: auto"
        ),
    )?;
    expect(
        container,
        "systemctl is-enabled mixline-relay; systemctl is-active mixline-relay",
        "enabled\nactive",
    )?;
    registered(container)?;
    until(
        container,
        &format!("curl -sf http://{DIRECTORY}/ | grep -q '{name}'"),
    )
}

fn again(container: &mut Container) -> Result<()> {
    let state = format!("sha256sum {CONFIG} {STATE}/identity.key");
    let before = said(container, &state)?;
    let init = format!("mixline-relay init {} --name other", network(container)?);
    refused(container, &init, &format!("{CONFIG} exists already"))?;
    expect(container, &state, before.trim())?;
    expect(container, "systemctl is-active mixline-relay", "active")
}

fn drained(container: &mut Container) -> Result<()> {
    let text = said(
        container,
        &format!("mixline-relay drain --timeout 20 --config {CONFIG}"),
    )?;
    if !text.ends_with("stopped") {
        bail!("{text}");
    }
    // It has let go of what a command can ask, and is still to end.
    until(
        container,
        "! systemctl show --value --property=ActiveState mixline-relay | grep -qx deactivating",
    )?;
    expect(
        container,
        "systemctl show --value --property=ActiveState,Result,NRestarts mixline-relay",
        "success\n0\ninactive",
    )?;
    // Away with it: what comes is another relay.
    said(container, &format!("rm -r {CONFIG} {STATE}")).map(drop)
}

/// `init` at a terminal where these lines are typed.
fn typed(container: &mut Container, lines: &[&str]) -> Result<String> {
    let network = network(container)?;
    let lines = lines.join("\\n");
    Ok(format!(
        "printf '{lines}\\n' | script -qec 'mixline-relay init {network}' /dev/null | tr -d '\\r'"
    ))
}

fn declined(container: &mut Container) -> Result<()> {
    let init = typed(container, &["packaged", "n"])?;
    let text = container.run(&init, SHORT)?.output;
    for wanted in [
        "Name of the relay",
        "name: packaged",
        "Write it, make the keys",
        "nothing was written",
    ] {
        if !text.contains(wanted) {
            bail!("no `{wanted}` in:\n{text}");
        }
    }
    nothing(container)
}

fn asked(container: &mut Container) -> Result<()> {
    let init = typed(container, &["again", "y"])?;
    let text = said(container, &init)?;
    if !text.contains("The relay runs, and does so") {
        bail!("{text}");
    }
    made(container, "again")?;
    let (kind, _) = status(container)?;
    if kind != "udp" {
        bail!("it runs with `{kind}`");
    }
    Ok(())
}
