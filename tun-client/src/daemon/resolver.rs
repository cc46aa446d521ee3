//! Names for the host's programs: the responder, and the host's resolver that asks it.
//!
//! Both follow the host: the resolver's address moves when a neighbourhood takes it, and other
//! programs rewrite `/etc/resolv.conf`.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_protocol::address::VirtualNetwork;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::backend::EndpointBackend;
use super::shared::Shared;
use super::status::DnsStatus;
use crate::config::{Config, DNS_PORT, Dns, DnsMode};
use crate::dns::Reach;
use crate::dns::forward::Forwarder;
use crate::dns::neighbours::Neighbours;
use crate::dns::responder::Responder;
use crate::dns::server::Server;
use crate::dns::zone::{Zone, is_virtual};
use crate::error::{Error, Result};
use crate::host::desired::Place;
use crate::host::observed::LOOPBACK;
use crate::host::prefix::Prefix;
use crate::host::reconcile::Report;
use crate::host_dns::pointer::{At, Pointed, Pointer};
use crate::host_dns::upstream::Upstream;
use crate::host_dns::{self, Active, Earlier};

/// What failed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the host may take to put the resolver's address somewhere else.
const MOMENT: Duration = Duration::from_secs(2);
/// Bounds of the pause between changes that come one after the other, and the time after which one is
/// taken for the first again.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
const CALM: Duration = Duration::from_secs(10);

/// Where names are answered, and what was asked before.
pub struct Resolver {
    shared: Arc<Shared>,
    network: VirtualNetwork,
    reports: watch::Receiver<Option<Report>>,
    at: Option<(Ipv4Addr, Link)>,
    pointer: Pointer,
    /// What the host's resolver used before.
    earlier: Earlier,
    /// What the configuration says of names.
    dns: Dns,
}

/// The link that has the resolver's address: its index and its name.
type Link = (u32, String);

/// A resolver that answers.
pub struct Serving {
    resolver: Resolver,
    server: Option<Server>,
    pointed: Pointed,
    /// How long nothing is done about the next change.
    pause: Duration,
}

/// Whether systemd-resolved is to be told where names are, and so where the resolver's address has
/// to be.
pub async fn place(shared: &Shared, network: VirtualNetwork) -> Place {
    let mut pointer = pointer(shared, network);
    if pointer.uses_resolved().await {
        Place::Inside
    } else {
        Place::Loopback
    }
}

fn pointer(shared: &Shared, network: VirtualNetwork) -> Pointer {
    let mode = shared.config().dns.mode;
    Pointer::new(&shared.host, mode, shared.state.directory(), network)
}

impl Resolver {
    /// A resolver at the address that the host has for it.
    pub fn new(shared: &Arc<Shared>, network: VirtualNetwork, earlier: Earlier) -> Self {
        Self {
            shared: Arc::clone(shared),
            network,
            reports: shared.host_state.reports(),
            at: where_it_is(&shared.host_state.report()),
            pointer: pointer(shared, network),
            earlier,
            dns: shared.config().dns.clone(),
        }
    }

    /// Where it answers.
    pub fn address(&self) -> Ipv4Addr {
        let address = self.at.as_ref().map(|(address, _)| *address);
        address.unwrap_or_else(|| self.network.resolver())
    }

    /// Listens, and has the host's resolver ask here.
    ///
    /// # Errors
    /// [`Error::DnsListen`], [`Error::HostDns`], unless the configuration leaves it to chance.
    pub async fn start(mut self) -> Result<Serving> {
        let (server, problem) = match self.listen().await {
            Ok(server) => (Some(server), None),
            Err(error) => {
                let address = SocketAddr::new(self.address().into(), DNS_PORT);
                let error = Error::DnsListen { address, error };
                if self.shared.config().dns.mode != DnsMode::Off {
                    return Err(error);
                }
                (None, Some(error.to_string()))
            }
        };
        let pointed = self.point().await?;
        let problem = pointed.warning.clone().or(problem);
        self.tell(&pointed.active, server.is_some(), problem);
        Ok(Serving {
            resolver: self,
            server,
            pointed,
            pause: Duration::ZERO,
        })
    }

    /// Has the host put the address where systemd-resolved, which may have been started meanwhile,
    /// can ask it. It stays there when that ends.
    async fn settle(&mut self) {
        self.dns = self.shared.config().dns.clone();
        self.pointer.mode = self.dns.mode;
        let inside = self.pointer.uses_resolved().await;
        let state = &self.shared.host_state;
        let is_inside = |wanted: Option<Place>| wanted == Some(Place::Inside);
        let wanted = state.wanted().and_then(|wanted| wanted.resolver);
        if inside && !is_inside(wanted) {
            state.want(|wanted| wanted.resolver = Some(Place::Inside));
            let there = |report: &Option<Report>| {
                let report = report.as_ref().and_then(where_it_is);
                report.is_some_and(|(_, link)| link.0 != LOOPBACK)
            };
            let _ = tokio::time::timeout(MOMENT, self.reports.wait_for(there)).await;
        }
        if let Some(at) = where_it_is(&self.shared.host_state.report()) {
            self.at = Some(at);
        }
    }

    async fn listen(&self) -> io::Result<Server> {
        let Some((address, (_, link))) = &self.at else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let address = SocketAddr::new((*address).into(), DNS_PORT);
        Server::bind(address, link).await
    }

    /// Has the host's resolver ask here.
    async fn point(&mut self) -> Result<Pointed> {
        let link = self.at.as_ref().map(|(_, link)| link.0);
        let at = At {
            address: self.address(),
            link: link.filter(|link| *link != LOOPBACK),
        };
        self.pointer.point(at, &self.earlier.search).await
    }

    fn upstreams(&self) -> Vec<Upstream> {
        host_dns::upstreams(&self.dns, &self.earlier, self.address())
    }

    fn responder(&self) -> Arc<Responder<EndpointBackend>> {
        let shared = &self.shared;
        let upstreams = self.upstreams();
        let (host, own) = (shared.host.clone(), self.address());
        let responder = Responder::new(
            Arc::clone(&shared.backend),
            Zone::new(self.network, &self.earlier.search),
            shared.host_state.reach(),
            Forwarder::new(&upstreams),
        );
        let servers = move || host_dns::behind_resolved(&host, &upstreams, own);
        Arc::new(responder.with_neighbours(Neighbours::new(servers)))
    }

    /// Puts into the status how names are found, and what is wrong with that.
    fn tell(&self, active: &Active, listening: bool, problem: Option<String>) {
        let upstreams = self.upstreams();
        let problem = problem.or_else(|| {
            let reach = self.shared.host_state.reach();
            let reach = reach.borrow();
            upstream_problem(&self.network, &reach, &upstreams)
        });
        self.shared.update(|facts| {
            facts.dns = DnsStatus {
                mode: active.clone(),
                resolver: listening.then(|| self.address()),
                upstream: upstreams.iter().map(ToString::to_string).collect(),
            };
        });
        let before = std::mem::replace(&mut self.shared.problems().dns, problem.clone());
        if let Some(problem) = problem.filter(|problem| before.as_ref() != Some(problem)) {
            tracing::warn!("{problem}");
        }
    }
}

impl Serving {
    /// Answers, and follows the host, for ever.
    pub async fn keep(mut self) {
        let mut configs = self.resolver.shared.reloader.follow();
        loop {
            let responder = self.resolver.responder();
            let server = self.server.take();
            let address = self.resolver.at.as_ref().map(|(address, _)| *address);
            let address = address.map(|address| SocketAddr::new(address.into(), DNS_PORT));
            let containers = serve_containers(
                self.resolver.shared.host_state.reports(),
                address.filter(|_| server.is_some()),
                Arc::clone(&responder),
            );
            let serving = async {
                match server {
                    Some(server) => server.serve(responder, None).await,
                    None => std::future::pending().await,
                }
            };
            let Resolver {
                reports,
                at,
                pointer,
                dns,
                ..
            } = &mut self.resolver;
            let changed = async {
                tokio::time::sleep(self.pause).await;
                pointer.changed(&self.pointed).await;
            };
            let began = Instant::now();
            tokio::select! {
                () = serving => {}
                () = containers => {}
                () = moved(reports, at.as_ref()) => {
                    tracing::warn!("names are answered at another address now");
                }
                () = changed => {}
                () = reconfigured(&mut configs, dns) => {
                    tracing::info!("names are found in another way now");
                }
            };
            // Who writes the file back each time is not fought without end.
            self.pause = if began.elapsed() > CALM {
                Duration::ZERO
            } else {
                (self.pause * 2).clamp(SHORTEST, LONGEST)
            };
            let before = self.pointed.active.clone();
            self.again().await;
            if before != self.pointed.active {
                self.take_back(&before);
            }
        }
    }

    /// Puts back how names were found before. That comes last: there is no moment in which others
    /// are asked for them.
    fn take_back(&self, before: &Active) {
        let shared = &self.resolver.shared;
        let restored = host_dns::restore(&shared.host, before, shared.state.directory());
        if let Err(error) = restored {
            tracing::error!("{error}");
        }
    }

    /// Listens and points the host's resolver here once more, until both work.
    async fn again(&mut self) {
        loop {
            self.resolver.settle().await;
            if let Ok(Some(earlier)) = self.resolver.pointer.earlier() {
                self.resolver.earlier = earlier;
            }
            let server = self.resolver.listen().await;
            match self.resolver.point().await {
                Ok(pointed) => self.pointed = pointed,
                // It is tried again before long, as all that could not be done.
                Err(error) => self.pointed.warning = Some(error.to_string()),
            }
            let problem = match &server {
                Err(error) => Some(format!("names are not answered: {error}")),
                Ok(_) => self.pointed.warning.clone(),
            };
            let listening = server.is_ok();
            self.resolver.tell(&self.pointed.active, listening, problem);
            self.server = server.ok();
            if listening {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Waits until the configuration says something else of names than `now`.
async fn reconfigured(configs: &mut watch::Receiver<Arc<Config>>, now: &Dns) {
    if configs.wait_for(|config| config.dns != *now).await.is_err() {
        std::future::pending().await
    }
}

/// Answers to containers, which have the host's resolver for theirs, by the interfaces that lead to
/// them, as these come and go.
async fn serve_containers(
    mut reports: watch::Receiver<Option<Report>>,
    address: Option<SocketAddr>,
    responder: Arc<Responder<EndpointBackend>>,
) {
    let Some(address) = address else {
        return std::future::pending().await;
    };
    let mut tasks = JoinSet::new();
    let mut bound: HashMap<Link, AbortHandle> = HashMap::new();
    loop {
        let inner = reports
            .borrow_and_update()
            .as_ref()
            .map(|r| r.inner.clone());
        let inner = inner.unwrap_or_default();
        bound.retain(|link, task| {
            let stays = inner.contains(link);
            if !stays {
                task.abort();
            }
            stays
        });
        while tasks.try_join_next().is_some() {}
        let mut all = true;
        for link in inner {
            if bound.contains_key(&link) {
                continue;
            }
            match Server::bind(address, &link.1).await {
                Ok(server) => {
                    let task = tasks.spawn(server.serve(Arc::clone(&responder), Some(link.0)));
                    bound.insert(link, task);
                }
                Err(error) => {
                    all = false;
                    tracing::debug!(%error, link = link.1, "containers are not answered");
                }
            }
        }
        let changed = async {
            if reports.changed().await.is_err() {
                std::future::pending().await
            }
        };
        // The sockets of those who answered before are closed a moment later.
        let again = async {
            if all {
                std::future::pending().await
            }
            tokio::time::sleep(AGAIN).await;
        };
        tokio::select! {
            () = changed => {}
            () = again => {}
        }
    }
}

/// Where the host has the resolver's address.
fn where_it_is(report: &Report) -> Option<(Ipv4Addr, Link)> {
    Some((report.resolver?, report.resolver_link.clone()?))
}

/// Waits until the host has another address for the resolver, or has it on another link.
async fn moved(reports: &mut watch::Receiver<Option<Report>>, now: Option<&(Ipv4Addr, Link)>) {
    let elsewhere = |report: &Option<Report>| {
        let there = report.as_ref().and_then(where_it_is);
        there.is_some() && there.as_ref() != now
    };
    if reports.wait_for(elsewhere).await.is_err() {
        std::future::pending().await
    }
}

/// Servers for other domains whose addresses lie inside the virtual network, and in no network of a
/// neighbourhood's.
fn upstream_problem(
    network: &VirtualNetwork,
    reach: &Reach,
    upstreams: &[Upstream],
) -> Option<String> {
    let inside: Vec<String> = upstreams
        .iter()
        .filter(|server| is_virtual(network, server.address))
        .filter(|server| !reach.is_neighbours(Prefix::host(server.address)))
        .map(ToString::to_string)
        .collect();
    (!inside.is_empty()).then(|| {
        format!(
            "the name server {} lies in {network}: it is reached only if the host has a route of \
             its own to it; name others under `dns: {{upstream: [...]}}`",
            inside.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_the_neighbourhood_is_no_problem() {
        let network = VirtualNetwork::default();
        let servers = ["192.0.2.1", "10.0.0.53"].map(|text| Upstream::parse(text).unwrap());
        let told = upstream_problem(&network, &Reach::default(), &servers).unwrap();
        assert!(
            told.contains("10.0.0.53") && !told.contains("192.0.2.1"),
            "{told}"
        );
        let lan = Reach {
            neighbours: vec![Prefix::new(Ipv4Addr::new(10, 0, 0, 0), 24)],
            ..Reach::default()
        };
        assert_eq!(upstream_problem(&network, &lan, &servers), None);
        let elsewhere = Reach {
            neighbours: vec![Prefix::new(Ipv4Addr::new(10, 9, 0, 0), 24)],
            ..Reach::default()
        };
        assert!(upstream_problem(&network, &elsewhere, &servers).is_some());
    }
}
