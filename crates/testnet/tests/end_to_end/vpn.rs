//! A company's VPN with all of 10/8, as `wg-quick` brings it up: in the main table, in a table of its
//! own behind an early rule, and as the way out for everything. WireGuard runs as a program, since not
//! every kernel has it.
//!
//! What goes into the VPN is captured at its other end, which outlives the client's.

use crate::capture::nothing_on;
use crate::leaks::{VIRTUAL, comes_again, connections_end, connections_end_but, page, quietly_but};
use crate::tools::{HOST, OnePage, eventually, on_client, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::namespaces::BESIDE;
use mixline_testnet::process::{Process, Program};
use mixline_testnet::topology::{DIRECTORY_PORT, Node, ROUTER};
use mixline_testnet::{Network, namespaces, netns};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The VPN's ends: the company's and the client's.
const FAR: &str = "mixline-far";
const NEAR: &str = "mixline-vpn";
/// The client in there, and a server of the company's.
const HERE: &str = "10.20.0.2";
const SERVER: &str = "10.200.0.7";
const SENTENCE: &str = "Only who works here reads this.";

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::a_company_vpn_with_all_of_10_keeps_it",
        |network| {
            let outcome = all(network);
            let removed = gone(network);
            outcome?;
            removed
        },
    );
}

/// How a VPN is set up, and what the kernel then has of it.
struct Way {
    what: &'static str,
    interface: &'static str,
    allowed: &'static str,
    /// What `ip rule` and `ip route get` to a relay show.
    shows: [&'static str; 2],
}

const WAYS: [Way; 3] = [
    Way {
        what: "in the main table",
        interface: "MTU = 1420",
        allowed: "10.0.0.0/8",
        shows: ["lookup main", "dev eth0"],
    },
    Way {
        what: "in a table of its own",
        interface: "MTU = 1420\nTable = 52\nPostUp = ip rule add pref 5270 lookup 52\n\
                    PostDown = ip rule del pref 5270",
        allowed: "10.0.0.0/8",
        shows: ["5270:\tfrom all lookup 52", "dev eth0"],
    },
    // Datagrams to guards have to fit into it.
    Way {
        what: "as the way out for everything",
        interface: "MTU = 1500",
        allowed: "10.0.0.0/8, 0.0.0.0/0, ::/0",
        shows: [
            "from all lookup main suppress_prefixlength 0",
            "dev mixline-vpn",
        ],
    },
];

fn all(network: &mut Network) -> Result<()> {
    let company = Company::open(network)?;
    let far = [(BESIDE, FAR.to_owned(), "in")];
    // What goes out through it as well, and to the company itself.
    let rightly = format!("not port 53 and (dst host {SERVER} or not dst net 10.0.0.0/8)");
    let filter = format!("({VIRTUAL}) and not (src host {HERE} and {rightly})");
    // What was connected from the VPN's address repeats itself on the wire when that is gone.
    let directory = Node::Directory.ipv4();
    let repeated =
        format!("src host {HERE} and dst host {directory} and tcp port {DIRECTORY_PORT}");
    let on_wires = format!("({VIRTUAL}) and not ({repeated})");
    quietly_but(network, &on_wires, |network| {
        nothing_on(network, &far, &filter, |network| {
            for way in &WAYS {
                after_up(network, &company, way)
                    .with_context(|| format!("{}, after the client", way.what))?;
                before_up(network, &company, way)
                    .with_context(|| format!("{}, before the client", way.what))?;
            }
            started_again(network, &company)
        })
    })
}

/// The client is up, and programs know the service's addresses.
fn after_up(network: &Network, company: &Company, way: &Way) -> Result<()> {
    eventually("both addresses", 20, || Ok(told(network)? == (true, true)))?;
    company.vpn(way, "up")?;
    let outcome = beside_it(network, way).and_then(|()| {
        let address = network.identity(Node::Service)?.ipv4.to_string();
        ensure!(!page(&address, 3), "the page by the address from before");
        let kept = format!("{address} was a name's address before it was one behind {NEAR}");
        ensure!(said(network)?.contains(&kept), "{}", said(network)?);
        Ok(())
    });
    company.vpn(way, "down")?;
    outcome?;
    all_again(network)
}

/// The client comes up where the VPN is.
fn before_up(network: &mut Network, company: &Company, way: &Way) -> Result<()> {
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    company.vpn(way, "up")?;
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    let outcome = beside_it(network, way);
    company.vpn(way, "down")?;
    outcome?;
    all_again(network)
}

/// A VPN that came up after the client and is the way out for everything has rules as early as can be.
/// A client that starts again comes behind them: what they lead away is dropped and told nobody.
fn started_again(network: &mut Network, company: &Company) -> Result<()> {
    let [.., way] = &WAYS;
    company.vpn(way, "up")?;
    eventually("the IPv6 address alone", 20, || {
        Ok(told(network)? == (false, true))
    })?;
    // The client's own to the directory goes out through the VPN.
    connections_end_but(Node::Client, Some(HERE))?;
    network.stop(Node::Client)?;
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    let outcome = eventually("a word about the rule in the way", 20, || {
        let rule = "the policy rule 0 (table 51820) comes before Mixline's";
        Ok(said(network)?.contains(rule) && told(network)? == (false, false))
    });
    let outcome = outcome.with_context(|| format!("{:?}: {:?}", told(network), said(network)));
    let address = format!("[{}]", network.identity(Node::Service)?.ipv6);
    ensure!(!page(&address, 2), "the page at {address} all the same");
    company.vpn(way, "down")?;
    outcome?;
    all_again(network)
}

/// What holds while both are up.
fn beside_it(network: &Network, way: &Way) -> Result<()> {
    let relay = Node::Relay(1).ipv4().to_string();
    for (arguments, shows) in [
        (&["rule"][..], way.shows[0]),
        (&["route", "get", &relay], way.shows[1]),
    ] {
        let shown = succeed(on_client(5, "ip").args(arguments))?;
        ensure!(shown.contains(shows), "no {shows}: {shown}");
    }
    eventually("the IPv6 address alone", 20, || {
        Ok(told(network)? == (false, true))
    })
    .with_context(|| format!("{:?}", said(network)))?;
    eventually("the page by name", 30, || Ok(page(HOST, 5)))?;
    let behind = format!("10.0.0.0/8 is behind {NEAR}: its addresses are not reached through");
    ensure!(said(network)?.contains(&behind), "{}", said(network)?);
    // The company's own server.
    succeed(on_client(10, "ping").args(["-c1", "-W5", SERVER]))?;
    let url = format!("http://{SERVER}/");
    let got = succeed(on_client(10, "curl").args(["-sS", "--max-time", "5", &url]))?;
    ensure!(got.contains(SENTENCE), "{got}");
    Ok(())
}

fn all_again(network: &Network) -> Result<()> {
    comes_again(network, "without the VPN")?;
    eventually("both addresses again", 20, || {
        Ok(told(network)? == (true, true) && !said(network)?.contains(NEAR))
    })
}

/// Whether programs are told the service's IPv4 address and its IPv6 address for its name. Anything
/// else is an error.
fn told(network: &Network) -> Result<(bool, bool)> {
    let service = network.identity(Node::Service)?;
    let (ipv4, ipv6) = (service.ipv4.to_string(), service.ipv6.to_string());
    let asked = output(on_client(10, "getent").args(["ahosts", HOST]))?;
    let shown = String::from_utf8_lossy(&asked.stdout).into_owned();
    let mut told: Vec<&str> = shown.lines().filter_map(|l| l.split(' ').next()).collect();
    let both = (told.contains(&&*ipv4), told.contains(&&*ipv6));
    told.retain(|address| **address != ipv4 && **address != ipv6);
    ensure!(told.is_empty(), "{shown}");
    Ok(both)
}

/// What the client says is wrong.
fn said(network: &Network) -> Result<String> {
    Ok(network.client_status(Node::Client)?["problems"].to_string())
}

/// The company's network, with a server in it.
struct Company {
    directory: PathBuf,
    public: String,
    private_here: String,
    _server: OnePage,
    _wireguard: Process,
}

impl Company {
    fn open(network: &Network) -> Result<Self> {
        namespaces::create_lonely(BESIDE)?;
        netns::ip(&format!(
            "link add eth0 netns {BESIDE} type veth peer name company netns {ROUTER}\n"
        ))?;
        netns::ip_in(
            ROUTER,
            "link set company up\naddress add 198.18.7.1/24 dev company\n\
             address add 3fff:203::1/64 dev company nodad\n",
        )?;
        netns::ip_in(
            BESIDE,
            "link set eth0 up\naddress add 198.18.7.2/24 dev eth0\n\
             address add 3fff:203::2/64 dev eth0 nodad\nroute add default via 198.18.7.1\n\
             route add default via 3fff:203::1\n",
        )?;
        let there = |program: &str, arguments: &[&str]| {
            netns::said(netns::command(BESIDE, program).args(arguments))
        };
        there(
            "sysctl",
            &[
                "-qw",
                "net.ipv4.ip_forward=1",
                "net.ipv6.conf.all.forwarding=1",
            ],
        )?;
        for line in [
            "add table inet company",
            "add chain inet company out { type nat hook postrouting priority 100 ; }",
            "add rule inet company out oifname eth0 masquerade",
        ] {
            there("nft", &line.split(' ').collect::<Vec<_>>())?;
        }
        let directory = directory(network);
        fs::create_dir_all(&directory)?;
        let (private_here, public_here) = keys(&directory.join("here"))?;
        let file = directory.join("there");
        let (_, public) = keys(&file)?;
        let wireguard = wireguard(network)?;
        let file = file.to_string_lossy();
        // Whatever source it has, it is to be seen.
        let peer = ["peer", &public_here, "allowed-ips", "0.0.0.0/0,::/0"];
        let own = ["set", FAR, "listen-port", "51820", "private-key", &file];
        there("wg", &[&own[..], &peer].concat())?;
        netns::ip_in(
            BESIDE,
            &format!(
                "address add {SERVER}/32 dev lo\naddress add 10.20.0.1/24 dev {FAR}\n\
                 address add 3fff:204::1/64 dev {FAR}\nlink set {FAR} mtu 1500 up\n"
            ),
        )?;
        let server = OnePage::serve(BESIDE, SERVER, SENTENCE)?;
        Ok(Self {
            _server: server,
            _wireguard: wireguard,
            directory,
            public,
            private_here,
        })
    }

    /// What an employee does: `wg-quick up` and `wg-quick down`.
    fn vpn(&self, way: &Way, what: &str) -> Result<()> {
        let Self {
            public,
            private_here,
            ..
        } = self;
        let (interface, allowed) = (way.interface, way.allowed);
        let file = file_of_near(&self.directory);
        let text = format!(
            "[Interface]\nPrivateKey = {private_here}\nAddress = {HERE}/32, 3fff:204::2/128\n\
             {interface}\n[Peer]\nPublicKey = {public}\nEndpoint = 198.18.7.2:51820\n\
             AllowedIPs = {allowed}\n"
        );
        fs::write(&file, text)?;
        fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        succeed(on_client(20, "wg-quick").arg(what).arg(&file))?;
        Ok(())
    }
}

/// Makes a pair of keys, the secret one in a file; gives both.
fn keys(file: &Path) -> Result<(String, String)> {
    let made = succeed(netns::tool("wg").arg("genkey"))?;
    fs::write(file, &made)?;
    fs::set_permissions(file, Permissions::from_mode(0o600))?;
    let public = succeed(netns::tool("wg").arg("pubkey").stdin(File::open(file)?))?;
    Ok((made.trim().to_owned(), public.trim().to_owned()))
}

fn directory(network: &Network) -> PathBuf {
    network.directory().join("vpn")
}

fn file_of_near(directory: &Path) -> PathBuf {
    directory.join(format!("{NEAR}.conf"))
}

/// The socket by which WireGuard, as a program, is asked about an interface.
fn socket_of(interface: &str) -> PathBuf {
    Path::new("/run/wireguard").join(format!("{interface}.sock"))
}

/// WireGuard at the company's end, which ends with the value.
fn wireguard(network: &Network) -> Result<Process> {
    // Of runs that were killed.
    for end in [NEAR, FAR] {
        let _ = fs::remove_file(socket_of(end));
    }
    let mut process = Program {
        namespace: BESIDE.into(),
        executable: "wireguard-go".into(),
        arguments: ["-f", FAR].map(Into::into).to_vec(),
        environment: Vec::new(),
        log: network.directory().join("logs/wireguard.log"),
    }
    .start()?;
    eventually("WireGuard", 30, || {
        process.check_running()?;
        Ok(socket_of(FAR).exists())
    })?;
    Ok(process)
}

/// Removes the company, and what is left of the VPN. Its programs end with their interfaces, and take
/// along the sockets by which they are asked.
fn gone(network: &Network) -> Result<()> {
    let file = file_of_near(&directory(network));
    if file.exists() {
        // After a step that failed; it is down already otherwise.
        let _ = output(on_client(20, "wg-quick").arg("down").arg(&file));
    }
    let _ = netns::ip_in(&Node::Client.namespace(), &format!("link del {NEAR}\n"));
    let ended = eventually("the end of WireGuard", 30, || Ok(!socket_of(NEAR).exists()));
    let _ = fs::remove_file(socket_of(FAR));
    namespaces::remove_one(BESIDE)?;
    ended
}
