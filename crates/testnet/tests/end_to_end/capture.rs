//! What crosses a wire.

use crate::frames::{Frame, frames, told};
use crate::tools::{eventually, length};
use anyhow::{Context, Result, ensure};
use mixline_testnet::pcap::{File, LOOPBACK, OnInterface, has_all};
use mixline_testnet::process::{Process, Program, tail};
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::{Network, netns};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A capture on one interface, or on all of a namespace.
pub struct Capture {
    /// The interface's name, or what stands for all.
    interface: String,
    file: PathBuf,
    tcpdump: Process,
}

impl Capture {
    /// Captures at the router's end of the wire of `node`, what `more` arguments of tcpdump say, or
    /// all.
    pub fn start(network: &Network, node: Node, more: &[&str]) -> Result<Self> {
        Self::start_on(network, ROUTER, &node.name(), more)
    }

    /// The same on an interface of a namespace. No two captures at a time have interfaces of one name.
    pub fn start_on(
        network: &Network,
        namespace: &str,
        interface: &str,
        more: &[&str],
    ) -> Result<Self> {
        Self::start_as(network.directory(), interface, namespace, interface, more)
    }

    /// The same with a name of its own for the files in the network's directory.
    fn start_as(
        directory: &Path,
        name: &str,
        namespace: &str,
        interface: &str,
        more: &[&str],
    ) -> Result<Self> {
        let file = directory.join(format!("logs/{name}.pcap"));
        let log = directory.join(format!("logs/{name}.tcpdump.log"));
        for old in [&file, &log] {
            let _ = std::fs::remove_file(old);
        }
        let tcpdump = Program {
            namespace: namespace.into(),
            executable: "tcpdump".into(),
            arguments: [
                "--immediate-mode",
                "-i",
                interface,
                "-n",
                "-U",
                "-s0",
                "-B16384",
                "-Zroot",
                "-w",
            ]
            .into_iter()
            .map(Into::into)
            .chain([file.clone().into_os_string()])
            .chain(more.iter().map(Into::into))
            .collect(),
            environment: Vec::new(),
            log,
        }
        .start()?;
        let mut capture = Self {
            interface: name.into(),
            file,
            tcpdump,
        };
        eventually(&format!("tcpdump on {name}"), 30, || {
            capture.tcpdump.check_running()?;
            // It writes the file's header once it listens.
            Ok(length(&capture.file) >= 24)
        })?;
        Ok(capture)
    }

    /// Ends these; gives the names of their interfaces and the bytes of their files, in their order.
    pub fn end_all(captures: Vec<Self>) -> Result<Vec<(String, Vec<u8>)>> {
        // What has crossed the wires has yet to be written.
        thread::sleep(Duration::from_secs(1));
        captures.into_iter().map(Self::end).collect()
    }

    fn end(mut self) -> Result<(String, Vec<u8>)> {
        let interface = self.interface;
        // One that ended before, as when its interface went down, has missed what came later.
        self.tcpdump
            .check_running()
            .with_context(|| format!("the capture on {interface}"))?;
        self.tcpdump.signal(Signal::SIGINT)?;
        let status = self.tcpdump.wait(Duration::from_secs(30))?;
        let said = tail(&self.tcpdump.program().log, 15);
        ensure!(
            status.success() && has_all(&said),
            "the capture on {interface}: {status}: {said}"
        );
        let bytes = std::fs::read(&self.file)?;
        std::fs::remove_file(&self.file)?;
        Ok((interface, bytes))
    }
}

/// Runs `work`, in which nothing that a filter of captures takes may cross these interfaces: of which
/// namespace each is, its name, and what counts there, `in` or `out`.
pub fn nothing_on(
    network: &mut Network,
    interfaces: &[(&str, String, &str)],
    filter: &str,
    work: impl FnOnce(&mut Network) -> Result<()>,
) -> Result<()> {
    nothing_but(network, interfaces, filter, |_| false, work)
}

/// The same, except for frames that `may`.
pub fn nothing_but(
    network: &mut Network,
    interfaces: &[(&str, String, &str)],
    filter: &str,
    may: impl Fn(&Frame<'_>) -> bool,
    work: impl FnOnce(&mut Network) -> Result<()>,
) -> Result<()> {
    let captures: Vec<Capture> = interfaces
        .iter()
        .map(|(namespace, interface, way)| {
            Capture::start_on(network, namespace, interface, &["-Q", way, filter])
        })
        .collect::<Result<_>>()?;
    let outcome = work(network);
    let ended = Capture::end_all(captures);
    // What the work says comes with what was captured: the one may be why of the other.
    let seen = ended.and_then(|ended| {
        for (interface, bytes) in &ended {
            let mut frames = frames(bytes)?;
            frames.retain(|(frame, _)| !may(frame));
            ensure!(
                frames.is_empty(),
                "{} frames crossed {interface}, the first: {:?}",
                frames.len(),
                frames.first()
            );
        }
        Ok(())
    });
    match (outcome, seen) {
        (Err(error), Err(seen)) => Err(error.context(format!("{seen:#}"))),
        (outcome, seen) => seen.and(outcome),
    }
}

/// What counts on the interfaces of a namespace.
#[derive(Clone, Copy)]
pub enum Way {
    /// What arrives.
    In,
    /// What leaves by any interface but the loopback interface and the client's own.
    Out,
}

/// Watches all interfaces of some namespaces without a gap, also those that come later, and those that
/// go down meanwhile.
pub struct Watch {
    directory: PathBuf,
    namespaces: Vec<(String, Way, String)>,
    turns: usize,
    running: Vec<Capture>,
    /// How many frames the filters took, those that do not count included.
    frames: usize,
}

impl Watch {
    /// Starts it: in each namespace, nothing that its filter takes may pass.
    pub fn start(network: &Network, namespaces: Vec<(String, Way, String)>) -> Result<Self> {
        let mut watch = Self {
            directory: network.directory().to_owned(),
            namespaces,
            turns: 0,
            running: Vec::new(),
            frames: 0,
        };
        watch.running = watch.captures()?;
        Ok(watch)
    }

    /// Fails if anything has passed since the turn before. What passes from now on, and a little of
    /// what has, counts for the next one.
    pub fn turn(&mut self) -> Result<()> {
        let next = self.captures()?;
        let ended = std::mem::replace(&mut self.running, next);
        self.judge(ended)
    }

    /// The last turn; gives how many frames of all turns the filters took that stayed inside.
    pub fn end(mut self) -> Result<usize> {
        let ended = std::mem::take(&mut self.running);
        self.judge(ended)?;
        Ok(self.frames)
    }

    fn captures(&mut self) -> Result<Vec<Capture>> {
        self.turns += 1;
        // Two are there at a time.
        let number = self.turns % 2;
        self.namespaces
            .iter()
            .map(|(namespace, way, filter)| {
                let name = format!("all-{namespace}-{number}");
                let way = match way {
                    Way::In => "in",
                    Way::Out => "out",
                };
                // Addresses and a name are in what it takes of each frame. Of whole ones its memory
                // holds so few that those before its filter is set fill it.
                let more = ["-s256", "-y", "LINUX_SLL2", "-Q", way, filter];
                Capture::start_as(&self.directory, &name, namespace, "any", &more)
            })
            .collect()
    }

    fn judge(&mut self, ended: Vec<Capture>) -> Result<()> {
        let ended = Capture::end_all(ended)?;
        for ((_, bytes), (namespace, way, _)) in ended.iter().zip(&self.namespaces) {
            let all = File::read_all_interfaces(bytes)?;
            self.frames += all.len();
            let counts = |seen: &OnInterface<'_>| match way {
                Way::In => seen.hardware != LOOPBACK,
                Way::Out => !seen.is_inside(),
            };
            let all = all.iter().map(|(_, seen)| seen);
            let passed: Vec<_> = all.filter(|seen| counts(seen)).collect();
            if let Some(first) = passed.first() {
                let links = netns::said(netns::command(namespace, "ip").args(["-o", "link"]));
                anyhow::bail!(
                    "{} frames in {namespace}, the first: {}\nits interfaces now:\n{}",
                    passed.len(),
                    told(first),
                    links.unwrap_or_default()
                );
            }
        }
        Ok(())
    }
}
