//! A node of a Kubernetes cluster, made by hand: a bridge with pods, addresses of services that the
//! kernel translates as kube-proxy has it do, a name server of the cluster's in a pod, and another node
//! whose pods are behind a tunnel (as with flannel) or behind a gateway on the wire (`host-gw`).

use crate::capture::nothing_on;
use crate::leaks::{VIRTUAL, comes_again, page, quietly};
use crate::tools::{HOST, OnePage, Settings, eventually, on_client, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::process::{Process, Program};
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::{Network, namespaces, netns};
use std::fs;
use std::process::Command;

/// A pod that serves, one that asks, and one on the other node.
const SERVES: (&str, &str) = (namespaces::PODS[0], "10.244.0.5");
const ASKS: (&str, &str) = (namespaces::PODS[1], "10.244.0.6");
const FAR_POD: &str = "10.244.1.5";
/// Addresses of services: of a page, and of the cluster's name server.
const PAGE: &str = "10.96.0.80";
const NAMES: &str = "10.96.0.10";
/// The other node.
const FAR_NODE: &str = "172.30.0.9";
const HERE: &str = "served in a pod here";
const THERE: &str = "served in a pod there";

/// What kube-proxy has the kernel do.
const SERVICES: &str = "\
table ip services {
  chain services {
    ip daddr 10.96.0.80 tcp dport 80 dnat to 10.244.0.5:80
    ip daddr 10.96.0.10 udp dport 53 dnat to 10.244.0.5:53
    ip daddr 10.96.0.10 tcp dport 53 dnat to 10.244.0.5:53
  }
  chain prerouting { type nat hook prerouting priority -100; jump services; }
  chain output { type nat hook output priority -100; jump services; }
  chain postrouting { type nat hook postrouting priority 100;
    ip saddr != 10.244.0.0/16 ct status dnat masquerade
  }
}
";

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::a_node_of_a_cluster_keeps_its_pods_and_tells_them_names",
        |network| {
            let outcome = quietly(network, cluster);
            gone();
            outcome?;
            comes_again(network, "without a cluster")
        },
    );
}

fn cluster(network: &mut Network) -> Result<()> {
    let host = Node::Client.namespace();
    netns::ip_in(
        &host,
        "link add cni0 type bridge\nlink set cni0 up\naddress add 10.244.0.1/24 dev cni0\n",
    )?;
    for pod in [SERVES, ASKS] {
        pod_up(pod)?;
    }
    let _forwards = Settings::set(&["net.ipv4.ip_forward=1"])?;
    // Only then do answers between pods of one bridge come back through the translation. Where the kernel
    // lacks that, the node answers in its own name, as with `--masquerade-all`.
    let _ = output(netns::tool("modprobe").arg("br_netfilter"));
    let bridge = Settings::set(&["net.bridge.bridge-nf-call-iptables=1"]);
    let mut services = SERVICES.to_owned();
    if bridge.is_err() {
        println!("    without br_netfilter");
        services = services.replace("ip saddr != 10.244.0.0/16 ct", "ct");
    }
    let rules = network.directory().join("services.nft");
    fs::write(&rules, services)?;
    succeed(on_client(5, "nft").arg("-f").arg(&rules))?;
    let _page = OnePage::serve(SERVES.0, SERVES.1, HERE)?;
    said(network, "10.244.0.0/24 is behind cni0")?;

    // Towards the pods goes what the cluster says, and what the resolver answers to its name server.
    let status = network.client_status(Node::Client)?;
    let resolver = status["dns"]["resolver"].as_str().context("no resolver")?;
    let cluster = "(src net 10.244.0.0/16 or src net 10.96.0.0/24) and dst net 10.244.0.0/16";
    let answers = format!(
        "src host {resolver} and src port 53 and dst host {}",
        SERVES.1
    );
    let groups = "igmp and src host 10.244.0.1";
    let filter = format!("({VIRTUAL}) and not (({cluster}) or ({answers}) or ({groups}))");
    let bridge = [(&*host, "cni0".to_owned(), "out")];
    nothing_on(network, &bridge, &filter, |network| {
        pods_and_services()?;
        let names = cluster_names(network)?;
        names_in_pods(network)?;
        names.stop()?;
        other_node(network)
    })
}

/// A pod with the cluster's resolver, as a kubelet makes it.
fn pod_up((pod, address): (&str, &str)) -> Result<()> {
    let host = Node::Client.namespace();
    namespaces::create_lonely(pod)?;
    let resolver = format!(
        "search default.svc.cluster.local svc.cluster.local cluster.local\n\
         nameserver {NAMES}\noptions ndots:5\n"
    );
    fs::write(namespaces::resolv_conf(pod), resolver)?;
    let port = port_of(pod);
    netns::ip(&format!(
        "link add {port} netns {host} type veth peer name eth0 netns {pod}\n"
    ))?;
    netns::ip_in(
        &host,
        &format!("link set {port} master cni0\nlink set {port} up\n"),
    )?;
    netns::ip_in(
        pod,
        &format!(
            "link set eth0 up\naddress add {address}/24 dev eth0\n\
             route add default via 10.244.0.1\n"
        ),
    )?;
    Ok(())
}

fn port_of(pod: &str) -> String {
    pod.replace("mixline-", "")
}

fn in_pod((pod, _): (&str, &str), program: &str) -> Command {
    netns::command(pod, program)
}

/// Whether a page is served at an address, for whoever asks by this command line of curl.
fn serves(mut curl: Command, address: &str, sentence: &str) -> Result<bool> {
    let url = format!("http://{address}/");
    let got = output(curl.args(["-sS", "--max-time", "2", &url]))?;
    Ok(String::from_utf8_lossy(&got.stdout).contains(sentence))
}

fn expect(curl: Command, address: &str, sentence: &str) -> Result<()> {
    ensure!(
        serves(curl, address, sentence)?,
        "nothing comes from {address}"
    );
    Ok(())
}

fn said(network: &Network, words: &str) -> Result<()> {
    let problems = || Ok(network.client_status(Node::Client)?["problems"].to_string());
    let outcome = eventually(&format!("a word: {words}"), 20, || {
        Ok(problems()?.contains(words))
    });
    outcome.with_context(|| problems().unwrap_or_else(|error: anyhow::Error| error.to_string()))
}

fn pods_and_services() -> Result<()> {
    let on_host = || on_client(5, "curl");
    eventually("the pod", 10, || serves(on_host(), SERVES.1, HERE))?;
    expect(in_pod(ASKS, "curl"), SERVES.1, HERE)?;
    expect(in_pod(ASKS, "curl"), PAGE, HERE)?;
    // The host's own packets are led inside before their address is translated, unless a route says
    // where services are. (Clusters have a /12, which the service of these tests may be in by chance.)
    ensure!(!serves(on_host(), PAGE, HERE)?, "a service without a route");
    let host = Node::Client.namespace();
    netns::ip_in(&host, "route add 10.96.0.0/24 dev cni0\n")?;
    eventually("a service, from its node", 10, || {
        serves(on_host(), PAGE, HERE)
    })?;
    expect(in_pod(ASKS, "curl"), PAGE, HERE)?;
    netns::ip_in(&host, "route del 10.96.0.0/24 dev cni0\n")?;
    Ok(())
}

/// The cluster's name server, which asks its node's resolver for other names.
fn cluster_names(network: &Network) -> Result<Process> {
    let copied = fs::read(namespaces::resolv_conf(&Node::Client.namespace()))?;
    fs::write(namespaces::resolv_conf(SERVES.0), copied)?;
    let listen = format!("--listen-address={}", SERVES.1);
    let service = format!("--address=/page.default.svc.cluster.local/{PAGE}");
    let arguments = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--bind-interfaces",
        "--no-hosts",
        "--local=/cluster.local/",
        &listen,
        &service,
    ];
    let program = Program {
        namespace: SERVES.0.into(),
        executable: "dnsmasq".into(),
        arguments: arguments.map(Into::into).to_vec(),
        environment: Vec::new(),
        log: network.directory().join("logs/cluster-names.log"),
    };
    Ok(program.start()?)
}

/// Names asked for by programs in a pod, at the cluster's name server and at others.
fn names_in_pods(network: &Network) -> Result<()> {
    eventually("a name of the cluster's", 10, || {
        let found = output(in_pod(ASKS, "getent").args(["ahosts", "page"]))?;
        Ok(String::from_utf8_lossy(&found.stdout).contains(PAGE))
    })?;
    let service = network.identity(Node::Service)?;
    let found = succeed(in_pod(ASKS, "getent").args(["ahosts", HOST]))?;
    for address in [service.ipv4.to_string(), service.ipv6.to_string()] {
        ensure!(found.contains(&address), "no {address}: {found}");
    }
    let missing = output(in_pod(ASKS, "getent").args(["ahosts", "nosuch.anon"]))?;
    ensure!(!missing.status.success(), "{missing:?}");
    // A server of its own hears nothing, whatever the resolver appends.
    for pod in [SERVES, ASKS] {
        for name in [HOST.to_owned(), format!("{HOST}.default.svc.cluster.local")] {
            let question = ["@192.0.2.99", "+tries=1", "+time=1", &name];
            let asked = output(in_pod(pod, "dig").args(question))?;
            ensure!(!asked.status.success(), "{asked:?}");
        }
    }
    Ok(())
}

/// The pods of the other node: behind a tunnel they are reached, and behind a gateway they are not.
fn other_node(network: &mut Network) -> Result<()> {
    let host = Node::Client.namespace();
    let own = Node::Client.ipv4();
    netns::ip_in(
        ROUTER,
        &format!("address add {FAR_NODE}/24 dev client\naddress add {FAR_POD}/32 dev lo\n"),
    )?;
    let _page = OnePage::serve(ROUTER, FAR_POD, THERE)?;

    let far = || expect(on_client(5, "curl"), FAR_POD, THERE);
    netns::ip_in(&host, &format!("route add 10.244.1.0/24 via {FAR_NODE}\n"))?;
    netns::ip_in(ROUTER, &format!("route add 10.244.0.0/24 via {own}\n"))?;
    said(network, "the route to 10.244.1.0/24 by eth0 is overruled")?;
    ensure!(far().is_err(), "a pod behind a gateway on the wire");
    ensure!(
        !serves(in_pod(ASKS, "curl"), FAR_POD, THERE)?,
        "a pod behind a gateway on the wire, from a pod"
    );
    netns::ip_in(&host, "route del 10.244.1.0/24\n")?;
    netns::ip_in(ROUTER, "route del 10.244.0.0/24\n")?;

    for (namespace, from, to, net, peer, mac) in [
        (&*host, own.to_string(), FAR_NODE, 0, 1, "02:00:00:00:00:01"),
        (
            ROUTER,
            FAR_NODE.into(),
            &*own.to_string(),
            1,
            0,
            "02:00:00:00:00:00",
        ),
    ] {
        netns::ip_in(
            namespace,
            &format!(
                "link add flannel.1 address 02:00:00:00:00:0{net} type vxlan id 1 local {from} \
                 dstport 8472 nolearning\n\
                 address add 10.244.{net}.0/32 dev flannel.1\nlink set flannel.1 up\n\
                 route add 10.244.{peer}.0/24 via 10.244.{peer}.0 dev flannel.1 onlink\n\
                 neighbour add 10.244.{peer}.0 lladdr {mac} dev flannel.1 nud permanent\n"
            ),
        )?;
        let entry = ["fdb", "append", mac, "dev", "flannel.1", "dst", to];
        netns::said(netns::command(namespace, "bridge").args(entry))?;
    }
    said(network, "10.244.1.0/24 is behind flannel.1")?;
    let tunnel = [(&*host, "flannel.1".to_owned(), "out")];
    let pods = "net 10.244.0.0/16";
    let filter = format!("({VIRTUAL}) and not (src {pods} and dst {pods})");
    nothing_on(network, &tunnel, &filter, |network| {
        far()?;
        expect(in_pod(ASKS, "curl"), FAR_POD, THERE)?;
        let service = network.identity(Node::Service)?.ipv4.to_string();
        ensure!(page(&service, 10), "no page beside the cluster");
        Ok(())
    })
}

/// Removes all of it.
fn gone() {
    let host = Node::Client.namespace();
    let _ = output(on_client(5, "nft").args(["delete", "table", "ip", "services"]));
    let lines = |namespace: &str, lines: &[&str]| {
        for line in lines {
            let _ = netns::ip_in(namespace, &format!("{line}\n"));
        }
    };
    lines(
        &host,
        &[
            "link del cni0",
            "link del flannel.1",
            "route del 10.244.1.0/24",
        ],
    );
    for (pod, _) in [SERVES, ASKS] {
        let _ = netns::ip_in(&host, &format!("link del {}\n", port_of(pod)));
        let _ = namespaces::remove_one(pod);
    }
    let node = [
        "link del flannel.1",
        "route del 10.244.0.0/24",
        "address del 172.30.0.9/24 dev client",
        "address del 10.244.1.5/32 dev lo",
    ];
    lines(ROUTER, &node);
}
