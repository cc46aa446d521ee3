//! Pointing the host's resolver at the responder, and back.
//!
//! Two ways: systemd-resolved is told that `.anon` (and the reverse names) live behind
//! the interface, everything else stays as it was and nothing is left behind when the
//! interface goes; or `/etc/resolv.conf` names the responder alone, which forwards other
//! domains to the servers that stood there before.

pub mod resolv_conf;
pub mod resolved;
pub mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mixline_protocol::address::VirtualNetwork;
use serde::Serialize;

use crate::config::{Config, DNS_PORT, Dns, DnsMode};
use crate::error::{Error, Result};
use resolv_conf::ResolvConf;
use resolved::Resolved;

/// What of the host is changed; tests put files of their own in place.
#[derive(Debug, Clone)]
pub struct Host {
    /// The resolver's configuration file.
    pub resolv_conf: PathBuf,
    /// systemd-resolved's command.
    pub resolvectl: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            resolvectl: "resolvectl".into(),
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
    pub servers: Vec<SocketAddr>,
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
pub fn upstreams(dns: &Dns, earlier: &Earlier, resolver: Ipv4Addr) -> Vec<SocketAddr> {
    if !dns.forward {
        return Vec::new();
    }
    let chosen = if dns.upstream.is_empty() {
        &earlier.servers
    } else {
        &dns.upstream
    };
    chosen
        .iter()
        .copied()
        .filter(|server| *server != SocketAddr::new(IpAddr::V4(resolver), DNS_PORT))
        .collect()
}

/// Points the host's resolver at `resolver` on `interface`.
///
/// With `auto`, what cannot be done is told in the second value and the client goes on
/// without; a mode that was asked for by name has to work.
///
/// # Errors
/// [`Error::HostDns`].
pub async fn apply(
    host: &Host,
    mode: DnsMode,
    state_dir: &Path,
    interface: &str,
    resolver: Ipv4Addr,
    network: &VirtualNetwork,
) -> Result<(Active, Option<String>)> {
    let resolved = Resolved::new(&host.resolvectl, interface);
    let file = ResolvConf::new(&host.resolv_conf, state_dir);
    match mode {
        DnsMode::Off => Ok((Active::Off, None)),
        DnsMode::Resolved => {
            resolved.apply(resolver, network).await?;
            Ok((Active::Resolved, None))
        }
        DnsMode::ResolvConf => {
            file.apply(resolver)?;
            Ok((Active::ResolvConf, None))
        }
        DnsMode::Auto => {
            if uses_resolved(&file, &resolved).await {
                match resolved.apply(resolver, network).await {
                    Ok(()) => return Ok((Active::Resolved, None)),
                    Err(error) => return Ok((Active::Off, Some(error.to_string()))),
                }
            }
            if is_shared_with_the_host(&host.resolv_conf) {
                let reason = format!(
                    "this network namespace shares {0} with the host, so it is left alone: give \
                     it one of its own (/etc/netns/NAME/resolv.conf), or set `dns: {{mode: \
                     resolv-conf}}`; the responder is at {resolver}",
                    host.resolv_conf.display()
                );
                return Ok((Active::Off, Some(reason)));
            }
            match file.apply(resolver) {
                Ok(()) => Ok((Active::ResolvConf, None)),
                Err(error) => Ok((Active::Off, Some(error.to_string()))),
            }
        }
    }
}

/// Whether the host's resolver is, or will be, systemd-resolved.
pub async fn is_resolved(host: &Host, config: &Config) -> bool {
    let file = ResolvConf::new(&host.resolv_conf, &config.state_dir);
    let resolved = Resolved::new(&host.resolvectl, &config.interface);
    match config.dns.mode {
        DnsMode::Resolved => true,
        DnsMode::Auto => uses_resolved(&file, &resolved).await,
        DnsMode::ResolvConf | DnsMode::Off => false,
    }
}

async fn uses_resolved(file: &ResolvConf, resolved: &Resolved) -> bool {
    file.names_resolved() && resolved.is_running().await
}

/// Puts the host's resolver back.
///
/// # Errors
/// [`Error::HostDns`].
pub async fn restore(
    host: &Host,
    active: &Active,
    state_dir: &Path,
    interface: &str,
) -> Result<()> {
    match active {
        Active::Off => Ok(()),
        Active::Resolved => {
            Resolved::new(&host.resolvectl, interface).revert().await;
            Ok(())
        }
        Active::ResolvConf => ResolvConf::new(&host.resolv_conf, state_dir)
            .restore()
            .map(|_| ()),
    }
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
