//! What somebody sees who listens on every wire.
//!
//! Segmentation in the kernel is off meanwhile, so that the capture shows each datagram as a wire of
//! copper would.

use crate::capture::Capture;
use crate::frames::{Frame, find, frames};
use crate::tools::{HOST, eventually};
use crate::{Kind, Tests};
use anyhow::{Context, Result, anyhow, bail, ensure};
use mixline_protocol::identity::AnonymousId;
use mixline_testnet::configs::SERVICE_NAME;
use mixline_testnet::fetch::{fetch, sha256_file};
use mixline_testnet::topology::{DIRECTORY_PORT, Node, RELAY_PORT};
use mixline_testnet::web::{DOWNLOAD_NAME, PAGE_SENTENCE};
use mixline_testnet::{Network, namespaces};
use std::collections::HashMap;
use std::net::IpAddr;

/// The UDP payload of every datagram between two nodes, bytes.
const DATAGRAM: usize = 1408;

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "capture_finds_what_is_sent_in_clear",
        capture_finds,
    );
    tests.on(
        Kind::Honest,
        "wires_show_only_datagrams_of_one_length",
        wires,
    );
}

/// The test of the test below: what is sent in clear is found.
fn capture_finds(network: &mut Network) -> Result<()> {
    let capture = Capture::start(network, Node::Client, &[])?;
    let directory = Node::Directory.ipv4();
    let url = format!("http://{directory}:{DIRECTORY_PORT}/?{SERVICE_NAME}");
    // An error of the directory is as good: the name has crossed the wire.
    let _ = fetch(
        &Node::Client.namespace(),
        &url,
        &network.directory().join("status.html"),
        &["--max-time", "30"],
    );
    let ended = Capture::end_all(vec![capture])?;
    let (_, bytes) = ended.first().context("no capture")?;
    let streams = tcp_streams(bytes)?;
    let found = streams
        .values()
        .any(|bytes| find(bytes, SERVICE_NAME.as_bytes()).is_some());
    ensure!(
        found,
        "the capture does not show what a request says in clear"
    );
    Ok(())
}

fn wires(network: &mut Network) -> Result<()> {
    namespaces::set_offloads(false)?;
    let outcome = capture_all(network);
    namespaces::set_offloads(true)?;
    let captures = outcome?;
    let needles = needles(network)?;
    let guards = network.chosen_paths(Node::Client)?.guards;
    let mut datagrams = 0;
    for (node, bytes) in &captures {
        datagrams +=
            check_wire(*node, bytes, &needles).with_context(|| format!("on the wire of {node}"))?;
        if *node == Node::Client {
            check_neighbours(bytes, &guards)?;
        }
    }
    // 2 MB in cells of 1040 bytes cross twelve ends of wires at least.
    ensure!(
        datagrams > 12 * 2000,
        "only {datagrams} datagrams were seen"
    );
    eprintln!(
        "  {datagrams} datagrams of {DATAGRAM} bytes on {} wires",
        captures.len()
    );
    Ok(())
}

/// Everything that a service and a client do, from their start to their end, a relay that joins
/// included, with captures on all wires.
fn capture_all(network: &mut Network) -> Result<Vec<(Node, Vec<u8>)>> {
    let captures = Node::all()
        .map(|node| Capture::start(network, node, &[]))
        .collect::<Result<Vec<_>>>()?;
    network.stop(Node::Client)?;
    network.stop(Node::Service)?;
    network.stop(Node::Relay(4))?;
    network.start(Node::Relay(4))?;
    network.wait_for_relays(mixline_testnet::topology::RELAYS)?;
    network.start(Node::Service)?;
    network.wait_for_client(Node::Service)?;
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;

    let client = Node::Client.namespace();
    let page = network.directory().join("page.html");
    let mut last = anyhow!("never tried");
    let fetched = eventually("the page", 90, || {
        let outcome = fetch(
            &client,
            &format!("http://{HOST}/"),
            &page,
            &["--max-time", "20"],
        );
        Ok(outcome.map_err(|error| last = error.into()).is_ok())
    });
    fetched.map_err(|error| error.context(last))?;
    ensure!(
        sha256_file(&page)? == network.site()?.page_sha256,
        "another page arrived"
    );
    let part = network.directory().join("part");
    let url = format!("http://{HOST}/{DOWNLOAD_NAME}");
    fetch(
        &client,
        &url,
        &part,
        &["--range", "0-1999999", "--max-time", "60"],
    )?;
    let ended = Capture::end_all(captures)?;
    let bytes = ended.into_iter().map(|(_, bytes)| bytes);
    Ok(Node::all().zip(bytes).collect())
}

/// What must not be seen anywhere, with names for messages.
fn needles(network: &Network) -> Result<Vec<(String, Vec<u8>)>> {
    let service = network.identity(Node::Service)?;
    let client = network.identity(Node::Client)?;
    let raw = |id: &str| -> Result<Vec<u8>> {
        let id: AnonymousId = id.parse().map_err(|error| anyhow!("an ID: {error}"))?;
        Ok(id.0.to_vec())
    };
    let content = crate::applications::part_of_download(network, 0, 2_000_000)?;
    Ok(vec![
        (
            "a sentence of the page".into(),
            PAGE_SENTENCE.as_bytes().to_vec(),
        ),
        ("the name".into(), SERVICE_NAME.as_bytes().to_vec()),
        ("the domain".into(), b"\x0afreespeech\x04anon\x00".to_vec()),
        (
            "the service's ID as text".into(),
            service.id.clone().into_bytes(),
        ),
        ("the service's ID".into(), raw(&service.id)?),
        (
            "the service's IPv6 address".into(),
            service.ipv6.octets().to_vec(),
        ),
        (
            "the client's ID as text".into(),
            client.id.clone().into_bytes(),
        ),
        ("the client's ID".into(), raw(&client.id)?),
        (
            "the client's IPv6 address".into(),
            client.ipv6.octets().to_vec(),
        ),
        ("the download's first bytes".into(), content[..24].to_vec()),
        (
            "bytes in the download's middle".into(),
            content[1_000_000..1_000_024].to_vec(),
        ),
        (
            "an HTTP request through the network".into(),
            b"Host: freespeech".to_vec(),
        ),
    ])
}

/// Checks every frame of a wire; gives the number of datagrams between nodes.
fn check_wire(node: Node, bytes: &[u8], needles: &[(String, Vec<u8>)]) -> Result<usize> {
    let mut datagrams = 0;
    for (frame, raw) in frames(bytes)? {
        match frame {
            Frame::Arp | Frame::Neighbours | Frame::Unreachable => {}
            Frame::Udp {
                from,
                to,
                ports,
                payload,
            } => {
                ensure!(
                    payload.len() == DATAGRAM,
                    "{} bytes of UDP from {from} to {to}",
                    payload.len()
                );
                ensure!(ports.contains(&RELAY_PORT), "UDP between ports {ports:?}");
                let ends = [node_at(from)?, node_at(to)?];
                ensure!(
                    ends.iter().any(|end| matches!(end, Node::Relay(_))),
                    "{} and {} talk to each other",
                    ends[0],
                    ends[1]
                );
                datagrams += 1;
            }
            Frame::Tcp {
                from, to, ports, ..
            } => {
                let ends = [node_at(from)?, node_at(to)?];
                ensure!(
                    ends.contains(&Node::Directory) && ports.contains(&DIRECTORY_PORT),
                    "TCP from {from} to {to}, ports {ports:?}"
                );
            }
            Frame::Other(what) => bail!("{what}"),
        }
        for (name, needle) in needles {
            ensure!(find(raw, needle).is_none(), "{name} in clear");
        }
    }
    // A needle may lie across segments.
    for stream in tcp_streams(bytes)?.values() {
        for (name, needle) in needles {
            ensure!(
                find(stream, needle).is_none(),
                "{name} in what the directory serves"
            );
        }
    }
    ensure!(
        datagrams > 0 || matches!(node, Node::Relay(_)),
        "nothing was captured"
    );
    Ok(datagrams)
}

/// The client exchanges datagrams with its guards and nobody else.
fn check_neighbours(bytes: &[u8], guards: &[String]) -> Result<()> {
    for (frame, _) in frames(bytes)? {
        if let Frame::Udp { from, to, .. } = frame {
            let ends = [node_at(from)?, node_at(to)?];
            let other = ends
                .iter()
                .find(|end| **end != Node::Client)
                .context("no other end")?;
            ensure!(
                guards.contains(&other.name()),
                "the client talks to {other}, and its guards are {guards:?}"
            );
        }
    }
    Ok(())
}

/// One end of a TCP connection: from, to, ports.
type Direction = (IpAddr, IpAddr, [u16; 2]);

/// What each end sent in each TCP connection, one segment after the other.
fn tcp_streams(bytes: &[u8]) -> Result<HashMap<Direction, Vec<u8>>> {
    let mut streams: HashMap<_, Vec<u8>> = HashMap::new();
    for (frame, _) in frames(bytes)? {
        if let Frame::Tcp {
            from,
            to,
            ports,
            payload,
        } = frame
        {
            streams
                .entry((from, to, ports))
                .or_default()
                .extend_from_slice(payload);
        }
    }
    Ok(streams)
}

/// Whose address this is.
fn node_at(address: IpAddr) -> Result<Node> {
    Node::all()
        .find(|node| IpAddr::V4(node.ipv4()) == address || IpAddr::V6(node.ipv6()) == address)
        .with_context(|| format!("{address} is no node's"))
}
