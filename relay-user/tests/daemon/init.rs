//! A new relay from one line.

use std::fs;
use std::process::{Command, Output, Stdio};

use mixline_protocol::records::Parameters;
use mixline_testnet::netns::{self, ip_in};

use crate::directory::Directory;
use crate::network::Network;
use crate::process::{PROGRAM, Relay, free_address};

fn init(directory: &Directory, parent: &std::path::Path, more: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("init")
        .arg(format!("mixline:{}@{}", directory.id, directory.url()))
        .arg("--config")
        .arg(parent.join("etc/relay.yaml"))
        .arg("--state-dir")
        .arg(parent.join("state"))
        .args(["--port", "udp"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn one_line_makes_a_relay_that_registers_and_is_never_overwritten() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let address = free_address().to_string();
    let flags = ["--name", "fresh", "--listen", &address, "--yes"];
    let output = init(&directory, parent.path(), &flags);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("etc/relay.yaml and the keys in"), "{text}");
    // The doctor's findings, and what is to be done, as systemd has another configuration.
    assert!(
        text.contains("kernel") && text.contains("mixline-relay --config"),
        "{text}"
    );

    let config = parent.path().join("etc/relay.yaml");
    let mut relay = Relay::of(&config, &parent.path().join("state"), &address);
    let key = fs::read(relay.state.join("identity.key")).unwrap();
    relay.start_and_register();
    let registered = directory.relay("fresh").unwrap();
    assert_eq!(registered.descriptor.addresses, [relay.address]);
    relay.stop();

    let yaml = fs::read_to_string(&config).unwrap();
    let again = init(&directory, parent.path(), &flags);
    let error = String::from_utf8(again.stderr).unwrap();
    assert!(
        !again.status.success() && error.contains("exists already"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), yaml);
    // Keys that are there are kept, though there is no configuration any more.
    fs::remove_file(&config).unwrap();
    init(&directory, parent.path(), &flags);
    assert_eq!(fs::read(relay.state.join("identity.key")).unwrap(), key);
    assert!(config.exists());
}

#[test]
fn without_a_person_the_missing_flags_are_named_and_nothing_is_made() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let output = init(&directory, parent.path(), &["--interface", "lo"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        error.contains("missing: --name NAME, --advertise ADDRESS:PORT"),
        "{error}"
    );
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    let output = Command::new(PROGRAM)
        .args(["init", "mixline:nobody@http://host"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && error.contains("names no network"),
        "{error}"
    );
}

#[test]
fn a_wrong_file_for_the_first_boot_is_named_and_left_for_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mixline-relay.yaml");
    let first_boot = || {
        Command::new(PROGRAM)
            .arg("first-boot")
            .arg(&file)
            .output()
            .unwrap()
    };
    for (text, what) in [
        ("network: nowhere\nname: x\n", "names no network"),
        ("#cloud-config\npackages: [nmap]\n", "packages"),
        ("name: x: y", "line 1"),
    ] {
        fs::write(&file, text).unwrap();
        let output = first_boot();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}: {error}");
        assert!(
            error.contains("mixline-relay.yaml: ") && error.contains(what),
            "{error}"
        );
    }
    fs::remove_file(&file).unwrap();
    let error = String::from_utf8(first_boot().stderr).unwrap();
    assert!(error.starts_with("cannot read "), "{error}");
}

/// Runs `init` without a port asked for, in a namespace: the configuration that it writes.
fn proposed(namespace: &str, directory: &Directory, more: &[&str]) -> String {
    let parent = tempfile::tempdir().unwrap();
    let config = parent.path().join("relay.yaml");
    let output = netns::command(namespace, PROGRAM)
        .arg("init")
        .arg(format!("mixline:{}@{}", directory.id, directory.url()))
        .arg("--config")
        .arg(&config)
        .arg("--state-dir")
        .arg(parent.path().join("state"))
        .args(["--name", "fresh", "--yes"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.is_empty(), "{error}");
    fs::read_to_string(config).unwrap()
}

#[test]
fn the_port_is_what_the_interface_can_have_and_the_interface_is_named_where_need_be() {
    Network::run(1, 1, |network| {
        let directory = Directory::start_at(Network::hub_address(true), Parameters::default());
        let namespace = network.relay(0);
        // The way out is a pair of veth, which has native XDP.
        let yaml = proposed(&namespace, &directory, &[]);
        for wanted in [
            "\nport: auto\n",
            "\nlisten: [\"0.0.0.0:7000\", \"[::]:7000\"]\n",
            "\nadvertise: [\"198.51.0.2:7000\", \"[2001:db8::2]:7000\"]\n",
        ] {
            assert!(yaml.contains(wanted), "{wanted}: {yaml}");
        }
        assert!(!yaml.contains("interface:"), "{yaml}");
        // Behind a translator, nothing but the route says which interface it is.
        let outer = ["--advertise", "203.0.113.7:443"];
        let yaml = proposed(&namespace, &directory, &outer);
        for wanted in [
            "\nport: auto\n",
            "\ninterface: relay0\n",
            "\nlisten: [\"0.0.0.0:443\"]\n",
        ] {
            assert!(yaml.contains(wanted), "{wanted}: {yaml}");
        }
        let bridge = "link add br0 type bridge\n\
                      addr add 203.0.113.9/24 dev br0\n\
                      link set br0 up\n";
        ip_in(&namespace, bridge).unwrap();
        let yaml = proposed(&namespace, &directory, &["--interface", "br0"]);
        for wanted in [
            "\n# udp: br0 is a bridge on ",
            "\nport: udp\n",
            "\nadvertise: [\"203.0.113.9:7000\"]\n",
        ] {
            assert!(yaml.contains(wanted), "{wanted}: {yaml}");
        }
        // What is asked for is written.
        let asked = ["--interface", "br0", "--port", "xdp-filter"];
        let yaml = proposed(&namespace, &directory, &asked);
        assert!(yaml.contains("\nport: xdp-filter\n"), "{yaml}");
    });
}
