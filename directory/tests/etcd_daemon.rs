//! The real binary as one of two front ends on etcd, and its records on the way there and back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/etcd.rs"]
mod etcd;

use std::time::{Duration, Instant};

use common::*;
use etcd::Etcd;
use hyper::Method;
use mixline_directory::testing::{EtcdStore, Outcome, RedbStore, Store, Table, Transaction};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long something may take that is to happen soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// `store` in a configuration, with this member first.
fn store_at(etcd: &Etcd, first: usize) -> String {
    let endpoints = etcd.config(first).endpoints.join(", ");
    format!("store: {{etcd: {{endpoints: [{endpoints}]}}}}\nendpoint: {{enabled: false}}")
}

/// Waits until the daemon's health is of this status.
async fn until_health(daemon: &Daemon, status: u16) {
    let url = format!("{}/healthz", daemon.url);
    let began = Instant::now();
    loop {
        let answer = ask(500, Method::GET, &url, None, vec![]).await.unwrap();
        if answer.status == status {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Stops it in order; what it has said.
fn stop(mut daemon: Daemon) -> Vec<String> {
    let process = Pid::from_raw(daemon.child.id().try_into().unwrap());
    kill(process, Signal::SIGTERM).unwrap();
    let log = daemon.log();
    assert!(daemon.child.wait().unwrap().success(), "{log:?}");
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_front_ends_outlive_their_etcd() {
    let mut etcd = Etcd::start(3);
    let setups = [0, 1].map(|first| Setup::new(&store_at(&etcd, first)));
    let id = setups[0].init();
    // The other front end of the same directory has the same keys.
    std::fs::create_dir(setups[1].state()).unwrap();
    for key in ["identity.key", "session.key"] {
        std::fs::copy(setups[0].state().join(key), setups[1].state().join(key)).unwrap();
    }
    let said = setups[1].output(&["id"]).stdout;
    assert_eq!(String::from_utf8(said).unwrap().trim(), id.to_string());
    let daemons = setups.each_ref().map(Daemon::start);
    for daemon in &daemons {
        until_health(daemon, 200).await;
    }
    // One member may fail.
    etcd.kill(0);
    for daemon in &daemons {
        until_health(daemon, 200).await;
    }
    etcd.kill(1);
    for daemon in &daemons {
        until_health(daemon, 503).await;
    }
    // Longer than a sweep of the store, which fails.
    tokio::time::sleep(Duration::from_secs(11)).await;
    etcd.restart_all();
    for daemon in &daemons {
        until_health(daemon, 200).await;
    }
    for daemon in daemons {
        let log = stop(daemon);
        let count = |word: &str| log.iter().filter(|line| line.contains(word)).count();
        assert_eq!(
            count("etcd does not answer, or has no quorum"),
            1,
            "{log:#?}"
        );
        assert_eq!(count("etcd answers again"), 1, "{log:#?}");
        assert_eq!(count("ERROR"), 1, "{log:#?}");
    }
}

fn run(setup: &Setup, args: &[&str]) -> String {
    let output = setup.output(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

const THERE: [&str; 5] = ["migrate", "--from", "redb", "--to", "etcd"];
const BACK: [&str; 5] = ["migrate", "--from", "etcd", "--to", "redb"];

#[test]
fn records_are_never_left_behind() {
    let etcd = Etcd::start(1);
    let setup = Setup::new("");
    setup.init();
    let error = setup.failure(&THERE);
    assert!(error.contains("store.etcd"), "{error}");
    let file = setup.state().join("directory.redb");
    let store = RedbStore::open(&file).unwrap();
    let expires = now().plus(3600);
    let record = Transaction::new().put(Table::Names, "label", "record", expires);
    assert_eq!(store.commit(record).unwrap(), Outcome::Committed);
    drop(store);
    // Whoever only changes the configuration would begin with nothing.
    setup.configure("127.0.0.1:0", &store_at(&etcd, 0));
    let error = setup.failure(&[]);
    assert!(error.contains("migrate --from redb --to etcd"), "{error}");
    let error = setup.failure(&["migrate", "--from", "etcd", "--to", "etcd"]);
    assert!(error.contains("the same store"), "{error}");
    let error = setup.failure(&[&THERE[..], &["--cancel"]].concat());
    assert!(error.contains("is not being moved"), "{error}");
    let said = run(&setup, &THERE);
    assert!(said.contains("1 entries moved and compared"), "{said}");
    let error = setup.failure(&THERE);
    assert!(error.contains("moved already"), "{error}");
    let daemon = Daemon::start(&setup);
    stop(daemon);
    let remote = EtcdStore::open(&etcd.config(0)).unwrap();
    assert_eq!(
        remote.get(Table::Names, b"label").unwrap().unwrap().value,
        b"record"
    );
    // Nor does anybody go back to the old copy.
    setup.configure("127.0.0.1:0", "");
    let error = setup.failure(&[]);
    assert!(error.contains("moved to another store"), "{error}");
    setup.configure("127.0.0.1:0", &store_at(&etcd, 0));
    let said = run(&setup, &BACK);
    // The directory has remembered since when it was there.
    assert!(said.contains("2 entries moved and compared"), "{said}");
    let error = setup.failure(&[]);
    assert!(error.contains("records"), "{error}");
    setup.configure("127.0.0.1:0", "endpoint: {enabled: false}");
    stop(Daemon::start(&setup));
    let store = RedbStore::open(&file).unwrap();
    assert!(store.get(Table::Names, b"label").unwrap().is_some());
}

#[test]
fn a_directory_whose_etcd_is_down_says_so_and_ends() {
    let mut etcd = Etcd::start(1);
    let setup = Setup::new(&store_at(&etcd, 0));
    setup.init();
    etcd.kill(0);
    let error = setup.failure(&[]);
    assert!(error.contains("etcd does not answer"), "{error}");
    assert!(error.contains("refused"), "{error}");
}

/// Not while the directory runs.
#[test]
fn a_move_in_use_is_refused() {
    let etcd = Etcd::start(1);
    let setup = Setup::new("endpoint: {enabled: false}");
    setup.init();
    let daemon = Daemon::start(&setup);
    setup.configure("127.0.0.1:0", &store_at(&etcd, 0));
    let error = setup.failure(&THERE);
    assert!(
        error.contains("in use by another mixline-directory"),
        "{error}"
    );
    stop(daemon);
}
