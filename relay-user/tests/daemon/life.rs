//! Stops, crashes, restarts, epochs.

use std::os::unix::fs::PermissionsExt;

use mixline_protocol::records::Parameters;
use mixline_relay::testing::Erasable;
use nix::sys::signal::Signal;

use crate::directory::Directory;
use crate::process::wait_for;
use crate::relaying::onion;
use crate::setting::Setting;

#[test]
fn a_clean_stop_keeps_the_onion_keys_and_a_crash_does_not() {
    let mut setting = Setting::new("").registered();
    // A message that the relay delivers, and has to remember.
    let descriptor = setting.descriptor();
    let mut traffic = setting.traffic();
    traffic.goes_round(1);
    let Setting {
        relay, directory, ..
    } = &mut setting;
    let key = |directory: &Directory| onion(&directory.relay("relay").unwrap(), 3600);
    let (first, id) = (key(directory), relay.report().id);

    relay.stop();
    for entry in std::fs::read_dir(&relay.state).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let socket = entry.file_name() == "control.sock";
        assert!(socket || mode == 0o600, "{:?} {mode:o}", entry.file_name());
    }
    let version = directory.relay("relay").unwrap().descriptor.version;
    relay.start();
    let renewed = || {
        directory
            .relay("relay")
            .filter(|relay| relay.descriptor.version > version)
    };
    wait_for("a new registration", renewed);
    assert_eq!((relay.report().id, key(directory)), (id.clone(), first));
    // The message from before the stop is a replay; another one is not.
    traffic.connect_again(relay, &descriptor);
    traffic.send(1);
    traffic.goes_round(2);
    relay.expect("replay", 1);

    relay.signal(Signal::SIGKILL);
    let version = directory.relay("relay").unwrap().descriptor.version;
    relay.start();
    wait_for("a new registration", || {
        directory
            .relay("relay")
            .filter(|relay| relay.descriptor.version > version)
    });
    assert_eq!(relay.report().id, id);
    assert_ne!(key(directory), first);
    traffic.connect_again(relay, &descriptor);
    traffic.send(3);
    relay.expect("bad_header", 1);
    relay.stop();
}

#[test]
fn a_relay_says_first_where_it_registers_from() {
    let more = "advertise: [\"192.0.2.1:7000\", \"192.0.2.2:7000\", \"127.0.0.1:7000\"]\n";
    let mut setting = Setting::new(more).registered();
    let addresses = setting.descriptor().descriptor.addresses;
    let text: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["127.0.0.1:7000", "192.0.2.1:7000", "192.0.2.2:7000"]);
    setting.relay.stop();
}

/// Others count on it: the first address is proven, the rest is what the relay says.
#[test]
fn a_directory_that_is_full_changes_nothing_of_where_a_relay_says_that_it_is() {
    let setting = Setting::new("advertise: [\"127.0.0.1:7000\", \"192.0.2.1:7000\"]\n");
    setting.directory.is_full_for(2);
    let mut setting = setting.registered();
    let first = setting.directory.first_addresses();
    assert!(first.len() > 2);
    for address in first {
        assert_eq!(address.to_string(), "127.0.0.1:7000");
    }
    setting.relay.stop();
}

#[test]
fn epochs_roll_over() {
    let parameters = Parameters {
        epoch_seconds: 2,
        grace_seconds: 1,
        ..Parameters::default()
    };
    let mut setting = Setting::with(parameters, "").registered();
    let relay = &mut setting.relay;
    let first = relay.report().onion_epochs;
    assert!(first.len() >= 4, "{first:?}");
    let later = wait_for("two more epochs", || {
        Some(relay.report().onion_epochs).filter(|epochs| epochs[0] > first[1])
    });
    assert!(later.len() <= 5, "{later:?}");
    // Those of the past are not on the disk either: version 1, seconds 4, grace 4, count 1.
    let stored = Erasable::new(relay.state.clone(), "onion.keys").read(1000);
    let stored = stored.unwrap().unwrap();
    let oldest = u32::from_be_bytes(*stored[10..].first_chunk().unwrap());
    assert!(oldest > first[1], "{oldest} {first:?}");
    relay.stop();
}

#[test]
fn an_interrupt_stops_too_and_the_address_is_free_again() {
    let mut setting = Setting::new("");
    let relay = &mut setting.relay;
    relay.start();
    let status = relay.signal(Signal::SIGINT);
    assert!(status.success());
    assert!(relay.state.join("clean").exists());
    relay.start();
    assert!(!relay.state.join("clean").exists());
    relay.stop();
}
