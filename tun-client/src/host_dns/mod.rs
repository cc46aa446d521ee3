//! Pointing the host's resolver at the responder, and back.
//!
//! Two ways, and a host may need both. Where systemd-resolved runs it is told that `.anon` (and the
//! reverse names) live behind a link of the client's, and everything else stays as it was. Where
//! `/etc/resolv.conf` does not lead to it, the file names the responder alone, which forwards
//! other domains to the servers that stood there before.

pub mod early;
mod ours;
pub mod pointer;
pub mod resolv_conf;
pub mod resolved;
mod settings;
pub mod upstream;
pub mod watch;

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{DNS_PORT, Dns};
use crate::error::{Error, Result};
use resolv_conf::ResolvConf;
use upstream::Upstream;

/// What of the host is changed; tests put theirs in place.
#[derive(Debug, Clone)]
pub struct Host {
    /// The resolver's configuration file.
    pub resolv_conf: PathBuf,
    /// Where systemd-resolved names the servers that it asks itself.
    pub uplinks: PathBuf,
    /// The D-Bus on which systemd-resolved is; the system's, if none is named.
    pub bus: Option<String>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            uplinks: "/run/systemd/resolve/resolv.conf".into(),
            bus: None,
        }
    }
}

/// How the host's programs find `.anon` now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Active {
    /// Through systemd-resolved.
    Resolved,
    /// Through `/etc/resolv.conf`.
    ResolvConf,
    /// Not by themselves.
    Off,
}

impl std::fmt::Display for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolved => "systemd-resolved",
            Self::ResolvConf => "resolv.conf",
            Self::Off => "off",
        })
    }
}

/// What the host's resolver used before: for the responder to forward to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Name servers, in order.
    pub servers: Vec<Upstream>,
    /// Search domains.
    pub search: Vec<String>,
}

/// Undoes what a client that stopped uncleanly left behind, then reads what the host
/// uses. Done before anything else, also when `mode` is `off`.
///
/// # Errors
/// [`Error::HostDns`] if another running client has the file, or it cannot be put back.
pub fn recover(host: &Host, state_dir: &Path) -> Result<Earlier> {
    let file = ResolvConf::new(&host.resolv_conf, state_dir);
    if file.recover()? {
        tracing::warn!(
            file = %host.resolv_conf.display(),
            "put back as it was before a client that stopped uncleanly"
        );
    }
    file.earlier()
}

/// What the host uses, if that is not this client: another program has written the file since.
///
/// # Errors
/// [`Error::HostDns`] if it cannot be read.
pub fn earlier(host: &Host, state_dir: &Path) -> Result<Option<Earlier>> {
    let file = ResolvConf::new(&host.resolv_conf, state_dir);
    if file.is_ours() {
        return Ok(None);
    }
    file.earlier().map(Some)
}

/// Where the responder forwards other domains; empty if it does not.
#[must_use]
pub fn upstreams(dns: &Dns, earlier: &Earlier, resolver: Ipv4Addr) -> Vec<Upstream> {
    if !dns.forward {
        return Vec::new();
    }
    let chosen: Vec<Upstream> = if dns.upstream.is_empty() {
        earlier.servers.clone()
    } else {
        dns.upstream.iter().copied().map(Upstream::from).collect()
    };
    let own = IpAddr::V4(resolver);
    chosen
        .into_iter()
        .filter(|server| (server.address, server.port) != (own, DNS_PORT))
        .collect()
}

/// Who is asked for what systemd-resolved would ask of this client: in its place, the servers that it has.
#[must_use]
pub fn behind_resolved(host: &Host, upstreams: &[Upstream], own: Ipv4Addr) -> Vec<Upstream> {
    let is_stub = |server: &&Upstream| resolved::is_stub(server.address);
    let (stubs, mut servers): (Vec<&Upstream>, Vec<&Upstream>) =
        upstreams.iter().partition(is_stub);
    let its = std::fs::read(&host.uplinks).unwrap_or_default();
    let its = settings::servers(&its);
    if !stubs.is_empty() {
        let others = its
            .iter()
            .filter(|server| server.address != IpAddr::V4(own));
        servers.extend(others.filter(|server| !is_stub(server)));
    }
    servers.into_iter().cloned().collect()
}

/// Puts the file back. What systemd-resolved was told goes with the link that it was told of.
///
/// # Errors
/// [`Error::HostDns`].
pub fn restore(host: &Host, active: &Active, state_dir: &Path) -> Result<()> {
    if *active != Active::ResolvConf {
        return Ok(());
    }
    let file = ResolvConf::new(&host.resolv_conf, state_dir);
    file.restore().map(drop)
}

/// What is wrong with the host's resolver now, in a line: another program may have
/// written the file since.
#[must_use]
pub fn check(host: &Host, active: &Active, state_dir: &Path) -> Option<String> {
    let file = ResolvConf::new(&host.resolv_conf, state_dir);
    (*active == Active::ResolvConf && !file.is_ours()).then(|| {
        format!(
            "another program rewrote {}, and it cannot be taken back: .anon names are not found",
            host.resolv_conf.display()
        )
    })
}

/// Whether this process has a network of its own and yet the host's file: writing it
/// would cut the host off from its name servers.
fn is_shared_with_the_host(path: &Path) -> bool {
    let inode = |path: &Path| {
        std::fs::metadata(path)
            .map(|metadata| (metadata.dev(), metadata.ino()))
            .ok()
    };
    let (own, init) = (
        inode(Path::new("/proc/self/ns/net")),
        inode(Path::new("/proc/1/ns/net")),
    );
    let relative = path.strip_prefix("/").unwrap_or(path);
    let (file, init_file) = (
        inode(path),
        inode(&Path::new("/proc/1/root").join(relative)),
    );
    own.is_some() && init.is_some() && own != init && file.is_some() && file == init_file
}

pub(crate) fn failed(reason: impl Into<String>) -> Error {
    Error::HostDns {
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_place_of_systemd_resolved_its_servers_are_asked() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host {
            uplinks: directory.path().join("resolv.conf"),
            ..Host::default()
        };
        let servers = |texts: &[&str]| -> Vec<Upstream> {
            let parse = |text: &&str| Upstream::parse(text).unwrap();
            texts.iter().map(parse).collect()
        };
        let own = Ipv4Addr::new(10, 0, 0, 53);
        let stub = servers(&["127.0.0.53"]);
        assert_eq!(behind_resolved(&host, &stub, own), []);
        let file = "nameserver 10.0.0.53\nnameserver 10.1.0.1\nnameserver fe80::1%lan0\n";
        std::fs::write(&host.uplinks, file).unwrap();
        let its = servers(&["10.1.0.1", "fe80::1%lan0"]);
        assert_eq!(behind_resolved(&host, &stub, own), its);
        // Whoever does not ask it goes on as it does.
        let others = servers(&["192.0.2.1"]);
        assert_eq!(behind_resolved(&host, &others, own), others);
    }
}
