//! Relays and a directory whose own addresses lie inside the virtual network: the client talks to them
//! past itself, by address and port, and nothing else gets there.

use crate::capture::Capture;
use crate::frames::frames;
use crate::leaks::{VIRTUAL, comes_again, connections_end, connections_end_but, page, quietly_but};
use crate::tools::{HOST, eventually, on_client, output};
use crate::{Kind, Tests};
use anyhow::{Context, Result, bail, ensure};
use mixline_testnet::netns::Namespace;
use mixline_testnet::process::{Process, Program};
use mixline_testnet::topology::{DIRECTORY_PORT, Node, RELAY_PORT, RELAYS, ROUTER};
use mixline_testnet::{Network, Options, Port, Programs, netns};
use std::fs;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::a_directory_inside_the_virtual_network_is_reached",
        directory_inside,
    );
}

/// What needs a network of its own, since it changes the directory's.
pub fn alone(tests: &mut Tests) {
    tests.alone(
        "host::a_guard_inside_a_former_virtual_network_is_reached",
        guard_inside,
    );
}

/// Passes connections to the directory on, at an address inside the virtual network, until the
/// process ends.
fn directory_at(address: &str) -> Result<()> {
    netns::ip_in(ROUTER, &format!("address add {address}/32 dev lo\n"))?;
    let router = Namespace::named(ROUTER)?;
    let listener = router.run(|| TcpListener::bind((address, DIRECTORY_PORT)))??;
    let target = (Node::Directory.ipv4(), DIRECTORY_PORT);
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    };
    let pass_on = move || {
        if router.enter().is_err() {
            return;
        }
        for client in listener.incoming().flatten() {
            let Ok(directory) = TcpStream::connect(target) else {
                continue;
            };
            if let (Ok(one), Ok(other)) = (client.try_clone(), directory.try_clone()) {
                copy(one, directory);
                copy(other, client);
            }
        }
    };
    thread::spawn(pass_on);
    Ok(())
}

fn directory_inside(network: &mut Network) -> Result<()> {
    let inside = "10.123.0.9";
    directory_at(inside)?;
    let but = format!("({VIRTUAL}) and not (host {inside} and tcp port {DIRECTORY_PORT})");
    quietly_but(network, &but, |network| reached_inside(network, inside))
}

fn reached_inside(network: &mut Network, inside: &str) -> Result<()> {
    let files = network.files(Node::Client);
    let outside = format!("http://{}:", Node::Directory.ipv4());
    let text = fs::read_to_string(&files.config)?;
    ensure!(text.contains(&outside), "{text}");
    let text = text.replace(&outside, &format!("http://{inside}:"));
    let config = files.config.with_extension("inside.yaml");
    fs::write(&config, text)?;
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    let run = || {
        Program {
            namespace: Node::Client.namespace(),
            executable: network.programs().client.clone(),
            arguments: ["up", "--config"]
                .into_iter()
                .map(Into::into)
                .chain([config.clone().into_os_string()])
                .collect(),
            environment: Vec::new(),
            log: files.log.clone(),
        }
        .start()
    };
    let client = run()?;
    let up = || eventually("the page by name", 60, || Ok(page(HOST, 5)));
    up()?;
    // Nothing but the directory's port is reached there.
    let other = output(on_client(5, "curl").args(["--max-time", "3", "http://10.123.0.9:81/"]))?;
    ensure!(other.status.code() != Some(0), "{other:?}");
    // The killed client's closed host lets the next one fetch its snapshot.
    client.kill()?;
    let client = run()?;
    up()?;
    connections_end_but(Node::Client, Some(inside))?;
    client.stop()?;
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    comes_again(network, "at the end")
}

/// Where a guard is, and where the virtual network goes.
const GUARD: &str = "10.123.0.7";
const MOVED: &str = "192.168.0.0/16";

/// The relay of a node with the same keys, elsewhere.
fn relay_elsewhere(network: &Network, relay: Node) -> Result<Process> {
    let files = network.files(relay);
    let text = fs::read_to_string(&files.config)?;
    let moved = text.lines().map(|line| match line.split_once(':') {
        Some(("advertise", _)) => format!("advertise: [\"{GUARD}:{RELAY_PORT}\"]\n"),
        _ => format!("{line}\n"),
    });
    let config = files.config.with_extension("inside.yaml");
    fs::write(&config, moved.collect::<String>())?;
    let program = Program {
        namespace: relay.namespace(),
        executable: network.programs().relay.clone(),
        arguments: vec!["--config".into(), config.into_os_string()],
        environment: Vec::new(),
        log: files.log,
    };
    Ok(program.start()?)
}

/// A directory takes no relay inside its virtual network. It may move that elsewhere: then the former one
/// stays closed for a day, and a relay may be there.
fn guard_inside(programs: &Programs) -> Result<()> {
    let options = Options {
        ports: vec![Port::Udp],
        ..Options::default()
    };
    let mut network = Network::up(programs.clone(), options, |line| eprintln!("  {line}"))?;
    let guards = network.chosen_paths(Node::Client)?.guards;
    let name = guards.first().context("no guard")?.clone();
    let mut relays = (1..=RELAYS).map(Node::Relay);
    let relay = relays.find(|relay| relay.name() == name).context(name)?;
    network.stop(relay)?;
    netns::ip_in(
        &relay.namespace(),
        &format!(
            "address add {GUARD}/32 dev eth0\nroute replace default via {} src {GUARD}\n",
            relay.gateway_ipv4()
        ),
    )?;
    netns::ip_in(ROUTER, &format!("route add {GUARD} via {}\n", relay.ipv4()))?;
    let virtual_ones = format!("{VIRTUAL} or net {MOVED}");
    let but = format!("({virtual_ones}) and not (host {GUARD} and udp port {RELAY_PORT})");
    quietly_but(&mut network, &but, |network| {
        let program = relay_elsewhere(network, relay)?;
        refused(network, relay)?;
        let more = format!("network: {MOVED}\n");
        network.options_mut().more.push((Node::Directory, more));
        network.stop(Node::Directory)?;
        network.start(Node::Directory)?;
        eventually("a lease in the other network", 60, || {
            let lease = network.client_status(Node::Client)?["ipv4"].clone();
            Ok(lease.as_str().is_some_and(|it| it.starts_with("192.168.")))
        })?;
        guard_reached(network, relay)?;
        program.stop()?;
        Ok(())
    })
}

/// Waits until a relay says why the directory does not take it.
fn refused(network: &Network, relay: Node) -> Result<()> {
    let Node::Relay(number) = relay else {
        bail!("{relay} is no relay");
    };
    let why = format!("{GUARD} is where virtual addresses are; no relay can be there");
    eventually("a word about a relay inside", 30, || {
        // It may not be there yet.
        let status = network.relay_status(number).unwrap_or_default();
        Ok(status.to_string().contains(&why))
    })
}

/// Waits until a relay is a guard of the client at an address.
fn is_guard_at(network: &Network, relay: Node, address: &str) -> Result<()> {
    let at = format!("{address}:{RELAY_PORT}");
    eventually(&format!("{relay} at {at}"), 60, || {
        let relays = network.snapshot()?.relays;
        Ok(relays
            .iter()
            .any(|relay| format!("{relay:?}").contains(&at)))
    })?;
    eventually(&format!("a link to {relay} at {at}"), 60, || {
        let status = network.client_status(Node::Client)?;
        let mut guards = status["guards"].as_array().into_iter().flatten();
        let up = |guard: &serde_json::Value| {
            guard["name"] == relay.name() && guard["temporary"] == false && guard["state"] == "up"
        };
        Ok(guards.any(up))
    })
}

fn guard_reached(network: &mut Network, relay: Node) -> Result<()> {
    let datagrams = format!(
        "src host {} and dst host {GUARD} and udp dst port {RELAY_PORT}",
        Node::Client.ipv4()
    );
    for killed in [false, true] {
        let capture = Capture::start(network, relay, &["-Q", "out", &datagrams])?;
        if killed {
            // The killed client's closed host lets the next one reach its guard.
            network.kill(Node::Client)?;
            network.start(Node::Client)?;
            network.wait_for_client(Node::Client)?;
        }
        is_guard_at(network, relay, GUARD)?;
        eventually("the page, with a guard inside", 60, || Ok(page(HOST, 5)))?;
        for (_, bytes) in Capture::end_all(vec![capture])? {
            let seen = frames(&bytes)?.len();
            ensure!(seen > 5, "{seen} datagrams to {GUARD}");
        }
    }
    // Nothing but the relay's port is reached there, and that by datagrams alone.
    for port in ["81", "7000"] {
        let url = format!("http://{GUARD}:{port}/");
        let other = output(on_client(5, "curl").args(["--max-time", "2", &url]))?;
        ensure!(!other.status.success(), "{other:?}");
    }
    let question = [&format!("@{GUARD}"), "-p", "7001", "+tries=1", "+time=1"];
    let other = output(on_client(5, "dig").args(question))?;
    ensure!(!other.status.success(), "{other:?}");
    let pinged = output(on_client(5, "ping").args(["-c1", "-W2", GUARD]))?;
    ensure!(!pinged.status.success(), "{pinged:?}");
    Ok(())
}
