//! A node, on which something is measured: a process in a network namespace of its own, at the
//! end of a wire.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::netns::ip;
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use super::addresses::{NEIGHBOURS, address, neighbour};
use super::frame::Ends;
use super::kernel::Generator;
use super::wires::{merge, write_checksums};

/// The first argument of a process that does one of these tasks; the second is the task.
pub const ARGUMENT: &str = "--child";
/// The name of its end of the wire.
pub const DEVICE: &str = "relay0";
/// What it says when it has its namespace.
pub const THERE: &str = "there\n";
/// What it says when its end of the wire is set up.
pub const WIRED: &str = "wired\n";

/// What such a process does.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// The node's number.
    pub node: u8,
    /// Which core it has.
    pub core: usize,
    /// The relay to run; without one, an echo.
    pub relay: Option<RelayCommand>,
}

/// A relay's program and what it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RelayCommand {
    /// `mixline-relay`.
    pub program: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
}

/// What is at the end of a wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Frames go back as they came, through the TX ring, without any cryptography.
    Echo,
    /// A relay.
    Relay {
        /// `mixline-relay`.
        program: PathBuf,
        /// What is in its configuration beside what all have.
        more: String,
    },
}

/// A process at the end of a wire, which ends with this.
pub struct Node {
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

impl Node {
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
        task: &Task,
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let log = File::create(directory.join("log"))?;
        let mut child = Command::new(program)
            .arg(ARGUMENT)
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
        let mut node = Self {
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
        node.device = device.with_context(|| node.last_words())?;
        Ok(node)
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
        ensure!(line == WIRED, "no wire: {}", self.last_words());
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

impl Drop for Node {
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
    ensure!(line == THERE, "it did not start");
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let mut batch = format!(
        "link add {name} address {} type veth peer name {} address {} netns {}\n",
        mac(macs[0]),
        DEVICE,
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
    write_checksums(name)?;
    generator.count_on(name)?;
    Ok(if_nametoindex(name)?)
}
