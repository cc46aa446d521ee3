//! The packet filter beside the plan: how long its sentences are, and a host without it.

use super::super::{Action, plan};
use super::kernel_in_memory::{
    TUNNEL, WIRE, act, host, is_led_out, link, other_route, prefix, wanted, with_main,
};
use super::random_hosts::SOME;
use crate::host::desired::desired;
use crate::host::observed::{Address, Link, Route, Target};

/// How many expressions a sentence has at most (`NFT_RULE_MAXEXPRS`).
const MAX_EXPRESSIONS: usize = 128;

#[test]
fn no_sentence_is_longer_than_the_kernel_takes() {
    // A host with many addresses in networks that lie in one another.
    let mut host = with_main("10.1.0.0/16", WIRE, false);
    for third in 0..100 {
        let inside = format!("10.1.{third}.7/24");
        host.others
            .push(other_route(prefix(&inside).network(), WIRE, false));
        host.addresses.push(Address {
            interface: WIRE,
            prefix: prefix(&inside),
        });
    }
    for name in 0..40 {
        host.links.push(Link {
            contained: true,
            ..link(100 + name, &format!("br{name}"))
        });
    }
    let goal = desired(&wanted(), &host);
    assert_eq!(goal.filter.local.len(), 32);
    let chains = goal.filter.chains();
    let sentences = chains.iter().flat_map(|chain| &chain.sentences);
    let longest = sentences.map(Vec::len).max().unwrap();
    assert!(longest <= MAX_EXPRESSIONS, "{longest}");
    assert!(longest > 90, "the bounds are not reached: {longest}");
}

#[test]
fn without_its_filter_a_host_is_closed_by_what_only_closes() {
    let mut host = host();
    let actions = plan(&desired(&wanted(), &host), &wanted().network, &host);
    for action in actions.iter().filter(|action| action.only_closes()) {
        if !matches!(action, Action::SetFilter(_)) {
            act(&mut host, action);
        }
    }
    for address in SOME {
        assert!(!is_led_out(&host, address.parse().unwrap()), "{address}");
    }
    assert!(host.addresses.is_empty() && host.links[4].name == "mixline0");
    let leads = |route: &Route| route.target == Target::Interface(TUNNEL);
    assert!(!host.routes.iter().any(leads));
}
