//! Names as a host's resolver asks for them, with search domains behind, and at moments at which the client
//! cannot answer.

use crate::host_names::resolve;
use crate::leaks::{addresses, comes_again, connections_end, page};
use crate::name_server::{NameServer, addresses_of, asking};
use crate::tools::{HOST, eventually, on_client, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::{Network, namespaces, netns};
use serde_json::Value;
use std::fs;
use std::net::IpAddr;

/// A host's configuration that has a name tried with all search domains before it is tried by itself.
const SEARCHES: &str = "search corp.example anon lan\noptions ndots:5 timeout:1 attempts:1\n";
/// Names of the service, and of nobody.
const OURS: [&str; 3] = [HOST, "www.freespeech.anon", "n1.www.freespeech.anon"];
const NOBODYS: &str = "nosuch.anon";
/// A table of the router's.
const TABLE: &str = "names";

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::names::search_domains_carry_no_name_out_at_any_moment",
        searches,
    );
}

/// Where the host asks before the client is up.
fn outside() -> IpAddr {
    Node::Client.gateway_ipv4().into()
}

fn searches(network: &mut Network) -> Result<()> {
    let server = NameServer::outside(network)?;
    let file = namespaces::resolv_conf(&Node::Client.namespace());
    let before = fs::read(&file)?;
    let text = format!("{SEARCHES}nameserver {}\n", outside());
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    fs::write(&file, &text)?;
    // Without a client all of this leaves: what looks for it here sees it.
    let open = asking(network, &[outside()], "", |_| nobody_says(&["open.anon"]));
    ensure!(open.is_err() && server.was_asked("open.anon")?, "{open:?}");
    let open = asking(network, &[outside()], "", |network| no_page(network));
    ensure!(open.is_err(), "no packet leaves an open host either");

    let outcome = moments(network, &server, &text);
    let _ = netns::said(netns::command(ROUTER, "nft").args(["delete", "table", "inet", TABLE]));
    if network.process(Node::Client).is_some() {
        network.stop(Node::Client)?;
    }
    let after = fs::read_to_string(&file);
    fs::write(&file, before)?;
    network.start(Node::Client)?;
    outcome?;
    ensure!(after? == text, "the file is not as it was");
    network.wait_for_client(Node::Client)?;
    comes_again(network, "at the end")
}

fn moments(network: &mut Network, server: &NameServer, text: &str) -> Result<()> {
    let holder = |network: &Network, command: &str| {
        let mut command = network.client_command(Node::Service, command);
        succeed(command.arg("anon"))
    };
    holder(network, "publish")?;
    let asked = asking(network, &[outside()], "", |network| {
        fetching(network, server).context("while the directory is away")?;
        leasing(network, server).context("without a lease")?;
        up(network, server).context("up")?;
        off(network, server).context("in mode `off`")?;
        killed(network, server, text).context("killed")
    });
    holder(network, "unpublish")?;
    asked?;
    for name in OURS.iter().chain([&NOBODYS]) {
        for asked in [(*name).to_owned(), format!("{name}.corp.example")] {
            ensure!(!server.was_asked(&asked)?, "{asked} was asked outside");
        }
    }
    Ok(())
}

/// No program finds any of these names.
fn nobody_says(names: &[&str]) -> Result<()> {
    for name in names {
        let found = addresses_of(name)?;
        ensure!(found.is_empty(), "{name}: {found:?}");
    }
    Ok(())
}

/// Nothing is found of ours, and others are.
fn only_others(server: &NameServer, what: &str) -> Result<()> {
    nobody_says(&OURS)?;
    nobody_says(&[NOBODYS])?;
    server.answers(what)
}

/// Has the router drop what these rules say, and nothing else any more.
fn router_drops(rules: &str) -> Result<()> {
    let table = format!(
        "add table inet {TABLE}; delete table inet {TABLE}; add table inet {TABLE}; \
         add chain inet {TABLE} forward {{ type filter hook forward priority 0; }}; {rules}"
    );
    netns::said(netns::command(ROUTER, "nft").arg(table))?;
    Ok(())
}

fn rule(what: &str) -> String {
    format!("add rule inet {TABLE} forward {what} drop; ")
}

/// Waits until the client is at a step of its start.
fn is_at(network: &Network, step: &str) -> Result<()> {
    eventually(step, 60, || {
        let status = network.client_status(Node::Client).unwrap_or(Value::Null);
        Ok(status["step"]
            .as_str()
            .is_some_and(|at| at.starts_with(step)))
    })
}

/// The host has nothing of Mixline's, so that whatever is closed later is so by the client that starts.
fn is_open() -> Result<()> {
    let tables = succeed(on_client(10, "nft").args(["list", "tables"]))?;
    ensure!(!tables.contains("mixline"), "{tables}");
    Ok(())
}

/// The service is not reached by its addresses, of which a client that starts knows the networks: it has
/// been up on this host before. The capture sees whether a packet leaves.
fn no_page(network: &Network) -> Result<()> {
    for address in addresses(network)? {
        ensure!(!page(&address, 3), "the page at {address}");
    }
    Ok(())
}

/// The client starts, on an open host, and does not get as far as to know the network.
fn fetching(network: &mut Network, server: &NameServer) -> Result<()> {
    let (from, to) = (Node::Client.ipv4(), Node::Directory.ipv4());
    router_drops(&rule(&format!("ip saddr {from} ip daddr {to}")))?;
    is_open()?;
    network.start(Node::Client)?;
    is_at(network, "fetching the snapshot")?;
    no_page(network)?;
    only_others(server, "fetching")?;
    // It says so who is asked by it.
    let (asked, well) = resolve(network, Node::Client, HOST)?;
    ensure!(!well && asked["problems"][0]["step"] == "guard", "{asked}");
    network.stop(Node::Client)?;
    Ok(())
}

/// The relays are there, and the directory behind them is not: it gives no address, and says no name.
fn leasing(network: &mut Network, server: &NameServer) -> Result<()> {
    fs::remove_file(network.files(Node::Client).state.join("lease"))?;
    let to = Node::Directory;
    let rules = [
        format!("ip daddr {} meta l4proto udp", to.ipv4()),
        format!("ip saddr {} meta l4proto udp", to.ipv4()),
        format!("ip6 daddr {} meta l4proto udp", to.ipv6()),
        format!("ip6 saddr {} meta l4proto udp", to.ipv6()),
    ];
    router_drops(&rules.map(|what| rule(&what)).concat())?;
    is_open()?;
    network.start(Node::Client)?;
    is_at(network, "leasing an address")?;
    no_page(network)?;
    only_others(server, "leasing")?;
    let status = network.client_status(Node::Client)?;
    ensure!(status["ipv4"].is_null(), "it has an address: {status}");
    let (asked, well) = resolve(network, Node::Client, HOST)?;
    let problem = &asked["problems"][0];
    ensure!(!well && problem["step"] == "directory", "{asked}");
    let said = problem["text"].as_str().unwrap_or_default();
    ensure!(said.contains("guards are reached"), "{asked}");
    router_drops("")?;
    network.wait_for_client(Node::Client)?;
    Ok(())
}

fn up(network: &mut Network, server: &NameServer) -> Result<()> {
    let service = network.identity(Node::Service)?;
    let wanted = [IpAddr::from(service.ipv4), service.ipv6.into()];
    let kept = fs::read_to_string(namespaces::resolv_conf(&Node::Client.namespace()))?;
    ensure!(kept.contains(&format!("\n{SEARCHES}nameserver ")), "{kept}");
    for name in OURS {
        eventually(name, 30, || Ok(addresses_of(name)? == wanted))?;
    }
    // With `search anon` a label alone is a name too, once the others have been tried.
    let (label, _) = HOST.split_once('.').context("no label")?;
    let found = addresses_of(label)?;
    ensure!(found == wanted, "{label}: {found:?}");
    nobody_says(&[NOBODYS, "freespeech.anon.corp.example"])?;
    // Whoever holds `anon.anon` is not taken for all others.
    for expanded in ["freespeech.anon.anon", "freespeech.anon.lan"] {
        let said = succeed(on_client(20, "dig").arg(expanded))?;
        ensure!(said.contains("status: NXDOMAIN"), "{said}");
    }
    server.answers("up")
}

fn off(network: &mut Network, server: &NameServer) -> Result<()> {
    let config = network.files(Node::Client).config;
    let as_it_was = fs::read_to_string(&config)?;
    ensure!(as_it_was.contains("mode: resolv-conf"), "{as_it_was}");
    let mode = |text: &str, mode: &str| -> Result<()> {
        fs::write(&config, text)?;
        succeed(&mut network.client_command(Node::Client, "reload"))?;
        eventually(mode, 20, || {
            Ok(network.client_status(Node::Client)?["dns"]["mode"] == mode)
        })
    };
    mode(
        &as_it_was.replace("mode: resolv-conf", "mode: \"off\""),
        "off",
    )?;
    only_others(server, "off")?;
    mode(&as_it_was, "resolv-conf")
}

/// Another program has written the file since, so that a server outside is asked.
fn killed(network: &mut Network, server: &NameServer, text: &str) -> Result<()> {
    network.kill(Node::Client)?;
    nobody_says(&OURS)?;
    fs::write(namespaces::resolv_conf(&Node::Client.namespace()), text)?;
    only_others(server, "killed")?;
    // By TCP as well.
    let dig = ["+tcp", "+time=1", "+tries=1", NOBODYS];
    let asked = output(on_client(10, "dig").args(dig))?;
    ensure!(!asked.status.success(), "{asked:?}");
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    Ok(())
}
