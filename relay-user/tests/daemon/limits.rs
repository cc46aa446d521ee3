//! What a relay may send.

use std::fs;
use std::process::Command;

use mixline_protocol::link::CellKind;
use mixline_protocol::records::Parameters;
use mixline_testnet::link_client::Client;

use crate::directory::Directory;
use crate::process::{PROGRAM, Relay, wait_for};
use crate::relaying::Path;

/// Cells that are sent at once: as many as a socket has room for.
const AT_ONCE: u64 = 50;

/// Sends cells with these numbers over a path that the relay knows, and waits until each has an
/// outcome: those delivered, those over the bandwidth.
fn send(
    relay: &Relay,
    client: &Client,
    link: usize,
    path: &Path,
    numbers: std::ops::Range<u64>,
) -> (u64, u64) {
    let counts = || {
        let verdicts = relay.report().verdicts;
        (verdicts["delivered"], verdicts["bandwidth_limit"])
    };
    let before = counts();
    let cells: Vec<u64> = numbers.collect();
    for (round, some) in cells.chunks(AT_ONCE as usize).enumerate() {
        for number in some {
            client.send(link, &path.cell(*number), CellKind::Cell);
        }
        let sent = round as u64 * AT_ONCE + some.len() as u64;
        wait_for("an outcome of each cell", || {
            let (delivered, over) = counts();
            (delivered - before.0 + over - before.1 == sent).then_some(())
        });
    }
    let after = counts();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_relay_sends_no_more_than_its_bandwidth() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    // 100 datagrams a second, and 64 at once.
    let mut relay = Relay::new(
        parent.path(),
        "relay",
        &directory,
        "bandwidth: 145600\ncontact: ops@example.org\n",
    );
    relay.start_and_register();
    let descriptor = directory.relay("relay").unwrap();
    assert_eq!(descriptor.capacity, 100);
    let text = String::from_utf8(relay.status(false).stdout).unwrap();
    assert!(
        text.contains("bandwidth    at most 145.6 kB/s are sent"),
        "{text}"
    );
    assert!(text.contains("contact      ops@example.org"), "{text}");

    let path = Path::new(&descriptor, &descriptor, 9);
    let mut client = Client::local();
    let link = client.connect(relay.address, &descriptor.link);
    client.register(link, path.token);
    client.send(link, &path.cell(0), CellKind::Cell);
    assert_eq!(path.message(&client.cell().unwrap().1), 0);
    let began = std::time::Instant::now();
    let (delivered, over) = send(&relay, &client, link, &path, 1..1001);
    let most = 64 + 2 * 16 + 100 * (began.elapsed().as_millis() as u64 + 50) / 1000;
    assert!(
        delivered <= most && over > 0,
        "{delivered} of {most}, {over} over"
    );
    assert_eq!(delivered + over, 1000);

    // Without the key there is no limit, and no restart is needed.
    let yaml = fs::read_to_string(&relay.config).unwrap();
    fs::write(&relay.config, yaml.replace("bandwidth: 145600\n", "")).unwrap();
    let output = Command::new(PROGRAM)
        .args(["reload", "--config"])
        .arg(&relay.config)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "changed: bandwidth\n"
    );
    assert_eq!(send(&relay, &client, link, &path, 2000..2500), (500, 0));
    relay.stop();
}

#[test]
fn a_relay_that_has_used_up_its_month_hibernates_also_after_a_restart_until_it_may_send_more() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    // 100 cells.
    let mut relay = Relay::new(parent.path(), "relay", &directory, "monthly: 145600\n");
    relay.start_and_register();
    let descriptor = directory.relay("relay").unwrap();
    let path = Path::new(&descriptor, &descriptor, 9);
    let mut client = Client::local();
    let link = client.connect(relay.address, &descriptor.link);
    client.register(link, path.token);
    client.send(link, &path.cell(0), CellKind::Cell);
    assert_eq!(path.message(&client.cell().unwrap().1), 0);
    assert_eq!(send(&relay, &client, link, &path, 1..100), (99, 0));
    wait_for("hibernation", || relay.report().hibernating.then_some(()));
    let last = wait_for("the farewell", || {
        directory
            .relay("relay")
            .filter(|last| last.version > descriptor.version)
    });
    assert_eq!(last.expires.since(last.issued), 10);
    // What a worker had taken before, and no more.
    let (delivered, over) = send(&relay, &client, link, &path, 100..200);
    assert!(delivered < 16 && over > 84, "{delivered} {over}");
    let text = String::from_utf8(relay.status(false).stdout).unwrap();
    assert!(text.contains("hibernating  `monthly` is used up"), "{text}");

    // A restart remembers.
    relay.stop();
    relay.start();
    let report = relay.report();
    assert!(report.hibernating);
    assert_eq!(report.volume.unwrap().sent, (100 + delivered) * 1456);
    // More room wakes it, and the directory has it again.
    let yaml = fs::read_to_string(&relay.config).unwrap();
    fs::write(&relay.config, yaml.replace("145600", "1 GB")).unwrap();
    let output = Command::new(PROGRAM)
        .args(["reload", "--config"])
        .arg(&relay.config)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "changed: monthly\n"
    );
    wait_for("the relay's return", || {
        (!relay.report().hibernating).then_some(())
    });
    let back = wait_for("a registration", || {
        directory
            .relay("relay")
            .filter(|back| back.expires.since(back.issued) > 10)
    });
    let link = client.connect(relay.address, &back.link);
    client.register(link, path.token);
    assert_eq!(send(&relay, &client, link, &path, 200..250), (50, 0));
    relay.stop();
}
