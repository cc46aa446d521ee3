//! The loop: look, compare, mend, and again when the kernel announces a change.

use std::net::Ipv4Addr;
use std::time::Duration;

use mixline_netlink::{Changes, NETFILTER, ROUTE};
use tokio::io::unix::AsyncFd;

use super::desired::{Desired, Wanted, desired};
use super::kernel::{Kernel, KernelError};
use super::observed::Observed;
use super::plan::{plan, removal};
use super::prefix::Prefix;

/// Groups of announcements (Linux, `linux/rtnetlink.h`): links, addresses, routes and rules, IPv4
/// and IPv6.
const LINKS: u32 = 1;
const ADDRESSES: [u32; 2] = [5, 9];
const ROUTES: [u32; 2] = [7, 11];
const RULES: [u32; 2] = [8, 19];
/// `NFNLGRP_NFTABLES` (Linux, `linux/netfilter/nfnetlink.h`).
const FILTERS: u32 = 7;
/// Rounds until everything should be as desired: a second one for what stood in the way of the
/// first, a third for what came meanwhile.
const ROUNDS: usize = 4;
/// What failed is tried again after this time, and what nobody announces is looked at.
const AGAIN: Duration = Duration::from_secs(2);
/// Changes come in groups; a host that changes all the time is looked at this often at most.
const PAUSE: Duration = Duration::from_millis(20);

/// How the host is, for everything that depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether the packet filter is there: nothing virtual passes by another interface.
    pub closed: bool,
    /// Whether packets to virtual IPv4 addresses, and to IPv6 addresses, reach the interface.
    pub ipv4: bool,
    /// See [`Report::ipv4`].
    pub ipv6: bool,
    /// The resolver's address, if the host has it.
    pub resolver: Option<Ipv4Addr>,
    /// Networks of others inside the virtual ones.
    pub others: Vec<Prefix>,
    /// What a person should know, a line each.
    pub problems: Vec<String>,
}

/// Sees to it that the host looks as it should.
pub struct Reconciler {
    kernel: Kernel,
    routes: AsyncFd<Changes>,
    filters: AsyncFd<Changes>,
}

impl Reconciler {
    /// Opens the kernel of this thread's network namespace. In a runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> Result<Self, KernelError> {
        let groups: Vec<u32> = [LINKS]
            .into_iter()
            .chain(ADDRESSES)
            .chain(ROUTES)
            .chain(RULES)
            .collect();
        Ok(Self {
            kernel: Kernel::open()?,
            routes: listen(ROUTE, &groups)?,
            filters: listen(NETFILTER, &[FILTERS])?,
        })
    }

    /// Makes the host look as `wanted` says, as far as the kernel lets it.
    pub fn settle(&self, wanted: &Wanted) -> Report {
        let mut failures = Vec::new();
        for _ in 0..ROUNDS {
            failures.clear();
            let observed = match self.kernel.observe(wanted) {
                Ok(observed) => observed,
                Err(error) => return Report::blind(&error),
            };
            let desired = desired(wanted, &observed);
            let actions = plan(&desired, &wanted.network, &observed);
            if actions.is_empty() {
                return Report::of(&desired, &observed, failures);
            }
            for action in &actions {
                tracing::debug!(?action, "host");
                if let Err(error) = self.kernel.apply(action) {
                    failures.push(error.to_string());
                    if matches!(action, super::plan::Action::SetFilter(_)) {
                        break;
                    }
                }
            }
        }
        match self.kernel.observe(wanted) {
            Ok(observed) => {
                let desired = desired(wanted, &observed);
                Report::of(&desired, &observed, failures)
            }
            Err(error) => Report::blind(&error),
        }
    }

    /// Takes away what was ever added.
    ///
    /// # Errors
    /// The first refusal; the rest is taken away all the same.
    pub fn remove(&self, wanted: &Wanted) -> Result<(), KernelError> {
        let observed = self.kernel.observe(wanted)?;
        let own = observed.link(&wanted.interface).map(|link| link.index);
        let mut result = Ok(());
        for action in removal(&wanted.network, own, &observed) {
            let done = self.kernel.apply(&action);
            result = result.and(done);
        }
        result
    }

    /// Waits until the kernel announces a change of what was looked at, or some time has gone by.
    pub async fn changed(&mut self) {
        let announced = async {
            tokio::select! {
                () = heard(&mut self.routes) => {}
                () = heard(&mut self.filters) => {}
            }
            tokio::time::sleep(PAUSE).await;
        };
        let _ = tokio::time::timeout(AGAIN, announced).await;
    }
}

/// Listens to groups of announcements.
#[expect(
    deprecated,
    reason = "the form without `unsafe`: `Changes` keeps its socket as long as it lives"
)]
fn listen(protocol: isize, groups: &[u32]) -> Result<AsyncFd<Changes>, KernelError> {
    let listening = Changes::listen(protocol, groups);
    listening
        .and_then(|changes| AsyncFd::new(changes).map_err(mixline_netlink::Error::Socket))
        .map_err(|source| KernelError {
            action: "listen to the kernel".into(),
            source,
        })
}

/// Waits for an announcement.
async fn heard(announcements: &mut AsyncFd<Changes>) {
    loop {
        let Ok(mut guard) = announcements.readable_mut().await else {
            return std::future::pending().await;
        };
        let heard = guard.get_inner_mut().heard();
        guard.clear_ready();
        if heard {
            return;
        }
    }
}

impl Report {
    fn of(desired: &Desired, observed: &Observed, failures: Vec<String>) -> Self {
        let closed = observed.filter.as_ref() == Some(&desired.filter.chains());
        let there = |ipv6: bool| {
            let rules = desired
                .rules
                .iter()
                .filter(|rule| rule.to.is_ipv6() == ipv6)
                .all(|rule| observed.rules.contains(rule));
            closed && rules && desired.leads_in(ipv6) && desired.has_all(ipv6, observed)
        };
        let problems = desired.findings.iter().map(ToString::to_string);
        Self {
            closed,
            ipv4: there(false),
            ipv6: there(true),
            resolver: desired
                .resolver
                .filter(|resolver| observed.has_resolver(*resolver)),
            others: desired.others(),
            problems: problems.chain(failures).collect(),
        }
    }

    fn blind(error: &KernelError) -> Self {
        Self {
            problems: vec![format!("the host cannot be looked at: {error}")],
            ..Self::default()
        }
    }
}
