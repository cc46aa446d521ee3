//! A service with a list of clients: who is not on it reaches nothing, and does not learn whether it is up.

use crate::leaks::{comes_again, connections_end, page, quietly};
use crate::tools::{HOST, eventually, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::topology::Node;
use serde_json::Value;

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "clients::only_those_on_the_list_reach_a_service",
        |network| {
            let outcome = quietly(network, listed);
            let _ = run(network, Node::Service, &["allow", "--everybody"]);
            let _ = run(network, Node::Client, &["key", HOST, "--forget"]);
            outcome?;
            comes_again(network, "without a list")
        },
    );
}

fn run(network: &Network, node: Node, arguments: &[&str]) -> Result<String> {
    let (command, more) = arguments.split_first().context("no command")?;
    succeed(network.client_command(node, command).args(more))
}

/// What `resolve` says about the service at the client.
fn resolved(network: &Network) -> Result<Value> {
    let mut resolve = network.client_command(Node::Client, "resolve");
    let said = output(resolve.args(["--json", HOST]))?;
    Ok(serde_json::from_slice(&said.stdout)?)
}

fn listed(network: &mut Network) -> Result<()> {
    ensure!(page(HOST, 20), "no page before");
    // A list that this client is not on.
    let other = "07".repeat(32);
    let shown = run(network, Node::Service, &["allow", &other, "other"])?;
    ensure!(shown.contains("other") && shown.contains(&other), "{shown}");
    eventually("the session ends", 10, || Ok(!page(HOST, 3)))?;
    eventually("the directory tells of it no longer", 20, || {
        Ok(resolved(network)?["problems"][0]["step"] == "descriptor")
    })?;
    ensure!(!page(HOST, 5), "a stranger has the page");

    let key = run(network, Node::Client, &["key", HOST])?;
    let key = key.trim();
    ensure!(key.len() == 64, "{key}");
    ensure!(run(network, Node::Client, &["key", HOST])?.trim() == key);
    ensure!(!page(HOST, 5), "a key that nobody let in");
    run(network, Node::Service, &["allow", key, "alice"])?;
    eventually("the page with a key on the list", 30, || Ok(page(HOST, 5)))?;
    let found = resolved(network)?;
    ensure!(found["problems"] == serde_json::json!([]), "{found}");

    // Both outlive a restart.
    for node in [Node::Service, Node::Client] {
        connections_end(node)?;
        network.stop(node)?;
        network.start(node)?;
        network.wait_for_client(node)?;
    }
    eventually("the page after a restart", 30, || Ok(page(HOST, 5)))?;
    let shown = run(network, Node::Service, &["clients"])?;
    ensure!(shown.contains("alice"), "{shown}");
    let services = run(network, Node::Client, &["clients", "--json"])?;
    let service = network.identity(Node::Service)?.id;
    ensure!(services.contains(&service), "{services}");

    let shown = run(network, Node::Service, &["deny", "alice"])?;
    ensure!(!shown.contains("alice"), "{shown}");
    eventually("the denied client's session ends", 10, || {
        Ok(!page(HOST, 3))
    })?;
    ensure!(!page(HOST, 5), "a denied client has the page");
    let denied = output(network.client_command(Node::Service, "deny").arg("alice"))?;
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    ensure!(
        !denied.status.success() && said.contains("alice is not on the list"),
        "{said}"
    );
    Ok(())
}
