//! A relay beside what hosts have in front of their cards: bonds, VLANs, bridges, a card for each
//! family. It works, or refuses with the reason and what to configure. And a relay with the rights of
//! its unit and no more.

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::netns;
use std::fs;
use std::process::Stdio;

use crate::Pair;
use crate::host::{Host, IPV4, IPV6, NAMESPACE, NOBODY, ON_IPV4, wait};

/// Bonds, VLANs and bridges over the card.
pub fn on_other_interfaces(pair: &Pair) -> Result<()> {
    for (name, what, lines) in [
        (
            "bond0",
            "bond",
            "link add bond0 type bond mode active-backup\n\
             link set eth0 down\n\
             link set eth0 master bond0\n",
        ),
        (
            "eth0.5",
            "VLAN",
            "link add link eth0 name eth0.5 type vlan id 5\n",
        ),
        (
            "br0",
            "bridge",
            "link add br0 type bridge\nlink set eth0 master br0\n",
        ),
    ] {
        let host = Host::new(pair)?;
        host.ip(&format!(
            "{lines}link set eth0 up\nlink set {name} up\naddr add {IPV4}/24 dev {name}\n"
        ))
        .with_context(|| what.to_owned())?;
        let wanted = format!("{name} is a {what} on eth0");
        let said = host.refused(&format!("{ON_IPV4}port: xdp\n"))?;
        ensure!(said.contains(&wanted), "{what}: the relay says: {said}");
        let (kind, why) = host.port(&format!("{ON_IPV4}port: auto\n"))?;
        ensure!(
            kind == "udp" && why.contains(&wanted),
            "{what}: {kind}: {why}"
        );
        let found = host.doctor(&format!("{ON_IPV4}port: xdp\n"))?;
        ensure!(found.contains(&wanted), "{what}: doctor says: {found}");
        let (kind, why) = host.port(&format!("{ON_IPV4}port: xdp-filter\n"))?;
        eprintln!("  {what}: {kind}: {why}");
        ensure!(kind == "xdp-filter", "{what}: {kind}: {why}");
    }
    Ok(())
}

/// IPv4 on the card and IPv6 on another interface; and IPv6 alone.
pub fn families(pair: &Pair) -> Result<()> {
    let host = Host::new(pair)?;
    host.ip(&format!(
        "link add v6 type dummy\nlink set v6 up\nlink set eth0 up\n\
         addr add {IPV4}/24 dev eth0\naddr add {IPV6}/64 dev v6 nodad\n"
    ))?;
    let both = "listen: [\"192.0.2.2:7000\", \"[2001:db8::2]:7000\"]\n";
    let (kind, why) = host.port(&format!("{both}port: xdp\n"))?;
    ensure!(
        kind == "xdp" && why.contains("on eth0"),
        "two interfaces: {kind}: {why}"
    );
    drop(host);
    let host = Host::new(pair)?;
    host.ip(&format!(
        "link set eth0 up\naddr add {IPV6}/64 dev eth0 nodad\n"
    ))?;
    let (kind, why) = host.port("listen: [\"[2001:db8::2]:7000\"]\nport: auto\n")?;
    eprintln!("  IPv6 alone: {kind}: {why}");
    ensure!(
        kind == "xdp" && why.contains("zero-copy"),
        "IPv6 alone: {kind}: {why}"
    );
    Ok(())
}

/// A user with the capabilities and limits of the relay's unit; the same with the kernel's default of
/// locked memory; and one without rights.
pub fn rights(pair: &Pair) -> Result<()> {
    let host = Host::new(pair)?;
    host.ip(&format!("link set eth0 up\naddr add {IPV4}/24 dev eth0\n"))?;
    let state = host.directory.join("state");
    fs::create_dir_all(&state)?;
    for path in [&host.directory, &state] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let more = format!("{ON_IPV4}port: xdp\n");
    let (kind, why) = host.port_as(&more, host.as_unit("unlimited"))?;
    eprintln!("  with the unit's rights: {kind}: {why}");
    ensure!(kind == "xdp" && why.contains("zero-copy"), "{kind}: {why}");
    let said = match host.port_as(&more, host.as_unit("8388608")) {
        Ok(port) => bail!("with 8 MiB of locked memory, it runs: {port:?}"),
        Err(error) => error.to_string(),
    };
    ensure!(said.contains("allow more locked memory"), "it says: {said}");
    // Without, it says which are missing.
    let said = {
        let file = host.configure(&format!("{ON_IPV4}port: xdp\n"))?;
        let mut command = netns::command(NAMESPACE, "setpriv");
        let mut child = command
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--bounding-set=-all",
            ])
            .arg(&host.relay)
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let ended = wait(&mut child)?;
        ensure!(ended == Some(false), "a relay without rights: {ended:?}");
        String::from_utf8_lossy(&child.wait_with_output()?.stderr).into_owned()
    };
    eprintln!("  without: {}", said.trim());
    ensure!(
        said.contains("CAP_") || said.contains("root"),
        "it says: {said}"
    );
    Ok(())
}
