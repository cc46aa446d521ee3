//! A relay that leaves.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mixline_protocol::link::CellKind;

use crate::process::{PROGRAM, Relay, free_address, refused, wait_for};
use crate::relaying::{Path, metrics};
use crate::setting::Setting;

pub fn drain(relay: &Relay, timeout: &str) -> Child {
    Command::new(PROGRAM)
        .args(["drain", "--timeout", timeout, "--config"])
        .arg(&relay.config)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_relay_leaves_when_its_paths_are_gone_and_takes_no_new_ones_before() {
    let shown = free_address();
    let mut setting = Setting::new(&format!("metrics: \"{shown}\"\n")).registered();
    let descriptor = setting.descriptor();
    let mut known = setting.traffic();
    let new = Path::new(&descriptor, &descriptor, 10);
    known.client.register(known.link, new.token);
    known.goes_round(1);

    let Setting {
        relay, directory, ..
    } = &mut setting;
    let leaving = drain(relay, "60");
    wait_for("the relay to leave", || {
        relay.report().leaving.then_some(())
    });
    // The directory hears of it at once.
    wait_for("the farewell", || {
        directory.relay("relay").is_none().then_some(())
    });
    let link = known.link;
    known.client.send(link, &new.cell(2), CellKind::Cell);
    relay.expect("path_refused", 1);
    // The known path goes on as long as it is used.
    let used_until = Instant::now() + Duration::from_secs(12);
    let mut number = 3;
    while Instant::now() < used_until {
        known.goes_round(number);
        number += 1;
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(relay.report().leaving);
    assert!(metrics(shown).contains("\nmixline_relay_leaving 1\n"));
    let status = String::from_utf8(relay.status(false).stdout).unwrap();
    assert!(
        status.contains("leaving      it takes no new paths"),
        "{status}"
    );

    let output = leaving.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("withdrawn from the directory; 2 cells/s still"),
        "{text}"
    );
    assert!(
        text.ends_with("no path is in use: stopping\nstopped\n"),
        "{text}"
    );
    assert!(relay.ended().success());
    assert!(relay.state.join("clean").exists());

    // The next start is as always.
    relay.start_and_register();
    known.path = new;
    known.connect_again(relay, &descriptor);
    known.goes_round(1);
    relay.stop();
}

#[test]
fn the_time_is_up_although_a_path_is_in_use() {
    let setting = Setting::new("");
    let config = setting.relay.config.to_str().unwrap();
    let error = refused(&["drain", "--config", config]);
    assert!(error.contains("no relay answers"), "{error}");
    let mut setting = setting.registered();
    let traffic = setting.traffic();
    traffic.goes_round(1);
    let relay = &mut setting.relay;
    let mut leaving = drain(relay, "3");
    let mut number = 2;
    while leaving.try_wait().unwrap().is_none() {
        traffic.send(number);
        number += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = leaving.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("the time is up"),
        "{text}"
    );
    assert!(relay.ended().success());
}
