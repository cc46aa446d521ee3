//! What is wrong is said in one line.

use std::fs;
use std::net::UdpSocket;

use mixline_protocol::records::Parameters;

use crate::directory::Directory;
use crate::process::{Relay, refused, wait_for};

fn relay(parent: &std::path::Path, more: &str) -> (Directory, Relay) {
    let directory = Directory::start(Parameters::default());
    let relay = Relay::new(parent, "relay", &directory, more);
    (directory, relay)
}

#[test]
fn a_wrong_key() {
    let parent = tempfile::tempdir().unwrap();
    let (_directory, relay) = relay(parent.path(), "wrokers: 2\n");
    let error = relay.refused();
    assert!(
        error.contains("`wrokers`") && error.contains("line 7"),
        "{error}"
    );
}

#[test]
fn an_address_in_use() {
    let parent = tempfile::tempdir().unwrap();
    let (_directory, relay) = relay(parent.path(), "");
    let _taken = UdpSocket::bind(relay.address).unwrap();
    let error = relay.refused();
    assert!(error.contains(&relay.address.to_string()), "{error}");
    assert!(error.contains("another program has it"), "{error}");
}

#[test]
fn an_address_that_is_not_ours() {
    let parent = tempfile::tempdir().unwrap();
    let (_directory, relay) = relay(parent.path(), "");
    let yaml = fs::read_to_string(&relay.config).unwrap();
    let elsewhere = yaml.replace(&relay.address.to_string(), "192.0.2.77:7000");
    fs::write(&relay.config, elsewhere).unwrap();
    let error = relay.refused();
    assert!(error.contains("no interface of this machine"), "{error}");
}

#[test]
fn a_metrics_address_in_use() {
    let parent = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!("metrics: \"{}\"\n", taken.local_addr().unwrap());
    let (_directory, relay) = relay(parent.path(), &line);
    let error = relay.refused();
    assert!(
        error.contains("(metrics)") && error.contains("another program"),
        "{error}"
    );
}

#[test]
fn a_state_directory_in_use_or_unwritable() {
    let parent = tempfile::tempdir().unwrap();
    let (_directory, mut first) = relay(parent.path(), "");
    first.start();
    let yaml = fs::read_to_string(&first.config).unwrap();
    let other = parent.path().join("other.yaml");
    let port = crate::process::free_address();
    let yaml = yaml.replace(&first.address.to_string(), &port.to_string());
    fs::write(&other, &yaml).unwrap();
    let error = refused(&["--config", other.to_str().unwrap()]);
    assert!(error.contains("another relay runs on it"), "{error}");
    // A file where the directory should be: that not even root can write.
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("state");
    let state = first.state.to_str().unwrap();
    fs::write(&other, yaml.replace(state, below.to_str().unwrap())).unwrap();
    let error = refused(&["--config", other.to_str().unwrap()]);
    assert!(
        error.contains("cannot make") && error.contains("file/state"),
        "{error}"
    );
    first.stop();
}

#[test]
fn status_of_a_relay_that_does_not_run() {
    let parent = tempfile::tempdir().unwrap();
    let (_directory, relay) = relay(parent.path(), "");
    let output = relay.status(false);
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("no relay answers") && error.lines().count() == 1,
        "{error}"
    );
    let error = refused(&["--config", "/nowhere/relay.yaml"]);
    assert!(error.contains("cannot read /nowhere/relay.yaml"), "{error}");
}

#[test]
fn directories_that_do_not_help() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, mut relay) = relay(parent.path(), "");
    let problem = |relay: &Relay, wanted: &str| {
        wait_for(wanted, || {
            relay
                .report()
                .directory
                .last_error
                .filter(|error| error.contains(wanted))
        })
    };
    // Somebody else's signature: nothing of it is believed.
    directory.forge(true);
    relay.start();
    problem(&relay, "bad signature");
    assert_eq!(relay.report().directory.relays, None);
    let text = String::from_utf8(relay.status(false).stdout).unwrap();
    assert!(text.contains("problem      the snapshot"), "{text}");
    // A clock that is wrong by an hour.
    directory.forge(false);
    directory.set_ahead(3600);
    let error = problem(&relay, "clock");
    assert!(error.contains("60 minutes behind"), "{error}");
    // All is well again, without a restart.
    directory.set_ahead(0);
    wait_for("registration", || relay.report().directory.registered_s_ago);
    wait_for("no problem", || {
        relay.report().directory.last_error.is_none().then_some(())
    });
    relay.stop();
}

#[test]
fn a_directory_that_is_not_there() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, mut relay) = relay(parent.path(), "");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let yaml = fs::read_to_string(&relay.config).unwrap();
    let url = format!("http://{nobody}");
    fs::write(&relay.config, yaml.replace(&directory.url(), &url)).unwrap();
    relay.start();
    let error = wait_for("a problem", || relay.report().directory.last_error);
    assert!(
        error.contains(&url) && error.contains("unreachable"),
        "{error}"
    );
    relay.stop();
}
