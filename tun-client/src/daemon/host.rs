//! The host, as a lifecycle wants it and as it is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mixline_protocol::address::{self, VirtualNetwork};
use tokio::sync::watch;

use super::shared::Shared;
use super::told::Told;
use crate::config::{Config, Lock};
use crate::dns::Reach;
use crate::error::{Error, Result};
use crate::host::announcements::Announcements;
use crate::host::desired::{Place, Wanted};
use crate::host::outside::Outside;
use crate::host::prefix::Prefix;
use crate::host::reconcile::{Reconciler, Report};
use crate::state::State;

/// Bounds of the pause after a look that did not settle.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// What a lifecycle wants of the host, once it knows the virtual network, and how the host is, once
/// that was looked at.
pub struct HostState {
    wanted: watch::Sender<Option<Wanted>>,
    report: watch::Sender<Option<Report>>,
    reach: watch::Sender<Reach>,
    told: Arc<Told>,
    /// Held by who changes the host, and true once nobody sees to it any more.
    ended: Arc<Mutex<bool>>,
}

impl HostState {
    /// Nothing is wanted yet. What programs were told may be from before.
    #[must_use]
    pub fn new(told: Arc<Told>) -> Self {
        Self {
            wanted: watch::channel(None).0,
            report: watch::channel(None).0,
            reach: watch::channel(Reach::default()).0,
            told,
            ended: Arc::default(),
        }
    }

    /// What is wanted now.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        self.wanted.borrow().clone()
    }

    /// Changes what is wanted; nothing before there is a network.
    pub fn want(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_modify(|wanted| {
            if let Some(wanted) = wanted {
                change(wanted);
            }
        });
    }

    /// How the host is, as of the last look.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.borrow().clone().unwrap_or_default()
    }

    /// How the host is, from now on.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Option<Report>> {
        self.report.subscribe()
    }

    /// The addresses that programs were told for names.
    #[must_use]
    pub fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }

    /// Which virtual addresses packets reach the interface for.
    #[must_use]
    pub fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }
}

/// Sees to the host from now on, as the virtual network of a directory asks for, and waits until
/// it was done once.
///
/// # Errors
/// [`Error::Host`] if the host cannot be closed.
pub async fn close(
    shared: &Arc<Shared>,
    network: VirtualNetwork,
    place: Place,
    outside: BTreeSet<Outside>,
) -> Result<Report> {
    let former = shared.state.network().filter(|former| *former != network);
    // Before anything is closed: `down` has to find it again.
    shared.state.keep_network(&network)?;
    let wanted = Wanted {
        ipv6: Some(address::ipv6(&shared.handle.id())),
        resolver: Some(place),
        outside,
        ..closed(&shared.config(), network)
    };
    if let Some(former) = former {
        Reconciler::open()?.leave(former, &wanted)?;
    }
    close_as(shared, wanted).await
}

/// Closes the host as the last client of this configuration did, before anything is heard of the
/// network, and lets this one through to whom it has to reach. Where there was none, only what is virtual in
/// every network is closed.
///
/// # Errors
/// [`Error::Host`].
pub async fn let_through(shared: &Shared, outside: BTreeSet<Outside>) -> Result<()> {
    let config = shared.config();
    let was_here = is_closed() || State::network_of(&config.state_dir).is_some();
    let wanted = Wanted {
        outside,
        // Many have networks of their own where the virtual one usually is, and another directory.
        network_known: was_here,
        ..left_closed(&config)
    };
    close_as(shared, wanted).await.map(|_| ())
}

/// The host closed for a network, and for those that were left.
fn closed(config: &Config, network: VirtualNetwork) -> Wanted {
    let former = State::former_networks_of(&config.state_dir);
    Wanted::closed(&config.interface, network).with_former(&former)
}

/// The host as the last client of this configuration closed it.
#[must_use]
pub fn left_closed(config: &Config) -> Wanted {
    let network = State::network_of(&config.state_dir).unwrap_or_default();
    Wanted {
        told: Told::left_by(config),
        ..closed(config, network)
    }
}

async fn close_as(shared: &Shared, wanted: Wanted) -> Result<Report> {
    let state = &shared.host_state;
    state.wanted.send_replace(Some(wanted));
    state.report.send_replace(None);
    let mut reports = state.reports();
    let report = match reports.wait_for(Option::is_some).await {
        Ok(report) => report.clone().unwrap_or_default(),
        Err(_) => Report::default(),
    };
    is_well(&report)?;
    Ok(report)
}

/// Opens the kernel, unless another client has the virtual networks.
///
/// # Errors
/// [`Error::Host`].
pub fn take(interface: &str) -> Result<Reconciler> {
    let reconciler = Reconciler::open()?;
    match reconciler.other_interface(interface)? {
        None => Ok(reconciler),
        Some(other) => Err(Error::Host {
            problem: format!(
                "another client has the virtual networks on {other}; stop it first, or run this \
                 one in a network namespace of its own"
            ),
        }),
    }
}

/// Whether something of an earlier client closes the host. What cannot be looked at is taken for
/// open.
#[must_use]
pub fn is_closed() -> bool {
    Reconciler::open().is_ok_and(|reconciler| reconciler.is_closed().unwrap_or(false))
}

/// What closed the host, for who opens it: also where this client has not come so far, and an earlier
/// one has.
fn wanted_at_the_end(shared: &Shared) -> Wanted {
    let wanted = shared.host_state.wanted();
    Wanted {
        told: shared.host_state.told.all(),
        ..wanted.unwrap_or_else(|| left_closed(&shared.config()))
    }
}

/// Takes away what a client that stopped uncleanly left; what closes the host stays if that is the
/// configuration's will.
///
/// # Errors
/// [`Error::Host`].
pub fn recover(config: &Config) -> Result<()> {
    take(&config.interface)?;
    let wanted = left_closed(config);
    match config.lock {
        Lock::UntilDown => {
            Told::of(config).forget();
            open(&wanted)
        }
        Lock::Always => close_alone(&wanted),
    }
}

/// Takes away what closes the host, unless that is to stay; nobody sees to it any more.
///
/// # Errors
/// [`Error::Host`].
pub fn release(shared: &Shared) -> Result<()> {
    // A look that outlives its task would change again what is done here.
    let ended = &shared.host_state.ended;
    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    *ended = true;
    let wanted = wanted_at_the_end(shared);
    match shared.config().lock {
        Lock::UntilDown => {
            shared.host_state.told.forget();
            open(&wanted)
        }
        Lock::Always => close_alone(&wanted),
    }
}

/// Takes away what closes the host.
///
/// # Errors
/// [`Error::Host`].
pub fn open(wanted: &Wanted) -> Result<()> {
    let done = Reconciler::open().and_then(|reconciler| reconciler.remove(wanted));
    Ok(done?)
}

/// Closes the host, with nothing that leads inside.
///
/// # Errors
/// [`Error::Host`].
pub fn close_alone(wanted: &Wanted) -> Result<()> {
    let closed = Wanted {
        ipv6: None,
        lease: None,
        resolver: None,
        ..wanted.clone()
    };
    is_well(&Reconciler::open()?.settle(&closed))
}

/// Whether the host is closed.
///
/// # Errors
/// [`Error::Host`] if it is not.
pub fn is_well(report: &Report) -> Result<()> {
    if report.closed {
        Ok(())
    } else {
        Err(Error::Host {
            problem: report.problems.join("; "),
        })
    }
}

/// Keeps the host as it is wanted, for ever.
pub async fn keep(
    shared: Arc<Shared>,
    mut reconciler: Reconciler,
    mut announcements: Announcements,
) {
    let state = &shared.host_state;
    let mut wanted = state.wanted.subscribe();
    let mut pause = Duration::ZERO;
    loop {
        let now = wanted.borrow_and_update().clone();
        let Some(now) = now else {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        let Some((again, report)) = settle(&shared, reconciler, now).await else {
            return;
        };
        reconciler = again;
        // Something else is wanted meanwhile: this says nothing about it.
        if wanted.has_changed().unwrap_or(true) {
            continue;
        }
        // A look takes its time where there are many routes, and other tasks need some too. What did
        // not settle is not tried without end.
        pause = if report.settled {
            began.elapsed() * 10
        } else {
            (pause * 2).clamp(SHORTEST, LONGEST)
        };
        state.reach.send_if_modified(|reach| {
            let new = Reach {
                ipv4: report.ipv4,
                ipv6: report.ipv6,
                others: report.others.clone(),
                neighbours: report.neighbours.clone(),
                kept: report.kept.clone(),
            };
            let changed = *reach != new;
            *reach = new;
            changed
        });
        let kept = report.kept.clone();
        state.report.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&report);
            if changed {
                for problem in &report.problems {
                    tracing::warn!("{problem}");
                }
                *before = Some(report);
            }
            changed
        });
        // What was told while the host was looked at is kept by another look.
        let reach = state.reach();
        let lost = {
            let reach = reach.borrow();
            let told = state.told.all();
            let is_neighbours = |address: &IpAddr| reach.is_neighbours(Prefix::host(*address));
            told.iter().any(|a| is_neighbours(a) && !kept.contains(a))
        };
        if lost {
            pause /= 10;
        }
        let changed = async {
            tokio::time::sleep(pause).await;
            if !lost {
                announcements.changed().await;
            }
        };
        tokio::select! {
            () = changed => {}
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Makes the host look as it is wanted, on a thread that may wait for the kernel. `None` once nobody
/// sees to it any more.
async fn settle(
    shared: &Shared,
    reconciler: Reconciler,
    mut wanted: Wanted,
) -> Option<(Reconciler, Report)> {
    let state = &shared.host_state;
    wanted.told = state.told.all();
    if !wanted.former.is_empty() {
        // Some may have been closed for long enough.
        let former = State::former_networks_of(shared.state.directory());
        wanted = wanted.with_former(&former);
    }
    let ended = Arc::clone(&state.ended);
    let work = move || {
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return None;
        }
        let report = reconciler.settle(&wanted);
        Some((reconciler, report))
    };
    tokio::task::spawn_blocking(work).await.ok().flatten()
}
