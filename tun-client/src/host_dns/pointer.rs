//! What a client that is up does to the host's resolver, and whether it still is so.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mixline_protocol::address::VirtualNetwork;

use super::resolv_conf::ResolvConf;
use super::resolved::{Owners, Resolved, Routing};
use super::watch::{Announced, Watch};
use super::{Active, Earlier, Host, failed, is_shared_with_the_host};
use crate::config::DnsMode;
use crate::error::Result;

/// How long systemd-resolved may be gone until it is taken for gone: it is started again with every
/// upgrade.
const ABSENCE: Duration = Duration::from_secs(5);
/// Between two looks whether it is there again.
const LOOK: Duration = Duration::from_millis(200);
/// What nobody announces is looked at this often.
const SELDOM: Duration = Duration::from_secs(10);
/// What could not be done is tried again after this time, if nothing is announced before.
const RARELY: Duration = Duration::from_secs(60);

/// Where the responder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Its address.
    pub address: Ipv4Addr,
    /// The link that has it, if systemd-resolved may be told of that.
    pub link: Option<u32>,
}

/// What came of pointing the host's resolver at the responder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointed {
    /// How the host's programs find `.anon` now.
    pub active: Active,
    /// Whether systemd-resolved sends them here as well.
    pub routed: bool,
    /// What could not be done.
    pub warning: Option<String>,
}

/// The host's resolver, seen from one client.
pub struct Pointer {
    host: Host,
    /// What the configuration wants.
    pub mode: DnsMode,
    state_dir: PathBuf,
    network: VirtualNetwork,
    bus: Option<(Resolved, Owners)>,
    watch: Watch,
    /// What systemd-resolved was told.
    routing: Option<Routing>,
    /// What the file said when it was looked at.
    seen: Option<Earlier>,
}

impl Pointer {
    /// The host's resolver; nothing is changed.
    #[must_use]
    pub fn new(host: &Host, mode: DnsMode, state_dir: &Path, network: VirtualNetwork) -> Self {
        Self {
            host: host.clone(),
            mode,
            state_dir: state_dir.to_owned(),
            network,
            bus: None,
            watch: Watch::new(host),
            routing: None,
            seen: None,
        }
    }

    fn file(&self) -> ResolvConf {
        ResolvConf::new(&self.host.resolv_conf, &self.state_dir)
    }

    /// Whether systemd-resolved runs for this host and is to be told where names are. One whose
    /// absence makes `/etc/resolv.conf` useless is started.
    pub async fn uses_resolved(&mut self) -> bool {
        if self.mode == DnsMode::Off {
            return false;
        }
        if self.is_resolved_here().await {
            return true;
        }
        let wanted = self.mode == DnsMode::Resolved || self.file().names_resolved();
        if let (true, Some((resolved, _))) = (wanted, &self.bus) {
            resolved.start().await;
            return self.is_resolved_here().await;
        }
        false
    }

    /// Whether systemd-resolved runs, and in the network of this process.
    async fn is_resolved_here(&mut self) -> bool {
        let Some(resolved) = self.connected().await else {
            return false;
        };
        if !resolved.is_running().await {
            return false;
        }
        let process = resolved.process().await;
        let network = |process: &str| {
            let path = Path::new("/proc").join(process).join("ns/net");
            std::fs::read_link(path).ok()
        };
        let (own, its) = (
            network("self"),
            process.and_then(|process| network(&process.to_string())),
        );
        match (own, its) {
            (Some(own), Some(its)) => own == its,
            // It may not be looked at, as from a unit of few rights.
            _ => self.file().names_resolved() || listens_here(),
        }
    }

    /// The bus, connected anew if need be.
    async fn connected(&mut self) -> Option<Resolved> {
        if let Some((resolved, _)) = &self.bus
            && resolved.is_connected()
        {
            return Some(resolved.clone());
        }
        self.bus = None;
        let connect = async {
            let resolved = Resolved::connect(self.host.bus.as_deref()).await?;
            let owners = resolved.owners().await?;
            Ok::<_, crate::Error>((resolved, owners))
        };
        match connect.await {
            Ok(bus) => self.bus = Some(bus),
            Err(error) => tracing::debug!(%error, "no systemd-resolved"),
        }
        self.bus.as_ref().map(|(resolved, _)| resolved.clone())
    }

    /// What the host uses, if that is not this client.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`] if the file cannot be read.
    pub fn earlier(&self) -> Result<Option<Earlier>> {
        super::earlier(&self.host, &self.state_dir)
    }

    /// Has the host's resolver ask at `at`, which `search` domains may be appended for.
    ///
    /// With `auto`, what cannot be done is told and the client goes on without; a mode that was
    /// asked for by name has to work.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`].
    pub async fn point(&mut self, at: At, search: &[String]) -> Result<Pointed> {
        let pointed = self.point_now(at, search).await;
        // What there is now is what a change differs from.
        self.seen = self.earlier().ok().flatten();
        pointed
    }

    async fn point_now(&mut self, at: At, search: &[String]) -> Result<Pointed> {
        if self.mode == DnsMode::Off {
            if let (Some((resolved, _)), Some(routing)) = (&self.bus, self.routing.take()) {
                resolved.revert(routing.link).await;
            }
            return Ok(Pointed {
                active: Active::Off,
                routed: false,
                warning: None,
            });
        }
        let led = self.file().names_resolved();
        let mut here = self.is_resolved_here().await;
        if led && !here {
            let began = Instant::now();
            while !here && began.elapsed() < ABSENCE {
                tokio::time::sleep(LOOK).await;
                here = self.is_resolved_here().await;
            }
        }
        // First, since it closes: a name is asked of nobody else from now on.
        let routed = if here {
            self.set_routing(at, search).await.map(|()| true)
        } else {
            Ok(false)
        };
        let resolved = |routed: Result<bool>| match routed {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed("systemd-resolved does not run")),
            Err(error) => Err(error),
        };
        match self.mode {
            DnsMode::Resolved => {
                resolved(routed)?;
                Ok(Pointed {
                    active: Active::Resolved,
                    routed: true,
                    warning: None,
                })
            }
            DnsMode::ResolvConf => {
                self.file().apply(at.address)?;
                Ok(Pointed {
                    active: Active::ResolvConf,
                    routed: routed.as_ref().is_ok_and(|routed| *routed),
                    warning: routed.err().map(|error| error.to_string()),
                })
            }
            DnsMode::Auto | DnsMode::Off if led && here => {
                let warning = resolved(routed).err().map(|error| error.to_string());
                Ok(Pointed {
                    active: if warning.is_none() {
                        Active::Resolved
                    } else {
                        Active::Off
                    },
                    routed: warning.is_none(),
                    warning,
                })
            }
            DnsMode::Auto | DnsMode::Off => {
                let taken = self.take_file(at.address);
                let (active, warning) = match taken {
                    Ok(()) => (Active::ResolvConf, None),
                    Err(reason) => (Active::Off, Some(reason)),
                };
                let other = routed.as_ref().err().map(ToString::to_string);
                Ok(Pointed {
                    active,
                    routed: routed.is_ok_and(|routed| routed),
                    warning: warning.or(other),
                })
            }
        }
    }

    /// Has systemd-resolved, if it runs for this host, ask at `at`, and leaves all else as it is.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`].
    pub async fn route(&mut self, at: At) -> Result<Pointed> {
        let routed = self.mode != DnsMode::Off && self.is_resolved_here().await;
        if routed {
            let search = self.file().earlier()?.search;
            self.set_routing(at, &search).await?;
        }
        self.seen = self.earlier().ok().flatten();
        Ok(Pointed {
            active: Active::Resolved,
            routed,
            warning: None,
        })
    }

    async fn set_routing(&mut self, at: At, search: &[String]) -> Result<()> {
        let (Some((resolved, _)), Some(link)) = (&self.bus, at.link) else {
            return Err(failed("systemd-resolved has no link to ask by"));
        };
        let routing = Routing::new(link, at.address, &self.network, search);
        let told = resolved.set(&routing).await;
        self.routing = Some(routing);
        told
    }

    fn take_file(&self, resolver: Ipv4Addr) -> std::result::Result<(), String> {
        if is_shared_with_the_host(&self.host.resolv_conf) {
            return Err(format!(
                "this network namespace shares {0} with the host, so it is left alone: give \
                 it one of its own (/etc/netns/NAME/resolv.conf), or set `dns: {{mode: \
                 resolv-conf}}`; the responder is at {resolver}",
                self.host.resolv_conf.display()
            ));
        }
        let taken = self.file().apply(resolver);
        taken.map_err(|error| error.to_string())
    }

    /// Waits until the host's resolver may ask somebody else, or asks somebody else for other
    /// domains.
    pub async fn changed(&mut self, pointed: &Pointed) {
        let began = Instant::now();
        let mut asked = began;
        loop {
            self.watch.listen();
            let again = pointed.warning.is_some() && began.elapsed() >= RARELY;
            if self.is_file_other(pointed) || again {
                return;
            }
            if asked.elapsed() >= SELDOM {
                asked = Instant::now();
                if self.is_resolved_other(pointed).await {
                    return;
                }
            }
            let owners = async {
                match &mut self.bus {
                    Some((_, owners)) => owners.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                announced = self.watch.next() => {
                    let changed = match announced {
                        // It may be writable now.
                        Announced::File => pointed.warning.is_some(),
                        Announced::Resolved => self.is_resolved_other(pointed).await,
                        Announced::Something => false,
                    };
                    if changed {
                        return;
                    }
                }
                there = owners => {
                    if !there {
                        self.bus = None;
                    }
                    if self.mode != DnsMode::Off {
                        return;
                    }
                }
            }
        }
    }

    /// Whether the file is not as it was left.
    fn is_file_other(&self, pointed: &Pointed) -> bool {
        if self.mode == DnsMode::Off {
            // Other domains go where the host asks.
            return self.earlier().ok().flatten() != self.seen;
        }
        match pointed.active {
            Active::ResolvConf => !self.file().is_ours(),
            Active::Resolved | Active::Off => self.earlier().ok().flatten() != self.seen,
        }
    }

    /// Whether systemd-resolved does something else than it was told, or is there and was not.
    async fn is_resolved_other(&mut self, pointed: &Pointed) -> bool {
        if self.mode == DnsMode::Off {
            return false;
        }
        let here = self.is_resolved_here().await;
        if here != pointed.routed {
            return here || pointed.active == Active::Resolved;
        }
        match (&self.bus, &self.routing) {
            (Some((resolved, _)), Some(routing)) if here => !resolved.has(routing).await,
            _ => false,
        }
    }
}

/// Whether the stub of systemd-resolved listens in the network of this process.
fn listens_here() -> bool {
    // Address and port in hexadecimal, the address in the order of the machine (proc(5)).
    let stub = u32::from_ne_bytes([127, 0, 0, 53]);
    let stub = format!(" {stub:08X}:0035 ");
    std::fs::read_to_string("/proc/self/net/udp").is_ok_and(|table| table.contains(&stub))
}
