//! A network of namespaces: a hub, where the test runs with its directory and its clients, and
//! a namespace for each relay, joined to the hub by a veth pair.
//!
//! Needs root. Without it, or without the XDP program in the build, the tests say so and pass,
//! unless `MIXLINE_REQUIRE_ROOT=1`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use mixline_protocol::size::DATAGRAM;
use mixline_relay_common::frame::{Route, headers_length, write_headers};
use mixline_relay_common::maps::mapped;
use mixline_testnet::netns::{self, Namespace, ip_in};
use mixline_testnet::skip;
use mixline_xdp::{Program, Socket, SocketConfig};

/// The interface of a relay's namespace.
pub const INTERFACE: &str = "relay0";
/// The port of all relays.
const PORT: u16 = 7000;
/// Numbers the networks of this process.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The namespaces; they go when this is dropped.
pub struct Network {
    prefix: String,
    relays: usize,
}

impl Network {
    /// Runs a test in the hub of a network with so many relays, whose interfaces have so many
    /// queues.
    pub fn run(relays: usize, queues: usize, test: impl FnOnce(&Network) + Send) {
        if !skip::is_root_or_skip() {
            return;
        }
        if !Program::is_built() {
            skip::skip("built without the XDP program");
            return;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Network {
            prefix: format!("mixline-test-{}-{number}", std::process::id()),
            relays,
        };
        network.build(queues);
        let hub = Namespace::named(&network.hub()).unwrap();
        hub.run(|| test(&network)).unwrap();
    }

    fn build(&self, queues: usize) {
        let hub = self.hub();
        netns::add(&hub).unwrap();
        let mut lines = "link set lo up\n\
            addr add 198.51.100.1/32 dev lo\n\
            addr add 2001:db8:100::1/128 dev lo\n"
            .to_owned();
        // A router that forwards, and says so when its Ethernet address changes, as those do that
        // take over from one another.
        for key in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv4/conf/all/arp_notify",
            "ipv6/conf/all/ndisc_notify",
        ] {
            output(
                &hub,
                &["sh", "-c", &format!("echo 1 > /proc/sys/net/{key}")],
            );
        }
        for relay in 0..self.relays {
            let name = self.relay(relay);
            netns::add(&name).unwrap();
            lines += &format!(
                "link add hub{relay} numrxqueues {queues} numtxqueues {queues} type veth \
                 peer name {INTERFACE} netns {name} numrxqueues {queues} numtxqueues {queues}\n\
                 addr add 198.51.{relay}.1/24 dev hub{relay}\n\
                 addr add 2001:db8:{relay}::1/64 dev hub{relay} nodad\n\
                 link set hub{relay} up\n"
            );
        }
        ip_in(&hub, &lines).unwrap();
        for relay in 0..self.relays {
            let own = format!(
                "link set lo up\n\
                 addr add 198.51.{relay}.2/24 dev {INTERFACE}\n\
                 addr add 2001:db8:{relay}::2/64 dev {INTERFACE} nodad\n\
                 link set {INTERFACE} up\n\
                 route add default via 198.51.{relay}.1\n\
                 route add default via 2001:db8:{relay}::1\n"
            );
            ip_in(&self.relay(relay), &own).unwrap();
        }
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    /// The namespace of a relay.
    pub fn relay(&self, relay: usize) -> String {
        format!("{}-{relay}", self.prefix)
    }

    /// Where a relay listens.
    pub fn address(relay: usize, v4: bool) -> SocketAddr {
        let text = if v4 {
            format!("198.51.{relay}.2:{PORT}")
        } else {
            format!("[2001:db8:{relay}::2]:{PORT}")
        };
        text.parse().unwrap()
    }

    /// Where the directory is, and where clients send from.
    pub fn hub_address(v4: bool) -> &'static str {
        if v4 {
            "198.51.100.1:0"
        } else {
            "[2001:db8:100::1]:0"
        }
    }

    /// Whether an XDP program is on a relay's interface, as the kernel says.
    pub fn has_program(&self, relay: usize) -> bool {
        let text = output(
            &self.relay(relay),
            &["ip", "-json", "link", "show", "dev", INTERFACE],
        );
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(links[0]["ifname"], INTERFACE);
        links[0].get("xdp").is_some()
    }

    /// What sends frames with a datagram for a relay that end after so many bytes, as a card with
    /// small buffers would leave them.
    pub fn cutter(&self, relay: usize, to: SocketAddr, bytes: usize) -> Cutter {
        let IpAddr::V4(address) = to.ip() else {
            panic!("IPv4 only");
        };
        let text = output(
            &self.relay(relay),
            &["cat", &format!("/sys/class/net/{INTERFACE}/address")],
        );
        let mac: Vec<u8> = text
            .trim()
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let route = Route {
            from_mac: [2; 6],
            to_mac: mac.try_into().unwrap(),
            from: mapped([198, 51, 100, 77]),
            to: mapped(address.octets()),
            from_port: PORT,
            to_port: to.port(),
        };
        let datagram = [1; DATAGRAM];
        let mut frame = vec![0; headers_length(true)];
        assert!(write_headers(&mut frame, &route, &datagram));
        frame.extend(datagram);
        frame.truncate(bytes);
        let config = SocketConfig {
            frames: 64,
            zero_copy: false,
            ..SocketConfig::default()
        };
        let socket = Socket::bind(&format!("hub{relay}"), 0, config).unwrap();
        Cutter { socket, frame }
    }

    /// UDP datagrams that the kernel's sockets have sent in a relay's namespace.
    pub fn sent_by_sockets(&self, relay: usize, v4: bool) -> u64 {
        let counter = if v4 {
            "UdpOutDatagrams"
        } else {
            "Udp6OutDatagrams"
        };
        let text = output(&self.relay(relay), &["nstat", "-asz", counter]);
        let line = text.lines().find(|line| line.starts_with(counter)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Takes a relay's interface away, as when its driver is unloaded.
    pub fn remove_interface(&self, relay: usize) {
        ip_in(&self.relay(relay), &format!("link del {INTERFACE}\n")).unwrap();
    }

    /// Gives the hub's end of a relay's wire another Ethernet address.
    pub fn change_gateway(&self, relay: usize) {
        let hub = self.hub();
        let line = format!("link set hub{relay} address 02:00:00:00:77:0{relay}\n");
        ip_in(&hub, &line).unwrap();
    }
}

/// Sends frames that are cut.
pub struct Cutter {
    socket: Socket,
    frame: Vec<u8>,
}

impl Cutter {
    /// Sends some.
    pub fn send(&mut self) {
        let mut queue = VecDeque::new();
        for _ in 0..8 {
            let mut packet = self.socket.take().unwrap();
            assert!(packet.fill(&self.frame));
            queue.push_back(packet);
        }
        while !queue.is_empty() || self.socket.in_flight() > 0 {
            self.socket.send(&mut queue).unwrap();
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for relay in 0..self.relays {
            let _ = netns::delete(&self.relay(relay));
        }
        let _ = netns::delete(&self.hub());
    }
}

/// Runs a command in a namespace: what it prints.
fn output(namespace: &str, command: &[&str]) -> String {
    let (program, arguments) = command.split_first().unwrap();
    netns::said(netns::command(namespace, program).args(arguments)).unwrap()
}
