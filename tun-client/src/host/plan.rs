//! From what the kernel has to what it should have, in steps between which there is no way out.
//!
//! What closes comes first and what opens comes last: the filter, routes that refuse, rules, and
//! only then addresses and routes that lead somewhere. What is too much goes after what replaces
//! it.

use super::desired::{Desired, is_own};
use super::filter::Chain;
use super::observed::{Address, INSIDE_TABLE, Observed, Route, Rule, Target};

use mixline_protocol::address::VirtualNetwork;

/// One change of the kernel's state, carried out as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Puts the filter in the place of an earlier one, without a moment in between.
    SetFilter(Vec<Chain>),
    /// Removes the filter.
    RemoveFilter,
    /// Puts a route into the own table, in the place of one to the same network with the same
    /// metric.
    SetRoute(Route),
    /// Removes a route from the own table.
    RemoveRoute(Route),
    /// Adds a policy rule.
    AddRule(Rule),
    /// Removes a policy rule.
    RemoveRule(Rule),
    /// Brings an interface up.
    SetUp(u32),
    /// Gives an interface an address.
    AddAddress(Address),
    /// Takes an address from an interface.
    RemoveAddress(Address),
}

impl Action {
    /// Whether it does nothing but close: what may be done when another action has failed.
    #[must_use]
    pub fn only_closes(&self) -> bool {
        match self {
            Self::SetFilter(_) | Self::AddRule(_) => true,
            Self::SetRoute(route) => route.target == Target::Unreachable,
            Self::RemoveRoute(route) => route.target != Target::Unreachable,
            _ => false,
        }
    }
}

/// Where a route leads packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leads {
    /// It refuses them.
    Nowhere,
    /// Into the tunnel.
    Inside,
    /// To the rules after the one that has led to its table.
    On,
    /// Elsewhere.
    Out,
}

/// What leads from what is there to what is desired; nothing if that is there.
#[must_use]
pub fn plan(desired: &Desired, network: &VirtualNetwork, observed: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    let chains = desired.filter.chains();
    if observed.filter.as_ref() != Some(&chains) {
        actions.push(Action::SetFilter(chains));
    }
    let missing = |refuses: bool| {
        desired
            .routes
            .iter()
            .filter(move |route| (route.target == Target::Unreachable) == refuses)
            .filter(|route| !observed.routes.contains(route))
            .copied()
    };
    actions.extend(missing(true).map(Action::SetRoute));
    // What leads out goes before a rule may lead more packets there, also where something else is to have its
    // place; then what sends packets on to later rules, since these may lead inside.
    let undesired = observed
        .routes
        .iter()
        .filter(|route| !desired.routes.contains(route));
    let leads = |route: &Route| match route.target {
        Target::Unreachable => Leads::Nowhere,
        Target::Interface(index) if Some(index) == desired.interface => Leads::Inside,
        Target::Throw => Leads::On,
        Target::Interface(_) | Target::Other => Leads::Out,
    };
    let is_replaced = |route: &Route| {
        let mut desired = desired.routes.iter();
        desired.any(|other| other.has_place_of(route))
    };
    let is_refused = |route: &Route| {
        let mut refusing = missing(true);
        refusing.any(|other| other.has_place_of(route))
    };
    let out = undesired
        .clone()
        .filter(|route| leads(route) == Leads::Out && !is_refused(route));
    actions.extend(out.copied().map(Action::RemoveRoute));
    let on = undesired
        .clone()
        .filter(|route| leads(route) == Leads::On && !is_replaced(route));
    actions.extend(on.copied().map(Action::RemoveRoute));
    actions.extend(add_rules(&desired.rules, &observed.rules));
    if let Some(interface) = desired.interface {
        let up = observed
            .links
            .iter()
            .any(|link| link.index == interface && link.up);
        if !up {
            actions.push(Action::SetUp(interface));
        }
    }
    let own: Vec<Address> = observed
        .addresses
        .iter()
        .filter(|address| is_own(address, desired.interface, network))
        .copied()
        .collect();
    let (resolver, mut hosts): (Vec<Address>, Vec<Address>) = desired
        .addresses
        .iter()
        .partition(|address| desired.resolver == Some(**address));
    hosts.retain(|address| !own.contains(address));
    // The resolver's comes last: programs take an interface's first address for the host's.
    for address in resolver {
        let is_first = hosts.iter().any(|host| host.interface == address.interface);
        if own.contains(&address) && is_first {
            actions.push(Action::RemoveAddress(address));
        }
        if !own.contains(&address) || is_first {
            hosts.push(address);
        }
    }
    actions.extend(hosts.into_iter().map(Action::AddAddress));
    actions.extend(missing(false).map(Action::SetRoute));
    // What has the place of a desired route has been replaced.
    let closed = undesired.filter(|route| {
        matches!(leads(route), Leads::Nowhere | Leads::Inside) && !is_replaced(route)
    });
    actions.extend(closed.copied().map(Action::RemoveRoute));
    for address in own {
        if !desired.addresses.contains(&address) {
            actions.push(Action::RemoveAddress(address));
        }
    }
    // One too many that is for everybody's packets does no harm until all is removed, and may be what
    // closes where somebody else's comes before the one that is desired.
    let sources = observed
        .rules
        .iter()
        .filter(|rule| rule.table == INSIDE_TABLE);
    let too_many = sources.filter(|rule| !desired.rules.contains(rule));
    actions.extend(too_many.copied().map(Action::RemoveRule));
    actions
}

/// What adds the rules that are missing, those for own sources before those for the virtual networks. The
/// kernel appends: where one of the former is new, the latter have to be made again, behind it. Until that
/// is done others of a later priority hold their place.
fn add_rules(desired: &[Rule], there: &[Rule]) -> Vec<Action> {
    let mut actions = Vec::new();
    let place = |rule: &Rule| there.iter().position(|other| other == rule);
    let (sources, networks): (Vec<Rule>, Vec<Rule>) =
        desired.iter().partition(|rule| rule.table == INSIDE_TABLE);
    let new = sources.iter().filter(|rule| place(rule).is_none());
    actions.extend(new.copied().map(Action::AddRule));
    for rule in networks {
        let Some(at) = place(&rule) else {
            actions.push(Action::AddRule(rule));
            continue;
        };
        let before = |source: &Rule| {
            source.to.is_ipv6() != rule.to.is_ipv6() || place(source).is_some_and(|it| it < at)
        };
        let later = Rule {
            priority: rule.priority + 1,
            ..rule
        };
        // The kernel makes a rule behind those of its priority: somebody else's would come before one that is
        // made again, or before the one that holds its place. Then the former stay behind.
        let behind = there.iter().skip(at);
        let behind = behind.filter(|other| other.to.is_ipv6() == rule.to.is_ipv6());
        let mut behind = behind.filter(|other| !other.is_own() && other.priority <= later.priority);
        if sources.iter().all(before) || behind.next().is_some() {
            continue;
        }
        actions.extend([
            Action::AddRule(later),
            Action::RemoveRule(rule),
            Action::AddRule(rule),
            Action::RemoveRule(later),
        ]);
    }
    actions
}

/// What takes away all that the client ever added. What opens goes first.
#[must_use]
pub fn removal(network: &VirtualNetwork, own: Option<u32>, observed: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    let (closed, open): (Vec<Route>, Vec<Route>) = observed
        .routes
        .iter()
        .partition(|route| route.target == Target::Unreachable);
    actions.extend(open.into_iter().map(Action::RemoveRoute));
    let addresses = observed
        .addresses
        .iter()
        .filter(|address| is_own(address, own, network));
    actions.extend(addresses.copied().map(Action::RemoveAddress));
    let rules = observed.rules.iter().filter(|rule| rule.is_own());
    actions.extend(rules.copied().map(Action::RemoveRule));
    actions.extend(closed.into_iter().map(Action::RemoveRoute));
    // Also what is left of one that no longer counts.
    actions.push(Action::RemoveFilter);
    actions
}

#[cfg(test)]
mod tests;
