//! Names for the host's programs: the responder, and the host's resolver that asks it.
//!
//! Both follow the host: the resolver's address moves when a neighbourhood takes it, and other
//! programs rewrite `/etc/resolv.conf`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_protocol::address::VirtualNetwork;
use tokio::sync::watch;

use super::backend::EndpointBackend;
use super::shared::Shared;
use super::status::DnsStatus;
use crate::config::{Config, DNS_PORT, Dns, DnsMode};
use crate::dns::forward::Forwarder;
use crate::dns::responder::Responder;
use crate::dns::server::Server;
use crate::dns::zone::{Zone, is_virtual};
use crate::error::{Error, Result};
use crate::host::desired::{Place, Wanted};
use crate::host::reconcile::Report;
use crate::host_dns::watch::Watch;
use crate::host_dns::{self, Active, Earlier};

/// The interface that has the resolver's address, unless it is the client's.
const LOOPBACK: &str = "lo";
/// What failed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the host may take to put the resolver's address somewhere else.
const MOMENT: Duration = Duration::from_secs(2);
/// Bounds of the pause between changes that come one after the other, and the time after which one is
/// taken for the first again.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
const CALM: Duration = Duration::from_secs(60);

/// Where names are answered, and what was asked before.
pub struct Resolver {
    shared: Arc<Shared>,
    network: VirtualNetwork,
    reports: watch::Receiver<Option<Report>>,
    address: Ipv4Addr,
    /// What the host's resolver used before.
    earlier: Earlier,
    /// What the configuration said of names when this began.
    dns: Dns,
}

/// A resolver that answers.
pub struct Serving {
    resolver: Resolver,
    server: Option<Server>,
    active: Active,
    /// How long nothing is done about the next change.
    pause: Duration,
}

/// Why it cannot go on as it is.
enum Change {
    /// The host has the resolver's address, but it is another.
    Address(Ipv4Addr),
    /// The host's resolver may ask somebody else.
    Host,
    /// The configuration says something else of names.
    Configuration,
}

impl Resolver {
    /// A resolver at the address that the host has for it.
    pub fn new(shared: &Arc<Shared>, network: VirtualNetwork, earlier: Earlier) -> Self {
        let address = shared.host_state.report().resolver;
        Self {
            shared: Arc::clone(shared),
            network,
            reports: shared.host_state.reports(),
            address: address.unwrap_or_else(|| network.resolver()),
            earlier,
            dns: shared.config().dns.clone(),
        }
    }

    /// Where it answers.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Listens, and has the host's resolver ask here.
    ///
    /// # Errors
    /// [`Error::DnsListen`], [`Error::HostDns`], unless the configuration leaves it to chance.
    pub async fn start(self) -> Result<Serving> {
        let (server, problem) = match self.listen().await {
            Ok(server) => (Some(server), None),
            Err(error) => {
                let address = SocketAddr::new(self.address.into(), DNS_PORT);
                let error = Error::DnsListen { address, error };
                if self.shared.config().dns.mode != DnsMode::Off {
                    return Err(error);
                }
                (None, Some(error.to_string()))
            }
        };
        let (active, warning) = self.point().await?;
        self.tell(&active, server.is_some(), warning.or(problem));
        Ok(Serving {
            resolver: self,
            server,
            active,
            pause: Duration::ZERO,
        })
    }

    async fn listen(&self) -> io::Result<Server> {
        let address = SocketAddr::new(self.address.into(), DNS_PORT);
        let wanted = self.shared.host_state.wanted();
        let inside = wanted.is_some_and(|wanted| wanted.resolver == Some(Place::Inside));
        let config = self.shared.config();
        let interface = if inside {
            config.interface.as_str()
        } else {
            LOOPBACK
        };
        Server::bind(address, interface).await
    }

    /// Has the host's resolver ask here.
    async fn point(&self) -> Result<(Active, Option<String>)> {
        let shared = &self.shared;
        host_dns::apply(
            &shared.host,
            shared.config().dns.mode,
            shared.state.directory(),
            &shared.config().interface,
            self.address,
            &self.network,
        )
        .await
    }

    fn upstreams(&self) -> Vec<SocketAddr> {
        host_dns::upstreams(&self.shared.config().dns, &self.earlier, self.address)
    }

    fn responder(&self) -> Arc<Responder<EndpointBackend>> {
        let shared = &self.shared;
        Arc::new(Responder::new(
            Arc::clone(&shared.backend),
            Zone::new(self.network, &self.earlier.search),
            shared.host_state.reach(),
            Forwarder::new(&self.upstreams()),
        ))
    }

    /// Puts into the status how names are found, and what is wrong with that.
    fn tell(&self, active: &Active, listening: bool, problem: Option<String>) {
        let upstreams = self.upstreams();
        let problem = problem.or_else(|| upstream_problem(&self.network, &upstreams));
        self.shared.update(|facts| {
            facts.dns = DnsStatus {
                mode: active.clone(),
                resolver: listening.then_some(self.address),
                upstream: upstreams
                    .iter()
                    .map(|server| server.ip().to_string())
                    .collect(),
            };
        });
        if let Some(problem) = &problem {
            tracing::warn!("{problem}");
        }
        self.shared.problems().dns = problem;
    }
}

impl Serving {
    /// Answers, and follows the host, for ever.
    pub async fn keep(mut self) {
        let shared = Arc::clone(&self.resolver.shared);
        let mut watch = Watch::new(&shared.host);
        let mut configs = shared.reloader.follow();
        // What was begun with may be older than what counts by now.
        let mut dns = self.resolver.dns.clone();
        loop {
            let responder = self.resolver.responder();
            let server = self.server.take();
            let serving = async {
                match server {
                    Some(server) => server.serve(responder).await,
                    None => std::future::pending().await,
                }
            };
            let active = self.active.clone();
            let pause = self.pause;
            let changed = async {
                tokio::time::sleep(pause).await;
                watch.changed(|| !is_asked(&shared, &active)).await;
            };
            let began = Instant::now();
            let change = tokio::select! {
                () = serving => Change::Host,
                () = reconfigured(&mut configs, &dns) => Change::Configuration,
                change = self.resolver.moved() => change,
                () = changed => Change::Host,
            };
            // Who writes the file back each time is not fought without end.
            self.pause = if began.elapsed() > CALM {
                Duration::ZERO
            } else {
                (self.pause * 2).clamp(SHORTEST, LONGEST)
            };
            if let Change::Address(address) = change {
                tracing::warn!(%address, "names are answered at another address now");
            }
            if matches!(change, Change::Configuration) {
                self.pause = Duration::ZERO;
                dns = shared.config().dns.clone();
                self.resolver.place().await;
            }
            let before = self.active.clone();
            self.again().await;
            if before != self.active {
                self.take_back(&before).await;
            }
        }
    }

    /// Puts back how names were found before. That comes last: there is no moment in which others
    /// are asked for them.
    async fn take_back(&self, before: &Active) {
        let shared = &self.resolver.shared;
        let interface = &shared.config().interface;
        let directory = shared.state.directory();
        let restored = host_dns::restore(&shared.host, before, directory, interface).await;
        if let Err(error) = restored {
            tracing::error!("{error}");
        }
    }

    /// Listens and points the host's resolver here once more, until both work.
    async fn again(&mut self) {
        loop {
            let shared = &self.resolver.shared;
            if let Some(address) = shared.host_state.report().resolver {
                self.resolver.address = address;
            }
            let before = host_dns::earlier(&shared.host, shared.state.directory());
            if let Ok(Some(earlier)) = before {
                self.resolver.earlier = earlier;
            }
            let server = self.resolver.listen().await;
            let pointed = self.resolver.point().await;
            let problem = match (&server, &pointed) {
                (Err(error), _) => Some(format!("names are not answered: {error}")),
                (_, Err(error)) => Some(error.to_string()),
                (Ok(_), Ok((_, warning))) => warning.clone(),
            };
            // What could not be done this time is tried again when the host changes.
            if let Ok((active, warning)) = &pointed
                && (warning.is_none() || self.active == Active::Off)
            {
                self.active = active.clone();
            }
            let listening = server.is_ok();
            self.resolver.tell(&self.active, listening, problem);
            self.server = server.ok();
            if listening {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Whether the host's resolver asks here, as far as that can be seen.
fn is_asked(shared: &Shared, active: &Active) -> bool {
    host_dns::check(&shared.host, active, shared.state.directory()).is_none()
}

/// Waits until the configuration says something else of names than `now`.
async fn reconfigured(configs: &mut watch::Receiver<Arc<Config>>, now: &Dns) {
    if configs.wait_for(|config| config.dns != *now).await.is_err() {
        std::future::pending().await
    }
}

impl Resolver {
    /// Has the host put the resolver's address where the one who asks reaches it.
    async fn place(&mut self) {
        let shared = &self.shared;
        if !host_dns::is_resolved(&shared.host, &shared.config()).await {
            return;
        }
        let is_inside = |wanted: &Wanted| wanted.resolver == Some(Place::Inside);
        if !shared.host_state.wanted().as_ref().is_some_and(is_inside) {
            self.reports.mark_unchanged();
            shared
                .host_state
                .want(|wanted| wanted.resolver = Some(Place::Inside));
            let _ = tokio::time::timeout(MOMENT, self.reports.changed()).await;
        }
    }

    /// Waits until the host has another address for the resolver.
    async fn moved(&mut self) -> Change {
        let now = self.address;
        let elsewhere = |report: &Option<Report>| {
            let report = report.as_ref();
            report.is_some_and(|report| report.resolver.is_some_and(|address| address != now))
        };
        let moved = self.reports.wait_for(elsewhere).await;
        let address = moved.map(|report| report.as_ref().and_then(|report| report.resolver));
        match address {
            Ok(address) => Change::Address(address.unwrap_or(now)),
            Err(_) => std::future::pending().await,
        }
    }
}

/// Servers for other domains whose addresses lie inside the virtual network.
fn upstream_problem(network: &VirtualNetwork, upstreams: &[SocketAddr]) -> Option<String> {
    let inside: Vec<String> = upstreams
        .iter()
        .filter(|server| is_virtual(network, server.ip()))
        .map(|server| server.ip().to_string())
        .collect();
    (!inside.is_empty()).then(|| {
        format!(
            "the name server {} lies in {network}: it is reached only if the host has a route of \
             its own to it; name others under `dns: {{upstream: [...]}}`",
            inside.join(", ")
        )
    })
}
