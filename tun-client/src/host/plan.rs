//! From what the kernel has to what it should have, in steps between which there is no way out.
//!
//! What closes comes first and what opens comes last: the filter, routes that refuse, rules, and
//! only then addresses and routes that lead somewhere. What is too much goes after what replaces
//! it.

use super::desired::{Desired, is_own};
use super::filter::Chain;
use super::observed::{Address, Observed, Route, Rule, TABLE, Target};

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
    for rule in &desired.rules {
        if !observed.rules.contains(rule) {
            actions.push(Action::AddRule(*rule));
        }
    }
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
    // What has the place of a desired route has been replaced. What leads out goes first.
    let too_many = observed.routes.iter().filter(|route| {
        let place = |other: &Route| (other.to, other.metric) == (route.to, route.metric);
        !desired.routes.iter().any(place)
    });
    let (closed, open): (Vec<Route>, Vec<Route>) = too_many.partition(|route| match route.target {
        Target::Unreachable => true,
        Target::Interface(index) => Some(index) == desired.interface,
        Target::Throw | Target::Other => false,
    });
    actions.extend(open.into_iter().chain(closed).map(Action::RemoveRoute));
    for address in own {
        if !desired.addresses.contains(&address) {
            actions.push(Action::RemoveAddress(address));
        }
    }
    // A rule too many leads into the own table, which closes: it does no harm until all is removed.
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
    let rules = observed.rules.iter().filter(|rule| rule.table == TABLE);
    actions.extend(rules.copied().map(Action::RemoveRule));
    actions.extend(closed.into_iter().map(Action::RemoveRoute));
    if observed.filter.is_some() {
        actions.push(Action::RemoveFilter);
    }
    actions
}

#[cfg(test)]
mod tests;
