//! A configuration that changes while the directory runs, hangups, and a terminal that goes away.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use hyper::Method;
use mixline_daemon::testing::{HeldFile, ServiceManager, Terminal};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::Roster;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

/// `mixline-directory reload`: what it prints.
fn reload(setup: &Setup) -> String {
    let output = setup.output(&["reload"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_hangup_reads_the_configuration_again_and_ends_nothing() {
    let setup = Setup::new("");
    setup.init();
    let manager = ServiceManager::listen(&setup.state().join("notify")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mixline-directory"));
    command.arg("--config").arg(setup.config());
    command.env_remove("MIXLINE_LOG");
    manager.supervise(&mut command, None);
    let mut daemon = Daemon::from(command);
    let pid = Pid::from_raw(daemon.child.id().try_into().unwrap());
    let hears = |line: &str| {
        let patience = Duration::from_secs(20);
        assert!(
            manager.wait_for(line, patience).unwrap().is_some(),
            "{line}"
        );
    };
    hears("READY=1");
    for more in [
        "log: debug\nepoch_seconds: 60\ngrace_seconds: 60\n",
        "wrong: 1\n",
    ] {
        setup.configure("127.0.0.1:0", more);
        kill(pid, Signal::SIGHUP).unwrap();
        hears("RELOADING=1");
        hears("READY=1");
    }
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(daemon.child.wait().unwrap().success());
    let log = daemon.log().join("\n");
    assert!(
        log.contains("read again; changed: log")
            && log.contains("read again; counts after a restart: epoch_seconds, grace_seconds"),
        "{log}"
    );
    assert!(
        log.contains("the configuration stays as it was") && log.contains("`wrong`"),
        "{log}"
    );
}

#[tokio::test]
async fn reload_says_what_changed_and_what_counts_after_a_restart() {
    let setup = Setup::new("");
    setup.init();
    let error = setup.failure(&["reload"]);
    assert!(error.contains("no directory answers on"), "{error}");
    let daemon = Daemon::start(&setup);
    assert_eq!(reload(&setup), "nothing changes\n");
    let (n, register) = (7, |daemon: &Daemon| format!("{}/v2/relays", daemon.url));
    let stranger = |version: u64| setup.registration(n, version);
    // From another address than it advertises.
    let refused = ask(8, Method::POST, &register(&daemon), None, stranger(1)).await;
    assert_eq!(refused.unwrap().status, 403);
    setup.configure(
        "127.0.0.1:0",
        "check_source: false\nsnapshot_validity_s: 120\n",
    );
    assert_eq!(
        reload(&setup),
        "changed: snapshot_validity_s, check_source\n"
    );
    let taken = ask(8, Method::POST, &register(&daemon), None, stranger(2)).await;
    assert_eq!(taken.unwrap().status, 204);
    setup.configure(
        "127.0.0.1:0",
        "check_source: false\nrelay_timeout_s: 30\nepoch_seconds: 60\ngrace_seconds: 60\n\
         network: 10.64.0.0/10\nendpoint: {guards: 2, enabled: false}\n",
    );
    assert_eq!(
        reload(&setup),
        "changed: relay_timeout_s, snapshot_validity_s, endpoint\n\
         counts after a restart: epoch_seconds, grace_seconds, network\n"
    );
    // The relay is still there, and one timeout is told everybody.
    let url = format!("{}/v2/snapshot", daemon.url);
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = ask(8, Method::GET, &url, None, Vec::new()).await.unwrap();
        let id = setup.output(&["id"]).stdout;
        let id: AnonymousId = String::from_utf8(id).unwrap().trim().parse().unwrap();
        let id = Roster::alone(id);
        let snapshot =
            mixline_protocol::records::Snapshot::decode_and_verify(&answer.body, &id, now());
        let snapshot = snapshot.unwrap();
        if snapshot.parameters.relay_timeout_s == 30 {
            assert_eq!(snapshot.relays.len(), 1);
            assert_eq!(snapshot.parameters.epoch_seconds, 3600);
            break;
        }
        assert!(Instant::now() < end, "the snapshot is as before");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    setup.configure("127.0.0.1:0", "chek_source: false\n");
    let error = setup.failure(&["reload"]);
    assert!(error.contains("`chek_source`"), "{error}");
}

#[test]
fn it_listens_elsewhere_and_where_it_cannot_nothing_changes() {
    let setup = Setup::new("");
    setup.init();
    let daemon = Daemon::start(&setup);
    let before = daemon.address();
    let is_served = |address: &str| TcpStream::connect(address).is_ok();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = free.local_addr().unwrap().to_string();
    setup.configure(&elsewhere, "relay_timeout_s: 30\n");
    let error = setup.failure(&["reload"]);
    assert!(error.contains("another program listens there"), "{error}");
    assert!(is_served(&before.to_string()));
    drop(free);
    assert_eq!(reload(&setup), "changed: listen, relay_timeout_s\n");
    assert!(is_served(&elsewhere));
    eventually("the former port to be free", || {
        !is_served(&before.to_string())
    });
}

#[test]
fn hangups_from_start_to_end_end_nothing() {
    let setup = Setup::new("");
    setup.init();
    let held = HeldFile::hold(&setup.config()).unwrap();
    let mut command = Command::new(BINARY);
    command.arg("--config").arg(setup.config());
    let mut child = command.spawn().unwrap();
    let reader = held.wait_for_reader(PATIENCE).unwrap();
    let process = Pid::from_raw(child.id().try_into().unwrap());
    let hangups = std::thread::spawn(move || {
        // Until it is gone.
        while kill(process, Signal::SIGHUP).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    reader.go_on().unwrap();
    eventually("an answer to reload", || {
        setup.output(&["reload"]).status.success()
    });
    kill(process, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    hangups.join().unwrap();
}

#[test]
fn a_terminal_that_goes_away_ends_nothing() {
    let setup = Setup::new("");
    setup.init();
    let terminal = Terminal::open().unwrap();
    let mut command = Command::new(BINARY);
    command
        .arg("--config")
        .arg(setup.config())
        .env("MIXLINE_LOG", "debug");
    let mut child = terminal.command(&command).unwrap().spawn().unwrap();
    assert!(
        terminal.hears("serves http://", PATIENCE),
        "{}",
        terminal.said()
    );
    setup.configure("127.0.0.1:0", "check_source: false\n");
    terminal.close();
    // It was read for the hangup, sooner or later.
    eventually("nothing more to change", || {
        reload(&setup) == "nothing changes\n"
    });
    setup.configure("127.0.0.1:0", "");
    assert_eq!(reload(&setup), "changed: check_source\n");
    let process = Pid::from_raw(child.id().try_into().unwrap());
    kill(process, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}
