//! The configuration files of the nodes, and where each node keeps what.

use crate::Port;
use crate::topology::{DIRECTORY_PORT, METRICS, Node, RELAY_PORT, directory_url};
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
}

/// The directory's configuration. It is reached over IPv4 by nodes, and over both by others.
pub fn directory(files: &Files) -> String {
    format!(
        "state_dir: {}\nlisten: \"[::]:{DIRECTORY_PORT}\"\nallow_private_addresses: true\n",
        quoted(&files.state),
    )
}

/// A relay's configuration.
pub fn relay(files: &Files, number: usize, directory_id: &str, port: Port) -> String {
    let [ipv4, ipv6] = Node::Relay(number).relay_addresses();
    format!(
        "name: relay{number}\n\
         state_dir: {}\n\
         listen: [\"0.0.0.0:{RELAY_PORT}\", \"[::]:{RELAY_PORT}\"]\n\
         advertise: [\"{ipv4}\", \"{ipv6}\"]\n\
         directory: {{url: \"{}\", id: {directory_id}}}\n\
         workers: 1\n\
         metrics: \"{METRICS}\"\n\
         port: {}\n",
        quoted(&files.state),
        directory_url(),
        port.name()
    )
}

/// The configuration of a client, which is also a service when it publishes a name.
pub fn client(files: &Files, directory_id: &str, publish: Option<&str>) -> String {
    let mut yaml = format!(
        "state_dir: {}\n\
         interface: mixline0\n\
         directory: {{url: \"{}\", id: {directory_id}}}\n\
         dns: {{mode: resolv-conf}}\n",
        quoted(&files.state),
        directory_url()
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
