//! A host with one card and a relay that nobody answers.

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
pub const NAMESPACE: &str = "mixline-lonely";
/// The relay's addresses.
pub const IPV4: &str = "192.0.2.2";
pub const IPV6: &str = "2001:db8::2";
/// A user without rights.
pub const NOBODY: u32 = 65534;

/// A namespace with the near card of a pair, named `eth0`.
pub struct Host {
    /// Where its files are.
    pub directory: PathBuf,
    /// The relay's program.
    pub relay: PathBuf,
}

impl Host {
    /// The namespace, with nothing but the card in it.
    pub fn new(pair: &Pair) -> Result<Self> {
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

    /// `ip` in it.
    pub fn ip(&self, lines: &str) -> Result<()> {
        Ok(ip_in(NAMESPACE, lines)?)
    }

    /// Writes a configuration; gives its file.
    pub fn configure(&self, more: &str) -> Result<PathBuf> {
        let file = self.directory.join("relay.yaml");
        let state = self.directory.join("state");
        fs::write(
            &file,
            format!(
                "name: lonely\n\
                 state_dir: {}\n\
                 directory: {{url: \"http://127.0.0.1:9\", id: {}}}\n\
                 workers: 1\n\
                 {more}",
                state.display(),
                "a".repeat(52)
            ),
        )?;
        Ok(file)
    }

    /// Starts a relay that does not start; gives what it says.
    pub fn refused(&self, more: &str) -> Result<String> {
        let file = self.configure(more)?;
        let mut child = self.command(&["--config"]).arg(&file).spawn()?;
        let status = wait(&mut child)?.context("the relay runs, and should refuse")?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!status, "the relay ended well: {said}");
        Ok(said)
    }

    /// Starts a relay, and gives its status's `port` once it is up.
    pub fn port(&self, more: &str) -> Result<(String, String)> {
        self.port_as(more, self.command(&["--config"]))
    }

    /// As [`port`](Self::port), with another command that ends before the configuration's name.
    pub fn port_as(&self, more: &str, mut command: Command) -> Result<(String, String)> {
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
    pub fn doctor(&self, more: &str) -> Result<String> {
        let file = self.configure(more)?;
        let output = self.command(&["doctor", "--config"]).arg(file).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The relay as a user with the capabilities of its unit, and so many bytes of locked memory.
    pub fn as_unit(&self, locked: &str) -> Command {
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
        // The card keeps it.
        let _ = self.ip("link set eth0 mtu 1500\n");
        let _ = namespaces::remove_one(NAMESPACE);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether a program ended well; none if it runs on.
pub fn wait(child: &mut Child) -> Result<Option<bool>> {
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

/// The relay listens on its IPv4 address.
pub const ON_IPV4: &str = "listen: [\"192.0.2.2:7000\"]\n";
