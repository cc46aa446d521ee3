//! What holds for every host, whatever state it is in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::super::{Action, plan, removal};
use super::kernel_in_memory::{
    LEASE, OTHER_LEASE, OWN, TUNNEL, act, is_led_out, is_led_out_from, is_up, settle,
};
use super::random_hosts::{SOME, hosts, wishes};
use crate::host::desired::{Wanted, desired, is_own};
use crate::host::finding::Finding;
use crate::host::observed::{Address, INSIDE_TABLE, LOCAL_TABLE, Observed, Route, Rule, Target};

/// Virtual addresses that nobody else has.
fn virtual_addresses(wanted: &Wanted, kernel: &Observed) -> Vec<IpAddr> {
    let goal = desired(wanted, kernel);
    let others = goal.others();
    SOME.iter()
        .map(|text| text.parse().unwrap())
        .filter(|address: &IpAddr| kernel.ipv6 || address.is_ipv4())
        .filter(|address| {
            goal.filter.kept.contains(address)
                || !others.iter().any(|other| other.contains(*address))
        })
        .collect()
}

/// Whether the host has the source of a packet, if it has one yet.
fn has(kernel: &Observed, from: Option<IpAddr>) -> bool {
    let addresses = kernel.addresses.iter();
    let mut addresses = addresses.map(|address| address.prefix.address);
    from.is_none_or(|from| addresses.any(|address| address == from))
}

/// The addresses that are the client's to give and to take.
fn own_addresses(wanted: &Wanted, kernel: &Observed) -> BTreeSet<Address> {
    let own = kernel.link(&wanted.interface).map(|link| link.index);
    let addresses = kernel.addresses.iter().copied();
    addresses
        .filter(|address| is_own(address, own, &wanted.network))
        .collect()
}

proptest! {
    #[test]
    fn every_host_settles_and_then_looks_as_desired(mut kernel in hosts(), wanted in wishes()) {
        settle(&mut kernel, &wanted, |kernel, action| {
            // The kernel takes no route through an interface that is down.
            let inside = matches!(action, Action::SetRoute(Route { target: Target::Interface(TUNNEL), .. }));
            assert!(!inside || is_up(kernel, TUNNEL), "{action:?}");
        });
        let goal = desired(&wanted, &kernel);
        prop_assert_eq!(kernel.filter.as_ref(), Some(&goal.filter.chains()));
        prop_assert_eq!(kernel.routes.iter().copied().collect::<BTreeSet<_>>(), goal.routes.clone());
        prop_assert_eq!(own_addresses(&wanted, &kernel), goal.addresses.clone());
        for rule in &goal.rules {
            prop_assert!(kernel.rules.contains(rule), "no rule {rule}");
        }
        let mut inside = kernel.rules.iter().filter(|rule| rule.table == INSIDE_TABLE);
        prop_assert!(inside.all(|rule| goal.rules.contains(rule)), "a source too many");
        prop_assert!(goal.interface.is_none_or(|interface| is_up(&kernel, interface)));
        let overruled = goal.findings.iter().any(|f| matches!(f, Finding::Earlier { .. }));
        for address in virtual_addresses(&wanted, &kernel) {
            prop_assert!(overruled || !is_led_out(&kernel, address), "{address}");
        }
    }

    #[test]
    fn what_comes_from_an_own_address_goes_inside_whoever_is_a_neighbour(mut kernel in hosts(), wanted in wishes()) {
        settle(&mut kernel, &wanted, |_, _| {});
        if kernel.link("mixline0").is_none() {
            return Ok(());
        }
        for to in SOME.iter().map(|text| text.parse::<IpAddr>().unwrap()) {
            let own = if to.is_ipv4() { wanted.lease.map(IpAddr::V4) } else { Some(IpAddr::V6(OWN)) };
            let Some(own) = own else { continue };
            let of_its_family = kernel.rules.iter().filter(|rule| rule.from.address.is_ipv4() == to.is_ipv4());
            let mut before = of_its_family.take_while(|rule| rule.table != INSIDE_TABLE);
            if before.any(|rule| !rule.is_own() && rule.table != LOCAL_TABLE) {
                // Somebody else's rule comes first, which a finding says.
                continue;
            }
            if to.is_ipv4() || kernel.ipv6_inside {
                prop_assert!(!is_led_out_from(&kernel, Some(own), to), "{to}");
            }
        }
    }

    #[test]
    fn the_filter_is_there_before_anything_opens(mut kernel in hosts(), wanted in wishes()) {
        // One that is there is empty, and closes nothing.
        let first = plan(&desired(&wanted, &kernel), &wanted.network, &kernel);
        prop_assert!(matches!(first.first(), Some(Action::SetFilter(chains)) if !chains.is_empty()));
        let mut closed = false;
        settle(&mut kernel, &wanted, |kernel, action| {
            closed |= matches!(action, Action::SetFilter(_));
            assert!(closed && kernel.filter.as_ref().is_some_and(|chains| !chains.is_empty()), "{action:?} comes first");
        });
    }

    #[test]
    fn without_a_filter_what_routes_close_stays_closed_at_every_step(mut kernel in hosts(), wanted in wishes()) {
        let addresses = virtual_addresses(&wanted, &kernel);
        // Before a packet has a source, and from addresses that are the client's, were, or will be.
        let sources: [Option<IpAddr>; 4] = [None, Some(LEASE.into()), Some(OTHER_LEASE.into()), Some(OWN.into())];
        let packets: BTreeSet<(Option<IpAddr>, IpAddr)> = sources
            .into_iter()
            .flat_map(|from| addresses.iter().map(move |to| (from, *to)))
            .filter(|(from, to)| from.is_none_or(|from| from.is_ipv4() == to.is_ipv4()))
            .collect();
        // Those that somebody else's earlier rule leads out when all is as desired, which a finding says, are the filter's:
        // what is in our table before that rule, and is not ours any more, does not keep them in for ever.
        let mut settled = kernel.clone();
        settle(&mut settled, &wanted, |_, _| {});
        let packets: BTreeSet<_> = packets
            .into_iter()
            .filter(|(from, to)| !is_led_out_from(&settled, *from, *to))
            .collect();
        let mut open = packets.clone();
        open.retain(|(from, to)| is_led_out_from(&kernel, *from, *to));
        settle(&mut kernel, &wanted, |kernel, action| {
            for packet in &packets {
                let (from, to) = *packet;
                // The kernel sends nothing from an address that the host has not (`ip_route_output_key_hash_rcu` for
                // IPv4; sockets over IPv6 that outlive theirs are the filter's).
                let out = is_led_out_from(kernel, from, to);
                let leaves = out && has(kernel, from);
                assert!(!leaves || open.contains(packet), "{to} gets out from {from:?} after {action:?}");
                if !out {
                    open.remove(packet);
                }
            }
        });
    }

    #[test]
    fn nothing_is_left_when_all_is_removed(mut kernel in hosts(), wanted in wishes()) {
        settle(&mut kernel, &wanted, |_, _| {});
        let own = kernel.link("mixline0").map(|link| link.index);
        for action in removal(&wanted.network, own, &kernel) {
            act(&mut kernel, &action);
        }
        prop_assert_eq!(&kernel.filter, &None);
        prop_assert!(kernel.routes.is_empty());
        prop_assert!(!kernel.rules.iter().any(Rule::is_own));
        prop_assert!(kernel.addresses.iter().all(|a| !is_own(a, own, &wanted.network)));
    }
}
