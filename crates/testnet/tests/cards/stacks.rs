//! A relay beside what hosts have in front of their cards: bonds, VLANs, bridges, a card for each
//! family. It works, or refuses with the reason and what to configure. And a relay with the rights of
//! its unit and no more.

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::cards::name_when_back;
use mixline_testnet::netns::{self, ip_in};
use mixline_testnet::{Programs, namespaces};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{PATIENCE, Pair};

/// The namespace of the relay; nobody answers it.
const NAMESPACE: &str = "mixline-lonely";
/// The relay's addresses.
const IPV4: &str = "192.0.2.2";
const IPV6: &str = "2001:db8::2";
/// A user without rights.
const NOBODY: u32 = 65534;

/// A namespace with the near card of a pair, named `eth0`.
struct Host {
    directory: PathBuf,
    relay: PathBuf,
}

impl Host {
    fn new(pair: &Pair) -> Result<Self> {
        namespaces::remove_one(NAMESPACE)?;
        namespaces::create_lonely(NAMESPACE)?;
        let near = name_when_back(&pair.near)?;
        netns::ip(&format!("link set {near} netns {NAMESPACE} name eth0\n"))?;
        let directory = PathBuf::from("/run/mixline-lonely");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        Ok(Self {
            directory,
            relay: Programs::release()?.relay,
        })
    }

    fn ip(&self, lines: &str) -> Result<()> {
        Ok(ip_in(NAMESPACE, lines)?)
    }

    /// Writes a configuration; gives its file.
    fn configure(&self, more: &str) -> Result<PathBuf> {
        let file = self.directory.join("relay.yaml");
        let state = self.directory.join("state");
        fs::write(
            &file,
            format!(
                "name: lonely\n\
                 state_dir: {}\n\
                 directory: {{url: \"http://192.0.2.77:8080\", id: {}}}\n\
                 workers: 1\n\
                 {more}",
                state.display(),
                "a".repeat(52)
            ),
        )?;
        Ok(file)
    }

    /// Starts a relay that does not start; gives what it says.
    fn refused(&self, more: &str) -> Result<String> {
        let file = self.configure(more)?;
        let mut child = self.command(&["--config"]).arg(&file).spawn()?;
        let status = wait(&mut child)?.context("the relay runs, and should refuse")?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!status, "the relay ended well: {said}");
        Ok(said)
    }

    /// Starts a relay, and gives its status's `port` once it is up.
    fn port(&self, more: &str) -> Result<(String, String)> {
        self.port_as(more, self.command(&["--config"]))
    }

    fn port_as(&self, more: &str, mut command: Command) -> Result<(String, String)> {
        let file = self.configure(more)?;
        let mut child = command.arg(&file).spawn()?;
        let until = Instant::now() + PATIENCE;
        let port = loop {
            if let Ok(status) = self.status(&file) {
                break status["port"].clone();
            }
            if let Some(status) = child.try_wait()? {
                let output = child.wait_with_output()?;
                bail!(
                    "the relay ended ({status}): {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            ensure!(Instant::now() < until, "the relay does not come up");
            thread::sleep(Duration::from_millis(200));
        };
        child.kill()?;
        child.wait()?;
        let text = |key: &str| port[key].as_str().unwrap_or_default().to_owned();
        Ok((text("kind"), text("why")))
    }

    fn status(&self, file: &std::path::Path) -> Result<Value> {
        let output = self
            .command(&["status", "--json", "--config"])
            .arg(file)
            .output()?;
        ensure!(output.status.success(), "no status");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// What doctor finds.
    fn doctor(&self, more: &str) -> Result<String> {
        let file = self.configure(more)?;
        let output = self.command(&["doctor", "--config"]).arg(file).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The relay as a user with the capabilities of its unit, and so many bytes of locked memory.
    fn as_unit(&self, locked: &str) -> Command {
        let capabilities = "+net_admin,+net_raw,+bpf,+perfmon";
        let nobody = NOBODY.to_string();
        let mut command = netns::command(NAMESPACE, "prlimit");
        command
            .arg(format!("--memlock={locked}:{locked}"))
            .args(["setpriv", "--reuid", &nobody, "--regid", &nobody])
            .args(["--clear-groups", "--inh-caps", capabilities])
            .args(["--ambient-caps", capabilities])
            .args(["--bounding-set", &format!("-all,{capabilities}")])
            .arg(&self.relay)
            .arg("--config")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = netns::command(NAMESPACE, &self.relay);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = namespaces::remove_one(NAMESPACE);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether a program ended well; none if it runs on.
fn wait(child: &mut Child) -> Result<Option<bool>> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        thread::sleep(Duration::from_millis(100));
    }
    child.kill()?;
    Ok(None)
}

const ON_IPV4: &str = "listen: [\"192.0.2.2:7000\"]\n";

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
