//! `/etc/resolv.conf` as a host has it: a file of a directory, which others rename over, move away,
//! remove, and make a link of.
//!
//! In a namespace it is mounted alone, and none of this can happen to it. Here the client and who asks
//! names have an `/etc` of their own.

use crate::leaks::{comes_again, connections_end, quietly};
use crate::name_server::{NameServer, addresses_of, asking};
use crate::tools::{HOST, eventually, on_client, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::web::PAGE_SENTENCE;
use mixline_testnet::{Network, namespaces, netns};
use serde_json::json;
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What programs read in `/etc`, where it is there.
const COPIED: [&str; 5] = ["group", "hosts", "ld.so.cache", "passwd", "protocols"];

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::a_resolv_conf_that_is_moved_or_linked_is_taken_back",
        moved,
    );
    tests.on(
        Kind::Honest,
        "host::names::servers_of_all_kinds_go_on_behind_the_client",
        servers,
    );
    tests.on(
        Kind::Honest,
        "host::names::a_cache_that_asks_whom_the_file_names_is_no_loop",
        caches,
    );
}

/// A directory that programs see as `/etc`.
struct Etc(PathBuf);

impl Etc {
    fn create(network: &Network) -> Result<Self> {
        let directory = network.directory().join("etc");
        fs::create_dir_all(&directory)?;
        for name in COPIED {
            // What a system lacks is not needed on it.
            let _ = fs::copy(format!("/etc/{name}"), directory.join(name));
        }
        let switch = "nsswitch.conf";
        let namespaces_own = namespaces::resolv_conf(&Node::Client.namespace());
        fs::copy(
            namespaces_own.with_file_name(switch),
            directory.join(switch),
        )?;
        fs::write(directory.join("resolv.conf"), "nameserver 192.0.2.90\n")?;
        Ok(Self(directory))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A program like this one, but for its `/etc`. Each command in a namespace has mounts of its own.
    fn wrapped(&self, network: &Network) -> Result<PathBuf> {
        let script = network.directory().join("client-with-etc");
        let text = format!(
            "#!/bin/sh\nmount --bind '{}' /etc || exit\nexec '{}' \"$@\"\n",
            self.0.display(),
            network.programs().client.display()
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        Ok(script)
    }

    /// A command on the client's host that sees it.
    fn command(&self, seconds: u32, program: &str) -> Command {
        let mut command = on_client(seconds, "sh");
        command
            .args(["-c", "mount --bind \"$0\" /etc && exec \"$@\""])
            .arg(&self.0)
            .arg(program);
        command
    }

    fn has_page(&self) -> Result<bool> {
        let url = format!("http://{HOST}/");
        let curl = ["-sS", "--noproxy", "*", "--max-time", "5", &url];
        let got = output(self.command(10, "curl").args(curl))?;
        Ok(String::from_utf8_lossy(&got.stdout).contains(PAGE_SENTENCE))
    }

    /// What is asked for in vain, which may leave only where the file leads elsewhere.
    fn asks_in_vain(&self) -> Result<()> {
        let found = output(self.command(10, "getent").args(["hosts", "nosuch.anon"]))?;
        ensure!(!found.status.success(), "{found:?}");
        Ok(())
    }

    fn is_taken_back(&self) -> bool {
        let text = fs::read_to_string(self.path("resolv.conf")).unwrap_or_default();
        text.contains("#mixline-client: ")
    }

    /// Waits until the file is the client's again and asks the network's server for other names.
    fn comes_back(&self, network: &Network, server: &str) -> Result<()> {
        self.asks_in_vain()?;
        eventually("resolv.conf taken back", 20, || Ok(self.is_taken_back()))?;
        eventually("the page by name", 20, || self.has_page())?;
        let mut dns = json!(null);
        eventually("the server that others are asked", 10, || {
            dns = network.client_status(Node::Client)?["dns"].clone();
            Ok(dns["upstream"] == json!([server]))
        })
        .with_context(|| format!("{server}: {dns}"))
    }
}

fn moved(network: &mut Network) -> Result<()> {
    let etc = Etc::create(network)?;
    let client = etc.wrapped(network)?;
    network.stop(Node::Client)?;
    network.start_as(Node::Client, client, Vec::new())?;
    network.wait_for_client(Node::Client)?;
    let outcome = quietly(network, |network| {
        etc.comes_back(network, "192.0.2.90")
            .context("at the start")?;
        happens(network, &etc)
    });
    network.stop(Node::Client)?;
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    outcome?;
    comes_again(network, "at the end")
}

/// What happens to the file.
fn happens(network: &Network, etc: &Etc) -> Result<()> {
    let (file, new) = (etc.path("resolv.conf"), etc.path("resolv.conf.new"));
    let with = |server: &str| format!("search corp.example\nnameserver {server}\n");

    fs::write(&new, with("192.0.2.91"))?;
    fs::rename(&new, &file)?;
    etc.comes_back(network, "192.0.2.91")
        .context("renamed over")?;

    // Whoever finds no file asks this host.
    fs::rename(&file, etc.path("resolv.conf.away"))?;
    etc.comes_back(network, "127.0.0.1").context("moved away")?;
    fs::remove_file(&file)?;
    etc.comes_back(network, "127.0.0.1").context("removed")?;

    let target = etc.path("linked.conf");
    fs::write(&target, with("192.0.2.92"))?;
    symlink("linked.conf", &new)?;
    fs::rename(&new, &file)?;
    etc.comes_back(network, "192.0.2.92")
        .context("made a link")?;
    ensure!(file.is_symlink(), "the link is a file now");
    fs::write(&new, with("192.0.2.93"))?;
    fs::rename(&new, &target)?;
    etc.comes_back(network, "192.0.2.93")
        .context("the link's file renamed over")?;
    ensure!(file.is_symlink(), "the link is a file now");

    // A link that leads nowhere cannot be mended: it is said, and nobody outside is asked.
    symlink("nowhere/resolv.conf", &new)?;
    fs::rename(&new, &file)?;
    eventually("a word about it", 20, || {
        etc.asks_in_vain()?;
        let problems = &network.client_status(Node::Client)?["problems"];
        Ok(problems.to_string().contains("resolv.conf"))
    })
    .context("a link that leads nowhere")?;
    fs::create_dir(etc.path("nowhere"))?;
    eventually("the page by name", 60, || {
        Ok(etc.is_taken_back() && etc.has_page()?)
    })
    .context("a link that leads somewhere again")
}

/// A host whose resolver is set up like this comes up, and goes down again.
struct Before {
    what: &'static str,
    /// What the file says, to its last byte.
    file: &'static str,
    /// Whom the client asks for other names.
    upstream: &'static str,
    /// What may be on the wire besides questions.
    but: &'static str,
    /// How the host and its neighbourhood come to be so, and how not any more.
    done: &'static [(&'static str, &'static str)],
    undone: &'static [(&'static str, &'static str)],
}

const HOST_SIDE: &str = "mixline-client";
/// Where a client's resolver is unless others have that address.
const USUAL: &str = "10.0.0.53";
const BEFORE: [Before; 4] = [
    Before {
        what: "a router's link-local address alone",
        file: "search corp.example\nnameserver fe80::1%eth0",
        upstream: "fe80::1%eth0",
        but: "",
        done: &[(ROUTER, "address add fe80::1/64 dev client nodad")],
        undone: &[(ROUTER, "address del fe80::1/64 dev client")],
    },
    Before {
        what: "no server",
        file: "# none\r\noptions timeout:5\n\n",
        upstream: "127.0.0.1",
        but: "",
        done: &[],
        undone: &[],
    },
    Before {
        what: "a server of the LAN at the resolver's usual address",
        file: "nameserver 10.0.0.53\n",
        upstream: "10.0.0.53",
        but: "(arp and net 10.0.0.0/24) or (igmp and src host 10.0.0.2)",
        done: &[
            (ROUTER, "address add 10.0.0.53/24 dev client"),
            (HOST_SIDE, "address add 10.0.0.2/24 dev eth0"),
        ],
        undone: &[
            (HOST_SIDE, "address del 10.0.0.2/24 dev eth0"),
            (ROUTER, "address del 10.0.0.53/24 dev client"),
        ],
    },
    Before {
        what: "the resolver's usual address on the host itself",
        file: "nameserver 172.30.0.1\n",
        upstream: "172.30.0.1",
        but: "(arp and net 10.0.0.0/24) or (igmp and src host 10.0.0.53)",
        done: &[(HOST_SIDE, "address add 10.0.0.53/24 dev eth0")],
        undone: &[(HOST_SIDE, "address del 10.0.0.53/24 dev eth0")],
    },
];

fn servers(network: &mut Network) -> Result<()> {
    let file = namespaces::resolv_conf(&Node::Client.namespace());
    let as_it_was = fs::read(&file)?;
    let server = NameServer::outside(network)?;
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    let ip = |lines: &[(&str, &str)]| {
        let mut lines = lines.iter();
        lines.try_for_each(|(namespace, line)| netns::ip_in(namespace, &format!("{line}\n")))
    };
    let outcome = BEFORE.iter().try_for_each(|before| {
        ip(before.done)?;
        let address = before.upstream.split('%').next().unwrap_or_default();
        let outcome = asking(network, &[address.parse()?], before.but, |network| {
            fs::write(&file, before.file)?;
            network.start(Node::Client)?;
            network.wait_for_client(Node::Client)?;
            let outcome = asked(network, &server, before);
            connections_end(Node::Client)?;
            network.stop(Node::Client)?;
            let after = fs::read_to_string(&file)?;
            outcome?;
            ensure!(after == before.file, "the file is not as it was: {after:?}");
            Ok(())
        });
        ip(before.undone)?;
        outcome.context(before.what)
    });
    put_back(network, &file, as_it_was, outcome)
}

/// The file is as it was, and the client runs with it, whatever came of the test.
fn put_back(
    network: &mut Network,
    file: &Path,
    as_it_was: impl AsRef<[u8]>,
    outcome: Result<()>,
) -> Result<()> {
    fs::write(file, as_it_was)?;
    if network.process(Node::Client).is_none() {
        network.start(Node::Client)?;
    }
    outcome?;
    network.wait_for_client(Node::Client)?;
    comes_again(network, "at the end")
}

/// Other names are asked of the server that was there, and ours of the client, which says so.
fn asked(network: &Network, server: &NameServer, before: &Before) -> Result<()> {
    let service = network.identity(Node::Service)?;
    let wanted = [IpAddr::from(service.ipv4), service.ipv6.into()];
    eventually("the service's addresses", 30, || {
        Ok(addresses_of(HOST)? == wanted)
    })?;
    ensure!(addresses_of("nosuch.anon")?.is_empty(), "a name of nobody");
    let status = network.client_status(Node::Client)?;
    let dns = &status["dns"];
    ensure!(dns["upstream"] == json!([before.upstream]), "{dns}");
    let resolver = dns["resolver"].as_str().context("no resolver")?;
    let text = fs::read_to_string(namespaces::resolv_conf(&Node::Client.namespace()))?;
    ensure!(
        text.ends_with(&format!("\nnameserver {resolver}\n")),
        "{text}"
    );
    let shown = succeed(&mut network.client_command(Node::Client, "status"))?;
    let line = format!(
        "answering at {resolver}, asked through resolv.conf; other domains go to {}",
        before.upstream
    );
    ensure!(shown.contains(&line), "{shown}");
    match before.upstream {
        "127.0.0.1" => at_this_host(network)?,
        "10.0.0.53" => {
            server.answers("lan")?;
            ensure!(resolver != before.upstream, "{dns}");
            let own =
                succeed(on_client(5, "ip").args(["-o", "address", "show", "to", before.upstream]))?;
            ensure!(own.is_empty(), "the host has the server's address: {own}");
            // It is asked by itself too, and hears of no name of ours.
            let dig = |name: &str| {
                let at = format!("@{}", before.upstream);
                output(on_client(5, "dig").args([&at, "+tries=1", "+time=1", "+short", name]))
            };
            ensure!(dig("direct.other.example")?.status.success());
            ensure!(!dig("direct.anon")?.status.success());
            let problems = status["problems"].to_string();
            ensure!(
                problems.contains("10.0.0.0/24 is behind eth0"),
                "{problems}"
            );
            ensure!(!problems.contains("the name server"), "{problems}");
        }
        "172.30.0.1" => {
            server.answers("taken")?;
            ensure!(resolver != USUAL, "{dns}");
            let own = succeed(on_client(5, "ip").args(["-o", "address", "show", "to", USUAL]))?;
            ensure!(own.lines().count() == 1 && own.contains("eth0"), "{own}");
        }
        _ => server.answers("link-local")?,
    }
    ensure!(!server.was_asked(HOST)? && !server.was_asked("nosuch.anon")?);
    Ok(())
}

/// Whoever names no server asks this host: where nobody is there, that is no answer.
fn at_this_host(network: &Network) -> Result<()> {
    let nobody =
        succeed(on_client(20, "dig").args(["+tries=1", "+time=15", "nobody.other.example"]))?;
    ensure!(nobody.contains("status: SERVFAIL"), "{nobody}");
    let listens = ["--listen-address=127.0.0.1", "--bind-interfaces"];
    let local = NameServer::start(network, &Node::Client.namespace(), &listens)?;
    local.answers("local")?;
    ensure!(addresses_of("nosuch.anon")?.is_empty());
    ensure!(!local.was_asked("nosuch.anon")?);
    Ok(())
}

/// What a host's file says before the client is up, with a cache of the host's own at 127.0.0.1 that asks
/// whom the file names: in the end the client itself, which asks whom it named before.
const CACHED: [(&str, bool); 3] = [
    ("nameserver 172.30.0.1\n", true),
    ("nameserver 127.0.0.1\n", false),
    ("nameserver 127.0.0.1\nnameserver 172.30.0.1\n", true),
];

fn caches(network: &mut Network) -> Result<()> {
    let file = namespaces::resolv_conf(&Node::Client.namespace());
    let as_it_was = fs::read(&file)?;
    let server = NameServer::outside(network)?;
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    let outside = [IpAddr::from(Node::Client.gateway_ipv4())];
    let outcome = CACHED.iter().enumerate().try_for_each(|(number, cached)| {
        fs::write(&file, cached.0)?;
        let follows = format!("--resolv-file={}", file.display());
        let arguments = ["--listen-address=127.0.0.1", "--bind-interfaces", &follows];
        let host = Node::Client.namespace();
        let cache = NameServer::asking_others(network, &host, &arguments)?;
        let outcome = asking(network, &outside, "", |network| {
            let log = network.files(Node::Client).log;
            let logged = fs::read_to_string(&log)?.len();
            let client = network.programs().client.clone();
            let says_all = vec![("MIXLINE_LOG".into(), "debug".into())];
            network.start_as(Node::Client, client, says_all)?;
            network.wait_for_client(Node::Client)?;
            let outcome = no_loop(network, number, cached.1, &cache, &server);
            // By the letters' cases it knows its own question; that is not a matter of time.
            let log = fs::read_to_string(&log)?;
            let is_seen = log[logged..].contains("the name server asks here");
            let outcome = outcome.and_then(|()| {
                let may_loop = cached.0.contains("127.0.0.1");
                ensure!(is_seen == may_loop, "loops that the client sees: {is_seen}");
                Ok(())
            });
            connections_end(Node::Client)?;
            network.stop(Node::Client)?;
            outcome
        });
        outcome.with_context(|| format!("{:?}; the cache:\n{}", cached.0, cache.said()))
    });
    put_back(network, &file, as_it_was, outcome)
}

/// Whoever asks the cache or the client has an answer, at once or that there is none, and the name comes by
/// no more often than it has to.
fn no_loop(
    network: &Network,
    number: usize,
    is_answered: bool,
    cache: &NameServer,
    server: &NameServer,
) -> Result<()> {
    let status = network.client_status(Node::Client)?;
    let resolver = status["dns"]["resolver"].as_str().context("no resolver")?;
    let dig = |at: &str, kind: &str, name: &str| {
        let at = format!("@{at}");
        succeed(on_client(40, "dig").args([&at, "+tries=1", "+time=30", kind, name]))
    };
    // It looks at the file when it is asked something: this it answers by itself. The client is the first to
    // ask it for a name, or it would wait for its own question's answer and not pass that of the client on.
    eventually("the cache to ask the client", 30, || {
        let version = [
            "@127.0.0.1",
            "+tries=1",
            "+time=30",
            "CH",
            "TXT",
            "version.bind",
        ];
        succeed(on_client(40, "dig").args(version))?;
        Ok(cache
            .said()
            .contains(&format!("using nameserver {resolver}#53")))
    })?;
    for (asked, at) in [("client", resolver), ("cache", "127.0.0.1")] {
        for kind in ["A", "AAAA"] {
            for whose in ["other.example", "a.lan"] {
                let name = format!("{asked}-{kind}-{number}.{whose}").to_lowercase();
                let said = dig(at, kind, &name)?;
                let has_answer = ["NOERROR", "NXDOMAIN"]
                    .iter()
                    .any(|code| said.contains(&format!("status: {code}")));
                ensure!(
                    has_answer == is_answered && (has_answer || said.contains("status: SERVFAIL")),
                    "{name}: {said}"
                );
                let times = server.times_asked(&name)?;
                ensure!(times <= 1, "{name}: {times} times outside");
                ensure!(
                    cache.times_asked(&name)? <= 2,
                    "{name}: a loop through the cache"
                );
            }
        }
    }
    // Names of ours go no further than to the client.
    let service = network.identity(Node::Service)?.ipv4.to_string();
    let ours = dig("127.0.0.1", "A", HOST)?;
    ensure!(ours.contains(&service), "{ours}");
    ensure!(!server.was_asked(HOST)?, "{HOST} was asked outside");
    Ok(())
}
