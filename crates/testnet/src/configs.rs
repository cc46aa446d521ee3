//! The configuration files of the nodes, and where each node keeps what.

use crate::Port;
use crate::topology::{METRICS, Node, RELAY_PORT, directory_port, directory_url};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The name that the service publishes.
pub const SERVICE_NAME: &str = "freespeech";

/// The files of one node, all below the network's directory.
#[derive(Clone, Debug)]
pub struct Files {
    /// The configuration.
    pub config: PathBuf,
    /// Keys and everything else that the node remembers.
    pub state: PathBuf,
    /// Output.
    pub log: PathBuf,
}

impl Files {
    /// The files of `node` below `directory`.
    pub fn of(directory: &Path, node: Node) -> Self {
        Self {
            config: directory.join(format!("configs/{node}.yaml")),
            state: directory.join(format!("nodes/{node}")),
            log: directory.join(format!("logs/{node}.log")),
        }
    }

    /// The files of a directory, from 0, of several: the first one's are those of its node.
    pub fn of_directory(directory: &Path, number: usize) -> Self {
        if number == 0 {
            return Self::of(directory, Node::Directory);
        }
        let name = format!("{}{}", Node::Directory, number + 1);
        Self {
            config: directory.join(format!("configs/{name}.yaml")),
            state: directory.join(format!("nodes/{name}")),
            log: directory.join(format!("logs/{name}.log")),
        }
    }
}

/// How nodes find the directory, or the directories.
#[derive(Clone, Debug)]
pub struct Directories {
    /// The network's ID: that of the directory, if it is alone.
    pub network: String,
    /// How many there are.
    pub count: usize,
}

impl Directories {
    /// The lines of a relay's or a client's configuration.
    fn lines(&self) -> String {
        let network = &self.network;
        if self.count == 1 {
            return format!(
                "directory: {{url: \"{}\", id: {network}}}\n",
                directory_url(0)
            );
        }
        let urls: Vec<_> = (0..self.count)
            .map(|n| format!("\"{}\"", directory_url(n)))
            .collect();
        format!("network: {network}\ndirectories: [{}]\n", urls.join(", "))
    }
}

/// A directory's configuration; `number`, from 0: which one of several, that have this roster. It is reached over IPv4 by
/// nodes, and over both by others.
pub fn directory(files: &Files, number: usize, roster: Option<&Path>) -> String {
    let port = directory_port(number);
    let mut yaml = format!(
        "state_dir: {}\nlisten: \"[::]:{port}\"\nallow_private_addresses: true\n",
        quoted(&files.state),
    );
    if let Some(roster) = roster {
        let _ = writeln!(yaml, "roster: {}", quoted(roster));
    }
    yaml
}

/// A relay's configuration.
pub fn relay(files: &Files, number: usize, directories: &Directories, port: Port) -> String {
    let [ipv4, ipv6] = Node::Relay(number).relay_addresses();
    format!(
        "name: relay{number}\n\
         state_dir: {}\n\
         listen: [\"0.0.0.0:{RELAY_PORT}\", \"[::]:{RELAY_PORT}\"]\n\
         advertise: [\"{ipv4}\", \"{ipv6}\"]\n\
         {}\
         workers: 1\n\
         metrics: \"{METRICS}\"\n\
         port: {}\n",
        quoted(&files.state),
        directories.lines(),
        port.name()
    )
}

/// The configuration of a client, which is also a service when it publishes a name.
pub fn client(files: &Files, directories: &Directories, publish: Option<&str>) -> String {
    let mut yaml = format!(
        "state_dir: {}\n\
         interface: mixline0\n\
         {}\
         dns: {{mode: resolv-conf}}\n",
        quoted(&files.state),
        directories.lines()
    );
    if let Some(name) = publish {
        let _ = writeln!(yaml, "publish: [{name}]");
    }
    yaml
}

/// A path as a YAML string, whatever characters it has: JSON's strings are YAML's.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy().into_owned()).to_string()
}
