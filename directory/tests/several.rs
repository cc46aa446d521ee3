//! Four directories of different owners, as processes: rosters, rounds, one that is killed, one that comes back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use hyper::Method;
use mixline_directory_client::{DirectoryClient, Fetched};
use mixline_protocol::identity::NetworkId;
use mixline_protocol::records::Snapshot;
use mixline_protocol::round_log::{LEAF, Leaf, verify_consistency};

/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(180);
const ROUND: u64 = 10;

/// Runs a command that needs no configuration.
fn run(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Directories, each with its files, and their network.
struct Network {
    setups: Vec<Setup>,
    id: NetworkId,
    _dir: tempfile::TempDir,
    roster: PathBuf,
}

impl Network {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: String| dir.path().join(name);
        // An address of this process alone, so that the ports in the roster are free.
        let [.., high, low] = std::process::id().to_be_bytes();
        let listen = |n: usize| format!("127.91.{high}.{low}:{}", 8080 + n);
        let roster = path("roster".into());
        let mut new = vec!["roster".to_owned(), "new".into(), text(&roster).into()];
        for n in 0..4 {
            let id = run(&["identity", text(&path(format!("identity{n}")))]);
            new.extend(["--member".into(), format!("d{n}={id}@http://{}", listen(n))]);
        }
        new.extend(["--round-seconds".into(), ROUND.to_string()]);
        let new: Vec<&str> = new.iter().map(String::as_str).collect();
        let id = run(&new);
        // Each owner signs a copy; one puts three of them together, which are enough.
        for n in 0..3 {
            let copy = path(format!("copy{n}"));
            std::fs::copy(&roster, &copy).unwrap();
            let identity = path(format!("identity{n}"));
            run(&["roster", "sign", text(&copy), "--identity", text(&identity)]);
        }
        let copies = [0, 1, 2].map(|n| path(format!("copy{n}")));
        let mut merge = vec!["roster", "merge", text(&roster)];
        merge.extend(copies.iter().map(|copy| text(copy)));
        assert!(run(&merge).contains("it counts"));

        let setups = (0..4)
            .map(|n| {
                let setup = Setup::new("");
                let more = format!("roster: {}", roster.display());
                setup.configure(&listen(n), &more);
                let identity = path(format!("identity{n}"));
                let made = setup.output(&["online-key", "--identity", text(&identity)]);
                assert!(made.status.success(), "{made:?}");
                setup
            })
            .collect();
        Self {
            setups,
            id: id.parse().unwrap(),
            _dir: dir,
            roster,
        }
    }

    fn client(&self, daemon: &Daemon) -> DirectoryClient {
        DirectoryClient::new(&daemon.url, self.id).unwrap()
    }

    /// The newest snapshot of a directory, once it is as wanted.
    async fn snapshot(&self, daemon: &Daemon, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let end = Instant::now() + PATIENCE;
        let mut client = self.client(daemon);
        let mut last = None;
        while Instant::now() < end {
            match client.fetch().await {
                Ok(Fetched::Snapshot(snapshot)) if wanted(&snapshot) => return snapshot,
                Ok(Fetched::Snapshot(snapshot)) => last = Some(snapshot),
                Ok(Fetched::NotModified) | Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("no such snapshot; the last one: {last:?}");
    }
}

/// The log of a directory's rounds.
async fn log(daemon: &Daemon) -> Vec<Leaf> {
    let url = format!("{}/v2/log/0", daemon.url);
    let answer = ask(900, Method::GET, &url, None, vec![]).await.unwrap();
    let leaves = answer.body.as_chunks::<LEAF>().0.iter();
    leaves.map(Leaf::decode).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_directories_make_one_snapshot_and_go_on_without_one_of_them() {
    let network = Network::new();
    let mut daemons: Vec<Daemon> = network.setups.iter().map(Daemon::start).collect();
    let first = network.snapshot(&daemons[0], |_| true).await;
    assert_eq!(first.network, network.id);
    assert!(first.relays.is_empty() && first.signatures.count() >= 3);
    assert_eq!(first.directories.len(), 4);
    // Everybody says how it is reached, so that relays can prove their link keys to it.
    assert!(first.services().count() >= 3);

    // Three know of a relay, which is more than half; of another one only two do.
    for (n, setup) in network.setups.iter().enumerate().take(3) {
        let mut relays = vec![1];
        if n < 2 {
            relays.push(2);
        }
        for relay_number in relays {
            let url = format!("{}/v2/relays", daemons[n].url);
            let body = setup.registration(relay_number, 1);
            let answer = ask(relay_number, Method::POST, &url, None, body)
                .await
                .unwrap();
            assert_eq!(answer.status, 204, "{}", answer.text());
        }
    }
    let listed = network
        .snapshot(&daemons[3], |snapshot| !snapshot.relays.is_empty())
        .await;
    let ids: Vec<_> = listed
        .relays
        .iter()
        .map(|relay| relay.descriptor.id)
        .collect();
    assert_eq!(ids, [relay_key(1).relay_id()]);
    assert_eq!(listed.relays[0].since, listed.issued);

    // One is killed in the middle; the three others go on.
    let killed = daemons.remove(2);
    killed.kill();
    let after = listed.issued.plus(2 * ROUND);
    let without = network
        .snapshot(&daemons[0], |snapshot| snapshot.issued >= after)
        .await;
    assert!(without.signatures.iter().all(|(index, _)| index != 2));
    assert_eq!(without.directories[2].commitment, None);
    assert_eq!(
        without.directories[2].keys, listed.directories[2].keys,
        "it stays as it was"
    );

    // It comes back, has what it has missed, and signs again.
    daemons.insert(2, Daemon::start(&network.setups[2]));
    let signed = |snapshot: &Snapshot| {
        snapshot.issued > without.issued && snapshot.signatures.iter().any(|(index, _)| index == 2)
    };
    let again = network.snapshot(&daemons[2], signed).await;
    let logs = [log(&daemons[0]).await, log(&daemons[2]).await];
    let shorter = logs[0].len().min(logs[1].len());
    assert!(shorter >= 4, "{logs:?}");
    assert_eq!(logs[0][..shorter], logs[1][..shorter]);
    // The log of each goes on from the one before: no other past.
    let old = listed.log;
    let url = format!("{}/v2/log/{}/{}", daemons[0].url, old.size, again.log.size);
    let proof = ask(900, Method::GET, &url, None, vec![]).await.unwrap();
    assert_eq!(proof.status, 200);
    verify_consistency(&old, &again.log, &proof.body).unwrap();

    // Two are gone: there is no snapshot any more, until one is back.
    for _ in 0..2 {
        daemons.remove(0).kill();
    }
    let last = network.snapshot(&daemons[0], |_| true).await;
    tokio::time::sleep(Duration::from_secs(2 * ROUND + 2)).await;
    let still = network.snapshot(&daemons[0], |_| true).await;
    // One that was signed when they were killed may have been published since.
    assert!(still.issued <= last.issued.plus(ROUND));
    let back = Daemon::start(&network.setups[0]);
    network
        .snapshot(&back, |snapshot| snapshot.issued > still.issued)
        .await;
}

#[test]
fn what_is_wrong_with_a_roster_or_a_key_is_said_in_a_line() {
    let network = Network::new();
    let setup = &network.setups[0];
    // A roster that too few have signed.
    let mut bytes = std::fs::read(&network.roster).unwrap();
    let good = bytes.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&network.roster, &bytes).unwrap();
    let line = setup.failure(&[]);
    assert!(
        line.contains("roster") && line.contains("does not verify"),
        "{line}"
    );
    std::fs::write(&network.roster, b"noise").unwrap();
    assert!(setup.failure(&[]).contains("it is no roster"));
    std::fs::write(&network.roster, good).unwrap();
    // Another directory's certificate, and none.
    let certificate = setup.state().join("online.cert");
    std::fs::copy(network.setups[1].state().join("online.cert"), &certificate).unwrap();
    assert!(setup.failure(&[]).contains("another key than online.key"));
    std::fs::remove_file(&certificate).unwrap();
    assert!(setup.failure(&[]).contains("mixline-directory online-key"));
}
