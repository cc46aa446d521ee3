//! What a person asks at the machine: `ping` and `doctor` name what is so, and what is wrong with the
//! host and its wires.
//!
//! The wires are captured meanwhile, as in `leaks`: whoever looks for a fault asks nobody for a name.

use crate::leaks::quietly;
use crate::tools::{HOST, eventually, output};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::{Network, namespaces, netns};
use serde_json::Value;
use std::fs;
use std::process::Output;

pub fn tests(tests: &mut Tests) {
    tests.on(Kind::Honest, "desk::ping_measures_each_path", ping);
    tests.on(
        Kind::Honest,
        "desk::a_doctor_finds_nothing_wrong_where_nothing_is",
        healthy,
    );
    tests.on(Kind::Honest, "desk::a_narrow_way_is_named", narrow);
    tests.on(Kind::Honest, "desk::blocked_udp_is_named", blocked);
    tests.on(
        Kind::Honest,
        "desk::a_directory_out_of_reach_is_named",
        unreachable,
    );
    tests.on(
        Kind::Honest,
        "desk::faults_of_the_host_are_named",
        |network| quietly(network, host),
    );
}

/// A command of the client, with what it says and how it ends.
fn client(network: &Network, command: &str, arguments: &[&str]) -> Result<(Output, String)> {
    let answer = output(
        network
            .client_command(Node::Client, command)
            .args(arguments),
    )?;
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    Ok((answer, said))
}

/// What the doctor finds on the client's host: the level of each finding, and its words.
pub struct Found {
    code: Option<i32>,
    findings: Vec<(String, String)>,
    all: Value,
}

impl Found {
    pub fn of(network: &Network) -> Result<Self> {
        Self::read(&client(network, "doctor", &["--json"])?.0)
    }

    /// What a doctor that was asked for JSON has said.
    pub fn read(answer: &Output) -> Result<Self> {
        let said = serde_json::from_slice(&answer.stdout);
        let all: Value = said.with_context(|| format!("{answer:?}"))?;
        let sections = all["sections"].as_array().context("no sections")?;
        let checks = sections.iter().filter_map(|s| s["checks"].as_array());
        let findings = checks
            .flatten()
            .map(|finding| {
                let text = |key: &str| finding[key].as_str().unwrap_or_default();
                let words = format!("{}: {} | {}", text("check"), text("found"), text("change"));
                (text("level").to_owned(), words)
            })
            .collect();
        Ok(Self {
            code: answer.status.code(),
            findings,
            all,
        })
    }

    /// Whether a finding of this level has all these words.
    pub fn has(&self, level: &str, words: &[&str]) -> bool {
        self.findings
            .iter()
            .any(|(is, text)| is == level && words.iter().all(|word| text.contains(word)))
    }

    /// Fails unless a finding of this level has all these words.
    pub fn expect(&self, level: &str, words: &[&str]) -> Result<()> {
        ensure!(
            self.has(level, words),
            "no {level} has {words:?}: {:#?}",
            self.findings
        );
        Ok(())
    }
}

fn ping(network: &mut Network) -> Result<()> {
    quietly(network, |network| {
        let (answer, said) = client(network, "ping", &[HOST, "-c", "3", "-i", "0.3"])?;
        ensure!(answer.status.success(), "{answer:?}");
        for expected in [
            "path 1: relay",
            "3: path 1: ",
            "3 sent",
            "rtt min/avg/max/mdev",
        ] {
            ensure!(said.contains(expected), "{expected}: {said}");
        }
        let arguments = [HOST, "-c", "2", "-i", "0.2", "--json"];
        let (answer, said) = client(network, "ping", &arguments)?;
        ensure!(answer.status.success(), "{answer:?}");
        let measured: Value = serde_json::from_str(&said)?;
        let paths = measured["paths"].as_array().context("no paths")?;
        ensure!(!paths.is_empty(), "{said}");
        let service = network.identity(Node::Service)?;
        ensure!(measured["id"] == service.id, "{said}");
        for path in paths {
            let head = path["head"].as_array().map_or(0, Vec::len);
            ensure!(head == 3 && path["sent"].as_u64() > Some(0), "{path}");
        }
        let best = paths
            .iter()
            .filter_map(|path| path["rtt_ms"]["min"].as_f64());
        ensure!(best.fold(f64::MAX, f64::min) < 1000.0, "{said}");

        // Nobody has this one.
        let (answer, _) = client(network, "ping", &["nobody-has-this.anon", "-c", "1"])?;
        let error = String::from_utf8_lossy(&answer.stderr).into_owned();
        ensure!(answer.status.code() == Some(1), "{answer:?}");
        ensure!(
            error.lines().count() == 1 && error.contains("nobody-has-this"),
            "{error}"
        );
        Ok(())
    })
}

fn healthy(network: &mut Network) -> Result<()> {
    quietly(network, |network| {
        let found = Found::of(network)?;
        ensure!(found.code == Some(0), "{:#?}", found.findings);
        ensure!(found.all["works"] == true && found.all["client"] == "running");
        found.expect("ok", &["nftables: the kernel takes the packet filter"])?;
        found.expect("ok", &["closed: the filter and rules are there"])?;
        found.expect("ok", &["asked by programs: yes, through resolv.conf"])?;
        found.expect("ok", &["directory:", "signed by the configured ID"])?;
        found.expect("ok", &["UDP: passes"])?;
        // Nobody translates, and nobody forgets.
        for family in ["IPv4", "IPv6"] {
            let none =
                format!("NAT: {family}: none, an answer still comes in after 10 s of silence");
            found.expect("ok", &[&none])?;
        }
        found.expect("ok", &["answered, round trip", "back"])?;
        // For people, too.
        let (_, said) = client(network, "doctor", &[])?;
        ensure!(
            said.contains("0 problems") && said.contains("the client works"),
            "{said}"
        );
        Ok(())
    })
}

/// Both ends of the client's wire.
fn narrow(network: &mut Network) -> Result<()> {
    let here = Node::Client.namespace();
    let before = "1500";
    for (namespace, interface, fix) in [
        (here.as_str(), "eth0", "ip link set dev eth0 mtu 1500"),
        (ROUTER, "client", "raise the MTU"),
    ] {
        let outcome = quietly(network, |network| {
            netns::ip_in(namespace, &format!("link set {interface} mtu 1400\n"))?;
            eventually(&format!("{interface}: the doctor names 1400"), 120, || {
                let found = Found::of(network)?;
                Ok(found.code == Some(1)
                    && found.has("problem", &["lets through packets of 1400 bytes", fix]))
            })?;
            eventually(&format!("{interface}: status names 1400"), 60, || {
                let status = network.client_status(Node::Client)?;
                let problems = status["problems"].to_string();
                Ok(problems.contains("1400"))
            })
        });
        netns::ip_in(namespace, &format!("link set {interface} mtu {before}\n"))?;
        outcome.with_context(|| format!("{interface} in {namespace}"))?;
        eventually("it works again", 120, || {
            Ok(Found::of(network)?.code == Some(0))
        })?;
    }
    Ok(())
}

/// Tells the router's packet filter.
pub fn nft(line: &str) -> Result<()> {
    let words: Vec<&str> = line.split(' ').collect();
    netns::said(netns::command(ROUTER, "nft").args(words))?;
    Ok(())
}

/// A firewall on the way lets no datagram through.
fn blocked(network: &mut Network) -> Result<()> {
    nft("add table inet blocking")?;
    nft("add chain inet blocking forward { type filter hook forward priority 0 ; }")?;
    nft("add rule inet blocking forward iifname client meta l4proto udp drop")?;
    let outcome = quietly(network, |network| {
        let found = Found::of(network)?;
        ensure!(found.code == Some(1), "{:#?}", found.findings);
        found.expect(
            "problem",
            &["UDP: no guard answers", "port 7000 is blocked"],
        )?;
        found.expect("ok", &["directory:"])
    });
    nft("delete table inet blocking")?;
    outcome?;
    eventually("it works again", 120, || {
        Ok(Found::of(network)?.code == Some(0))
    })
}

fn unreachable(network: &mut Network) -> Result<()> {
    let here = Node::Client.namespace();
    let directory = Node::Directory.ipv4();
    netns::ip_in(&here, &format!("route add unreachable {directory}\n"))?;
    let outcome = quietly(network, |network| {
        let found = Found::of(network)?;
        // The client goes on, and a new one would not.
        found.expect(
            "warning",
            &[
                "directory:",
                "unreachable",
                "goes on with its snapshot",
                "curl",
            ],
        )?;
        found.expect("ok", &["UDP: passes"])
    });
    netns::ip_in(&here, &format!("route del unreachable {directory}\n"))?;
    outcome
}

/// What others do to names and routes.
fn host(network: &mut Network) -> Result<()> {
    let here = Node::Client.namespace();
    let nsswitch = namespaces::resolv_conf(&here).with_file_name("nsswitch.conf");
    let before = fs::read_to_string(&nsswitch)?;
    fs::write(&nsswitch, "hosts: files\n")?;
    let found = Found::of(network);
    fs::write(&nsswitch, before)?;
    found?.expect("problem", &["nsswitch.conf: hosts: files", "add `dns`"])?;

    netns::ip_in(
        &here,
        "route add 10.77.0.0/16 via 172.30.0.1 dev eth0 onlink\n",
    )?;
    let found = Found::of(network);
    netns::ip_in(&here, "route del 10.77.0.0/16\n")?;
    found?.expect("warning", &["ip route del 10.77.0.0/16 dev eth0"])
}
