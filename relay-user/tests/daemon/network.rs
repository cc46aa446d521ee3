//! A network of namespaces: a hub, where the test runs with its directory and its clients, and
//! a namespace for each relay, joined to the hub by a veth pair.
//!
//! Needs root. Without it, or without the XDP program in the build, the tests say so and pass,
//! unless `MIXLINE_REQUIRE_ROOT=1`.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use mixline_xdp::Program;
use nix::sched::{CloneFlags, setns};

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
    pub fn run(relays: usize, queues: usize, test: impl FnOnce(&Network) + Send + 'static) {
        let required = std::env::var_os("MIXLINE_REQUIRE_ROOT").is_some_and(|v| v == "1");
        let missing = if !nix::unistd::geteuid().is_root() {
            "needs root"
        } else if !Program::is_built() {
            "built without the XDP program"
        } else {
            ""
        };
        if !missing.is_empty() {
            assert!(!required, "{missing}");
            eprintln!("skipped: {missing}");
            return;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Network {
            prefix: format!("mixline-test-{}-{number}", std::process::id()),
            relays,
        };
        network.build(queues);
        let hub = File::open(format!("/run/netns/{}", network.hub())).unwrap();
        let thread = std::thread::spawn(move || {
            setns(hub, CloneFlags::CLONE_NEWNET).unwrap();
            test(&network);
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn build(&self, queues: usize) {
        let hub = self.hub();
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link set lo up"));
        ip(&format!("-n {hub} addr add 198.51.100.1/32 dev lo"));
        ip(&format!("-n {hub} addr add 2001:db8:100::1/128 dev lo"));
        // A router that forwards, and says so when its Ethernet address changes, as those do that
        // take over from one another.
        for key in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv4/conf/all/arp_notify",
            "ipv6/conf/all/ndisc_notify",
        ] {
            inside(
                &hub,
                &["sh", "-c", &format!("echo 1 > /proc/sys/net/{key}")],
            );
        }
        for relay in 0..self.relays {
            let name = self.relay(relay);
            ip(&format!("netns add {name}"));
            ip(&format!(
                "-n {hub} link add hub{relay} numrxqueues {queues} numtxqueues {queues} type veth \
                 peer name {INTERFACE} netns {name} numrxqueues {queues} numtxqueues {queues}"
            ));
            ip(&format!(
                "-n {hub} addr add 198.51.{relay}.1/24 dev hub{relay}"
            ));
            ip(&format!(
                "-n {hub} addr add 2001:db8:{relay}::1/64 dev hub{relay} nodad"
            ));
            ip(&format!("-n {hub} link set hub{relay} up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!(
                "-n {name} addr add 198.51.{relay}.2/24 dev {INTERFACE}"
            ));
            ip(&format!(
                "-n {name} addr add 2001:db8:{relay}::2/64 dev {INTERFACE} nodad"
            ));
            ip(&format!("-n {name} link set {INTERFACE} up"));
            ip(&format!("-n {name} route add default via 198.51.{relay}.1"));
            ip(&format!(
                "-n {name} -6 route add default via 2001:db8:{relay}::1"
            ));
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
        let text = inside(
            &self.relay(relay),
            &["ip", "-json", "link", "show", "dev", INTERFACE],
        );
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(links[0]["ifname"], INTERFACE);
        links[0].get("xdp").is_some()
    }

    /// UDP datagrams that the kernel's sockets have sent in a relay's namespace.
    pub fn sent_by_sockets(&self, relay: usize, v4: bool) -> u64 {
        let counter = if v4 {
            "UdpOutDatagrams"
        } else {
            "Udp6OutDatagrams"
        };
        let text = inside(&self.relay(relay), &["nstat", "-asz", counter]);
        let line = text.lines().find(|line| line.starts_with(counter)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Gives the hub's end of a relay's wire another Ethernet address.
    pub fn change_gateway(&self, relay: usize) {
        let hub = self.hub();
        ip(&format!(
            "-n {hub} link set hub{relay} address 02:00:00:00:77:0{relay}"
        ));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for relay in 0..self.relays {
            remove(&self.relay(relay));
        }
        remove(&self.hub());
    }
}

fn remove(namespace: &str) {
    let _ = Command::new("ip")
        .args(["netns", "delete", namespace])
        .output();
}

/// Runs `ip`.
pub fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a command in a namespace: what it prints.
pub fn inside(namespace: &str, command: &[&str]) -> String {
    let output = Command::new("ip")
        .args(["netns", "exec", namespace])
        .args(command)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
