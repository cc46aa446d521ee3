//! A configuration that changes while the relay runs.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use mixline_daemon::testing::ServiceManager;
use mixline_protocol::records::Parameters;
use nix::sys::signal::{Signal, kill};

use crate::directory::Directory;
use crate::process::{PROGRAM, Relay, wait_for};

fn change(relay: &Relay, from: &str, to: &str) {
    let yaml = fs::read_to_string(&relay.config).unwrap();
    assert!(yaml.contains(from), "{yaml}");
    fs::write(&relay.config, yaml.replace(from, to)).unwrap();
}

fn reload(relay: &Relay) -> Output {
    Command::new(PROGRAM)
        .args(["reload", "--config"])
        .arg(&relay.config)
        .output()
        .unwrap()
}

#[test]
fn a_hangup_changes_what_can_change_in_place_and_nothing_ends() {
    let parent = tempfile::tempdir().unwrap();
    let manager = ServiceManager::listen(&parent.path().join("notify")).unwrap();
    let directory = Directory::start(Parameters::default());
    let mut relay = Relay::new(
        parent.path(),
        "relay",
        &directory,
        "capacity: 1000\nfamily: one\n",
    );
    relay.start_with(|command| manager.supervise(command, None));
    let hears = |line: &str| {
        manager
            .wait_for(line, Duration::from_secs(20))
            .unwrap()
            .unwrap()
    };
    hears("READY=1");
    wait_for("registration", || directory.relay("relay"));
    let before = relay.report();

    change(&relay, "capacity: 1000", "capacity: 2000");
    change(&relay, "family: one", "family: other");
    kill(relay.process(), Signal::SIGHUP).unwrap();
    let told = hears("RELOADING=1");
    assert!(told[1].starts_with("MONOTONIC_USEC="), "{told:?}");
    hears("READY=1");
    // At once, and not when the next registration is due.
    let registered = wait_for("the new descriptor", || {
        directory
            .relay("relay")
            .filter(|relay| relay.capacity == 2000)
    });
    assert_eq!(registered.family.as_deref(), Some("other"));
    let after = relay.report();
    assert_eq!((after.capacity, after.id), (2000, before.id));
    assert_eq!(after.onion_epochs, before.onion_epochs);

    // A second one without a change, and one while the file is wrong: the relay goes on.
    kill(relay.process(), Signal::SIGHUP).unwrap();
    hears("RELOADING=1");
    hears("READY=1");
    change(&relay, "capacity: 2000", "capacity: 0");
    kill(relay.process(), Signal::SIGHUP).unwrap();
    hears("RELOADING=1");
    hears("READY=1");
    assert_eq!(relay.report().capacity, 2000);
    relay.stop();
}

#[test]
fn reload_says_what_changed_what_needs_a_restart_and_what_is_wrong() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let mut relay = Relay::new(parent.path(), "relay", &directory, "capacity: 1000\n");
    let error = String::from_utf8(reload(&relay).stderr).unwrap();
    assert!(error.contains("no relay answers"), "{error}");
    relay.start_with(|command| {
        command.env_remove("MIXLINE_LOG");
    });
    let says = |relay: &Relay| String::from_utf8(reload(relay).stdout).unwrap();
    assert_eq!(says(&relay), "nothing changes\n");
    change(&relay, "capacity: 1000", "capacity: 2000\nlog: warn");
    change(&relay, "workers: 1", "workers: 2\nmean_delay_ms: 5");
    let answer = "changed: log, capacity; counts after a restart: workers, mean_delay_ms\n";
    assert_eq!(says(&relay), answer);
    // What needs a restart still does.
    let answer = "nothing changes; counts after a restart: workers, mean_delay_ms\n";
    assert_eq!(says(&relay), answer);
    assert_eq!(relay.report().workers, 1);

    change(&relay, "capacity: 2000", "capactiy: 3000");
    let output = reload(&relay);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.contains("`capactiy`"), "{error}");
    // That was the command's own look at the file; the relay's own comes out the same.
    change(&relay, "capactiy: 3000", "capacity: 3000");
    assert_eq!(
        says(&relay),
        "changed: capacity; counts after a restart: workers, mean_delay_ms\n"
    );
    relay.stop();
}
