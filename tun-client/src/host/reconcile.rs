//! Look, compare, mend: until the host is as desired, or cannot be.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use mixline_protocol::address::VirtualNetwork;

use super::desired::{Desired, Place, Wanted, desired, is_own};
use super::finding::Finding;
use super::kernel::{Kernel, KernelError};
use super::observed::{Address, Observed, TABLE};
use super::others::all_wires;
use super::plan::{Action, plan, removal};
use super::prefix::Prefix;

/// Rounds until everything should be as desired: a second one for what stood in the way of the
/// first, a third for what came meanwhile.
const ROUNDS: usize = 4;
/// How long after the kernel made no anchor it is asked again.
const ANCHOR_TRIED_AGAIN: Duration = Duration::from_secs(60);

/// How the host is, for everything that depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether packet filter and rules are there: nothing virtual passes by another interface.
    pub closed: bool,
    /// Whether all is as desired.
    pub settled: bool,
    /// Whether packets to virtual IPv4 addresses, and to IPv6 addresses, reach the interface.
    pub ipv4: bool,
    /// See [`Report::ipv4`].
    pub ipv6: bool,
    /// The resolver's address, if the host has it.
    pub resolver: Option<Ipv4Addr>,
    /// The index and the name of the link that has it.
    pub resolver_link: Option<(u32, String)>,
    /// The interfaces that nobody but the host itself is behind: index and name.
    pub inner: BTreeSet<(u32, String)>,
    /// What of the virtual networks is not reached through the interface.
    pub others: Vec<Prefix>,
    /// Those of them that have reverse names of their own.
    pub neighbours: Vec<Prefix>,
    /// Addresses inside that which are.
    pub kept: BTreeSet<IpAddr>,
    /// What a person should know, a line each.
    pub problems: Vec<String>,
}

/// Sees to it that the host looks as it should, in the network namespace of the thread that opened
/// it.
pub struct Reconciler {
    kernel: Kernel,
    /// Why the kernel makes no anchor, and when that was tried last.
    no_anchor: RefCell<Option<(Instant, String)>>,
    /// Interfaces that were wires at some look.
    wires: RefCell<BTreeSet<u32>>,
}

impl Reconciler {
    /// Opens the kernel.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self {
            kernel: Kernel::open()?,
            no_anchor: RefCell::default(),
            wires: RefCell::default(),
        })
    }

    /// Makes the host look as `wanted` says, as far as the kernel lets it.
    pub fn settle(&self, wanted: &Wanted) -> Report {
        let mut failures = Vec::new();
        let no_anchor = self.keep_anchor(wanted);
        for _ in 0..ROUNDS {
            failures.clear();
            let observed = match self.observe(wanted) {
                Ok(observed) => observed,
                Err(error) => return Report::blind(&error),
            };
            let desired = desired(wanted, &observed);
            let actions = plan(&desired, &wanted.network, &observed);
            if actions.is_empty() {
                let mut report = Report::of(&desired, &observed, failures);
                report.problems.extend(no_anchor);
                return report;
            }
            // Without the filter, rules and routes close on their own, and nothing opens.
            let mut filtered = true;
            for action in &actions {
                if !filtered && !action.only_closes() {
                    continue;
                }
                tracing::debug!(?action, "host");
                if let Err(error) = self.kernel.apply(action) {
                    failures.push(error.to_string());
                    filtered &= !matches!(action, Action::SetFilter(_));
                }
            }
        }
        match self.observe(wanted) {
            Ok(observed) => {
                let desired = desired(wanted, &observed);
                let mut report = Report::of(&desired, &observed, failures);
                report.problems.extend(no_anchor);
                report.settled = false;
                report
            }
            Err(error) => Report::blind(&error),
        }
    }

    /// Sees to the anchor where one is wanted. What keeps the kernel from making one is a problem, and
    /// tried again later.
    fn keep_anchor(&self, wanted: &Wanted) -> Option<String> {
        if wanted.resolver != Some(Place::Inside) {
            return None;
        }
        let mut no_anchor = self.no_anchor.borrow_mut();
        let is_due = |tried: &Instant| tried.elapsed() >= ANCHOR_TRIED_AGAIN;
        if no_anchor.as_ref().is_none_or(|(tried, _)| is_due(tried)) {
            let made = self.kernel.keep_anchor();
            *no_anchor = made.err().map(|error| (Instant::now(), error.to_string()));
        }
        let why = no_anchor.as_ref().map(|(_, why)| why.clone());
        why.map(|why| Finding::NoAnchor { why }.to_string())
    }

    fn observe(&self, wanted: &Wanted) -> Result<Observed, KernelError> {
        let mut observed = self.kernel.observe(wanted)?;
        observed.were_wires = self.wires.borrow().clone();
        self.wires.replace(all_wires(&observed));
        Ok(observed)
    }

    /// Whether something of a client's is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_closed(&self) -> Result<bool, KernelError> {
        self.kernel.has_anything()
    }

    /// Another interface than this one that virtual addresses lead to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn other_interface(&self, own: &str) -> Result<Option<String>, KernelError> {
        self.kernel.interface_of_routes(own)
    }

    /// Takes from the loopback interface what a former virtual network left there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn leave(&self, former: VirtualNetwork, wanted: &Wanted) -> Result<(), KernelError> {
        let observed = self.observe(wanted)?;
        let left = |address: &&Address| {
            is_own(address, None, &former) && !is_own(address, None, &wanted.network)
        };
        for address in observed.addresses.iter().filter(left) {
            self.kernel.apply(&Action::RemoveAddress(*address))?;
        }
        Ok(())
    }

    /// Takes away what was ever added.
    ///
    /// # Errors
    /// The first refusal; the rest is taken away all the same.
    pub fn remove(&self, wanted: &Wanted) -> Result<(), KernelError> {
        let observed = self.observe(wanted)?;
        let own = observed.link(&wanted.interface).map(|link| link.index);
        let mut result = Ok(());
        for action in removal(&wanted.network, own, &observed) {
            let done = self.kernel.apply(&action);
            result = result.and(done);
        }
        result = result.and(self.kernel.remove_anchor());
        result
    }
}

impl Report {
    fn of(desired: &Desired, observed: &Observed, failures: Vec<String>) -> Self {
        let filter = observed.filter.as_ref() == Some(&desired.filter.chains());
        let rules = |ipv6: bool| {
            let rules = desired.rules.iter();
            let mut rules = rules.filter(|r| r.table == TABLE && r.to.is_ipv6() == ipv6);
            rules.all(|rule| observed.rules.contains(rule))
        };
        let closed = filter && rules(false) && rules(true);
        let there = |ipv6: bool| {
            closed
                && desired.leads_in(ipv6)
                && desired.has_all(ipv6, observed)
                && !desired.is_overruled(ipv6, observed)
        };
        let problems = desired.findings.iter().map(ToString::to_string);
        let resolver = desired
            .resolver
            .filter(|address| observed.addresses.contains(address));
        Self {
            closed,
            settled: failures.is_empty(),
            ipv4: there(false),
            ipv6: there(true),
            resolver: resolver.and_then(|address| match address.prefix.address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
            resolver_link: resolver
                .map(|address| (address.interface, observed.name(address.interface))),
            inner: desired.inner.clone(),
            others: desired.others(),
            neighbours: desired.filter.local.iter().map(|l| l.network).collect(),
            kept: desired.filter.kept.clone(),
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
