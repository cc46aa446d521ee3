//! What a relay shows of itself to Prometheus, as Prometheus' own tools see it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mixline_testnet::skip;

use crate::network::Network;
use crate::process::{free_address, wait_for};
use crate::relaying::metrics;
use crate::setting::Setting;

/// Cells that are sent through a relay.
const CELLS: u64 = 40;

/// A relay with metrics that has delivered [`CELLS`] cells.
struct Busy {
    setting: Setting,
    metrics: SocketAddr,
}

impl Busy {
    fn start(more: &str) -> Self {
        let metrics = free_address();
        let setting = Setting::new(&format!("metrics: \"{metrics}\"\n{more}")).registered();
        let traffic = setting.traffic();
        // First on a path that is not known and holds them, then on one that is.
        for messages in [0..CELLS / 2, CELLS / 2..CELLS] {
            for message in messages.clone() {
                traffic.send(message);
            }
            for _ in messages {
                traffic.received();
            }
        }
        wait_for("what was delivered to be shown", || {
            (setting.relay.report().inside.datagrams == CELLS).then_some(())
        });
        Self { setting, metrics }
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
    let limits = "bandwidth: 20 MB\nmonthly: 2 TB\ncontact: 'ops \"at\" example.org'\n";
    let busy = Busy::start(&format!("workers: 2\n{limits}"));
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
        &format!(
            "mixline_relay_build_info{{version=\"{}\",cpu=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION"),
            mixline_daemon::processor::in_use()
        ),
        "mixline_relay_port_info{kind=\"udp\",check=\"\"} 1",
        "mixline_relay_listed 1",
        "mixline_relay_snapshot_relays 1",
        "mixline_relay_handshakes_refused_total 0",
        "mixline_relay_bandwidth_limit_bytes 20000000",
        "mixline_relay_monthly_limit_bytes 2000000000000",
        "mixline_relay_hibernating 0",
        "mixline_relay_leaving 0",
        &format!(
            "mixline_relay_info{{name=\"relay\",short_id=\"{}\",\
             contact=\"ops \\\"at\\\" example.org\"}} 1",
            busy.setting.relay.report().short_id
        ),
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
fn who_holds_connections_open_keeps_no_one_else_from_the_relay() {
    let address = free_address();
    let mut setting = Setting::new(&format!("metrics: \"{address}\"\n"));
    let relay = &mut setting.relay;
    relay.start();
    // Many more than there may be of one site.
    let mut held: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    held.retain(|stream| {
        let patience = std::time::Duration::from_millis(100);
        stream.set_read_timeout(Some(patience)).unwrap();
        // Closed at once, or without an answer to nothing.
        let mut stream = stream;
        stream
            .read(&mut [0])
            .is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock))
    });
    assert_eq!(held.len(), 8);
    drop(held);
    let text = wait_for("an answer", || {
        Some(metrics(address)).filter(|text| text.contains("mixline_relay_up"))
    });
    let refused = "mixline_relay_metrics_connections_refused_total 9";
    assert!(text.contains(refused), "{text}");
    let open = relay.report().process.open_fds;
    assert!(open < 60, "{open}");
    relay.stop();
}

/// A folder of the files that come with the relay.
fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(name)
}

/// Runs promtool: what it says, and whether it is content.
fn promtool(arguments: &[&str]) -> (String, bool) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(packaging("prometheus"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        String::from_utf8_lossy(&said).into_owned(),
        output.status.success(),
    )
}

#[test]
fn each_alert_is_sound_and_has_a_test_that_it_passes() {
    if !is_there_or_skip("promtool") {
        return;
    }
    for arguments in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"],
        &["test", "rules", "alerts_test.yml"],
    ] {
        let (said, content) = promtool(arguments);
        assert!(content, "{arguments:?}: {said}");
    }
    let read = |name: &str| std::fs::read_to_string(packaging("prometheus").join(name)).unwrap();
    let (alerts, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let names: Vec<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 10);
    for name in names {
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name}");
    }
}

/// The names of metrics in a text, which are all those of the relay or of any process.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|at: char| !at.is_ascii_alphanumeric() && at != '_')
        .filter(|word| word.starts_with("mixline_relay_") || word.starts_with("process_"))
        .collect()
}

/// On XDP, where a relay shows all that it can.
#[test]
fn alerts_and_dashboard_ask_only_for_what_a_relay_shows() {
    Network::run(1, 2, |network| {
        let metrics_address = SocketAddr::new(Network::address(0, true).ip(), 9100);
        let more =
            format!("port: xdp\nmetrics: \"{metrics_address}\"\nbandwidth: 20 MB\nmonthly: 2 TB\n");
        let mut setting = Setting::within(network, &more).registered();
        let relay = &mut setting.relay;
        wait_for("the queues to be looked at", || {
            (!relay.report().port.queues.is_empty()).then_some(())
        });
        let text = metrics(metrics_address);
        let shown = names(&text);
        for file in [
            "prometheus/alerts.yml",
            "prometheus/alerts_test.yml",
            "grafana/mixline-relay.json",
        ] {
            let asked = std::fs::read_to_string(packaging(file)).unwrap();
            let asked = names(&asked);
            assert!(asked.len() > 10, "{file}");
            let unknown: Vec<_> = asked.difference(&shown).collect();
            assert!(unknown.is_empty(), "{file}: {unknown:?}\n{text}");
        }
        relay.stop();
    });
}

#[test]
fn the_dashboard_is_one() {
    let text = std::fs::read_to_string(packaging("grafana/mixline-relay.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(panels.len() > 10 && queries.len() >= panels.len());
    if !is_there_or_skip("promtool") {
        return;
    }
    // As rules, so that promtool parses them; what Grafana fills in is filled in.
    let folder = tempfile::tempdir().unwrap();
    let rules: Vec<serde_json::Value> = queries
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let query = query
                .replace("$__rate_interval", "1m")
                .replace("$instance", ".*");
            serde_json::json!({"record": format!("query:{number}"), "expr": query})
        })
        .collect();
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, groups.to_string()).unwrap();
    let (said, content) = promtool(&["check", "rules", file.to_str().unwrap()]);
    assert!(content, "{said}");
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prometheus_scrapes_a_relay_and_knows_the_alerts() {
    if !is_there_or_skip("prometheus") {
        return;
    }
    let busy = Busy::start("");
    let folder = busy.setting.folder();
    let config = std::fs::read_to_string(packaging("prometheus/prometheus.yml")).unwrap();
    assert!(config.contains("127.0.0.1:9300") && config.contains("interval: 15s"));
    let config = config
        .replace("127.0.0.1:9300", &busy.metrics.to_string())
        .replace("interval: 15s", "interval: 1s");
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    std::fs::copy(
        packaging("prometheus/alerts.yml"),
        folder.join("alerts.yml"),
    )
    .unwrap();
    let address = free_address();
    let child = Command::new("prometheus")
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=data")
        .arg(format!("--web.listen-address={address}"))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Ends(child);
    let ask = |path: &str| -> Option<serde_json::Value> {
        let mut stream = TcpStream::connect(address).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    };
    let value = |query: &str| -> Option<f64> {
        let answer = ask(&format!("/api/v1/query?query={query}"))?;
        let value = &answer["data"]["result"][0]["value"][1];
        value.as_str()?.parse().ok()
    };
    wait_for("a scrape", || value("up").filter(|up| *up == 1.0));
    let delivered = "sum(mixline_relay_datagrams_total%7Bverdict=%22delivered%22%7D)";
    assert_eq!(value(delivered), Some(CELLS as f64));
    assert_eq!(
        value("mixline_relay_inside_seconds_count"),
        Some(CELLS as f64)
    );
    let quantile = "histogram_quantile(0.5,mixline_relay_inside_seconds_bucket)";
    let median = value(quantile).unwrap();
    // The bounds of Prometheus' buckets are a factor of two apart.
    let finer = busy.setting.relay.report().inside.p50_us / 1e6;
    assert!(
        (finer / 2.1..finer * 2.1).contains(&median),
        "{median} {finer}"
    );
    let rules = ask("/api/v1/rules").unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10);
    wait_for("all alerts to be quiet", || {
        let rules = ask("/api/v1/rules")?;
        let rules = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        rules
            .iter()
            .all(|rule| rule["health"] == "ok" && rule["state"] == "inactive")
            .then_some(())
    });
}

#[test]
fn a_delay_counts_as_time_inside() {
    let busy = Busy::start("mean_delay_ms: 100\n");
    let report = busy.setting.relay.report();
    let inside = report.inside;
    // Half of exponential delays are longer than 69 ms; of forty, the median is near that.
    assert!((20_000.0..400_000.0).contains(&inside.p50_us), "{inside:?}");
    assert!(inside.p50_us < inside.p99_us && inside.p99_us <= inside.p999_us);
    assert_eq!(report.per_worker.len(), 1);
    assert_eq!(report.per_worker[0].sent, CELLS);
    assert!(report.per_worker[0].cpu_s.is_some());
    let text = String::from_utf8(busy.setting.relay.status(false).stdout).unwrap();
    assert!(text.contains("\ninside       p50 "), "{text}");
}
