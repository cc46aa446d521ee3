//! The XDP program comes with the relay and goes with it, however that ends.

use mixline_protocol::link::control::Control;
use nix::sys::signal::Signal;

use crate::network::Network;
use crate::process::{Relay, wait_for};
use crate::setting::Setting;
use mixline_testnet::link_client::Client;

fn comes_and_goes(kind: &'static str) {
    Network::run(1, 2, move |network| {
        let mut setting = Setting::within(network, &format!("port: {kind}\n"));
        let relay = &mut setting.relay;
        let runs = |relay: &Relay| {
            let port = relay.report().port;
            assert_eq!(port.kind, kind);
            assert!(port.why.contains("native"), "{}", port.why);
            assert!(network.has_program(0));
        };
        assert!(!network.has_program(0));
        relay.start_and_register();
        runs(relay);
        relay.stop();
        assert!(!network.has_program(0), "left behind by a clean stop");

        relay.start();
        runs(relay);
        // Killed, and started again at once, some times: the queues and the interface are free.
        for _ in 0..5 {
            assert!(!relay.signal(Signal::SIGKILL).success());
            relay.start();
            runs(relay);
        }
        assert!(!relay.signal(Signal::SIGKILL).success());
        wait_for("the program's end", || {
            (!network.has_program(0)).then_some(())
        });
        relay.start_and_register();
        runs(relay);
        assert!(relay.signal(Signal::SIGINT).success());
        assert!(!network.has_program(0), "left behind by an interrupt");
    });
}

/// Frames arrive cut, as with a card whose buffers are too small under XDP: within seconds the relay
/// gives XDP up, says why, and is reached by UDP.
fn gives_up_when_frames_are_cut(kind: &'static str) {
    Network::run(1, 2, move |network| {
        let mut setting = Setting::within(network, &format!("port: {kind}\n"));
        let relay = &mut setting.relay;
        relay.start_and_register();
        assert!(network.has_program(0));
        // Nothing else comes meanwhile.
        let mut cutter = network.cutter(0, relay.address, 1024);
        wait_for("XDP to be given up", || {
            cutter.send();
            (relay.report().port.kind == "udp").then_some(())
        });
        let report = relay.report();
        assert!(
            report.port.why.contains("arrived cut"),
            "{}",
            report.port.why
        );
        assert!(report.xdp["cut"] > 0, "{:?}", report.xdp);
        assert!(!network.has_program(0), "still attached");
        let key = setting.directory.relay("relay").unwrap().descriptor.link;
        let mut client = Client::at(Network::hub_address(true));
        let link = client.connect(relay.address, &key);
        client.say(link, &Control::Ping(7));
        assert_eq!(client.control(), Some((link, Control::Pong(7))));
        relay.stop();
    });
}

#[test]
fn xdp_is_given_up_when_its_interface_goes() {
    Network::run(1, 2, |network| {
        let mut setting = Setting::within(network, "port: xdp\n").registered();
        let relay = &mut setting.relay;
        network.remove_interface(0);
        wait_for("XDP to be given up", || {
            (relay.report().port.kind == "udp").then_some(())
        });
        let why = relay.report().port.why;
        assert!(why.contains("the interface is gone"), "{why}");
        relay.stop();
    });
}

#[test]
fn af_xdp_is_given_up_when_frames_are_cut() {
    gives_up_when_frames_are_cut("xdp");
}

#[test]
fn the_filter_is_given_up_when_frames_are_cut() {
    gives_up_when_frames_are_cut("xdp-filter");
}

#[test]
fn on_af_xdp() {
    comes_and_goes("xdp");
}

#[test]
fn as_a_filter() {
    comes_and_goes("xdp-filter");
}
