//! What a host has when the client comes up: rules of another VPN, a filter of the kernel.

use crate::desk::Found;
use crate::leaks::{comes_again, connections_end, page, quietly};
use crate::tools::{eventually, on};
use crate::{Kind, Tests};
use anyhow::{Result, ensure};
use mixline_testnet::topology::Node;
use mixline_testnet::{Network, netns};

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::rules_that_were_there_before_are_behind_or_said",
        rules,
    );
    tests.on(
        Kind::Honest,
        "host::a_strict_reverse_path_filter_lets_everything_through",
        strict,
    );
}

fn ip(lines: &[&str]) -> Result<()> {
    for line in lines {
        netns::said(netns::command(&Node::Client.namespace(), "ip").args(line.split(' ')))?;
    }
    Ok(())
}

/// What the client says of rules that come before its own.
fn earlier_rules(network: &Network) -> Result<String> {
    let problems = &network.client_status(Node::Client)?["problems"];
    let said = problems.as_array().into_iter().flatten();
    let said = said.filter_map(|problem| problem.as_str());
    let rules: Vec<&str> = said.filter(|text| text.contains("policy rule")).collect();
    Ok(rules.join("\n"))
}

/// Starts the client where others have rules and tables of theirs; both go afterwards.
fn started_with(
    network: &mut Network,
    done: &[&str],
    undone: &[&str],
    look: impl FnOnce(&mut Network) -> Result<()>,
) -> Result<()> {
    connections_end(Node::Client)?;
    quietly(network, |network| {
        network.stop(Node::Client)?;
        ip(done)?;
        network.start(Node::Client)?;
        network.wait_for_client(Node::Client)?;
        look(network)?;
        ip(undone)?;
        comes_again(network, "without the others' rules")?;
        eventually("nothing said of rules any more", 20, || {
            Ok(earlier_rules(network)?.is_empty())
        })
    })
}

fn rules(network: &mut Network) -> Result<()> {
    // As another VPN does it: the client's come before.
    let done = [
        "route add 10.0.0.0/8 via 172.30.0.1 table 52",
        "rule add pref 5270 lookup 52",
        "-6 route add fd00::/8 via 3fff:200::1 table 52",
        "-6 rule add pref 5270 lookup 52",
    ];
    let undone = [
        "rule del pref 5270",
        "-6 rule del pref 5270",
        "route flush table 52",
        "-6 route flush table 52",
    ];
    started_with(network, &done, &undone, |network| {
        comes_again(network, "with another VPN's table from before")?;
        let said = earlier_rules(network)?;
        ensure!(said.is_empty(), "it is not in the way: {said}");
        Found::of(network)?.expect(
            "ok",
            &[
                "policy rules: of others: 5270 to table 52;",
                "what is virtual does not come to them",
            ],
        )
    })?;
    // One that is the first of all is in the way.
    let done = [
        "route add 10.0.0.0/8 via 172.30.0.1 table 53",
        "rule add pref 0 to 10.0.0.0/8 lookup 53",
    ];
    let undone = [
        "rule del pref 0 to 10.0.0.0/8 lookup 53",
        "route flush table 53",
    ];
    started_with(network, &done, &undone, |network| {
        eventually("a word about the rule in the way", 20, || {
            Ok(earlier_rules(network)?.contains("policy rule 0 (table 53)"))
        })?;
        let way = ["policy rules: ", "ip rule del priority 0 table 53"];
        Found::of(network)?.expect("problem", &way)?;
        let service = network.identity(Node::Service)?;
        let (there, elsewhere) = (format!("[{}]", service.ipv6), service.ipv4.to_string());
        eventually("the page by IPv6", 30, || Ok(page(&there, 5)))?;
        ensure!(!page(&elsewhere, 3), "the page by IPv4 all the same");
        Ok(())
    })
}

/// Sets the reverse path filter of both hosts: the stricter of this and an interface's own counts.
fn reverse_path_filter(value: &str) -> Result<()> {
    let assignment = format!("net.ipv4.conf.all.rp_filter={value}");
    for node in [Node::Client, Node::Service] {
        netns::said(on(node, 5, "sysctl").args(["-q", "-w", &assignment]))?;
    }
    Ok(())
}

fn strict(network: &mut Network) -> Result<()> {
    reverse_path_filter("1")?;
    let outcome = quietly(network, |network| {
        comes_again(network, "of hosts that became strict")?;
        connections_end(Node::Client)?;
        network.stop(Node::Client)?;
        network.start(Node::Client)?;
        network.wait_for_client(Node::Client)?;
        comes_again(network, "of a client that starts on a strict host")
    });
    reverse_path_filter("0")?;
    outcome
}
