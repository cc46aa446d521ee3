//! A relay that leaves.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mixline_protocol::link::CellKind;
use mixline_protocol::records::Parameters;
use mixline_testnet::link_client::Client;

use crate::directory::Directory;
use crate::process::{PROGRAM, Relay, refused, wait_for};
use crate::relaying::Path;

fn drain(relay: &Relay, timeout: &str) -> Child {
    Command::new(PROGRAM)
        .args(["drain", "--timeout", timeout, "--config"])
        .arg(&relay.config)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_relay_leaves_when_its_paths_are_gone_and_takes_no_new_ones_before() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let mut relay = Relay::new(parent.path(), "relay", &directory, "");
    relay.start_and_register();
    let descriptor = directory.relay("relay").unwrap();
    let known = Path::new(&descriptor, &descriptor, 9);
    let new = Path::new(&descriptor, &descriptor, 10);
    let mut client = Client::local();
    let link = client.connect(relay.address, &descriptor.link);
    client.register(link, known.token);
    client.register(link, new.token);
    client.send(link, &known.cell(1), CellKind::Cell);
    assert_eq!(known.message(&client.cell().unwrap().1), 1);

    let leaving = drain(&relay, "60");
    wait_for("the relay to leave", || {
        relay.report().leaving.then_some(())
    });
    // The directory hears of it at once, by a descriptor that ends.
    let last = wait_for("the farewell", || {
        directory
            .relay("relay")
            .filter(|last| last.version > descriptor.version)
    });
    assert_eq!(last.expires.since(last.issued), 10);
    client.send(link, &new.cell(2), CellKind::Cell);
    relay.expect("path_refused", 1);
    // The known path goes on as long as it is used.
    let used_until = Instant::now() + Duration::from_secs(12);
    let mut number = 3;
    while Instant::now() < used_until {
        client.send(link, &known.cell(number), CellKind::Cell);
        assert_eq!(known.message(&client.cell().unwrap().1), number);
        number += 1;
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(relay.report().leaving);
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
    let link = client.connect(relay.address, &descriptor.link);
    client.register(link, new.token);
    client.send(link, &new.cell(1), CellKind::Cell);
    assert_eq!(new.message(&client.cell().unwrap().1), 1);
    relay.stop();
}

#[test]
fn the_time_is_up_although_a_path_is_in_use() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let mut relay = Relay::new(parent.path(), "relay", &directory, "");
    let error = refused(&["drain", "--config", relay.config.to_str().unwrap()]);
    assert!(error.contains("no relay answers"), "{error}");
    relay.start_and_register();
    let descriptor = directory.relay("relay").unwrap();
    let path = Path::new(&descriptor, &descriptor, 9);
    let mut client = Client::local();
    let link = client.connect(relay.address, &descriptor.link);
    client.register(link, path.token);
    client.send(link, &path.cell(1), CellKind::Cell);
    assert_eq!(path.message(&client.cell().unwrap().1), 1);
    let mut leaving = drain(&relay, "3");
    let mut number = 2;
    while leaving.try_wait().unwrap().is_none() {
        client.send(link, &path.cell(number), CellKind::Cell);
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
