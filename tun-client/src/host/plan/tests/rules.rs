//! The client's rules and those of others.

use std::net::IpAddr;

use super::super::Action;
use super::kernel_in_memory::{
    LEASE, OTHER_LEASE, WIRE, act, host, is_led_out, other_route, prefix, settle, wanted,
};
use crate::host::desired::desired;
use crate::host::finding::Finding;
use crate::host::observed::{INSIDE_TABLE, Observed, OtherRoute, Rule, TABLE};
use crate::host::prefix::{IPV6_NETWORK, Prefix};

#[test]
fn a_rule_before_ours_is_told() {
    let mut host = host();
    let other = Rule {
        priority: 0,
        from: Prefix::everything(false),
        to: prefix("10.0.0.0/8"),
        narrowed: false,
        table: 52,
    };
    act(&mut host, &Action::AddRule(other));
    settle(&mut host, &wanted(), |_, _| {});
    let goal = desired(&wanted(), &host);
    assert_eq!(
        goal.findings,
        [Finding::Earlier {
            priority: 0,
            table: 52
        }]
    );
    // One of a later priority does not matter.
    host.rules.retain(|rule| *rule != other);
    let later = Rule {
        priority: 5270,
        ..other
    };
    act(&mut host, &Action::AddRule(later));
    assert_eq!(desired(&wanted(), &host).findings, []);
    assert!(!is_led_out(&host, "10.200.3.4".parse().unwrap()));
}

#[test]
fn a_network_that_a_rule_leads_elsewhere_is_not_reached() {
    let mut host = host();
    let other = |ipv6| Rule {
        priority: 0,
        from: Prefix::everything(ipv6),
        to: if ipv6 {
            IPV6_NETWORK
        } else {
            prefix("10.0.0.0/8")
        },
        narrowed: false,
        table: 52,
    };
    act(&mut host, &Action::AddRule(other(false)));
    settle(&mut host, &wanted(), |_, _| {});
    let overruled = |host: &Observed| {
        let goal = desired(&wanted(), host);
        [false, true].map(|ipv6| goal.is_overruled(ipv6, host))
    };
    assert_eq!(overruled(&host), [false, false], "its table is empty");
    host.others.push(OtherRoute {
        table: 52,
        ..other_route(prefix("10.0.0.0/8"), WIRE, true)
    });
    assert_eq!(overruled(&host), [true, false]);
    // One that is for some packets only stands in nobody's way.
    for rule in host.rules.iter_mut().filter(|rule| rule.table == 52) {
        rule.narrowed = true;
    }
    assert_eq!(overruled(&host), [false, false]);
}

#[test]
fn a_new_lease_comes_before_the_networks_and_the_former_one_goes() {
    let mut wanted = wanted();
    let mut host = host();
    settle(&mut host, &wanted, |_, _| {});
    for lease in [None, Some(LEASE), Some(OTHER_LEASE), None] {
        wanted.lease = lease;
        settle(&mut host, &wanted, |host, action| {
            assert!(
                !is_led_out(host, "10.200.3.4".parse().unwrap()),
                "{action:?}"
            );
        });
        let own: Vec<Rule> = host
            .rules
            .iter()
            .filter(|r| r.is_own() && !r.to.is_ipv6())
            .copied()
            .collect();
        let from: Vec<IpAddr> = own
            .iter()
            .filter(|r| r.table == INSIDE_TABLE)
            .map(|r| r.from.address)
            .collect();
        assert_eq!(from, lease.map(IpAddr::V4).into_iter().collect::<Vec<_>>());
        assert_eq!(own.last().map(|rule| rule.table), Some(TABLE));
    }
}

#[test]
fn what_holds_the_networks_place_comes_before_everybody_elses_rules() {
    let network = Rule {
        priority: 0,
        from: Prefix::everything(false),
        to: prefix("10.0.0.0/8"),
        narrowed: false,
        table: TABLE,
    };
    for priority in [0, 1, 2] {
        let other = Rule {
            priority,
            table: 52,
            to: Prefix::everything(false),
            ..network
        };
        let mut host = host();
        act(&mut host, &Action::AddRule(network));
        act(&mut host, &Action::AddRule(other));
        let to = "10.200.3.4".parse().unwrap();
        let mut closed = false;
        settle(&mut host, &wanted(), |host, action| {
            let out = is_led_out(host, to);
            assert!(!out || !closed, "priority {priority}: {action:?}");
            closed |= !out;
        });
        assert!(closed, "priority {priority}");
    }
}
