//! The XDP program comes with the relay and goes with it, however that ends.

use mixline_protocol::records::Parameters;
use nix::sys::signal::Signal;

use crate::directory::Directory;
use crate::network::Network;
use crate::process::{Relay, wait_for};

fn comes_and_goes(kind: &'static str) {
    Network::run(1, 2, move |network| {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::start_at(Network::hub_address(true), Parameters::default());
        let mut relay = Relay::at(
            Network::address(0, true),
            Some(&network.relay(0)),
            folder.path(),
            "relay",
            &directory,
            &format!("port: {kind}\n"),
        );
        let runs = |relay: &Relay| {
            let port = relay.report().port;
            assert_eq!(port.kind, kind);
            assert!(port.why.contains("native"), "{}", port.why);
            assert!(network.has_program(0));
        };
        assert!(!network.has_program(0));
        relay.start_and_register();
        runs(&relay);
        relay.stop();
        assert!(!network.has_program(0), "left behind by a clean stop");

        relay.start();
        runs(&relay);
        // Killed, and started again at once, some times: the queues and the interface are free.
        for _ in 0..5 {
            assert!(!relay.signal(Signal::SIGKILL).success());
            relay.start();
            runs(&relay);
        }
        assert!(!relay.signal(Signal::SIGKILL).success());
        wait_for("the program's end", || {
            (!network.has_program(0)).then_some(())
        });
        relay.start_and_register();
        runs(&relay);
        assert!(relay.signal(Signal::SIGINT).success());
        assert!(!network.has_program(0), "left behind by an interrupt");
    });
}

#[test]
fn on_af_xdp() {
    comes_and_goes("xdp");
}

#[test]
fn as_a_filter() {
    comes_and_goes("xdp-filter");
}
