//! Two front ends of one owner on an etcd of three members, and what fails there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/etcd.rs"]
mod etcd;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use etcd::Etcd;
use mixline_directory::Error;
use mixline_directory::testing::{
    AdmissionPolicy, EtcdStore, LINGER, Limits, Outcome, Registry, Store, Table, Transaction,
};
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::IdentityKey;
use mixline_protocol::name::Label;
use mixline_protocol::records::{LeaseRequest, NameRecord, Parameters};
use mixline_protocol::time::UnixTime;

/// How long something may take that is to happen soon.
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> UnixTime {
    SystemTime::now().into()
}

/// A front end of the directory, which asks this member first.
fn front_end(etcd: &Etcd, member: usize) -> Registry {
    let admission = AdmissionPolicy {
        private_addresses: true,
        check_source: true,
    };
    Registry::open(
        Box::new(EtcdStore::open(&etcd.config(member)).unwrap()),
        Arc::new(IdentityKey::from_seed([99; 32])),
        Parameters {
            // Few addresses, so that many want the same.
            network: "10.0.0.0/20".parse().unwrap(),
            ..Parameters::default()
        },
        admission,
        Limits::default(),
        now(),
    )
    .unwrap()
}

fn owner(n: usize) -> IdentityKey {
    let mut seed = [5; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    IdentityKey::from_seed(seed)
}

fn claim(label: &str, key: &IdentityKey) -> NameRecord {
    NameRecord {
        label: Label::new(label).unwrap(),
        id: key.anonymous_id(),
        version: 1,
        issued: now(),
        expires: now().plus(86_400),
        signature: [0; 64],
    }
    .sign(key)
    .unwrap()
}

/// Waits until something is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    until_ok(what, || if so() { Ok(()) } else { Err(()) });
}

/// Waits until something succeeds.
fn until_ok<T, E: std::fmt::Debug>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) {
    let began = Instant::now();
    while let Err(error) = attempt() {
        assert!(
            began.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}: {error:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What was granted to whom, by the answers that were given.
#[derive(Default)]
struct Granted {
    names: HashMap<String, usize>,
    leases: HashMap<Ipv4Addr, usize>,
}

/// Front ends give away names and addresses that several IDs want at once, while each member of etcd is
/// killed and comes back, or hangs for a while: what was granted stays so, and is nobody else's.
#[test]
fn nothing_is_lost_and_nothing_granted_twice_when_members_fail() {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 3;
    let mut etcd = Etcd::start(3);
    let front_ends = [front_end(&etcd, 0), front_end(&etcd, 1)];
    let granted = Mutex::new(Granted::default());
    let refused = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let write = |writer: usize| {
        let registry = &front_ends[writer % 2];
        let mut n = 0;
        while !over.load(Ordering::Relaxed) {
            n += 1;
            // Three writers at each front end, for the same names at about the same time.
            let id = writer * 1_000_000 + n;
            let key = owner(id);
            let label = format!("name{n}");
            match registry.claim_name(&claim(&label, &key), now()) {
                Ok(()) => {
                    let before = granted.lock().unwrap().names.insert(label, id);
                    assert_eq!(before, None, "granted twice");
                }
                Err(refusal) => {
                    let codes = [RefusalCode::Taken, RefusalCode::Unavailable];
                    assert!(codes.contains(&refusal.code), "{}", refusal.text);
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            // The network would be full too soon.
            if n % 5 == 0
                && let Ok(lease) = registry.lease(&LeaseRequest::new(now(), None, &key), now())
            {
                let before = granted.lock().unwrap().leases.insert(lease.ipv4, id);
                assert_eq!(before, None, "granted twice");
            }
        }
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let write = &write;
            scope.spawn(move || write(writer));
        }
        let so_far = || granted.lock().unwrap().names.len();
        for round in 0..ROUNDS {
            let enough = so_far() + 40;
            until("grants before a kill", || so_far() >= enough);
            etcd.kill(round);
            let enough = so_far() + 40;
            until("grants with two members", || so_far() >= enough);
            etcd.restart(round);
        }
        // One that hangs, for long enough that the others elect a leader, and then goes on with what it had.
        for member in 0..ROUNDS {
            let stopped = Stopped::new(etcd.process(member));
            let enough = so_far() + 40;
            until("grants beside one that hangs", || so_far() >= enough);
            std::thread::sleep(Duration::from_secs(2));
            drop(stopped);
        }
        over.store(true, Ordering::Relaxed);
    });
    let granted = granted.into_inner().unwrap();
    println!(
        "{} names and {} addresses granted, {} claims refused",
        granted.names.len(),
        granted.leases.len(),
        refused.load(Ordering::Relaxed)
    );
    assert!(granted.leases.len() > 10);
    for front_end in [front_end(&etcd, 2), front_end(&etcd, 0)] {
        for (label, id) in &granted.names {
            let label = Label::new(label).unwrap();
            let found = front_end.lookup_name(&label, now()).unwrap();
            let holder = found.expect("the name is lost").id;
            assert_eq!(holder, owner(*id).anonymous_id());
        }
        for (ipv4, id) in &granted.leases {
            let request = LeaseRequest::new(now(), None, &owner(*id));
            let lease = front_end.lease(&request, now()).unwrap();
            assert_eq!(lease.ipv4, *ipv4, "the lease is lost");
        }
    }
}

#[test]
fn front_ends_agree_at_once() {
    let etcd = Etcd::start(3);
    let [one, two] = [front_end(&etcd, 0), front_end(&etcd, 2)];
    for n in 0..50 {
        let (key, label) = (owner(n), format!("name{n}"));
        one.claim_name(&claim(&label, &key), now()).unwrap();
        let found = two.lookup_name(&Label::new(&label).unwrap(), now());
        assert_eq!(found.unwrap().unwrap().id, key.anonymous_id());
        let refusal = two.claim_name(&claim(&label, &owner(1000)), now());
        assert_eq!(refusal.unwrap_err().code, RefusalCode::Taken);
        let lease = two.lease(&LeaseRequest::new(now(), None, &key), now());
        let again = one.lease(&LeaseRequest::new(now(), None, &key), now());
        assert_eq!(lease, again);
    }
}

fn put(key: &str, value: impl Into<Vec<u8>>) -> Transaction {
    Transaction::new().put(Table::Names, key, value, now().plus(86_400))
}

/// The error is one line; nothing has happened.
#[track_caller]
fn unavailable<T: std::fmt::Debug>(result: Result<T, Error>, word: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains(word), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// Without a quorum nothing is answered, and with one everything is as before, without a restart.
#[test]
fn etcd_that_is_down_is_waited_for() {
    let mut etcd = Etcd::start(3);
    let store = EtcdStore::open(&etcd.config(0)).unwrap();
    assert_eq!(store.commit(put("k", "v")).unwrap(), Outcome::Committed);
    // Two of three.
    etcd.kill(1);
    etcd.kill(2);
    until("reads are refused", || {
        store.get(Table::Names, b"k").is_err()
    });
    until("at once", || {
        let began = Instant::now();
        unavailable(store.get(Table::Names, b"k"), "no quorum");
        began.elapsed() < Duration::from_millis(100)
    });
    unavailable(store.commit(put("k", "w")), "no quorum");
    unavailable(store.count(Table::Names), "no quorum");
    unavailable(store.expire(now(), 10), "no quorum");
    assert!(store.failure().is_none(), "it is not over for good");
    etcd.restart(1);
    until_ok("reads are answered", || store.get(Table::Names, b"k"));
    assert_eq!(store.get(Table::Names, b"k").unwrap().unwrap().value, b"v");
    until("writes are taken", || store.commit(put("k", "x")).is_ok());
    // All of them, at the same time.
    etcd.restart_all();
    for member in 0..3 {
        etcd.kill(member);
    }
    until("reads are refused", || {
        store.get(Table::Names, b"k").is_err()
    });
    unavailable(store.get(Table::Names, b"k"), "does not answer");
    let error = EtcdStore::open(&etcd.config(0)).err().unwrap();
    unavailable::<()>(Err(error), "does not answer");
    etcd.restart_all();
    until_ok("reads are answered", || store.get(Table::Names, b"k"));
    assert_eq!(store.get(Table::Names, b"k").unwrap().unwrap().value, b"x");
}

/// Members of two etcds, as by an endpoint that was copied wrong.
#[test]
fn members_of_another_etcd_are_refused() {
    let (ours, others) = (Etcd::start(1), Etcd::start(1));
    let mut config = ours.config(0);
    config.endpoints.push(others.url(0));
    let error = EtcdStore::open(&config).err().unwrap();
    unavailable::<()>(Err(error), "another etcd");
}

/// A member that is there and does not answer is gone round, and a write that it has swallowed is neither
/// committed nor in conflict.
#[test]
fn a_member_that_is_silent_is_gone_round() {
    let etcd = Etcd::start(3);
    let store = EtcdStore::open(&etcd.config(0)).unwrap();
    assert_eq!(store.commit(put("k", "v")).unwrap(), Outcome::Committed);
    let stopped = Stopped::new(etcd.process(0));
    let first = store.commit(put("k", "w"));
    assert!(matches!(first, Err(Error::Unknown(_))), "{first:?}");
    // From then on the others are asked.
    until("writes are taken", || store.commit(put("l", "w")).is_ok());
    let began = Instant::now();
    assert!(store.get(Table::Names, b"l").unwrap().is_some());
    println!("read after {:?}", began.elapsed());
    drop(stopped);
    // A read goes round by itself.
    let store = EtcdStore::open(&etcd.config(1)).unwrap();
    assert!(store.get(Table::Names, b"l").unwrap().is_some());
    let _stopped = Stopped::new(etcd.process(1));
    assert!(store.get(Table::Names, b"l").unwrap().is_some());
}

/// A process that does nothing until this is dropped.
struct Stopped(nix::unistd::Pid);

impl Stopped {
    fn new(process: u32) -> Self {
        let process = nix::unistd::Pid::from_raw(process.try_into().unwrap());
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGSTOP).unwrap();
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGCONT);
    }
}

/// With no room left nothing new is taken, reads go on, nothing that was acknowledged is lost; and when an
/// operator has made room, it goes on by itself.
#[test]
fn etcd_that_is_full_is_read_and_goes_on_when_there_is_room() {
    let etcd = Etcd::with_quota(3, 2_000_000);
    let store = EtcdStore::open(&etcd.config(0)).unwrap();
    let mut taken = Vec::new();
    let refusal = loop {
        let key = format!("k{}", taken.len());
        match store.commit(put(&key, vec![7; 50_000]).check(Table::Names, key.as_str(), None)) {
            Ok(Outcome::Committed) => taken.push(key),
            Ok(Outcome::Conflict) => panic!("a conflict with nobody"),
            Err(error) => break error,
        }
        assert!(taken.len() < 1000, "it is never full");
    };
    unavailable::<()>(Err(refusal), "etcd is full");
    unavailable(store.commit(put("more", "v")), "etcd is full");
    assert!(store.failure().is_none(), "it is not over for good");
    for key in &taken {
        assert!(store.get(Table::Names, key.as_bytes()).unwrap().is_some());
    }
    assert_eq!(store.get(Table::Names, b"more").unwrap(), None);
    assert!(store.count(Table::Names).is_ok());
    assert_eq!(store.expire(now(), 10).unwrap(), 0);
    // As the documents say, but that here something has to go first: compact, defragment, disarm.
    let gone = r#"{"key":"bWl4bGluZS9uYW1lcy9r","range_end":"bWl4bGluZS9uYW1lcy9s"}"#;
    let gone = asked(&etcd, "v3/kv/deleterange", gone);
    let compact = format!(
        r#"{{"revision":{},"physical":true}}"#,
        gone["header"]["revision"]
    );
    asked(&etcd, "v3/kv/compaction", &compact);
    for member in 0..3 {
        etcd::ask(&etcd.url(member), "v3/maintenance/defragment", "{}").unwrap();
    }
    unavailable(store.commit(put("more", "v")), "etcd is full");
    let alarms = asked(&etcd, "v3/maintenance/alarm", r#"{"action":"GET"}"#);
    for alarm in alarms["alarms"].as_array().unwrap() {
        let disarm = format!(
            r#"{{"action":"DEACTIVATE","memberID":{},"alarm":"NOSPACE"}}"#,
            alarm["memberID"]
        );
        asked(&etcd, "v3/maintenance/alarm", &disarm);
    }
    until_ok("writes are taken", || store.commit(put("more", "v")));
    assert!(store.get(Table::Names, b"more").unwrap().is_some());
}

/// What etcd does with ends when no front end runs, and what a front end does when a lease is gone.
#[test]
fn etcd_itself_ends_what_ends() {
    let etcd = Etcd::start(1);
    let store = EtcdStore::open(&etcd.config(0)).unwrap();
    let expires = now().plus(5000);
    let renewed = now().plus(9000);
    let both = |end| {
        let both = Transaction::new().put(Table::Names, "k", "v", end);
        both.put(Table::NamesOf, "k", "v", end)
    };
    assert_eq!(store.commit(both(expires)).unwrap(), Outcome::Committed);
    let leases = |etcd: &Etcd| -> Vec<serde_json::Value> {
        let all = asked(etcd, "v3/lease/leases", "{}");
        let one = |lease: &serde_json::Value| {
            let question = format!(r#"{{"ID":{},"keys":true}}"#, lease["ID"]);
            asked(etcd, "v3/lease/timetolive", &question)
        };
        all["leases"].as_array().unwrap().iter().map(one).collect()
    };
    let found = leases(&etcd);
    assert_eq!(found.len(), 1, "one for both: {found:?}");
    assert_eq!(found[0]["keys"].as_array().unwrap().len(), 2);
    let life: u64 = found[0]["grantedTTL"].as_str().unwrap().parse().unwrap();
    assert!((5000..5000 + LINGER).contains(&life), "{life}");
    // Renewed: the first lease has nothing left to remove.
    assert_eq!(store.commit(both(renewed)).unwrap(), Outcome::Committed);
    let found = leases(&etcd);
    let attached = |lease: &serde_json::Value| lease["keys"].as_array().map_or(0, Vec::len);
    let mut keys: Vec<_> = found.iter().map(attached).collect();
    keys.sort_unstable();
    assert_eq!(keys, [0, 2]);
    // Both are gone, which this front end does not know.
    for lease in found {
        let question = format!(r#"{{"ID":{}}}"#, lease["ID"]);
        asked(&etcd, "v3/lease/revoke", &question);
    }
    assert_eq!(store.get(Table::Names, b"k").unwrap(), None);
    assert_eq!(store.commit(both(renewed)).unwrap(), Outcome::Committed);
    assert_eq!(leases(&etcd).len(), 1);
}

/// What the first member answers.
fn asked(etcd: &Etcd, path: &str, json: &str) -> serde_json::Value {
    let answer = etcd::ask(&etcd.url(0), path, json).unwrap();
    serde_json::from_str(&answer).unwrap()
}
