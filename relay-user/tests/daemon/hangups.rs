//! SIGHUP never ends a relay, and a terminal that goes away does not.

use std::time::Duration;

use mixline_daemon::testing::{HeldFile, Terminal};
use nix::sys::signal::{Signal, kill};

use crate::process::wait_for;
use crate::setting::Setting;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_hangup_while_it_reads_its_configuration_is_heard_later() {
    let mut setting = Setting::new("capacity: 1000\n");
    let relay = &mut setting.relay;
    let held = HeldFile::hold(&relay.config).unwrap();
    relay.spawn_with(|_| {});
    // It has done nothing yet but to look for its configuration.
    let reader = held.wait_for_reader(PATIENCE).unwrap();
    for _ in 0..3 {
        kill(relay.process(), Signal::SIGHUP).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    reader.go_on().unwrap();
    wait_for("an answer to status", || relay.try_report());
    relay.stop();
}

#[test]
fn hangups_from_start_to_end_end_nothing() {
    let mut setting = Setting::new("capacity: 1000\n");
    let relay = &mut setting.relay;
    let held = HeldFile::hold(&relay.config).unwrap();
    relay.spawn_with(|_| {});
    let reader = held.wait_for_reader(PATIENCE).unwrap();
    let process = relay.process();
    let hangups = std::thread::spawn(move || {
        // Until it is gone.
        while kill(process, Signal::SIGHUP).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    reader.go_on().unwrap();
    wait_for("an answer to status", || relay.try_report());
    relay.stop();
    hangups.join().unwrap();
}

#[test]
fn a_terminal_that_goes_away_ends_nothing() {
    let mut setting = Setting::new("capacity: 1000\n");
    let terminal = Terminal::open().unwrap();
    let relay = &mut setting.relay;
    relay.spawn_with(|command| {
        *command = terminal.command(command).unwrap();
        command.env("MIXLINE_LOG", "debug");
    });
    wait_for("an answer to status", || relay.try_report());
    assert!(
        terminal.hears("relay is up", PATIENCE),
        "{}",
        terminal.said()
    );
    relay.change("capacity: 1000", "capacity: 2000");
    terminal.close();
    // The hangup is a reload, and what cannot be written down is no reason to end.
    wait_for("the new capacity", || {
        (relay.report().capacity == 2000).then_some(())
    });
    relay.change("capacity: 2000", "capacity: 3000");
    kill(relay.process(), Signal::SIGHUP).unwrap();
    wait_for("the newest capacity", || {
        (relay.report().capacity == 3000).then_some(())
    });
    relay.stop();
}
