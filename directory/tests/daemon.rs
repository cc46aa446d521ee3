//! The real binary on loopback: HTTP, refusals, starting and stopping.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use common::*;
use hyper::Method;
use mixline_daemon::testing::ServiceManager;
use mixline_directory_client::{DirectoryClient, Error, Fetched};
use mixline_protocol::records::Heartbeat;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// The daemon's answer to a plain request: status and text.
async fn get(daemon: &Daemon, path: &str) -> (u16, String) {
    let url = format!("{}{path}", daemon.url);
    let answer = ask(500, Method::GET, &url, None, vec![]).await.unwrap();
    (answer.status, answer.text())
}

async fn post(daemon: &Daemon, n: u16, body: Vec<u8>) -> (u16, String) {
    let url = format!("{}/v2/relays", daemon.url);
    let answer = ask(n, Method::POST, &url, None, body).await.unwrap();
    (answer.status, answer.text())
}

#[test]
fn init_makes_the_id_once() {
    let setup = Setup::new("");
    assert!(setup.failure(&["id"]).contains("init"));
    assert!(setup.failure(&[]).contains("init"));
    let id = setup.init();
    let again = setup.output(&["id"]);
    assert!(again.status.success());
    assert_eq!(
        String::from_utf8(again.stdout).unwrap().trim(),
        id.to_string()
    );
    assert!(setup.failure(&["init"]).contains("already"));
    let mode = std::fs::metadata(setup.state())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_line_to_join_by_has_the_id_and_where_it_listens() {
    let setup = Setup::new("");
    let id = setup.init();
    let said = |arguments: &[&str]| {
        let output = setup.output(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&["link"]).starts_with(&format!("mixline:{id}@http://127.0.0.1:")));
    let url = "http://directory.example:8080";
    assert_eq!(said(&["link", url]), format!("mixline:{id}@{url}\n"));
    assert!(setup.failure(&["link", "ftp://x"]).contains("http"));
}

#[test]
fn a_wrong_log_filter_is_an_error_of_every_command() {
    let setup = Setup::new("");
    setup.init();
    for command in ["run", "id"] {
        let output = Command::new(env!("CARGO_BIN_EXE_mixline-directory"))
            .args([command, "--config"])
            .arg(setup.config())
            .env("MIXLINE_LOG", "mixline=loud")
            .output()
            .unwrap();
        let error = one_line(&output);
        assert!(error.contains("MIXLINE_LOG is `mixline=loud`"), "{error}");
    }
    setup.configure("127.0.0.1:0", "log: loud\n");
    let error = setup.failure(&[]);
    assert!(error.contains("log is `loud`"), "{error}");
}

#[test]
fn the_service_manager_hears_of_start_life_and_stop() {
    let setup = Setup::new("");
    setup.init();
    let manager = ServiceManager::listen(&setup.state().join("notify")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mixline-directory"));
    command.arg("--config").arg(setup.config());
    manager.supervise(&mut command, Some(Duration::from_millis(300)));
    let mut daemon = Daemon::from(command);
    let patience = Duration::from_secs(20);
    let ready = manager.wait_for("READY=1", patience).unwrap().unwrap();
    assert_eq!(ready[1], format!("STATUS=serving {}: 0 relays", daemon.url));
    for _ in 0..3 {
        assert!(manager.wait_for("WATCHDOG=1", patience).unwrap().is_some());
    }
    kill(
        Pid::from_raw(daemon.child.id().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert!(manager.wait_for("STOPPING=1", patience).unwrap().is_some());
    assert!(daemon.child.wait().unwrap().success());
}

#[tokio::test]
async fn a_relay_registers_and_is_in_the_next_snapshot() {
    let setup = Setup::new("");
    let id = setup.init();
    let daemon = Daemon::start(&setup);
    let mut client = DirectoryClient::new(&daemon.url, id).unwrap();
    let Fetched::Snapshot(first) = client.fetch().await.unwrap() else {
        panic!("none")
    };
    assert!(first.relays.is_empty() && first.service().unwrap().tails.is_empty());
    assert!(matches!(client.fetch().await, Ok(Fetched::NotModified)));

    let descriptor = relay(1, 1);
    assert_eq!(
        post(&daemon, 1, setup.sign(1, descriptor.clone()).encode()).await,
        (204, String::new())
    );
    // Made anew within seconds; the client is told how many.
    let second = loop {
        match client.fetch().await.unwrap() {
            Fetched::Snapshot(snapshot) => break snapshot,
            Fetched::NotModified => {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    };
    assert_eq!(second.relays[0].descriptor, descriptor);
    assert_eq!(second.previous, (first.issued, first.digest()));
    assert_eq!(client.max_age(), Some(std::time::Duration::from_secs(2)));

    let (status, page) = get(&daemon, "/").await;
    assert_eq!(status, 200);
    for shown in [
        "relay1",
        &relay(1, 1).short_id().to_string(),
        "127.77.0.1:7000",
        "red",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(page.contains(&id.to_string()));
    let (_, metrics) = get(&daemon, "/metrics").await;
    for line in [
        "mixline_directory_relays 1",
        "mixline_directory_registrations_total 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
    assert_eq!(get(&daemon, "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get(&daemon, "/v2/else").await.0, 404);
    // It is alone, and says so to whoever takes it for one of several.
    assert_eq!(get(&daemon, "/v2/roster").await.0, 204);
    assert_eq!(get(&daemon, "/v2/directories/votes/ff").await.0, 404);

    // From now on it says that it is there.
    let beat = |version| {
        let record = relay_record(1, descriptor.clone());
        setup.heartbeat(1, &record, version).encode()
    };
    let url = format!("{}/v2/heartbeats", daemon.url);
    let later = (now().0 + 1) * 1000;
    let says = async |body: Vec<u8>| ask(1, Method::POST, &url, None, body).await.unwrap().status;
    assert_eq!(says(beat(later)).await, 204);
    assert_eq!(says(beat(later)).await, 409, "it has said that before");
    let unknown = setup.heartbeat(1, &relay_record(1, relay(1, 2)), later + 1);
    assert_eq!(says(unknown.encode()).await, 404, "it is to register");
}

#[tokio::test]
async fn conditional_requests() {
    let setup = Setup::new("");
    setup.init();
    let daemon = Daemon::start(&setup);
    let url = format!("{}/v2/snapshot", daemon.url);
    let snapshot = async |tag: Option<&str>| {
        let header = tag.map(|tag| ("if-none-match", tag));
        ask(1, Method::GET, &url, header, vec![]).await.unwrap()
    };
    let whole = snapshot(None).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.headers["content-type"], "application/octet-stream");
    assert_eq!(whole.headers["cache-control"], "public, max-age=2");
    assert!(whole.headers.contains_key("date"));
    let tag = whole.headers["etag"].to_str().unwrap();
    assert!(!whole.body.is_empty());
    for fresh in [tag, &format!("\"x\", W/{tag}"), "*"] {
        let answer = snapshot(Some(fresh)).await;
        assert_eq!(answer.status, 304);
        assert_eq!(answer.headers["etag"], tag);
        assert!(answer.body.is_empty());
    }
    assert_eq!(snapshot(Some("\"x\"")).await.status, 200);
}

#[tokio::test]
async fn refusals_say_why() {
    let setup = Setup::new("");
    let id = setup.init();
    let daemon = Daemon::start(&setup);
    let (status, text) = post(&daemon, 1, b"noise".to_vec()).await;
    assert_eq!(status, 400, "{text}");
    assert_eq!(post(&daemon, 1, vec![0; 100_000]).await.0, 413);
    // The record that the heartbeat names is another one; the proof is none.
    let mut bent = setup.registration(1, 1);
    *bent.last_mut().unwrap() ^= 1;
    assert_eq!(post(&daemon, 1, bent).await.0, 400);
    let mut bent = setup.registration(1, 1);
    bent[Heartbeat::ENCODED - 1] ^= 1;
    assert_eq!(post(&daemon, 1, bent).await.0, 403);
    let (status, text) = post(&daemon, 2, setup.registration(1, 1)).await;
    assert!(status == 403 && text.contains("127.77.0.2"), "{text}");
    assert_eq!(post(&daemon, 1, setup.registration(1, 5)).await.0, 204);
    // Another relay with the link key of the first, which everybody can read in the snapshot.
    let mut stolen = relay(2, 1);
    stolen.link = relay_link(1).public();
    let stolen = setup.sign(2, stolen.sign(&relay_key(2)).unwrap());
    let (status, text) = post(&daemon, 2, stolen.encode()).await;
    assert!(status == 403 && text.contains("link key"), "{text}");
    let (status, text) = post(&daemon, 1, setup.registration(1, 4)).await;
    assert!(
        status == 409 && text.contains("newer") && text.lines().count() == 1,
        "{text}"
    );
    // Through the client: the same words.
    let mut off = relay(1, 6);
    off.issued = now().plus(3600);
    off.expires = now().plus(7200);
    let off = off.sign(&relay_key(1)).unwrap();
    let mut client = DirectoryClient::new(&daemon.url, id).unwrap();
    let ahead = setup.sign_at(1, off, now().plus(3600));
    let error = client.register(&ahead).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { text, .. } if text.contains("60 minutes ahead")));
}

#[tokio::test]
async fn a_hasty_source_is_told_to_wait() {
    let setup = Setup::new("");
    setup.init();
    let daemon = Daemon::start(&setup);
    let mut refused = None;
    for _ in 0..1000 {
        let (status, text) = post(&daemon, 1, b"noise".to_vec()).await;
        if status == 429 {
            refused = Some(text);
            break;
        }
    }
    assert!(refused.unwrap().contains("too many registrations"));
    assert_eq!(
        post(&daemon, 2, setup.registration(2, 1)).await.0,
        204,
        "others are not affected"
    );
}

#[test]
fn a_wrong_key_is_named_with_its_line() {
    let setup = Setup::new("relay_timeout: 60");
    let line = setup.failure(&[]);
    assert!(
        line.contains("relay_timeout") && line.contains("line 4"),
        "{line}"
    );
    std::fs::remove_file(setup.config()).unwrap();
    let line = setup.failure(&[]);
    assert!(
        line.contains("directory.yaml") && line.contains("No such file"),
        "{line}"
    );
}

#[test]
fn a_port_in_use_is_said() {
    let setup = Setup::new("");
    setup.init();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    setup.configure(&address, "");
    let line = setup.failure(&[]);
    assert!(
        line.contains(&address) && line.contains("another program"),
        "{line}"
    );
    setup.configure("192.0.2.77:8080", "");
    let line = setup.failure(&[]);
    assert!(line.contains("does not have that address"), "{line}");
}

#[test]
fn two_daemons_do_not_share_a_state() {
    let setup = Setup::new("");
    setup.init();
    let first = Daemon::start(&setup);
    let line = setup.failure(&[]);
    assert!(line.contains("another mixline-directory"), "{line}");
    first.kill();
    drop(Daemon::start(&setup));
}

#[test]
fn an_unreadable_state_is_said() {
    let setup = Setup::new("");
    setup.init();
    // As a user who may not: root is never refused.
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(setup.dir.path(), 0o755);
    let binary = setup.dir.path().join("mixline-directory");
    std::fs::copy(BINARY, &binary).unwrap();
    open(&binary, 0o755);
    let mut command = Command::new(&binary);
    command.arg("--config").arg(setup.config());
    if Uid::effective().is_root() {
        command.uid(65_534).gid(65_534);
    } else {
        open(&setup.state(), 0o000);
    }
    let line = one_line(&command.output().unwrap());
    assert!(
        line.contains("Permission denied") && line.contains("user that owns it"),
        "{line}"
    );
    open(&setup.state(), 0o700);
    std::fs::remove_dir_all(setup.state()).unwrap();
    std::fs::write(setup.state(), "a file").unwrap();
    let line = setup.failure(&[]);
    assert!(
        line.contains("state") && line.contains("Not a directory"),
        "{line}"
    );
}

#[test]
fn a_damaged_database_is_said() {
    let setup = Setup::new("");
    setup.init();
    std::fs::write(
        setup.state().join("directory.redb"),
        "not a database at all",
    )
    .unwrap();
    let line = setup.failure(&[]);
    assert!(line.contains("directory.redb"), "{line}");
}

/// A disk that takes no more: by a limit on the length of files, which makes writes fail
/// in the same way.
#[tokio::test]
async fn a_full_disk_stops_it_and_loses_nothing() {
    let setup = Setup::new("");
    let id = setup.init();
    let mut limited = Command::new("bash");
    let script = "trap '' XFSZ; ulimit -f 400; exec \"$0\" --config \"$1\"";
    limited.args(["-c", script, BINARY]).arg(setup.config());
    let mut daemon = Daemon::from(limited);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let n = u16::try_from(acknowledged.len()).unwrap();
        match post(&daemon, n, setup.registration(n, 1)).await {
            (204, _) => acknowledged.push(relay_key(n).relay_id()),
            refused => break refused,
        }
        assert!(n < 4000, "the limit is not reached");
    };
    assert_eq!(refused.0, 503, "{}", refused.1);
    assert!(refused.1.contains("cannot store"), "{}", refused.1);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(1));
    let log = daemon.log();
    assert!(log.last().unwrap().contains("disk full"), "{log:?}");

    let daemon = Daemon::start(&setup);
    let mut client = DirectoryClient::new(&daemon.url, id).unwrap();
    let Fetched::Snapshot(snapshot) = client.fetch().await.unwrap() else {
        panic!("none")
    };
    for relay in acknowledged {
        assert!(
            snapshot.relays.iter().any(|r| r.descriptor.id == relay),
            "{relay} is lost"
        );
    }
}

#[test]
fn signals_stop_it_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let setup = Setup::new("");
        setup.init();
        let mut daemon = Daemon::start(&setup);
        let pid = Pid::from_raw(i32::try_from(daemon.child.id()).unwrap());
        // Also with a connection that says nothing.
        let _idle = std::net::TcpStream::connect(daemon.address()).unwrap();
        kill(pid, signal).unwrap();
        assert_eq!(daemon.child.wait().unwrap().code(), Some(0), "{signal}");
        assert!(std::net::TcpStream::connect(daemon.address()).is_err());
    }
}

#[test]
fn help_is_complete() {
    let output = Command::new(BINARY).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for word in [
        "init",
        "id",
        "run",
        "--config",
        "state_dir",
        "listen",
        "epoch_seconds",
        "grace_seconds",
        "network",
        "relay_timeout_s",
        "snapshot_validity_s",
        "allow_private_addresses",
        "check_source",
        "endpoint",
        "guards",
        "head_length",
        "tail_length",
        "public_tails",
        "max_sessions",
        "MIXLINE_LOG",
        "/v2/snapshot",
        "/metrics",
        "/healthz",
    ] {
        assert!(text.contains(word), "--help does not mention {word}");
    }
    let none = Command::new(BINARY).output().unwrap();
    assert_eq!(none.status.code(), Some(2), "no configuration");
}
