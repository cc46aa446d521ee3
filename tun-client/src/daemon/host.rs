//! The host, as a lifecycle wants it and as it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_protocol::address::{self, VirtualNetwork};
use mixline_protocol::identity::AnonymousId;
use tokio::sync::watch;

use super::shared::Shared;
use crate::dns::Reach;
use crate::error::{Error, Result};
use crate::host::announcements::Announcements;
use crate::host::desired::{Place, Wanted};
use crate::host::reconcile::{Reconciler, Report};

/// Bounds of the pause after a look that did not settle.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// What a lifecycle wants of the host, once it knows the virtual network, and how the host is, once
/// that was looked at.
pub struct HostState {
    wanted: watch::Sender<Option<Wanted>>,
    report: watch::Sender<Option<Report>>,
    reach: watch::Sender<Reach>,
}

impl Default for HostState {
    fn default() -> Self {
        Self {
            wanted: watch::channel(None).0,
            report: watch::channel(None).0,
            reach: watch::channel(Reach::default()).0,
        }
    }
}

impl HostState {
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
pub async fn close(shared: &Arc<Shared>, network: VirtualNetwork, place: Place) -> Result<Report> {
    // Before anything is closed: `down` has to find it again.
    shared.state.keep_network(&network)?;
    let id = shared.handle.id();
    let wanted = wanted(&shared.config().interface, network, Some(&id), Some(place));
    shared.host_state.wanted.send_replace(Some(wanted));
    let mut reports = shared.host_state.reports();
    let report = match reports.wait_for(Option::is_some).await {
        Ok(report) => report.clone().unwrap_or_default(),
        Err(_) => Report::default(),
    };
    if report.closed {
        Ok(report)
    } else {
        Err(Error::Host {
            problem: report.problems.join("; "),
        })
    }
}

/// What is wanted of the host; without an ID and a resolver, that it is closed.
#[must_use]
pub fn wanted(
    interface: &str,
    network: VirtualNetwork,
    id: Option<&AnonymousId>,
    resolver: Option<Place>,
) -> Wanted {
    Wanted {
        interface: interface.to_owned(),
        network,
        ipv6: id.map(address::ipv6),
        lease: None,
        resolver,
    }
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
#[must_use]
pub fn wanted_at_the_end(shared: &Shared) -> Wanted {
    shared.host_state.wanted().unwrap_or_else(|| {
        let network = shared.state.network().unwrap_or_default();
        wanted(&shared.config().interface, network, None, None)
    })
}

/// Takes away what a client that stopped uncleanly left, given the network that it closed.
///
/// # Errors
/// [`Error::Host`].
pub fn recover(interface: &str, network: VirtualNetwork) -> Result<()> {
    take(interface)?;
    open(&wanted(interface, network, None, None))
}

/// Takes away what closes the host.
///
/// # Errors
/// [`Error::Host`].
pub fn open(wanted: &Wanted) -> Result<()> {
    let opened = Reconciler::open().and_then(|reconciler| reconciler.remove(wanted));
    Ok(opened?)
}

/// Keeps the host as it is wanted, for ever.
pub async fn keep(shared: Arc<Shared>, reconciler: Reconciler, mut announcements: Announcements) {
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
        let report = reconciler.settle(&now);
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
            };
            let changed = *reach != new;
            *reach = new;
            changed
        });
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
        let again = async {
            tokio::time::sleep(pause).await;
            announcements.changed().await;
        };
        tokio::select! {
            () = again => {}
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
