//! An ssh server behind the service, and a client configuration that reaches it: keys and
//! configurations of their own, nothing of the host's is used or changed.

use crate::error::{Error, Result, SystemContext as _};
use crate::process::{Process, Program};
use crate::programs::find_tool;
use crate::topology::Node;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The privilege separation directory of Debian's sshd; its service makes it, if it runs.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// The files of server and client.
#[derive(Clone, Debug)]
pub struct Ssh {
    directory: PathBuf,
}

impl Ssh {
    /// Makes keys and configurations below `directory`, which only root can enter.
    pub fn create(directory: &Path, host: &str, addresses: &[IpAddr]) -> Result<Self> {
        let directory = directory.join("ssh");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .file("making", &directory)?;
        for name in ["host_key", "user_key"] {
            let output = Command::new("ssh-keygen")
                .args([
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-C",
                    "mixline testnet",
                    "-f",
                ])
                .arg(directory.join(name))
                .output()
                .program("running ssh-keygen")?;
            if !output.status.success() {
                return Err(Error::failed("ssh-keygen", &output));
            }
        }
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).file("writing", &path)
        };
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).file("reading", &path)
        };
        write("known_hosts", format!("{host} {}", read("host_key.pub")?))?;
        write("authorized_keys", read("user_key.pub")?)?;

        let base = directory.display();
        let listen: String = addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => format!("ListenAddress {address}\n"),
                IpAddr::V6(address) => format!("ListenAddress [{address}]\n"),
            })
            .collect();
        write(
            "sshd_config",
            format!(
                "Port 22\n{listen}HostKey \"{base}/host_key\"\n\
                 AuthorizedKeysFile \"{base}/authorized_keys\"\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 PermitRootLogin prohibit-password\nStrictModes no\nUsePAM yes\nUseDNS no\n\
                 PrintMotd no\nPidFile none\n"
            ),
        )?;
        write(
            "config",
            format!(
                "Host *\n  User root\n  IdentityFile \"{base}/user_key\"\n  IdentitiesOnly yes\n  \
                 UserKnownHostsFile \"{base}/known_hosts\"\n  StrictHostKeyChecking yes\n  \
                 HostKeyAlias {host}\n  BatchMode yes\n"
            ),
        )?;
        Ok(Self { directory })
    }

    /// Starts the server in the service's namespace.
    pub fn serve(&self, log: PathBuf) -> Result<Process> {
        fs::create_dir_all(PRIVILEGE_SEPARATION).file("making", PRIVILEGE_SEPARATION)?;
        Program {
            namespace: Node::Service.namespace(),
            executable: find_tool("sshd")?, // it insists on an absolute path
            arguments: vec![
                "-D".into(),
                "-e".into(),
                "-f".into(),
                self.directory.join("sshd_config").into_os_string(),
            ],
            environment: Vec::new(),
            log,
        }
        .start()
    }

    /// The client's configuration, for `ssh -F`.
    pub fn client_config(&self) -> PathBuf {
        self.directory.join("config")
    }
}
