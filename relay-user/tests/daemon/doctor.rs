//! What the doctor says, and with which exit code.

use std::process::{Command, Output};

use mixline_protocol::records::Parameters;
use mixline_relay::doctor::{Diagnosis, Finding, Level};
use mixline_testnet::netns::{self, ip_in};

use crate::directory::Directory;
use crate::network::{INTERFACE, Network};
use crate::process::{PROGRAM, Relay};

/// The diagnosis of a run, whose exit code agrees with it.
fn diagnosis(output: &Output) -> Diagnosis {
    let text = String::from_utf8_lossy(&output.stdout);
    let diagnosis: Diagnosis = serde_json::from_str(&text).unwrap_or_else(|e| {
        panic!("{e}: {text} {}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(
        output.status.code(),
        Some(i32::from(!diagnosis.runs)),
        "{text}"
    );
    diagnosis
}

fn doctor(relay: &Relay) -> Diagnosis {
    let mut command = relay.command();
    command
        .args(["doctor", "--json", "--config"])
        .arg(&relay.config);
    diagnosis(&command.output().unwrap())
}

fn find<'d>(diagnosis: &'d Diagnosis, check: &str) -> &'d Finding {
    let findings = diagnosis
        .sections
        .iter()
        .flat_map(|section| &section.checks);
    let found: Vec<_> = findings.filter(|finding| finding.check == check).collect();
    assert_eq!(found.len(), 1, "{check}: {diagnosis:?}");
    found[0]
}

#[test]
fn a_relay_on_loopback_runs() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let mut relay = Relay::new(parent.path(), "relay", &directory, "");
    let before = doctor(&relay);
    assert!(before.runs, "{before:?}");
    assert_eq!(before.interface.as_deref(), Some("lo"));
    assert!(find(&before, "listen").found.contains("free"));
    assert!(find(&before, "directory").found.contains("0 relays"));
    assert!(!relay.state.exists(), "the doctor makes nothing");
    relay.start();
    let while_running = doctor(&relay);
    assert!(while_running.runs, "{while_running:?}");
    assert!(
        find(&while_running, "listen")
            .found
            .contains("the relay runs")
    );
    relay.stop();

    // Another program has the port, and the directory is another one.
    let _taken = std::net::UdpSocket::bind(relay.address).unwrap();
    directory.forge(true);
    let wrong = doctor(&relay);
    assert!(!wrong.runs);
    for (check, change) in [
        ("listen", "ss -lunp"),
        ("directory", "mixline-directory id"),
    ] {
        let finding = find(&wrong, check);
        assert_eq!(finding.level, Level::Problem);
        assert!(
            finding.change.as_ref().unwrap().contains(change),
            "{finding:?}"
        );
    }
}

#[test]
fn people_and_an_interface_that_is_not_there() {
    let output = Command::new(PROGRAM)
        .args(["doctor", "--interface", "nothere0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("interface nothere0: "), "{text}");
    assert!(text.contains("change: `interface: NAME`"), "{text}");
    assert!(text.lines().last().unwrap().contains("the relay"), "{text}");
}

#[test]
fn a_veth_pair_carries_af_xdp_and_a_bad_mtu_does_not() {
    Network::run(1, 4, |network| {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::start_at(Network::hub_address(true), Parameters::default());
        let name = network.relay(0);
        let mut relay = Relay::at(
            Network::address(0, true),
            Some(&name),
            folder.path(),
            "relay",
            &directory,
            "workers: 4\nport: xdp\n",
        );
        let good = doctor(&relay);
        assert!(good.runs, "{good:?}");
        assert_eq!(good.interface.as_deref(), Some(INTERFACE));
        assert_eq!(find(&good, "driver").found, "veth");
        assert_eq!(find(&good, "native XDP").level, Level::Ok);
        assert_eq!(find(&good, "zero-copy").level, Level::Warning);
        assert!(find(&good, "receive queues").found.starts_with("4, for 4"));
        assert!(!network.has_program(0), "nothing is attached to find out");

        // While the relay runs, its own program is no obstacle, and nothing is tried.
        relay.start();
        let running = doctor(&relay);
        assert!(running.runs, "{running:?}");
        assert!(find(&running, "attached").found.contains("this relay's"));
        assert!(find(&running, "zero-copy").found.contains("not tried"));
        relay.stop();

        ip_in(&name, &format!("link set {INTERFACE} mtu 1400\n")).unwrap();
        let small = doctor(&relay);
        assert!(!small.runs);
        assert_eq!(find(&small, "MTU").level, Level::Problem);
        ip_in(&name, &format!("link set {INTERFACE} mtu 1500\n")).unwrap();
        assert!(doctor(&relay).runs);

        // Root without the capabilities, as in a container.
        let output = netns::command(&name, "setpriv")
            .arg("--bounding-set=-net_admin,-net_raw,-bpf,-sys_admin")
            .args([PROGRAM, "doctor", "--json", "--config"])
            .arg(&relay.config)
            .output()
            .unwrap();
        let less = diagnosis(&output);
        assert!(!less.runs);
        for check in ["capabilities", "XDP program", "AF_XDP sockets"] {
            assert_eq!(find(&less, check).level, Level::Problem, "{check}");
        }
    });
}
