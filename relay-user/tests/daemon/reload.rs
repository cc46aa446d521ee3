//! A configuration that changes while the relay runs.

use std::net::{SocketAddr, TcpListener, TcpStream};
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
            .filter(|relay| relay.descriptor.capacity == 2000)
    });
    assert_eq!(registered.descriptor.family.as_deref(), Some("other"));
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
    let answer = "changed: log, capacity\ncounts after a restart: mean_delay_ms, workers\n";
    assert_eq!(says(relay), answer);
    // What needs a restart still does.
    let answer = "nothing changes\ncounts after a restart: mean_delay_ms, workers\n";
    assert_eq!(says(relay), answer);
    assert_eq!(relay.report().workers, 1);

    relay.change("capacity: 2000", "capactiy: 3000");
    let (_, error) = relay.reload();
    assert!(error.contains("`capactiy`"), "{error}");
    // That was the command's own look at the file; the relay's own comes out the same.
    relay.change("capactiy: 3000", "capacity: 3000");
    assert_eq!(
        says(relay),
        "changed: capacity\ncounts after a restart: mean_delay_ms, workers\n"
    );
    relay.stop();
}

/// Whether somebody listens there.
fn is_served(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

fn free_tcp_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn metrics_move_and_a_place_that_cannot_be_had_changes_nothing() {
    let mut setting = Setting::new("capacity: 1000\n");
    let relay = &mut setting.relay;
    relay.start();
    let (first, second) = (free_tcp_address(), free_tcp_address());
    relay.change(
        "capacity: 1000\n",
        &format!("capacity: 1000\nmetrics: \"{first}\"\n"),
    );
    assert_eq!(relay.reload().0, "changed: metrics\n");
    assert!(is_served(first));
    relay.change(&first.to_string(), &second.to_string());
    assert_eq!(relay.reload().0, "changed: metrics\n");
    assert!(is_served(second));
    wait_for("the first place to be free", || {
        (!is_served(first)).then_some(())
    });

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    relay.change(&second.to_string(), &taken.to_string());
    relay.change("capacity: 1000", "capacity: 2000");
    let (_, error) = relay.reload();
    assert!(
        error.contains("metrics") && error.contains("in use"),
        "{error}"
    );
    assert_eq!(relay.report().capacity, 1000);
    assert!(is_served(second));
    drop(other);
    assert_eq!(relay.reload().0, "changed: capacity, metrics\n");
    relay.stop();
}

#[test]
fn the_directory_is_followed_to_another_address_but_not_to_another_identity() {
    let mut setting = Setting::new("mean_delay_ms: 5\nadvertise: [\"127.0.0.1:7000\"]\n");
    let Setting {
        relay, directory, ..
    } = &mut setting;
    relay.start_and_register();
    let (elsewhere, asked) = directory.also_elsewhere();
    relay.change(&directory.url(), &format!("http://{elsewhere}"));
    relay.change("mean_delay_ms: 5", "mean_delay_ms: 7");
    relay.change("127.0.0.1:7000", "127.0.0.1:7001");
    assert_eq!(
        relay.reload().0,
        "changed: directory.url, advertise, mean_delay_ms\n"
    );
    let moved = wait_for("the new address in the descriptor", || {
        directory
            .relay("relay")
            .filter(|relay| relay.descriptor.addresses[0].port() == 7001)
    });
    assert_eq!(moved.descriptor.addresses.len(), 1);
    // A registration and a snapshot, at the least.
    wait_for("the directory to be asked there", || {
        (asked.load(std::sync::atomic::Ordering::Relaxed) >= 2).then_some(())
    });
    let report = relay.report();
    assert_eq!(report.directory.url, format!("http://{elsewhere}"));
    assert_eq!(report.advertise[0].port(), 7001);

    relay.change(&directory.id.to_string(), &"a".repeat(52));
    relay.change("mean_delay_ms: 7", "mean_delay_ms: 0");
    assert_eq!(
        relay.reload().0,
        "nothing changes\ncounts after a restart: directory, mean_delay_ms\n"
    );
    relay.stop();
}
