//! `state.json`: which namespaces, addresses, processes and files there are, for people, for scripts
//! and for the clean-up after a killed run.

use crate::configs::Files;
use crate::error::{Error, Result, SystemContext as _};
use crate::proc;
use crate::process::Process;
use crate::topology::{Node, ROUTER};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The whole file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// The directory's anonymous ID.
    pub directory_id: Option<String>,
    /// One entry per namespace.
    pub namespaces: Vec<NamespaceState>,
}

/// One namespace and what runs there.
#[derive(Debug, Serialize, Deserialize)]
pub struct NamespaceState {
    /// The namespace's name.
    pub namespace: String,
    /// Its addresses on the wires (the router has one for each), without prefix length.
    pub addresses: Vec<String>,
    /// The virtual addresses, of the service and the client.
    #[serde(default)]
    pub virtual_addresses: Vec<String>,
    /// Processes that the testnet started there.
    pub processes: Vec<ProcessState>,
}

/// One process.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessState {
    /// Name of the program.
    pub program: String,
    /// Its PID.
    pub pid: u32,
    /// When it was started, in clock ticks since boot: with the PID, it names the process for sure.
    pub started: u64,
    /// Its configuration.
    pub config: PathBuf,
    /// Its output.
    pub log: PathBuf,
}

impl State {
    /// The namespaces with their addresses, nothing running in them.
    pub fn new() -> Self {
        let router = NamespaceState {
            namespace: ROUTER.into(),
            addresses: Node::all()
                .flat_map(|node| {
                    [
                        node.gateway_ipv4().to_string(),
                        node.gateway_ipv6().to_string(),
                    ]
                })
                .collect(),
            virtual_addresses: Vec::new(),
            processes: Vec::new(),
        };
        let nodes = Node::all().map(|node| NamespaceState {
            namespace: node.namespace(),
            addresses: vec![node.ipv4().to_string(), node.ipv6().to_string()],
            virtual_addresses: Vec::new(),
            processes: Vec::new(),
        });
        Self {
            directory_id: None,
            namespaces: nodes.chain([router]).collect(),
        }
    }

    /// The entry of a node.
    pub fn of(&mut self, node: Node) -> Option<&mut NamespaceState> {
        let name = node.namespace();
        self.namespaces
            .iter_mut()
            .find(|entry| entry.namespace == name)
    }

    /// Puts down the processes that run in a node's namespace, with the node's files.
    pub fn record(&mut self, node: Node, files: &Files, processes: &[&Process]) {
        let Some(entry) = self.of(node) else { return };
        entry.processes = processes
            .iter()
            .map(|process| {
                let name = process.program().executable.file_name().unwrap_or_default();
                ProcessState {
                    program: name.to_string_lossy().into_owned(),
                    pid: process.pid(),
                    started: proc::start_time(process.pid()).unwrap_or(0),
                    config: files.config.clone(),
                    log: process.program().log.clone(),
                }
            })
            .collect();
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<()> {
        let temporary = path.with_extension("json.new");
        let json = serde_json::to_vec_pretty(self).map_err(|source| Error::Json {
            doing: format!("writing {}", path.display()),
            source,
        })?;
        fs::write(&temporary, json)
            .and_then(|()| fs::rename(&temporary, path))
            .file("writing", path)
    }

    /// Reads the file of an earlier run; none if there is none, or if it is not to be understood.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Kills the processes of an earlier run that still live.
    pub fn kill_all(&self) {
        for process in self.namespaces.iter().flat_map(|entry| &entry.processes) {
            proc::kill_recorded(process.pid, process.started);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert!(State::load(&path).is_none());
        let mut state = State::new();
        state.directory_id = Some("abc".into());
        state.save(&path).unwrap();
        let loaded = State::load(&path).unwrap();
        assert_eq!(loaded.directory_id.as_deref(), Some("abc"));
        let names: Vec<_> = loaded
            .namespaces
            .iter()
            .map(|entry| &entry.namespace)
            .collect();
        assert!(names.iter().any(|name| *name == "mixline-relay8"));
        assert_eq!(names.len(), 12);
    }
}
