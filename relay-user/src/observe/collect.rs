//! Collects a report from the parts of a running relay.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use mixline_daemon::processor;
use mixline_directory_client::FollowStatus;
use mixline_protocol::identity::{RelayId, ShortId};
use mixline_protocol::records::Snapshot;
use mixline_protocol::replay::ReplayFilter;
use mixline_protocol::time::UnixTime;
use mixline_relay_engine::outcome::{Counters, Outcome};
use tokio::sync::watch;

use super::process;
use super::quantiles::Times;
use super::report::{
    DirectoryReport, LinksReport, OneDirectoryReport, PathsReport, PortReport, RegisteredReport,
    ReplayReport, Report, WorkerReport,
};
use crate::control::registration::RegistrationStatus;
use crate::control::{ControlStatistics, SharedOnionKeys};
use crate::reload::Offer;
use crate::standing::Standing;
use crate::volume::Accounts;
use crate::workers::WorkerStatistics;

/// Where a report comes from.
pub struct Source {
    /// Since when the relay runs.
    pub started: Instant,
    /// What the relay says of itself.
    pub offer: watch::Receiver<Offer>,
    /// Its identity.
    pub id: RelayId,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The port in use: it changes when an XDP port is given up.
    pub port: watch::Receiver<PortReport>,
    /// The XDP program, where there is one.
    pub xdp_filter: Option<Arc<crate::port::XdpFilter>>,
    /// How following it goes.
    pub follow: watch::Receiver<FollowStatus>,
    /// How registering goes.
    pub registration: Arc<Mutex<RegistrationStatus>>,
    /// How the relay stands.
    pub standing: watch::Receiver<Standing>,
    /// What it has sent in this month.
    pub accounts: Arc<Accounts>,
    /// The newest snapshot.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The onion keys.
    pub onion: Arc<SharedOnionKeys>,
    /// The control plane.
    pub control: Arc<ControlStatistics>,
    /// The workers.
    pub workers: Vec<Arc<WorkerStatistics>>,
    /// The most paths.
    pub max_paths: usize,
    /// What has been relayed.
    pub replay: Arc<ReplayFilter>,
    /// Datagrams a second relayed of late.
    pub load: watch::Receiver<u32>,
}

impl Source {
    /// The state at this moment.
    #[must_use]
    pub fn report(&self) -> Report {
        let census = self.control.census();
        let per_worker: Vec<_> = self.workers.iter().map(|w| worker(w)).collect();
        let inside = per_worker.iter().flat_map(|w| w.inside_ns.iter().copied());
        let inside = Times::of(inside).report();
        let offer = self.offer.borrow().clone();
        let mut verdicts = BTreeMap::new();
        for (outcome, count) in self.counters().iter() {
            verdicts.insert(outcome.name().to_owned(), count);
        }
        Report {
            name: offer.name,
            id: self.id.to_string(),
            short_id: self.id.short().to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.started.elapsed().as_secs(),
            listen: self.listen.clone(),
            advertise: offer.advertise,
            port: self.port.borrow().clone(),
            workers: self.workers.len(),
            cpu: processor::in_use().to_owned(),
            memory_bytes: process::memory(),
            directory: self.directory(),
            leaving: *self.standing.borrow() == Standing::Leaving,
            hibernating: *self.standing.borrow() == Standing::Hibernating,
            onion_epochs: self
                .onion
                .lock()
                .iter()
                .flat_map(|onion| onion.epochs())
                .collect(),
            links: LinksReport {
                relays: census.relays,
                clients: census.clients,
                sessions: self.workers.iter().map(|worker| worker.sessions()).sum(),
                mailboxes: census.mailboxes,
                refused: census.refused,
            },
            paths: PathsReport {
                known: self.workers.iter().map(|worker| worker.paths()).sum(),
                most: self.max_paths,
            },
            replay: ReplayReport {
                horizon_s: self.replay.horizon(Instant::now()).as_secs(),
                fill: self.replay.fill(),
            },
            load: *self.load.borrow(),
            capacity: offer.capacity,
            bandwidth: offer.bandwidth,
            monthly: offer.monthly,
            volume: Some(self.accounts.volume()),
            contact: offer.contact,
            verdicts,
            xdp: self
                .xdp_filter
                .iter()
                .flat_map(|filter| filter.verdicts())
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            inside,
            per_worker,
            process: process::report(),
        }
    }

    /// Cells that the workers have sent on.
    #[must_use]
    pub fn relayed(&self) -> u64 {
        let counters = self.counters();
        counters.of(Outcome::Forwarded) + counters.of(Outcome::Delivered)
    }

    /// Whether the directories know that the relay leaves.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        let registration = self
            .registration
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        registration.is_withdrawn()
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for worker in &self.workers {
            for (outcome, count) in worker.counters().iter() {
                sum.add(outcome, count);
            }
        }
        sum
    }

    fn directory(&self) -> DirectoryReport {
        let now = UnixTime::from(SystemTime::now());
        let snapshot = self.snapshots.borrow().clone();
        let snapshot = snapshot.as_ref();
        let follow = self.follow.borrow().clone();
        let registration = self
            .registration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let own: ShortId = self.id.short();
        DirectoryReport {
            url: self.offer.borrow().directories.join(", "),
            roster: follow.roster,
            round: follow.round.map(|round| round.0),
            relays: snapshot.map(|s| s.relays.len()),
            snapshot_age_s: snapshot.map(|s| now.since(s.issued)),
            snapshot_valid_for_s: snapshot.map(|s| s.valid_until.since(now)),
            registered_s_ago: registration.last_success().map(|at| now.since(at)),
            registered_at: registration.last_success().map(|at| at.0),
            listed: snapshot.is_some_and(|s| s.relay(&own).is_some()),
            clock_ahead_s: follow.clock_ahead,
            directories: each(&follow, &registration, now),
            last_error: (follow.last_error).or_else(|| registration.last_error().map(String::from)),
        }
    }

    /// The workers, for metrics.
    #[must_use]
    pub fn workers(&self) -> &[Arc<WorkerStatistics>] {
        &self.workers
    }
}

/// How it stands with each directory: those of the roster, and what else is configured.
fn each(
    follow: &FollowStatus,
    registration: &RegistrationStatus,
    now: UnixTime,
) -> Vec<OneDirectoryReport> {
    let asked = follow.directories.iter();
    let reports = asked.map(|asked| {
        let mut registered = registration.directories.iter();
        let registered = registered.find(|of| same_address(&of.url, &asked.url));
        OneDirectoryReport {
            url: asked.url.clone(),
            name: registered.map_or_else(|| asked.name.clone(), |of| of.name.clone()),
            answered_s_ago: asked.last_success.map(|at| now.since(at)),
            problem: asked.last_error.clone(),
            registered: registered.map(|of| RegisteredReport {
                s_ago: of.last_success.map(|at| now.since(at)),
                at: of.last_success.map(|at| at.0),
                problem: of.last_error.clone(),
            }),
        }
    });
    reports.collect()
}

/// As configured, and as asked.
fn same_address(one: &str, other: &str) -> bool {
    one.trim().trim_end_matches('/') == other.trim().trim_end_matches('/')
}

/// What a worker does.
fn worker(statistics: &WorkerStatistics) -> WorkerReport {
    let (received, sent) = statistics.traffic();
    let inside_ns: Vec<_> = statistics.inside.counts().collect();
    WorkerReport {
        received,
        sent,
        sessions: statistics.sessions(),
        paths: statistics.paths(),
        cpu_s: statistics.thread().and_then(process::cpu_of_thread),
        inside: Times::of(inside_ns.iter().copied()).report(),
        inside_ns,
    }
}
