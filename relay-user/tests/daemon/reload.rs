//! A configuration that changes while the relay runs.

use std::time::Duration;

use mixline_daemon::testing::ServiceManager;
use nix::sys::signal::{Signal, kill};

use crate::process::{Relay, wait_for};
use crate::setting::Setting;

#[test]
fn a_hangup_changes_what_can_change_in_place_and_nothing_ends() {
    let mut setting = Setting::new("capacity: 1000\nfamily: one\n");
    let manager = ServiceManager::listen(&setting.folder().join("notify")).unwrap();
    let Setting {
        relay, directory, ..
    } = &mut setting;
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

    relay.change("capacity: 1000", "capacity: 2000");
    relay.change("family: one", "family: other");
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
    relay.change("capacity: 2000", "capacity: 0");
    kill(relay.process(), Signal::SIGHUP).unwrap();
    hears("RELOADING=1");
    hears("READY=1");
    assert_eq!(relay.report().capacity, 2000);
    relay.stop();
}

#[test]
fn reload_says_what_changed_what_needs_a_restart_and_what_is_wrong() {
    let mut setting = Setting::new("capacity: 1000\n");
    let relay = &mut setting.relay;
    let (_, error) = relay.reload();
    assert!(error.contains("no relay answers"), "{error}");
    relay.start_with(|command| {
        command.env_remove("MIXLINE_LOG");
    });
    let says = |relay: &Relay| relay.reload().0;
    assert_eq!(says(relay), "nothing changes\n");
    relay.change("capacity: 1000", "capacity: 2000\nlog: warn");
    relay.change("workers: 1", "workers: 2\nmean_delay_ms: 5");
    let answer = "changed: log, capacity; counts after a restart: workers, mean_delay_ms\n";
    assert_eq!(says(relay), answer);
    // What needs a restart still does.
    let answer = "nothing changes; counts after a restart: workers, mean_delay_ms\n";
    assert_eq!(says(relay), answer);
    assert_eq!(relay.report().workers, 1);

    relay.change("capacity: 2000", "capactiy: 3000");
    let (_, error) = relay.reload();
    assert!(error.contains("`capactiy`"), "{error}");
    // That was the command's own look at the file; the relay's own comes out the same.
    relay.change("capactiy: 3000", "capacity: 3000");
    assert_eq!(
        says(relay),
        "changed: capacity; counts after a restart: workers, mean_delay_ms\n"
    );
    relay.stop();
}
