//! Cells through two relays over real wires: each family and each port, also different ones.

use mixline_protocol::link::CellKind;
use mixline_protocol::link::control::Control;
use mixline_protocol::records::Parameters;

use crate::directory::Directory;
use crate::network::Network;
use crate::process::{Relay, wait_for};
use crate::relaying::Path;
use mixline_testnet::link_client::Client;

/// Cells that are on their way at once.
const BURST: u64 = 40;
/// More bursts than a queue has frames, so that a frame that is lost each time would be missed.
const BURSTS: u64 = 120;

/// Two relays with these ports, and a path through both.
struct Wires<'n> {
    network: &'n Network,
    v4: bool,
    relays: [Relay; 2],
    client: Client,
    path: Path,
    to: [usize; 2],
    _folder: tempfile::TempDir,
}

impl<'n> Wires<'n> {
    fn new(network: &'n Network, v4: bool, ports: [&str; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::start_at(Network::hub_address(v4), Parameters::default());
        let relay = |number: usize, name: &str| {
            let mut relay = Relay::at(
                Network::address(number, v4),
                Some(&network.relay(number)),
                folder.path(),
                name,
                &directory,
                ports[number],
            );
            relay.start_and_register();
            relay
        };
        let relays = [relay(0, "first"), relay(1, "last")];
        for relay in &relays {
            wait_for("a snapshot with both", || {
                (relay.report().directory.relays == Some(2)).then_some(())
            });
        }
        let (one, two) = (
            directory.relay("first").unwrap(),
            directory.relay("last").unwrap(),
        );
        let mut client = Client::at(Network::hub_address(v4));
        let to = [
            client.connect(relays[0].address, &one.descriptor.link),
            client.connect(relays[1].address, &two.descriptor.link),
        ];
        let path = Path::new(&one, &two, 4711);
        client.register(to[1], path.token);
        Self {
            network,
            v4,
            relays,
            client,
            path,
            to,
            _folder: folder,
        }
    }

    /// All of many cells arrive, in order.
    fn bursts(&self) {
        for burst in 0..BURSTS {
            let messages = burst * BURST..(burst + 1) * BURST;
            for message in messages.clone() {
                self.send(message);
            }
            for message in messages {
                let (link, cell) = self.client.cell().expect("a cell");
                assert_eq!((link, self.path.message(&cell)), (self.to[1], message));
            }
        }
        self.relays[0].expect("forwarded", BURST * BURSTS);
        self.relays[1].expect("delivered", BURST * BURSTS);
    }

    fn send(&self, message: u64) {
        let cell = self.path.cell(message);
        self.client.send(self.to[0], &cell, CellKind::Cell);
    }

    fn sent_by_sockets(&self) -> [u64; 2] {
        [0, 1].map(|relay| self.network.sent_by_sockets(relay, self.v4))
    }

    fn stop(mut self) {
        for relay in &mut self.relays {
            relay.stop();
        }
    }
}

#[test]
fn relays_that_have_ipv6_only() {
    Network::run(2, 1, |network| {
        let wires = Wires::new(network, false, ["", ""]);
        assert!(wires.relays.iter().all(|r| r.address.is_ipv6()));
        wires.bursts();
        wires.stop();
    });
}

#[test]
fn a_relay_on_af_xdp_and_one_on_udp() {
    Network::run(2, 1, |network| {
        let wires = Wires::new(network, true, ["port: xdp\n", "port: udp\n"]);
        wires.bursts();
        let report = wires.relays[0].report();
        assert_eq!(report.port.kind, "xdp");
        assert!(
            report.xdp["redirected"] >= BURST * BURSTS,
            "{:?}",
            report.xdp
        );
        wires.stop();
    });
}

#[test]
fn a_relay_behind_the_filter_and_one_on_af_xdp_over_ipv6() {
    Network::run(2, 1, |network| {
        let wires = Wires::new(network, false, ["port: xdp-filter\n", "port: xdp\n"]);
        wires.bursts();
        let reports = [wires.relays[0].report(), wires.relays[1].report()];
        assert_eq!(reports[0].port.kind, "xdp-filter");
        assert!(reports[0].xdp["guarded"] + reports[0].xdp["merged"] >= BURST * BURSTS);
        assert!(reports[1].xdp["redirected"] > 0);
        wires.stop();
    });
}

const RING: &str = "port: xdp\nxdp_send: ring\n";

/// Frames are conserved, which the relay of a development build asserts at each poll; and the
/// ring, not the socket, sends them.
fn through_the_ring(v4: bool, queues: usize) {
    Network::run(2, queues, move |network| {
        let wires = Wires::new(network, v4, [RING, RING]);
        let before = wires.sent_by_sockets();
        wires.bursts();
        for (relay, (before, after)) in before.iter().zip(wires.sent_by_sockets()).enumerate() {
            let report = wires.relays[relay].report();
            assert!(report.port.why.contains("TX ring"), "{}", report.port.why);
            assert!(report.xdp["redirected"] >= BURST * BURSTS);
            let by_sockets = after - before;
            assert!(by_sockets < BURST * BURSTS / 10, "{by_sockets} by sockets");
        }
        // A gateway with another Ethernet address: the kernel hears of it, and so do we.
        network.change_gateway(0);
        network.change_gateway(1);
        let mut message = BURST * BURSTS;
        wires
            .client
            .set_patience(std::time::Duration::from_millis(500));
        wait_for("a cell through the new gateway", || {
            message += 1;
            wires.send(message);
            wires.client.cell()
        });
        wires.stop();
    });
}

#[test]
fn cells_leave_by_the_tx_ring() {
    through_the_ring(true, 1);
}

#[test]
fn cells_leave_by_the_tx_ring_over_ipv6() {
    through_the_ring(false, 1);
}

#[test]
fn cells_leave_by_the_tx_rings_of_one_worker() {
    through_the_ring(true, 4);
}

#[test]
fn each_queue_has_a_worker() {
    const QUEUES: usize = 4;
    const CLIENTS: usize = 64;
    Network::run(1, QUEUES, |network| {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::start_at(Network::hub_address(true), Parameters::default());
        let metrics = "198.51.0.2:9300";
        let more = format!("workers: {QUEUES}\nport: xdp\nmetrics: \"{metrics}\"\n");
        let mut relay = Relay::at(
            Network::address(0, true),
            Some(&network.relay(0)),
            folder.path(),
            "relay",
            &directory,
            &more,
        );
        relay.start_and_register();
        let report = relay.report();
        assert!(
            report.port.why.contains(&format!("{QUEUES} queues")),
            "{}",
            report.port.why
        );
        let key = directory.relay("relay").unwrap().descriptor.link;
        // The kernel spreads flows over the queues by their ports: of so many, each gets some.
        for _ in 0..CLIENTS {
            let mut client = Client::at(Network::hub_address(true));
            let link = client.connect(relay.address, &key);
            client.say(link, &Control::Ping(7));
            assert_eq!(client.control(), Some((link, Control::Pong(7))));
        }
        relay.expect("control", CLIENTS as u64);
        let report = relay.report();
        assert_eq!(report.xdp.get("no_socket").copied().unwrap_or_default(), 0);
        // A cover datagram and a ping of each client.
        assert_eq!(report.xdp["redirected"], 2 * CLIENTS as u64);
        for worker in 0..QUEUES {
            let wanted = format!("{{worker=\"{worker}\",verdict=\"control\"}} ");
            let text = crate::relaying::metrics(metrics.parse().unwrap());
            let line = text.lines().find(|line| line.contains(&wanted));
            let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            assert!(count > Some(0), "worker {worker}: {line:?}");
        }
        relay.stop();
    });
}
