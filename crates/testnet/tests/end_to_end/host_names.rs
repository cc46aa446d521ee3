//! Names on a host to which things happen, and for whoever asks there.

use crate::capture::nothing_on;
use crate::leaks::{VIRTUAL, comes_again, connections_end, page, quietly};
use crate::name_server::{NameServer, OTHER, addresses_of, asking};
use crate::tools::{HOST, Settings, eventually, on_client, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_endpoint::{Config, Endpoint, EngineConfig, Handle, Identity, NoDevice};
use mixline_protocol::identity::{IdentityKey, X25519Secret};
use mixline_protocol::random::OsRandom;
use mixline_testnet::namespaces::CONTAINER;
use mixline_testnet::netns::Namespace;
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::{Network, namespaces, netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use tokio::runtime;
use tokio::sync::watch;

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::an_immutable_resolv_conf_is_said_and_closed",
        immutable,
    );
    tests.on(
        Kind::Honest,
        "host::containers_have_the_hosts_resolver",
        containers,
    );
    tests.on(
        Kind::Honest,
        "host::resolve_says_which_step_failed",
        |network| quietly(network, explained),
    );
    tests.on(
        Kind::Honest,
        "host::names::a_name_whose_ipv4_address_is_a_neighbours_has_the_other",
        neighbours,
    );
    tests.on(
        Kind::Honest,
        "host::names::resolve_says_that_there_is_no_lease",
        |network| quietly(network, no_lease),
    );
}

fn immutable(network: &mut Network) -> Result<()> {
    let file = namespaces::resolv_conf(&Node::Client.namespace());
    let before = fs::read(&file)?;
    let chattr = |option: &str| succeed(Command::new("chattr").arg(option).arg(&file)).map(drop);
    quietly(network, |network| {
        // In one step, or the client is there first.
        let status = network.client_status(Node::Client)?;
        let client = Pid::from_raw(status["pid"].as_i64().context("no process")?.try_into()?);
        kill(client, Signal::SIGSTOP)?;
        let written = fs::write(&file, "nameserver 192.0.2.99\n").map_err(anyhow::Error::from);
        let written = written.and_then(|()| chattr("+i"));
        kill(client, Signal::SIGCONT)?;
        written?;
        let said = eventually("a word about it", 20, || {
            let status = network.client_status(Node::Client)?;
            Ok(status["problems"].to_string().contains("chattr -i"))
        });
        // Whoever is asked now, it is not the server outside.
        let found = output(on_client(10, "getent").args(["hosts", "nosuch.anon"]));
        chattr("-i")?;
        said?;
        ensure!(!found?.status.success(), "a name that is not there");
        eventually("resolv.conf taken back", 40, || {
            Ok(fs::read_to_string(&file)?.contains("#mixline-client: "))
        })
    })?;
    fs::write(&file, before)?;
    eventually("the name", 20, || {
        Ok(output(on_client(10, "getent").args(["hosts", HOST]))?
            .status
            .success())
    })
}

fn containers(network: &mut Network) -> Result<()> {
    let host = Node::Client.namespace();
    let file = namespaces::resolv_conf(&host);
    let before = fs::read(&file)?;
    let server = NameServer::outside(network)?;
    let outcome = behind_a_bridge(network, &server);
    let _ = namespaces::remove_one(CONTAINER);
    let _ = netns::ip_in(&host, "link delete br9\n");
    let _ = netns::ip_in(ROUTER, "route delete 198.51.100.0/24\n");
    if network.process(Node::Client).is_none() {
        network.start(Node::Client)?;
    }
    outcome?;
    network.wait_for_client(Node::Client)?;
    fs::write(&file, before)?;
    comes_again(network, "without a container")
}

/// A host that forwards, whose client asks a server outside for other names, and a container on it that
/// has copied the resolver.
fn behind_a_bridge(network: &mut Network, server: &NameServer) -> Result<()> {
    let host = Node::Client.namespace();
    let lines = [
        format!("netns add {CONTAINER}"),
        format!("link add br9 netns {host} type bridge"),
        format!("link add port9 netns {host} type veth peer name eth0 netns {CONTAINER}"),
    ];
    netns::ip(&(lines.join("\n") + "\n"))?;
    netns::ip_in(
        &host,
        "link set port9 master br9\nlink set port9 up\nlink set br9 up\n\
         address add 198.51.100.1/24 dev br9\n",
    )?;
    netns::ip_in(
        CONTAINER,
        "link set lo up\nlink set eth0 up\naddress add 198.51.100.2/24 dev eth0\n\
         route add default via 198.51.100.1\n",
    )?;
    let client = Node::Client.ipv4();
    netns::ip_in(ROUTER, &format!("route add 198.51.100.0/24 via {client}\n"))?;
    let _forwards = Settings::set(&["net.ipv4.ip_forward=1"])?;
    let outside = IpAddr::from(Node::Client.gateway_ipv4());
    let file = namespaces::resolv_conf(&host);
    fs::write(&file, format!("nameserver {outside}\n"))?;
    eventually("the server that others are asked", 30, || {
        let status = network.client_status(Node::Client)?;
        Ok(status["dns"]["upstream"] == serde_json::json!([outside.to_string()]))
    })?;
    let status = network.client_status(Node::Client)?;
    let resolver = status["dns"]["resolver"].as_str().context("no resolver")?;
    asking(network, &[outside], "", |network| {
        // Towards the container go answers, of the resolver and of the server outside, and nothing else.
        let bridge = [(host.as_str(), "br9".to_owned(), "out")];
        let answers = format!("src host {outside} and src port 53");
        let filter =
            format!("({VIRTUAL}) and not ({answers} or (src host {resolver} and src port 53))");
        nothing_on(network, &bridge, &filter, |network| {
            ask_in_container(network, resolver, server)
        })?;
        network.kill(Node::Client)?;
        // The host says that nobody listens there any more.
        let refusals =
            format!("src host {resolver} and tcp src port 53 and tcp[tcpflags] & tcp-rst != 0");
        let filter = format!("({VIRTUAL}) and not (({answers}) or ({refusals}))");
        nothing_on(network, &bridge, &filter, |_| {
            ask_without_client(resolver, server)
        })
        .context("without a client")
    })?;
    for name in [HOST, "nosuch.anon", "later.anon", "around.anon"] {
        ensure!(!server.was_asked(name)?, "{name} was asked outside");
    }
    Ok(())
}

/// Asks a server from the container; what it says, or nothing without an answer.
fn dig_in_container(server: &str, transport: &str, name: &str) -> Result<Option<String>> {
    let at = format!("@{server}");
    let mut dig = netns::command(CONTAINER, "dig");
    let said = output(dig.args([&at, "+tries=1", "+time=3", transport, "A", name]))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(said.status.success().then_some(text))
}

/// The server outside answers a container's question about a name of its own, so that the way there is
/// open, and hears nothing of names of ours.
fn asks_outside(server: &NameServer, what: &str) -> Result<()> {
    let outside = Node::Client.gateway_ipv4().to_string();
    for transport in ["+notcp", "+tcp"] {
        let name = format!("{what}{transport}.{OTHER}").replace('+', "-");
        eventually(&format!("{name} at {outside}"), 30, || {
            Ok(dig_in_container(&outside, transport, &name)?.is_some())
        })?;
        ensure!(server.was_asked(&name)?, "somebody else answers for {name}");
        let around = dig_in_container(&outside, transport, "around.anon")?;
        ensure!(around.is_none(), "{around:?}");
    }
    Ok(())
}

/// Names asked for in the container: at the host's resolver, and at a server of its own.
fn ask_in_container(network: &Network, resolver: &str, server: &NameServer) -> Result<()> {
    let wanted = network.identity(Node::Service)?.ipv4.to_string();
    for transport in ["+notcp", "+tcp"] {
        let has = |name: &str, words: &str| {
            eventually(&format!("an answer ({transport} {name})"), 20, || {
                let said = dig_in_container(resolver, transport, name)?;
                Ok(said.is_some_and(|said| said.contains(words)))
            })
        };
        has(HOST, &wanted)?;
        has("nosuch.anon", "status: NXDOMAIN")?;
        let other = format!("by-the-host{transport}.{OTHER}").replace('+', "-");
        has(&other, "ANSWER: 1,")?;
        ensure!(server.was_asked(&other)?, "somebody else answers {other}");
    }
    asks_outside(server, "around")
}

/// What the container has copied answers nothing once the client is dead, and its questions do not get out.
fn ask_without_client(resolver: &str, server: &NameServer) -> Result<()> {
    let names = [
        HOST.to_owned(),
        "later.anon".into(),
        format!("later.{OTHER}"),
    ];
    for transport in ["+notcp", "+tcp"] {
        for name in &names {
            let said = dig_in_container(resolver, transport, name)?;
            ensure!(said.is_none(), "{name}: {said:?}");
        }
    }
    asks_outside(server, "dead")
}

/// What `mixline-client resolve` says at a node, and whether it says that all is well.
pub fn resolve(network: &Network, node: Node, what: &str) -> Result<(Value, bool)> {
    let mut resolve = network.client_command(node, "resolve");
    let asked = output(resolve.args(["--json", what]))?;
    let value = serde_json::from_slice(&asked.stdout)
        .with_context(|| format!("what resolve says: {asked:?}"))?;
    Ok((value, asked.status.success()))
}

fn explained(network: &mut Network) -> Result<()> {
    let ask = |network: &Network, what: &str| resolve(network, Node::Client, what);
    let (found, well) = ask(network, HOST)?;
    ensure!(well && found["found"] == true, "{found}");
    ensure!(found["problems"] == serde_json::json!([]), "{found}");
    ensure!(
        found["lease_expires"].is_u64() && found["name_expires"].is_u64(),
        "{found}"
    );
    let (missing, well) = ask(network, "no-such-name.anon")?;
    ensure!(
        !well && missing["problems"][0]["step"] == "name",
        "{missing}"
    );
    // A neighbourhood takes the service's address.
    let address = network.identity(Node::Service)?.ipv4.to_string();
    let (octets, _) = address.rsplit_once('.').context("no address")?;
    let host = Node::Client.namespace();
    netns::ip_in(
        &host,
        &format!(
            "link add br8 type bridge\nlink set br8 up\naddress add {octets}.254/24 dev br8\n"
        ),
    )?;
    let bridge = [(host.as_str(), "br8".to_owned(), "out")];
    // The host tells its groups from the address that it has there (RFC 3376, section 4.2.13).
    let filter = format!("({VIRTUAL}) and not (igmp and src host {octets}.254)");
    let told = nothing_on(network, &bridge, &filter, |network| {
        eventually("a word about it", 20, || {
            let (shadowed, _) = ask(network, HOST)?;
            let problem = &shadowed["problems"][0];
            let named = problem["text"]
                .as_str()
                .is_some_and(|text| text.contains(&address));
            Ok(problem["step"] == "route" && named)
        })
    });
    netns::ip_in(&host, "link delete br8\n")?;
    told
}

/// The network of a neighbour has the service's IPv4 address before the client is up.
fn neighbours(network: &mut Network) -> Result<()> {
    let service = network.identity(Node::Service)?;
    let text = service.ipv4.to_string();
    let (octets, _) = text.rsplit_once('.').context("no address")?;
    let host = Node::Client.namespace();
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    let lines =
        format!("link add br8 type bridge\nlink set br8 up\naddress add {octets}.254/24 dev br8\n");
    netns::ip_in(&host, &lines)?;
    let bridge = [(host.as_str(), "br8".to_owned(), "out")];
    let filter = format!("({VIRTUAL}) and not (igmp and src host {octets}.254)");
    let outcome = quietly(network, |network| {
        network.start(Node::Client)?;
        network.wait_for_client(Node::Client)?;
        nothing_on(network, &bridge, &filter, |network| {
            eventually("the other address", 30, || {
                Ok(addresses_of(HOST)? == [IpAddr::from(service.ipv6)])
            })?;
            eventually("the page", 30, || Ok(page(HOST, 5)))?;
            let status = network.client_status(Node::Client)?;
            let said = format!("{octets}.0/24 is behind br8: ");
            ensure!(status["problems"].to_string().contains(&said), "{status}");
            let a = succeed(on_client(20, "dig").args(["A", HOST]))?;
            ensure!(
                a.contains("status: NOERROR") && a.contains("ANSWER: 0"),
                "{a}"
            );
            let (found, _) = resolve(network, Node::Client, HOST)?;
            ensure!(found["problems"][0]["step"] == "route", "{found}");
            Ok(())
        })?;
        netns::ip_in(&host, "link delete br8\n")?;
        eventually("both addresses again", 30, || {
            Ok(addresses_of(HOST)? == [IpAddr::from(service.ipv4), service.ipv6.into()])
        })
    });
    let _ = netns::ip_in(&host, "link delete br8\n");
    outcome?;
    comes_again(network, "at the end")
}

/// Starts a service that has no lease, somewhere in the network.
fn service_without_lease(network: &Network, name: &str) -> Result<(Handle, runtime::Runtime)> {
    let mut random = OsRandom::new();
    let identity = Identity {
        key: IdentityKey::generate(&mut random),
        session: X25519Secret::generate(&mut random),
        access: mixline_endpoint::Access::default(),
    };
    let config = Config {
        engine: EngineConfig {
            accept_sessions: true,
            publish: true,
            ..EngineConfig::default()
        },
        ..Config::new(network.directory().join("without-lease"))
    };
    let (_, snapshots) = watch::channel(Some(Arc::new(network.snapshot()?)));
    let label = name.parse()?;
    Namespace::named(ROUTER)?.run(|| {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.block_on(async {
            let handle = Endpoint::start(config, identity, snapshots, NoDevice, None)?;
            handle.online().wait_for(|online| *online).await?;
            handle.directory().publish().await?;
            handle.directory().claim_name(label).await?;
            anyhow::Ok(handle)
        })?;
        Ok((handle, runtime))
    })?
}

fn no_lease(network: &mut Network) -> Result<()> {
    let (handle, runtime) = service_without_lease(network, "unleased")?;
    let name = "unleased.anon";
    let (found, _) = resolve(network, Node::Client, name)?;
    let problems = found["problems"].as_array().context("no problems")?;
    ensure!(found["found"] == true && found["ipv4"].is_null(), "{found}");
    ensure!(
        problems.len() == 1 && problems[0]["step"] == "lease",
        "{found}"
    );
    let said = problems[0]["text"].as_str().unwrap_or_default();
    ensure!(said.contains("an IPv6 address only"), "{found}");
    let ipv6 = found["ipv6"].as_str().context("no IPv6 address")?;
    ensure!(
        addresses_of(name)? == [ipv6.parse::<IpAddr>()?],
        "other addresses than {ipv6}"
    );
    // Gone again, which it says.
    runtime.block_on(handle.shutdown());
    eventually("another step", 30, || {
        let (found, _) = resolve(network, Node::Client, name)?;
        Ok(found["problems"][0]["step"] == "descriptor")
    })
}
