//! Names on a closed host without a client: systemd-resolved asks nobody for them.
//!
//! The packet filter drops questions at the port of DNS. systemd-resolved may ask at others, and by TLS, so
//! it is told that names of ours are behind the anchor, where nobody answers yet: when it starts by
//! a file ([`early`]), and by D-Bus as soon as there is one.

use std::path::Path;
use std::time::{Duration, Instant};

use mixline_protocol::address::VirtualNetwork;

use crate::config::{Config, DnsMode};
use crate::host::desired::Place;
use crate::host::observed::ANCHOR;
use crate::host::reconcile::Report;
use crate::host_dns::pointer::{At, Pointed, Pointer};
use crate::host_dns::resolv_conf::ResolvConf;
use crate::host_dns::resolved::Routing;
use crate::host_dns::{Host, early};

/// There if systemd-resolved is enabled (the alias in its unit's `[Install]`).
const ENABLED: &str = "/etc/systemd/system/dbus-org.freedesktop.resolve1.service";

/// What nobody announces is put right after this time.
const SELDOM: Duration = Duration::from_secs(10);
/// The anchor's index.
const ANCHOR_LINK: u32 = ANCHOR.0;

/// What systemd-resolved is told while no client does.
pub struct LockedNames {
    mode: DnsMode,
    pointer: Pointer,
    network: VirtualNetwork,
    /// Where it was told that names are, what came of that, and when.
    told: Option<(At, Pointed, Instant)>,
}

impl LockedNames {
    /// Nothing is told yet.
    pub fn new(config: &Config, network: VirtualNetwork) -> Self {
        let (host, mode) = (Host::default(), config.dns.mode);
        Self {
            pointer: Pointer::new(&host, mode, &config.state_dir, network),
            mode,
            network,
            told: None,
        }
    }

    /// Whether this is told of another configuration.
    pub fn is_of(&self, config: &Config, network: VirtualNetwork) -> bool {
        self.mode == config.dns.mode && self.network == network
    }

    /// Whether systemd-resolved was told, or listened to.
    pub fn is_used(&self) -> bool {
        self.told.is_some()
    }

    /// Tells systemd-resolved, if it runs, where names are on a host that looks like this.
    pub async fn tell(&mut self, report: &Report) {
        let link = report.resolver_link.as_ref().map(|(link, _)| *link);
        let (Some(address), Some(ANCHOR_LINK)) = (report.resolver, link) else {
            return;
        };
        let at = At { address, link };
        if let Some((before, pointed, when)) = &self.told
            && *before == at
            && pointed.routed
            && when.elapsed() < SELDOM
        {
            return;
        }
        match self.pointer.route(at).await {
            Ok(pointed) => self.told = Some((at, pointed, Instant::now())),
            Err(error) => tracing::debug!(%error, "systemd-resolved is not told of names"),
        }
    }

    /// Waits until systemd-resolved may have to be told again.
    pub async fn changed(&mut self) {
        match &self.told {
            Some((_, pointed, _)) => {
                let pointed = pointed.clone();
                self.pointer.changed(&pointed).await;
                self.told = None;
            }
            None => std::future::pending().await,
        }
    }
}

/// Where the resolver's address is to be on a closed host: on the anchor, if systemd-resolved may be asked
/// for names.
pub fn place(config: &Config) -> Option<Place> {
    let host = Host::default();
    let leads = || ResolvConf::new(&host.resolv_conf, &config.state_dir).names_resolved();
    let wanted = match config.dns.mode {
        DnsMode::Off => false,
        DnsMode::Resolved => true,
        DnsMode::Auto | DnsMode::ResolvConf => leads() || Path::new(ENABLED).exists(),
    };
    wanted.then_some(Place::Inside)
}

/// Writes down for a systemd-resolved that starts later where names are.
pub fn write_down(config: &Config, network: &VirtualNetwork) {
    if place(config).is_none() {
        return;
    }
    let routing = Routing::new(ANCHOR_LINK, network.resolver(), network, &[]);
    if let Err(error) = early::write_down(&routing, Path::new(early::DIRECTORY)) {
        tracing::warn!(%error, "systemd-resolved hears of names when D-Bus is there, and not before");
    }
}
