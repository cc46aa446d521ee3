//! A place for something to be measured: a process in a network namespace of its own, at the
//! end of a wire.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

use super::Generator;
use super::abi::NETWORK;
use super::frame::Ends;
use super::neighbours::NEIGHBOURS;
use crate::inside;

/// What is at the end of a wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Frames go back as they came, through the TX ring, without any cryptography.
    Echo,
    /// A relay with this in its configuration, beside what all have.
    Relay(String),
}

/// A process at the end of a wire, which ends with this.
pub struct Place {
    /// Its number, which is in its addresses.
    pub number: u8,
    /// The generator's end of the wire.
    pub device: u32,
    /// Addresses of both ends.
    pub ends: Ends,
    /// Its files.
    pub directory: PathBuf,
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// Runs something in a thread with a new network namespace, on this core if given.
///
/// # Errors
/// Of the system, above all for want of rights; and what the thread returns.
pub fn in_new_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("a new network namespace: this benchmark needs root")?;
            ip("link set lo up\n")?;
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The address of a place's neighbour, counted from 0.
#[must_use]
pub fn neighbour(place: u8, at: usize) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK[0], NETWORK[1], place, at as u8 + 1)
}

/// The address of what is at a place.
#[must_use]
pub fn address(place: u8) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK[0], NETWORK[1], place, 254)
}

impl Place {
    /// Starts `program`, which is this benchmark's own, and lays a wire to it from the namespace
    /// of this thread. What it says goes to a file in `directory`.
    ///
    /// # Errors
    /// Of the system.
    pub fn lay(
        generator: &mut Generator,
        program: &Path,
        number: u8,
        directory: &Path,
        task: &inside::Task,
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let log = File::create(directory.join("log"))?;
        let mut child = Command::new(program)
            .arg(inside::ARGUMENT)
            .arg(serde_json::to_string(task)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let (from_mac, to_mac) = ([2, 0, 0, 0, 0, number], [2, 0, 0, 0, 1, number]);
        let name = format!("bench{number}");
        let mut lines = BufReader::new(child.stdout.take().context("no output")?);
        let device = lay(
            generator,
            &child,
            &mut lines,
            number,
            &name,
            [from_mac, to_mac],
        );
        let mut place = Self {
            number,
            device: 0,
            ends: Ends {
                from_mac,
                to_mac,
                to: address(number),
            },
            directory: directory.to_owned(),
            child,
            lines,
        };
        place.device = device.with_context(|| place.last_words())?;
        Ok(place)
    }

    /// Lets it go on, with its end of the wire.
    ///
    /// # Errors
    /// If it does not.
    pub fn go(&mut self) -> Result<()> {
        let mut input = self.child.stdin.as_ref().context("no input")?;
        input.write_all(b"\n")?;
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        ensure!(line == inside::WIRED, "no wire: {}", self.last_words());
        Ok(())
    }

    /// The last lines that it has said.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// Then, with its last words.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "what is measured has ended ({status}): {}",
                self.last_words()
            );
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lays the wire once the process has its namespace.
fn lay(
    generator: &mut Generator,
    child: &Child,
    lines: &mut BufReader<ChildStdout>,
    number: u8,
    name: &str,
    macs: [[u8; 6]; 2],
) -> Result<u32> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    ensure!(line == inside::THERE, "it did not start");
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let mut batch = format!(
        "link add {name} address {} type veth peer name {} address {} netns {}\n",
        mac(macs[0]),
        inside::DEVICE,
        mac(macs[1]),
        child.id()
    );
    for at in 0..NEIGHBOURS {
        batch += &format!("addr add {}/24 dev {name}\n", neighbour(number, at));
    }
    batch += &format!("link set {name} up\n");
    ip(&batch)?;
    // Without a program in its driver, a veth takes redirected frames to send only if it merges.
    merge(name)?;
    generator.count_on(name)?;
    Ok(if_nametoindex(name)?)
}

/// Has a veth merge what it receives (GRO).
///
/// # Errors
/// With what `ethtool` says.
pub fn merge(device: &str) -> Result<()> {
    let output = Command::new("ethtool")
        .env("PATH", mixline_testnet::netns::system_path())
        .args(["-K", device, "gro", "on"])
        .output()
        .context("running ethtool (package ethtool)")?;
    ensure!(
        output.status.success(),
        "ethtool: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Runs lines of `ip -batch` in the namespace of this thread.
///
/// # Errors
/// With what `ip` says.
pub fn ip(lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .env("PATH", mixline_testnet::netns::system_path())
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running ip (package iproute2)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "ip: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
