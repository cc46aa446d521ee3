//! What crosses a wire.

use crate::tools::{eventually, length};
use anyhow::Result;
use mixline_testnet::Network;
use mixline_testnet::process::{Process, Program};
use mixline_testnet::topology::{Node, ROUTER};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// A capture on one wire.
pub struct Capture {
    node: Node,
    file: PathBuf,
    tcpdump: Process,
}

impl Capture {
    /// Captures at the router's end of the wire of `node`, what `more` arguments of tcpdump say, or
    /// all.
    pub fn start(network: &Network, node: Node, more: &[&str]) -> Result<Self> {
        let file = network.directory().join(format!("logs/{node}.pcap"));
        let log = network.directory().join(format!("logs/{node}.tcpdump.log"));
        for old in [&file, &log] {
            let _ = std::fs::remove_file(old);
        }
        let tcpdump = Program {
            namespace: ROUTER.into(),
            executable: "tcpdump".into(),
            arguments: [
                "--immediate-mode",
                "-i",
                &node.name(),
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
        let capture = Self {
            node,
            file,
            tcpdump,
        };
        eventually(&format!("tcpdump on {node}"), 30, || {
            // It writes the file's header once it listens.
            Ok(length(&capture.file) >= 24)
        })?;
        Ok(capture)
    }

    /// Ends it; gives the file's bytes.
    pub fn end(mut self) -> Result<(Node, Vec<u8>)> {
        // What has crossed the wire has yet to be written.
        thread::sleep(Duration::from_secs(1));
        self.tcpdump.signal(Signal::SIGINT)?;
        self.tcpdump.wait(Duration::from_secs(30))?;
        let bytes = std::fs::read(&self.file)?;
        std::fs::remove_file(&self.file)?;
        Ok((self.node, bytes))
    }
}
