//! Names on a host to which things happen, and for whoever asks there.

use crate::leaks::quietly;
use crate::tools::{HOST, eventually, on_client, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::topology::Node;
use mixline_testnet::{Network, namespaces, netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// A container of the client's host.
const CONTAINER: &str = "mixline-container";

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
        explained,
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
    let lines = [
        format!("netns add {CONTAINER}"),
        format!("link add br9 netns {host} type bridge"),
        format!("link add port9 netns {host} type veth peer name eth0 netns {CONTAINER}"),
    ];
    netns::ip(&(lines.join("\n") + "\n"))?;
    let outcome = quietly(network, |network| {
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
        let status = network.client_status(Node::Client)?;
        let resolver = status["dns"]["resolver"].as_str().context("no resolver")?;
        let wanted = network.identity(Node::Service)?.ipv4.to_string();
        for transport in ["+notcp", "+tcp"] {
            let dig = || {
                let at = format!("@{resolver}");
                output(
                    netns::command(CONTAINER, "dig")
                        .args([&at, "+tries=1", "+time=3", "+short", transport, "A", HOST]),
                )
            };
            eventually(&format!("an answer ({transport})"), 20, || {
                Ok(String::from_utf8_lossy(&dig()?.stdout).trim() == wanted)
            })?;
        }
        let other = succeed(netns::command(CONTAINER, "dig").args([
            &format!("@{resolver}"),
            "+tries=1",
            "+time=5",
            "nosuch.anon",
        ]))?;
        ensure!(other.contains("status: NXDOMAIN"), "{other}");
        // A server of its own hears nothing of it.
        let around = output(netns::command(CONTAINER, "dig").args([
            "@192.0.2.99",
            "+tries=1",
            "+time=1",
            "nosuch.anon",
        ]))?;
        ensure!(!around.status.success(), "{around:?}");
        Ok(())
    });
    let _ = netns::ip(&format!("netns delete {CONTAINER}\n"));
    let _ = netns::ip_in(&host, "link delete br9\n");
    outcome
}

fn explained(network: &mut Network) -> Result<()> {
    let ask = |network: &Network, what: &str| -> Result<(Value, bool)> {
        let asked = output(
            network
                .client_command(Node::Client, "resolve")
                .args(["--json", what]),
        )?;
        let value = serde_json::from_slice(&asked.stdout)
            .with_context(|| format!("what resolve says: {asked:?}"))?;
        Ok((value, asked.status.success()))
    };
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
    let told = eventually("a word about it", 20, || {
        let (shadowed, _) = ask(network, HOST)?;
        // Unless a program was told the address before, which keeps it.
        let status = network.client_status(Node::Client)?;
        Ok(shadowed["problems"][0]["step"] == "route"
            || status["problems"].to_string().contains(&address))
    });
    netns::ip_in(&host, "link delete br8\n")?;
    told
}
