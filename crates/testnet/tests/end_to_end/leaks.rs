//! Nothing leaves the host around the client, and nobody on its wires finds what is behind a name.
//!
//! Both hosts' wires are watched all the time: one packet from or to a virtual address, or one
//! question of DNS, fails the test.

use crate::capture::nothing_on;
use crate::tools::{HOST, eventually, on, on_client, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::web::{PAGE_SENTENCE, Site, VIRTUAL_HOSTS};
use mixline_testnet::{Network, namespaces, netns};
use std::fs;
use std::process::Stdio;

/// What must not leave a host: virtual addresses (of ARP too), neighbour discovery for them, DNS.
pub const VIRTUAL: &str = "net 10.0.0.0/8 or net fd00::/8 or port 53 or (icmp6 and ip6[40] == 135 and \
                       ip6[48] == 0xfd) or (icmp6 and ip6[40] == 136 and ip6[48] == 0xfd)";

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::strangers_on_a_wire_find_no_virtual_address",
        strangers,
    );
    tests.on(
        Kind::Honest,
        "host::nothing_leaves_whatever_happens_to_routes_and_interface",
        events,
    );
    tests.on(
        Kind::Honest,
        "host::resolv_conf_that_others_write_is_taken_back",
        resolv_conf,
    );
    tests.on(Kind::Honest, "host::names_below_names_and_canaries", names);
    tests.on(
        Kind::Honest,
        "host::a_killed_client_leaves_the_host_closed",
        killed,
    );
    tests.on(Kind::Honest, "host::down_leaves_nothing", down);
    tests.on(Kind::Honest, "host::a_locked_host_is_closed", locked);
}

/// Runs `work`, in which nothing virtual may leave either host.
pub fn quietly(network: &mut Network, work: impl FnOnce(&mut Network) -> Result<()>) -> Result<()> {
    quietly_but(network, VIRTUAL, work)
}

/// Runs `work`, in which nothing that a filter of captures takes may leave either host.
pub fn quietly_but(
    network: &mut Network,
    filter: &str,
    work: impl FnOnce(&mut Network) -> Result<()>,
) -> Result<()> {
    let (client, service) = (Node::Client.name(), Node::Service.name());
    let wires = [client, service].map(|wire| (ROUTER, wire, "in"));
    nothing_on(network, &wires, filter, work)
}

/// Waits until a host's connections through its client are over. Once that is down the host is open,
/// and would send what is left of them around it.
pub fn connections_end(node: Node) -> Result<()> {
    connections_end_but(node, None)
}

/// The same for all but those of the client itself, with whom it talks to at a virtual address.
pub fn connections_end_but(node: Node, outside: Option<&str>) -> Result<()> {
    let is_left = |line: &&str| {
        let says_nothing = ["LISTEN", "TIME-WAIT", "FIN-WAIT-2"];
        let is_virtual = [" 10.", "[fd", "ffff:10."];
        !says_nothing.iter().any(|state| line.starts_with(state))
            && !outside.is_some_and(|outside| line.contains(outside))
            && is_virtual.iter().any(|address| line.contains(address))
    };
    let mut left = String::new();
    eventually("the end of connections", 60, || {
        let shown = succeed(on(node, 5, "ss").arg("-Htan"))?;
        left = shown.lines().filter(is_left).collect::<Vec<_>>().join("\n");
        Ok(left.is_empty())
    })
    .with_context(|| format!("{node} has:\n{left}"))
}

/// Fetches the service's page by an address or a name.
pub fn page(address: &str, seconds: u32) -> bool {
    fetched(address, seconds).contains(PAGE_SENTENCE)
}

/// What the service has at an address or a name; nothing if it is not reached.
fn fetched(address: &str, seconds: u32) -> String {
    let url = format!("http://{address}/");
    let asked = output(on_client(seconds + 5, "curl").args([
        "-sS",
        "--noproxy",
        "*",
        "--max-time",
        &seconds.to_string(),
        &url,
    ]));
    asked.map_or_else(
        |_| String::new(),
        |got| String::from_utf8_lossy(&got.stdout).into_owned(),
    )
}

/// The service's addresses, as they stand in a URL.
pub fn addresses(network: &Network) -> Result<[String; 2]> {
    let service = network.identity(Node::Service)?;
    Ok([service.ipv4.to_string(), format!("[{}]", service.ipv6)])
}

pub fn comes_again(network: &Network, what: &str) -> Result<()> {
    for address in addresses(network)? {
        eventually(&format!("the page at {address} {what}"), 30, || {
            Ok(page(&address, 5))
        })?;
    }
    Ok(())
}

fn strangers(network: &mut Network) -> Result<()> {
    let service = network.identity(Node::Service)?;
    let wire = Node::Service.name();
    quietly(network, |_| {
        for (address, host) in [
            (service.ipv4.to_string(), Node::Service.ipv4().to_string()),
            (service.ipv6.to_string(), Node::Service.ipv6().to_string()),
        ] {
            for way in [
                format!("route replace {address} dev {wire}"),
                format!("route replace {address} via {host} dev {wire}"),
            ] {
                netns::ip_in(ROUTER, &format!("{way}\n"))?;
                let in_url = if address.contains(':') {
                    format!("http://[{address}]/")
                } else {
                    format!("http://{address}/")
                };
                // Both at once: each waits for what does not come.
                let ping = netns::command(ROUTER, "ping")
                    .args(["-c2", "-W1", "-w3", &address])
                    .stdout(Stdio::piped())
                    .spawn()?;
                let got = output(netns::command(ROUTER, "curl").args([
                    "-sS",
                    "--max-time",
                    "3",
                    &in_url,
                ]))?;
                let ping = ping.wait_with_output()?;
                ensure!(!ping.status.success(), "{way}: {ping:?}");
                ensure!(!got.status.success(), "{way}: {got:?}");
                let known =
                    output(netns::command(ROUTER, "ip").args(["neighbour", "show", &address]))?;
                let known = String::from_utf8_lossy(&known.stdout).into_owned();
                ensure!(!known.contains("lladdr"), "{known}");
                netns::ip_in(ROUTER, &format!("route del {address} dev {wire}\n"))?;
            }
        }
        Ok(())
    })
}

/// What happens to a host, and how it is undone.
const EVENTS: [(&str, &[&str], &[&str]); 5] = [
    (
        "after the interface was down",
        &["link set mixline0 down", "link set mixline0 up"],
        &[],
    ),
    (
        "with another VPN's table",
        &[
            "route add 10.0.0.0/8 via 172.30.0.1 table 52",
            "rule add pref 5270 lookup 52",
            "-6 route add fd00::/8 via 3fff:200::1 table 52",
            "-6 rule add pref 5270 lookup 52",
        ],
        &[
            "rule del pref 5270",
            "-6 rule del pref 5270",
            "route flush table 52",
            "-6 route flush table 52",
        ],
    ),
    (
        "with routes that a gateway hands out",
        &[
            "route add 10.0.0.0/8 via 172.30.0.1",
            "route add 10.0.0.0/9 via 172.30.0.1",
            "route add 10.128.0.0/9 via 172.30.0.1",
            "-6 route add fd00::/8 via 3fff:200::1",
        ],
        &[
            "route del 10.0.0.0/8 via 172.30.0.1",
            "route del 10.0.0.0/9 via 172.30.0.1",
            "route del 10.128.0.0/9 via 172.30.0.1",
            "-6 route del fd00::/8 via 3fff:200::1",
        ],
    ),
    (
        "without the client's rules",
        &[
            "rule del to 10.0.0.0/8 lookup 28009",
            "-6 rule del to fd00::/8 lookup 28009",
        ],
        &[],
    ),
    (
        "without the client's routes",
        &["route flush table 28009", "-6 route flush table 28009"],
        &[],
    ),
];

fn events(network: &mut Network) -> Result<()> {
    let namespace = Node::Client.namespace();
    for (what, done, undone) in EVENTS {
        quietly(network, |network| {
            for line in done {
                netns::said(netns::command(&namespace, "ip").args(line.split(' ')))?;
            }
            for address in addresses(network)? {
                page(&address, 2);
            }
            comes_again(network, what)?;
            for line in undone {
                netns::said(netns::command(&namespace, "ip").args(line.split(' ')))?;
            }
            comes_again(network, "afterwards")
        })
        .context(what)?;
    }
    Ok(())
}

fn resolv_conf(network: &mut Network) -> Result<()> {
    let file = namespaces::resolv_conf(&Node::Client.namespace());
    let before = fs::read(&file)?;
    // As DHCP writes it in place (`resolv_conf.rs` has the other ways). The new server is asked for other names alone.
    quietly(network, |_| {
        fs::write(&file, "search corp.example\nnameserver 192.0.2.99\n")?;
        eventually("resolv.conf taken back", 10, || {
            Ok(fs::read_to_string(&file)?.contains("#mixline-client: "))
        })?;
        eventually("the page by name", 20, || Ok(page(HOST, 5)))
    })?;
    let status = network.client_status(Node::Client)?;
    ensure!(
        status["dns"]["upstream"] == serde_json::json!(["192.0.2.99"]),
        "{}",
        status["dns"]
    );
    // What stood there first is what is put back later.
    fs::write(&file, before)?;
    eventually("the page by name", 20, || Ok(page(HOST, 5)))
}

fn names(network: &mut Network) -> Result<()> {
    quietly(network, |network| {
        for host in VIRTUAL_HOSTS {
            let page = fetched(host, 20);
            ensure!(page.contains(&Site::sentence_of(host)), "{host}: {page}");
        }
        for host in [HOST.to_owned(), format!("a.b.{HOST}")] {
            ensure!(page(&host, 20), "no page at {host}");
        }
        let canary = succeed(on_client(20, "dig").arg("use-application-dns.net"))?;
        ensure!(canary.contains("status: NXDOMAIN"), "{canary}");
        let https = succeed(on_client(20, "dig").args(["HTTPS", HOST]))?;
        ensure!(
            https.contains("status: NOERROR") && https.contains("ANSWER: 0"),
            "{https}"
        );
        // A program that announces the host's first address announces one that leads here.
        let service = network.identity(Node::Service)?;
        // Whoever asks outside who has a virtual address would say that this host has to do with it.
        for address in [service.ipv4.to_string(), service.ipv6.to_string()] {
            let dig = ["+time=1", "+tries=1", "@172.30.0.1", "-x", &address];
            let asked = output(on_client(5, "dig").args(dig))?;
            ensure!(!asked.status.success(), "somebody answers for {address}");
            let here = succeed(on_client(20, "dig").args(["+short", "-x", &address]))?;
            ensure!(here.trim_end_matches('\n') == format!("{HOST}."), "{here}");
        }
        let all = succeed(on(Node::Service, 5, "hostname").arg("-I"))?;
        let mut virtual_ones = all.split_whitespace().filter(|a| a.starts_with("10."));
        ensure!(
            virtual_ones.next() == Some(&service.ipv4.to_string()) && virtual_ones.next().is_none(),
            "{all}"
        );
        Ok(())
    })
}

fn killed(network: &mut Network) -> Result<()> {
    quietly(network, |network| {
        let addresses = addresses(network)?;
        network.kill(Node::Client)?;
        for address in &addresses {
            ensure!(!page(address, 3), "the page at {address} without a client");
        }
        ensure!(!page(HOST, 3), "the page by name without a client");
        for name in [HOST, "nosuch.anon"] {
            let found = output(on_client(20, "getent").args(["hosts", name]))?;
            ensure!(!found.status.success(), "{found:?}");
        }
        network.start(Node::Client)?;
        network.wait_for_client(Node::Client)?;
        comes_again(network, "from a new client")
    })
}

fn down(network: &mut Network) -> Result<()> {
    quietly(network, stopped_and_killed)
}

fn stopped_and_killed(network: &mut Network) -> Result<()> {
    let namespace = Node::Client.namespace();
    let look = || -> Result<String> {
        let mut all = String::new();
        for arguments in ["rule show", "-6 rule show", "address show dev lo"] {
            let shown = netns::said(netns::command(&namespace, "ip").args(arguments.split(' ')))?;
            all += &shown;
        }
        Ok(all)
    };
    ensure!(look()?.contains("28009"), "no rule while it is up");
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    let left = look()?;
    ensure!(
        !left.contains("28009") && !left.contains("10.0.0.53"),
        "{left}"
    );
    // What a killed one left goes as well.
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    network.kill(Node::Client)?;
    ensure!(
        look()?.contains("28009"),
        "nothing is left of a killed client"
    );
    let down = output(&mut network.client_command(Node::Client, "down"))?;
    ensure!(!down.status.success(), "it says that none runs: {down:?}");
    let left = look()?;
    ensure!(
        !left.contains("28009") && !left.contains("10.0.0.53"),
        "{left}{down:?}"
    );
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    comes_again(network, "at the end")
}

/// A command of the client that nobody may be running for.
fn command(network: &Network, command: &str) -> Result<(bool, String)> {
    let done = output(&mut network.client_command(Node::Client, command))?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    Ok((done.status.success(), said))
}

fn locked(network: &mut Network) -> Result<()> {
    let addresses = addresses(network)?;
    let refused = |what: &str| -> Result<()> {
        for address in &addresses {
            ensure!(!page(address, 2), "{what}: the page at {address}");
        }
        Ok(())
    };
    network.stop(Node::Client)?;
    quietly(network, |network| {
        let (closed, said) = command(network, "lock")?;
        ensure!(closed, "{said}");
        refused("locked")
    })?;
    // Without the lock they leave: the capture would have seen them.
    let (opened, said) = command(network, "unlock")?;
    ensure!(opened, "{said}");
    let seen = quietly(network, |_| refused("unlocked"));
    ensure!(seen.is_err(), "nothing leaves an open host either");

    network
        .options_mut()
        .more
        .push((Node::Client, "lock: always\n".into()));
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    quietly(network, |network| {
        comes_again(network, "of a client that is always closed")?;
        network.stop(Node::Client)?;
        refused("stopped")?;
        let (opened, said) = command(network, "unlock")?;
        ensure!(!opened && said.contains("lock: always"), "{said}");
        let (_, said) = command(network, "down")?;
        refused(&format!("down: {said}"))?;
        network.options_mut().more.pop();
        network.start(Node::Client)?;
        network.wait_for_client(Node::Client)?;
        comes_again(network, "at the end")
    })
}
