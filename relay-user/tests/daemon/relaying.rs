//! Cells through two relays and back to a client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mixline_protocol::link::CellKind;
use mixline_protocol::link::control::Control;
use mixline_protocol::records::Parameters;

use crate::directory::Directory;
use crate::process::{Relay, wait_for};
use mixline_testnet::link_client::Client;
pub use mixline_testnet::link_path::{Path, onion};

/// Cells that are sent at once: as many as the client's socket has room for.
const CELLS: u64 = 50;

#[test]
fn cells_go_through_and_replays_do_not() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::start(Parameters::default());
    let metrics = crate::process::free_address();
    let metrics_line = format!("metrics: \"{metrics}\"\n");
    let mut first = Relay::new(parent.path(), "first", &directory, "workers: 2\n");
    let mut last = Relay::new(parent.path(), "last", &directory, &metrics_line);
    first.start_and_register();
    last.start_and_register();
    // Both know of both.
    wait_for("a snapshot with both", || {
        (first.report().directory.relays == Some(2) && last.report().directory.relays == Some(2))
            .then_some(())
    });
    let (one, two) = (
        directory.relay("first").unwrap(),
        directory.relay("last").unwrap(),
    );
    let mut client = Client::local();
    let to_first = client.connect(first.address, &one.descriptor.link);
    let to_last = client.connect(last.address, &two.descriptor.link);
    let path = Path::new(&one, &two, 4711);
    client.register(to_last, path.token);

    // All at once, on a path that nobody knows, over a link that is not there yet: none of
    // them is lost. Cells that come at the moment when the link does may overtake those that
    // wait for it.
    for message in 0..CELLS {
        client.send(to_first, &path.cell(message), CellKind::Cell);
    }
    let mut messages: Vec<u64> = (0..CELLS)
        .map(|_| {
            let (link, cell) = client.cell().expect("a cell");
            assert_eq!(link, to_last);
            path.message(&cell)
        })
        .collect();
    messages.sort_unstable();
    assert!(messages.into_iter().eq(0..CELLS));
    first.expect("forwarded", CELLS);
    last.expect("delivered", CELLS);
    wait_for("links in the reports", || {
        let (first, last) = (first.report().links, last.report().links);
        ((
            first.relays,
            first.clients,
            last.relays,
            last.clients,
            last.mailboxes,
        ) == (1, 1, 1, 1, 1))
            .then_some(())
    });

    // The same message again, under fresh link encryption; a datagram of a wrong length; one
    // that was changed.
    client.send(to_first, &path.cell(5), CellKind::Cell);
    client.send_raw(to_first, &[4; 1407]);
    let mut changed = [0; 1408];
    client
        .seal_key(to_first)
        .seal(&mut changed, CellKind::Cell)
        .unwrap();
    changed[1000] ^= 1;
    client.send_raw(to_first, &changed);
    client.send(to_first, &path.cell(1000), CellKind::Cell);
    assert_eq!(path.message(&client.cell().unwrap().1), 1000);
    first.expect("replay", 1);
    first.expect("wrong_length", 1);
    first.expect("link_authentication", 1);
    client.say(to_first, &Control::Ping(99));
    assert_eq!(client.control(), Some((to_first, Control::Pong(99))));

    shows_itself(&last, metrics);

    // A relay that stops says so to its neighbours.
    last.stop();
    assert_eq!(client.control(), Some((to_last, Control::Close)));
    wait_for("the link's end", || {
        (first.report().links.relays == 0).then_some(())
    });
    remembers_after_a_clean_stop(&mut last, &mut client, &path, to_first, &directory);
    first.stop();
}

/// Status for people, for programs, and metrics.
fn shows_itself(relay: &Relay, metrics: SocketAddr) {
    let text = relay.status(false);
    assert!(text.status.success());
    let text = String::from_utf8(text.stdout).unwrap();
    for wanted in [
        "relay        last ",
        "port         udp: ",
        "2 relays",
        "51 delivered",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let json = relay.status(true);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["verdicts"]["delivered"], CELLS + 1);
    assert_eq!(json["directory"]["listed"], true);
    assert!(json["memory_bytes"].as_u64().unwrap() > 1 << 20);
    let answer = self::metrics(metrics);
    for wanted in [
        "mixline_relay_datagrams_total{worker=\"0\",verdict=\"delivered\"} 51\n",
        "mixline_relay_paths 1\n",
        "mixline_relay_directory_problem 0\n",
    ] {
        assert!(answer.contains(wanted), "{wanted}: {answer}");
    }
}

/// What the relay shows to Prometheus.
pub fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut answer = String::new();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// After a clean stop, onion keys and replay memory are as they were: the path still
/// works, and what was relayed before is still known.
fn remembers_after_a_clean_stop(
    last: &mut Relay,
    client: &mut Client,
    path: &Path,
    to_first: usize,
    directory: &Directory,
) {
    last.start_and_register();
    let two = directory.relay("last").unwrap();
    let to_last = client.connect(last.address, &two.descriptor.link);
    client.register(to_last, path.token);
    // Straight to the last relay, under the header that the first one makes: the cells that
    // it has relayed come again through the first, which remembers, too; so a new one.
    client.send(to_first, &path.cell(2000), CellKind::Cell);
    let (link, cell) = client
        .cell()
        .expect("a cell through the relay that was away");
    assert_eq!((link, path.message(&cell)), (to_last, 2000));
    client.set_patience(Duration::from_millis(300));
    client.send(to_first, &path.cell(7), CellKind::Cell);
    assert_eq!(client.cell(), None);
}
