//! What was acknowledged is there after `kill -9`, in the middle of many writes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::*;
use hyper::Method;
use mixline_directory::testing::{AdmissionPolicy, Limits, RedbStore, Registry};
use mixline_directory_client::{DirectoryClient, Fetched};
use mixline_protocol::identity::IdentityKey;
use mixline_protocol::name::Label;
use mixline_protocol::records::{LeaseRequest, NameRecord, Parameters};

/// Times that a process is killed.
const ROUNDS: usize = 4;

/// Relays that register over HTTP while the daemon is killed: the snapshot of the next daemon has
/// every one that was told so, in the version that was, or a newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_survive() {
    let setup = Arc::new(Setup::new("relay_timeout_s: 3600"));
    let id = setup.init();
    let acknowledged = Arc::new(Mutex::new(HashMap::new()));
    let mut version = 0;
    for round in 0..ROUNDS {
        let daemon = Daemon::start(&setup);
        let enough = acknowledged.lock().unwrap().len() + 40 + 13 * round;
        let writers: Vec<_> = (0..6u16)
            .map(|writer| {
                let (acknowledged, setup) = (acknowledged.clone(), setup.clone());
                let url = format!("{}/v2/relays", daemon.url);
                // Some old relays again, and many new ones.
                let first = u16::try_from(round).unwrap() * 1500 + writer * 250;
                let relays = (writer * 250..writer * 250 + 5).chain(first..first + 250);
                version += 1;
                let version = version;
                tokio::spawn(async move {
                    for n in relays {
                        let body = setup.registration(n, version);
                        match ask(n, Method::POST, &url, None, body).await {
                            Ok(answer) if answer.status == 204 => {
                                acknowledged
                                    .lock()
                                    .unwrap()
                                    .insert(relay_key(n).relay_id(), version);
                            }
                            Ok(answer) => panic!("{}", answer.text()),
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        while acknowledged.lock().unwrap().len() < enough {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        daemon.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        let daemon = Daemon::start(&setup);
        let mut client = DirectoryClient::new(&daemon.url, id).unwrap();
        let Fetched::Snapshot(snapshot) = client.fetch().await.unwrap() else {
            panic!("none")
        };
        let found: HashMap<_, _> = snapshot
            .relays
            .iter()
            .map(|r| (r.descriptor.id, r.descriptor.version))
            .collect();
        let acknowledged = acknowledged.lock().unwrap();
        assert!(acknowledged.len() >= enough);
        for (relay, version) in acknowledged.iter() {
            assert!(
                found.get(relay) >= Some(version),
                "round {round}: {relay} is lost"
            );
        }
        daemon.kill();
    }
}

const HARNESS: &str = "MIXLINE_TEST_STORE";
const WRITERS: usize = 6;

fn open(path: &std::path::Path) -> Registry {
    let store = Box::new(RedbStore::open(path).unwrap());
    let key = Arc::new(IdentityKey::from_seed([99; 32]));
    let admission = AdmissionPolicy {
        private_addresses: true,
        check_source: true,
    };
    Registry::open(
        store,
        key,
        Parameters::default(),
        admission,
        Limits::default(),
        now(),
    )
    .unwrap()
}

fn owner(n: u64) -> IdentityKey {
    let mut seed = [5; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    IdentityKey::from_seed(seed)
}

/// The process that is killed: claims names and leases as fast as it can, and says each that was
/// granted. Does nothing when it runs as a test among others.
#[test]
fn harness() {
    let Some(path) = std::env::var_os(HARNESS) else {
        return;
    };
    let registry = open(path.as_ref());
    let first: u64 = std::env::var("MIXLINE_TEST_FIRST")
        .unwrap()
        .parse()
        .unwrap();
    let next = AtomicUsize::new(0);
    let said = Mutex::new(std::io::stdout());
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let n = first + next.fetch_add(1, Ordering::Relaxed) as u64;
                    let key = owner(n);
                    let lease = registry.lease(&LeaseRequest::new(now(), None, &key), now());
                    let record = name(n, &key);
                    registry.claim_name(&record, now()).unwrap();
                    let line = format!("granted {n} {}\n", lease.unwrap().ipv4);
                    // The reader is gone when the test is over.
                    if said.lock().unwrap().write_all(line.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn name(n: u64, key: &IdentityKey) -> NameRecord {
    NameRecord {
        label: Label::new(&format!("name{n}")).unwrap(),
        id: key.anonymous_id(),
        version: 1,
        issued: now(),
        expires: now().plus(86_400),
        signature: [0; 64],
    }
    .sign(key)
    .unwrap()
}

/// Names and leases that were granted before a kill are granted after it.
#[test]
fn names_and_leases_survive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory.redb");
    let mut granted: Vec<(u64, String)> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "harness", "--nocapture"])
            .env(HARNESS, &path)
            .env("MIXLINE_TEST_FIRST", (round as u64 * 1_000_000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let enough = granted.len() + 60 + 17 * round;
        let killed = AtomicBool::new(false);
        for line in BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
        {
            let mut words = line
                .split(' ')
                .skip_while(|word| *word != "granted")
                .skip(1);
            if let (Some(n), Some(ip)) = (words.next(), words.next()) {
                granted.push((n.parse().unwrap(), ip.to_owned()));
            }
            // What was said before it died counts too.
            if granted.len() >= enough && !killed.swap(true, Ordering::Relaxed) {
                child.kill().unwrap();
            }
        }
        assert!(
            !child.wait().unwrap().success(),
            "it was killed in the middle"
        );
        let registry = open(&path);
        assert!(granted.len() >= enough);
        for (n, ip) in &granted {
            let key = owner(*n);
            let label = Label::new(&format!("name{n}")).unwrap();
            let found = registry
                .lookup_name(&label, now())
                .unwrap()
                .expect("the name is lost");
            assert_eq!(found.id, key.anonymous_id());
            let lease = registry
                .lease(&LeaseRequest::new(now(), None, &key), now())
                .unwrap();
            assert_eq!(lease.ipv4.to_string(), *ip, "the lease is lost");
        }
    }
}
