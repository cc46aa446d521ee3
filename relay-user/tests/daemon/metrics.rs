//! What a relay shows of itself to Prometheus, as Prometheus' own tools see it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mixline_protocol::link::CellKind;
use mixline_protocol::records::Parameters;
use mixline_testnet::link_client::Client;
use mixline_testnet::skip;

use crate::directory::Directory;
use crate::process::{Relay, free_address, wait_for};
use crate::relaying::{self, metrics};

/// Cells that are sent through a relay.
const CELLS: u64 = 40;

/// A relay with metrics that has delivered [`CELLS`] cells.
struct Busy {
    relay: Relay,
    metrics: std::net::SocketAddr,
}

impl Busy {
    fn start(parent: &Path, more: &str) -> Self {
        let directory = Directory::start(Parameters::default());
        let metrics = free_address();
        let more = format!("metrics: \"{metrics}\"\n{more}");
        let mut relay = Relay::new(parent, "relay", &directory, &more);
        relay.start_and_register();
        let descriptor = directory.relay("relay").unwrap();
        let path = relaying::Path::new(&descriptor, &descriptor, 9);
        let mut client = Client::local();
        let link = client.connect(relay.address, &descriptor.link);
        client.register(link, path.token);
        for message in 0..CELLS {
            client.send(link, &path.cell(message), CellKind::Cell);
        }
        for _ in 0..CELLS {
            client.cell().unwrap();
        }
        wait_for("what was delivered to be shown", || {
            (relay.report().inside.datagrams == CELLS).then_some(())
        });
        Self { relay, metrics }
    }

    fn text(&self) -> String {
        let answer = metrics(self.metrics);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        body.to_owned()
    }
}

/// Whether a program is there; if not, the test says that it is skipped.
pub fn is_there_or_skip(program: &str) -> bool {
    let there = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !there {
        skip::skip(&format!("{program} is missing: cargo xtask setup"));
    }
    there
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics_of_a_relay_at_work() {
    if !is_there_or_skip("promtool") {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let busy = Busy::start(parent.path(), "workers: 2\n");
    let text = busy.text();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    for wanted in [
        concat!(
            "mixline_relay_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
        "mixline_relay_port_info{kind=\"udp\",check=\"\"} 1",
        "mixline_relay_listed 1",
        "mixline_relay_snapshot_relays 1",
        "mixline_relay_handshakes_refused_total 0",
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted}: {text}");
    }
    let sum = |name: &str| -> f64 {
        text.lines()
            .filter(|line| line.starts_with(name))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum()
    };
    assert_eq!(sum("mixline_relay_inside_seconds_count"), CELLS as f64);
    assert_eq!(sum("mixline_relay_sent_bytes_total"), CELLS as f64 * 1408.0);
    assert!(sum("mixline_relay_received_bytes_total") >= CELLS as f64 * 1408.0);
    assert!(sum("process_resident_memory_bytes") > 1e6);
    assert!(sum("process_open_fds") > 5.0);
    assert!(sum("mixline_relay_last_registration_timestamp_seconds") > 1.7e9);
}

#[test]
fn a_delay_counts_as_time_inside() {
    let parent = tempfile::tempdir().unwrap();
    let busy = Busy::start(parent.path(), "mean_delay_ms: 100\n");
    let report = busy.relay.report();
    let inside = report.inside;
    // Half of exponential delays are longer than 69 ms; of forty, the median is near that.
    assert!((20_000.0..400_000.0).contains(&inside.p50_us), "{inside:?}");
    assert!(inside.p50_us < inside.p99_us && inside.p99_us <= inside.p999_us);
    assert_eq!(report.per_worker.len(), 1);
    assert_eq!(report.per_worker[0].sent, CELLS);
    assert!(report.per_worker[0].cpu_s.is_some());
    let text = String::from_utf8(busy.relay.status(false).stdout).unwrap();
    assert!(text.contains("\ninside       p50 "), "{text}");
}
