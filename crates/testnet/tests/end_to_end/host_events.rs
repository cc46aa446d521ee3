//! A host to which anything happens, at random, while programs on it use virtual addresses and names:
//! nothing of that leaves around the client.
//!
//! A round is some events, the host put back, and the page again. Captures of all interfaces of both
//! hosts, the router and a container run from the first event to the last, and are looked through after
//! each round, so that a packet names the events that let it out. `MIXLINE_HOST_EVENTS_S` says how many seconds it
//! goes on (600), `MIXLINE_HOST_EVENTS_SEED` repeats a run.

use crate::capture::{Watch, Way};
use crate::leaks::{VIRTUAL, comes_again};
use crate::tools::{HOST, eventually, on_client, output};
use crate::{Kind, Tests};
use anyhow::{Context, Result};
use mixline_testnet::netns::{self, Namespace};
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::{Network, namespaces};
use nix::sys::signal::Signal;
use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long it goes on unless told otherwise, seconds.
const SECONDS: u64 = 600;
/// Between two questions of a program for a name, milliseconds: each starts some processes.
const ASKED_AGAIN: u64 = 200;
/// Events of a round, at most.
const EVENTS: u64 = 12;
/// Neighbourhoods that come and go, on wires and behind bridges: no program is told an address there,
/// and what their hosts and this one say to each other by those addresses may leave.
const NEIGHBOURS: &str = "10.44.0.0/16";
/// What is behind the host's bridge and its other link: a container, and another VPN's end.
const BEHIND: &str = namespaces::BESIDE;
/// The container's addresses, and those of the router, in whose name it sends as well.
const CONTAINER: [&str; 2] = ["10.44.8.2", "3fff:208::2"];
const FORGED: [&str; 2] = ["172.30.0.1", "3fff:200::1"];
/// Questions for names: of DNS, and those that go to all neighbours (RFC 6762, RFC 4795).
const QUESTIONS: &str = "port 53 or port 5353 or port 5355";

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "host::events_at_random_let_nothing_out",
        events,
    );
}

/// A generator of numbers that a seed repeats (SplitMix64; Steele, Lea, Flood: "Fast Splittable
/// Pseudorandom Number Generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// These commands of `ip`, each of which may fail.
    Ip(&'static [&'static str]),
    /// The same, and then the client's rules, routes and filter are waited for: two layers that go at
    /// once are an open host.
    IpThenHeal(&'static [&'static str]),
    /// The packet filter goes, while nobody asks for names or sends in another's name: of what asks another
    /// server than the client, and of refusals to who is somewhere else, it is the only layer.
    FilterGone,
    /// `/etc/resolv.conf` gets this text.
    ResolvConf(&'static str),
    /// The client is killed, and stays so for a while.
    Kill,
    /// The client is started, if it does not run.
    Start,
    /// The client stands still for a second or two.
    Freeze,
    /// The client is told to read its configuration again.
    Hangup,
    /// The client publishes a name, or serves it no longer.
    Publish(&'static str),
    /// A setting of the kernel.
    Sysctl(&'static str, &'static str),
}

const RP_FILTER_OFF: Event = Event::Sysctl("net.ipv4.conf.all.rp_filter", "0");
const FORWARDING_OFF: Event = Event::Sysctl("net.ipv4.ip_forward", "0");
const FORWARDING_IPV6_OFF: Event = Event::Sysctl("net.ipv6.conf.all.forwarding", "0");

const ALL: [Event; 42] = [
    Event::Ip(&["link set mixline0 down"]),
    Event::Ip(&["link set mixline0 down", "link set mixline0 up"]),
    Event::Ip(&["address flush dev mixline0"]),
    Event::Ip(&["link set mixline0 mtu 1280"]),
    Event::Ip(&["link delete mixline0"]),
    Event::Ip(&["address flush dev lo to 10.0.0.0/8"]),
    Event::IpThenHeal(&["rule del to 10.0.0.0/8 lookup 28009"]),
    Event::IpThenHeal(&["-6 rule del to fd00::/8 lookup 28009"]),
    Event::IpThenHeal(&["route flush table 28009", "-6 route flush table 28009"]),
    Event::FilterGone,
    Event::Ip(&[
        "route add 10.0.0.0/8 via 172.30.0.1 table 52",
        "rule add pref 5270 lookup 52",
        "-6 route add fd00::/8 via 3fff:200::1 table 52",
        "-6 rule add pref 5270 lookup 52",
    ]),
    Event::Ip(&[
        "route add 10.0.0.0/8 via 172.30.0.1 table 53",
        "rule add pref 0 to 10.0.0.0/8 lookup 53",
    ]),
    Event::Ip(&[
        "route add 10.0.0.0/9 via 172.30.0.1",
        "route add 10.128.0.0/9 via 172.30.0.1",
        "-6 route add fd00::/9 via 3fff:200::1",
    ]),
    Event::Ip(&["route add 10.200.0.0/16 via 172.30.0.1"]),
    Event::Ip(&["address add 10.44.0.7/24 dev eth0"]),
    Event::Ip(&["address del 10.44.0.7/24 dev eth0"]),
    Event::Ip(&[
        "link add inner0 type veth peer name inner1",
        "address add 10.44.9.1/24 dev inner0",
        "link set inner0 up",
        "link set inner1 up",
    ]),
    Event::Ip(&["link del inner0"]),
    // A bridge with a container behind it.
    Event::Ip(&[
        "link add br9 type bridge",
        "link add port9 type veth peer name eth9 netns mixline-beside",
        "link set port9 master br9",
        "address add 10.44.8.1/24 dev br9",
        "link set port9 up",
        "link set br9 up",
        "-n mixline-beside link set eth9 up",
        "-n mixline-beside address add 10.44.8.2/24 dev eth9",
        "-n mixline-beside address add 3fff:208::2/64 dev eth9 nodad",
        "-n mixline-beside route add default via 10.44.8.1",
        "-n mixline-beside route add default via 3fff:208::1",
        "address add 3fff:208::1/64 dev br9 nodad",
    ]),
    Event::Ip(&["link set br9 down"]),
    Event::Ip(&["link del port9", "link del br9"]),
    // Another VPN, whose gateway has all of the virtual networks.
    Event::Ip(&[
        "link add vpn0 type veth peer name vpn1 netns mixline-beside",
        "-n mixline-beside address add 10.44.7.1/24 dev vpn1",
        "-n mixline-beside address add 3fff:207::1/64 dev vpn1 nodad",
        "-n mixline-beside link set vpn1 up",
        "address add 10.44.7.2/24 dev vpn0",
        "address add 3fff:207::2/64 dev vpn0 nodad",
        "link set vpn0 up",
        "route add 10.0.0.0/8 via 10.44.7.1 dev vpn0",
        "-6 route add fd00::/8 via 3fff:207::1 dev vpn0",
    ]),
    Event::Ip(&["link set vpn0 down", "link set vpn0 up"]),
    Event::Ip(&["link del vpn0"]),
    // A second wire, which leads everywhere.
    Event::Ip(&[
        "link add eth1 type veth peer name client-b netns mixline-router",
        "-n mixline-router address add 172.29.0.1/24 dev client-b",
        "-n mixline-router address add 3fff:202::1/64 dev client-b nodad",
        "-n mixline-router link set client-b up",
        "address add 172.29.0.2/24 dev eth1",
        "address add 10.44.6.2/24 dev eth1",
        "address add 3fff:202::2/64 dev eth1 nodad",
        "link set eth1 up",
        "route add default via 172.29.0.1 metric 500",
        "-6 route add default via 3fff:202::1 metric 2000",
    ]),
    Event::Ip(&["link del eth1"]),
    Event::Ip(&["link set eth0 down", "link set eth0 up"]),
    Event::Ip(&["address add 172.30.0.77/24 dev eth0"]),
    Event::ResolvConf("search corp.example\nnameserver 172.30.0.1\n"),
    Event::ResolvConf("nameserver 172.30.0.1\noptions ndots:3\n"),
    Event::Kill,
    Event::Start,
    Event::Freeze,
    Event::Hangup,
    Event::Publish("events"),
    Event::ResolvConf(""),
    Event::Sysctl("net.ipv4.conf.all.rp_filter", "1"),
    RP_FILTER_OFF,
    Event::Sysctl("net.ipv4.ip_forward", "1"),
    FORWARDING_OFF,
    Event::Sysctl("net.ipv6.conf.all.forwarding", "1"),
    FORWARDING_IPV6_OFF,
];

/// Puts back what events left. Each line may fail.
const RESTORE: [&str; 26] = [
    "rule del pref 5270",
    "-6 rule del pref 5270",
    "rule del pref 0 to 10.0.0.0/8 lookup 53",
    "route flush table 52",
    "-6 route flush table 52",
    "route flush table 53",
    "route del 10.0.0.0/9 via 172.30.0.1",
    "route del 10.128.0.0/9 via 172.30.0.1",
    "-6 route del fd00::/9 via 3fff:200::1",
    "route del 10.200.0.0/16 via 172.30.0.1",
    "address del 10.44.0.7/24 dev eth0",
    "address del 172.30.0.77/24 dev eth0",
    "link del inner0",
    "link del port9",
    "link del br9",
    "link del vpn0",
    "link del eth1",
    "link set eth0 up",
    "address add 172.30.0.2/24 dev eth0",
    "address add 3fff:200::2/64 dev eth0 nodad",
    "route replace default via 172.30.0.1",
    "-6 route replace default via 3fff:200::1",
    "link set mixline0 mtu 1500",
    "neighbour flush dev eth0",
    "-6 neighbour flush dev eth0",
    "link set mixline0 up",
];

/// Runs `ip` on the client's host; gives whether it did what it was told.
fn ip(line: &str) -> bool {
    let namespace = Node::Client.namespace();
    netns::said(netns::command(&namespace, "ip").args(line.split(' '))).is_ok()
}

/// Programs that use virtual addresses and names without end.
struct Programs {
    ending: Arc<AtomicBool>,
    /// Those whom nothing but the filter keeps inside read it; whoever writes it has them wait.
    asking: Arc<RwLock<()>>,
    threads: Vec<JoinHandle<()>>,
    sent: Arc<AtomicU64>,
}

impl Programs {
    fn start(network: &Network, seed: u64) -> Result<Self> {
        let service = network.identity(Node::Service)?;
        let known = [IpAddr::V4(service.ipv4), IpAddr::V6(service.ipv6)];
        let ending = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let asking = Arc::new(RwLock::new(()));
        let mut threads = Vec::new();
        let mut run =
            |work: Box<dyn Fn() + Send>, pause: u64, inside: Option<&str>| -> Result<()> {
                let inside = inside.map(Namespace::named).transpose()?;
                let (ending, sent) = (Arc::clone(&ending), Arc::clone(&sent));
                threads.push(thread::spawn(move || {
                    if inside.is_some_and(|inside| inside.enter().is_err()) {
                        return;
                    }
                    while !ending.load(Ordering::Relaxed) {
                        work();
                        sent.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(pause));
                    }
                }));
                Ok(())
            };
        let host = Node::Client.namespace();
        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let forged = [FORGED[0].parse()?, FORGED[1].parse()?];
        // A container sends to virtual addresses as well, and no host is to forward that.
        for (number, inside, from) in [
            (0, host.as_str(), any),
            (1, BEHIND, any),
            (2, BEHIND, forged),
        ] {
            let random = Mutex::new(Random(seed.wrapping_add(number)));
            let asking = (from == forged).then(|| Arc::clone(&asking));
            let send = move || {
                let _turn = asking.as_ref().map(|asking| asking.read());
                datagram(&random, from, known);
            };
            run(Box::new(send), 10, Some(inside))?;
        }
        for address in known {
            let to = SocketAddr::new(address, 80);
            let connect = move || drop(TcpStream::connect_timeout(&to, Duration::from_secs(1)));
            run(Box::new(connect), 50, Some(&host))?;
        }
        for name in [HOST.to_owned(), format!("www.{HOST}"), "nosuch.anon".into()] {
            let asking = Arc::clone(&asking);
            let ask = move || {
                let _turn = asking.read();
                let _ = output(on_client(3, "getent").args(["ahosts", &name]));
            };
            run(Box::new(ask), ASKED_AGAIN, None)?;
        }
        // A program that asks a server of its own, and a tool of an administrator's.
        for asked in [
            &["secret.anon"][..],
            &["-x", "10.66.77.88"],
            &["-x", "fd66:7788::1"],
        ] {
            let asking = Arc::clone(&asking);
            let direct = move || {
                let _turn = asking.read();
                let dig = ["+time=1", "+tries=1", "@172.30.0.1"];
                let _ = output(on_client(3, "dig").args(dig).args(asked));
            };
            run(Box::new(direct), ASKED_AGAIN, None)?;
        }
        Ok(Self {
            ending,
            asking,
            threads,
            sent,
        })
    }

    fn end(self) -> u64 {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.sent.load(Ordering::Relaxed)
    }
}

/// Sends a datagram to a virtual address: one that somebody has, or any.
fn datagram(random: &Mutex<Random>, from: [IpAddr; 2], known: [IpAddr; 2]) {
    let Ok(mut random) = random.lock() else {
        return;
    };
    let number = random.next();
    let bytes = number.to_be_bytes();
    let to = match number % 4 {
        0 => known[0],
        1 => known[1],
        2 => Ipv4Addr::new(10, bytes[1] | 0x80, bytes[2], bytes[3]).into(),
        _ => {
            let parts = [0xfd00, 0, 0, 0, 0, 0, 0, 0];
            let mut parts: [u16; 8] = parts;
            parts[0] |= u16::from(bytes[0]);
            parts[3] = u16::from_be_bytes([bytes[1], bytes[2]]);
            parts[7] = u16::from_be_bytes([bytes[3], bytes[4]]);
            Ipv6Addr::from(parts).into()
        }
    };
    let from = from[usize::from(to.is_ipv6())];
    if let Ok(socket) = UdpSocket::bind((from, 0)) {
        let _ = socket.send_to(b"through the client or not at all", (to, 9));
    }
}

/// The client's host, on which events happen.
struct Host {
    random: Random,
    /// See [`Programs`].
    asking: Arc<RwLock<()>>,
    published: bool,
}

fn is_running(network: &mut Network) -> bool {
    let process = network.process(Node::Client);
    process.is_some_and(|process| process.ended().is_none())
}

/// Whether both layers close the host.
fn is_closed() -> bool {
    let shown = |program: &str, arguments: &str| {
        let namespace = Node::Client.namespace();
        let command = &mut netns::command(&namespace, program);
        netns::said(command.args(arguments.split(' '))).unwrap_or_default()
    };
    let tables = shown("nft", "list tables");
    shown("ip", "rule show").contains("lookup 28009")
        && shown("ip", "-6 rule show").contains("lookup 28009")
        && shown("ip", "route show table 28009").contains("unreachable 10.0.0.0/8")
        && shown("ip", "-6 route show table 28009").contains("unreachable fd00::/8")
        && tables.contains("inet mixline")
        && tables.contains("arp mixline")
}

/// Whether the client's rules come first: where another one does, the filter alone closes the host.
fn rules_close() -> bool {
    let namespace = Node::Client.namespace();
    let rules = netns::said(netns::command(&namespace, "ip").args(["rule", "show"]));
    let rules = rules.unwrap_or_default();
    match (rules.find("lookup 28009"), rules.find("lookup 53")) {
        (Some(own), Some(other)) => own < other,
        (own, _) => own.is_some(),
    }
}

/// Waits until the client has closed the host again, or has ended.
fn heal(network: &mut Network) -> Result<()> {
    eventually("both layers close the host again", 30, || {
        Ok(is_closed() || !is_running(network))
    })
}

impl Host {
    /// Lets something happen; whether it did.
    fn happen(&mut self, network: &mut Network, event: Event) -> Result<bool> {
        let running = is_running(network);
        if !running {
            // One that ended by itself, as without its interface, counts as killed.
            let _ = network.kill(Node::Client);
        }
        let namespace = Node::Client.namespace();
        let done = match event {
            Event::Ip(lines) => lines.iter().filter(|line| ip(line)).count() > 0,
            Event::IpThenHeal(_) | Event::FilterGone if !running || !is_closed() => false,
            Event::FilterGone if !rules_close() => false,
            Event::IpThenHeal(lines) => {
                let done = lines.iter().filter(|line| ip(line)).count() > 0;
                heal(network)?;
                done
            }
            Event::FilterGone => {
                let _nobody = self.asking.write();
                for table in ["inet", "arp"] {
                    let delete = ["delete", "table", table, "mixline"];
                    netns::said(netns::command(&namespace, "nft").args(delete))?;
                }
                heal(network)?;
                true
            }
            Event::ResolvConf(text) => {
                fs::write(namespaces::resolv_conf(&namespace), text)?;
                true
            }
            Event::Kill => {
                if running {
                    network.kill(Node::Client)?;
                }
                running
            }
            Event::Start => {
                if !running {
                    network.start(Node::Client)?;
                }
                !running
            }
            Event::Freeze => {
                let time = Duration::from_millis(200 + self.random.below(1800));
                let Some(client) = network.process(Node::Client) else {
                    return Ok(false);
                };
                client.signal(Signal::SIGSTOP)?;
                thread::sleep(time);
                client.signal(Signal::SIGCONT)?;
                true
            }
            Event::Hangup => {
                if let Some(client) = network.process(Node::Client) {
                    client.signal(Signal::SIGHUP)?;
                }
                running
            }
            Event::Publish(name) => {
                let command = if self.published {
                    "unpublish"
                } else {
                    "publish"
                };
                let mut asked = network.client_command(Node::Client, command);
                let done = output(asked.arg(name))?.status.success();
                self.published ^= done;
                done
            }
            Event::Sysctl(key, value) => {
                let assignment = format!("{key}={value}");
                let set = ["-q", "-w", &assignment];
                netns::said(netns::command(&namespace, "sysctl").args(set))?;
                true
            }
        };
        Ok(done)
    }

    /// Some events; says which.
    fn round(&mut self, network: &mut Network, happened: &mut Vec<Event>) -> Result<()> {
        for _ in 0..=self.random.below(EVENTS) {
            let event = ALL[usize::try_from(self.random.below(ALL.len() as u64))?];
            let done = self.happen(network, event);
            if done.with_context(|| format!("{event:?}"))? {
                happened.push(event);
            }
            thread::sleep(Duration::from_millis(self.random.below(700)));
        }
        for line in RESTORE {
            ip(line);
        }
        for event in [
            RP_FILTER_OFF,
            FORWARDING_OFF,
            FORWARDING_IPV6_OFF,
            Event::Start,
        ] {
            self.happen(network, event)?;
        }
        comes_again(network, "after a round")
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// What may pass nowhere: what no test lets pass, but for what two ends that are not virtual say to
/// each other in a neighbourhood. A question for names is never excused, nor an address that somebody
/// has.
fn closed(network: &Network) -> Result<String> {
    let virtual_end = |end| format!("({end} net 10.0.0.0/8 and not {end} net {NEIGHBOURS})");
    let (from, to) = (virtual_end("src"), virtual_end("dst"));
    let excused = format!("(net {NEIGHBOURS} and not {from} and not {to})");
    let mut filter = format!("(({VIRTUAL}) and not {excused}) or {QUESTIONS}");
    for node in [Node::Service, Node::Client] {
        filter += &format!(" or host {}", network.identity(node)?.ipv4);
    }
    Ok(filter)
}

fn events(network: &mut Network) -> Result<()> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = number("MIXLINE_HOST_EVENTS_SEED").unwrap_or(clock.as_secs());
    let seconds = number("MIXLINE_HOST_EVENTS_S").unwrap_or(SECONDS);
    namespaces::create_lonely(BEHIND)?;
    for address in FORGED {
        netns::ip_in(BEHIND, &format!("address add {address} dev lo\n"))?;
    }
    let outcome = go_on(network, seed, Duration::from_secs(seconds));
    let removed = namespaces::remove_one(BEHIND);
    outcome?;
    Ok(removed?)
}

fn go_on(network: &mut Network, seed: u64, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    let file = namespaces::resolv_conf(&Node::Client.namespace());
    let before = fs::read(&file)?;
    let closed = closed(network)?;
    // The client tells the container in the name of whom it asks that it may not: on no wire, and to
    // nobody else.
    let refusals = [
        format!(
            "(icmp[0] == 3 and icmp[1] == 13 and dst host {})",
            CONTAINER[0]
        ),
        format!(
            "(icmp6 and ip6[40] == 1 and ip6[41] == 5 and dst host {})",
            CONTAINER[1]
        ),
    ];
    let to_container = format!("({closed}) and not ({})", refusals.join(" or "));
    let watched = vec![
        (Node::Client.namespace(), Way::Out, to_container.clone()),
        (BEHIND.into(), Way::In, to_container),
        (Node::Service.namespace(), Way::Out, closed.clone()),
        (ROUTER.into(), Way::In, closed),
    ];
    let mut watch = Watch::start(network, watched)?;
    let programs = Programs::start(network, seed)?;
    let mut host = Host {
        random: Random(seed),
        asking: Arc::clone(&programs.asking),
        published: false,
    };
    let (mut rounds, mut all) = (0, 0);
    let mut outcome = Ok(());
    while outcome.is_ok() && Instant::now() < until {
        let mut happened = Vec::new();
        let done = host.round(network, &mut happened);
        let passed = watch.turn();
        outcome = both(done, passed)
            .with_context(|| format!("seed {seed}, round {rounds}: {happened:?}"));
        rounds += 1;
        all += happened.len();
    }
    let tried = programs.end();
    outcome?;
    if host.published {
        host.happen(network, Event::Publish("events"))?;
    }
    fs::write(&file, before)?;
    comes_again(network, "at the end")?;
    let inside = watch
        .end()
        .with_context(|| format!("seed {seed}, at the end"))?;
    eprintln!(
        "  {rounds} rounds of {all} events, {tried} tries to get out, {inside} frames inside and none \
         outside; seed {seed}"
    );
    Ok(())
}

/// The one may be why of the other.
fn both(done: Result<()>, passed: Result<()>) -> Result<()> {
    match (done, passed) {
        (Err(done), Err(passed)) => Err(done.context(format!("{passed:#}"))),
        (done, passed) => passed.and(done),
    }
}
