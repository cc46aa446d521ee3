//! The client against a directory that says what the test wants.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use mixline_directory_client::{DirectoryClient, Error, Fetched, FollowStatus};
use mixline_http_client::StatusCode as Status;
use mixline_protocol::identity::{
    AnonymousId, Digest, IdentityKey, NetworkId, X25519Public, X25519Secret,
};
use mixline_protocol::records::{
    DirectoryEntry, Heartbeat, LogHead, Parameters, Registration, RelayDescriptor, RelayRecord,
    ServiceDescriptor, SharedRandom, Signatures, Snapshot,
};
use mixline_protocol::time::UnixTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

mod common;

use common::{Answer, Server, ok};

fn key() -> IdentityKey {
    IdentityKey::from_seed([9; 32])
}

fn id() -> AnonymousId {
    key().anonymous_id()
}

fn now() -> UnixTime {
    SystemTime::now().into()
}

/// A snapshot that was made at `issued` and is valid for ten minutes.
fn snapshot(issued: UnixTime) -> Snapshot {
    let service = ServiceDescriptor {
        id: id(),
        version: 1,
        issued,
        expires: issued.plus(600),
        session: X25519Public([1; 32]),
        effort: mixline_protocol::effort::EffortTerms::default(),
        lease: None,
        tails: vec![],
        clients: None,
        signature: [0; 64],
    };
    Snapshot {
        network: id().into(),
        roster: 0,
        issued,
        valid_until: issued.plus(600),
        previous: (UnixTime(0), Digest::default()),
        log: LogHead::default(),
        random: SharedRandom::default(),
        parameters: Parameters::default(),
        directories: vec![DirectoryEntry {
            service: Some(service.sign(&key()).unwrap()),
            ..DirectoryEntry::default()
        }],
        relays: vec![],
        signatures: Signatures::default(),
    }
    .sign(&key())
    .unwrap()
}

fn record() -> RelayRecord {
    let key = IdentityKey::from_seed([1; 32]);
    let descriptor = RelayDescriptor {
        id: key.relay_id(),
        version: 1,
        issued: now(),
        expires: now().plus(600),
        link: X25519Public([1; 32]),
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 7000))],
        capacity: 1,
        family: None,
        name: "relay".into(),
        software: "test".into(),
        signature: [0; 64],
    };
    let onion = [(1, X25519Public([2; 32]))].into_iter().collect();
    RelayRecord::sign(descriptor.sign(&key).unwrap(), 1, onion, &key).unwrap()
}

fn heartbeat(record: &RelayRecord) -> Heartbeat {
    let [link, directory] = [[1; 32], [2; 32]].map(X25519Secret::from_bytes);
    let keys = (&link, &directory.public());
    Heartbeat::new(record.descriptor.id, 1, (0, false), record.digest(), keys).unwrap()
}

fn registration() -> Registration {
    let record = record();
    Registration {
        heartbeat: heartbeat(&record),
        record,
    }
}

async fn fetch_from(answer: Answer) -> Result<Fetched, Error> {
    let (_, url) = Server::start(answer).await;
    DirectoryClient::new(&url, id()).unwrap().fetch().await
}

#[tokio::test]
async fn fetches_once_and_asks_whether_it_is_new() {
    let made = snapshot(now());
    let (server, url) = Server::start(Answer {
        headers: vec![
            ("etag", "\"one\"".into()),
            ("cache-control", "public, max-age=7".into()),
        ],
        ..ok(made.encode())
    })
    .await;
    let mut client = DirectoryClient::new(&url, id()).unwrap();
    let Fetched::Snapshot(fetched) = client.fetch().await.unwrap() else {
        panic!("none")
    };
    assert_eq!(*fetched, made);
    assert_eq!(client.max_age(), Some(Duration::from_secs(7)));
    server.say(Answer {
        status: 304,
        ..Answer::default()
    });
    assert!(matches!(client.fetch().await, Ok(Fetched::NotModified)));
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked[0].0, "/v2/snapshot");
    assert!(asked[0].1.get("if-none-match").is_none());
    // What the server calls it is not repeated, which would be known again in any network.
    assert_eq!(
        *asked[1].1.get("if-none-match").unwrap(),
        Snapshot::entity_tag(&made.encode())
    );
    // Nothing says who asks, or with what.
    assert!(
        asked
            .iter()
            .all(|(_, headers, _)| headers.get("user-agent").is_none())
    );
}

#[tokio::test]
async fn an_older_snapshot_is_not_taken_while_the_newer_one_holds() {
    let newer = snapshot(now());
    let older = snapshot(UnixTime(now().0 - 300));
    let (server, url) = Server::start(ok(newer.encode())).await;
    let mut client = DirectoryClient::new(&url, id()).unwrap();
    client.fetch().await.unwrap();
    server.say(ok(older.encode()));
    let error = client.fetch().await.unwrap_err();
    assert!(
        matches!(error, Error::Older { seconds: 300.., .. }),
        "{error}"
    );
    // The one that is held is what is asked with.
    let tag = |at: usize| server.asked.lock().unwrap()[at].1["if-none-match"].clone();
    assert!(client.fetch().await.is_err());
    assert_eq!(tag(2), Snapshot::entity_tag(&newer.encode()));
    // Neither is it at another address of the directory.
    let (snapshots, newest) = watch::channel(Some(Arc::new(newer.clone())));
    let (status, mut shown) = watch::channel(FollowStatus::default());
    let moved = DirectoryClient::new(&url, id()).unwrap();
    let following = tokio::spawn(moved.follow(snapshots, status));
    shown.wait_for(|s| s.failures > 0).await.unwrap();
    assert_eq!(newest.borrow().as_deref(), Some(&newer));
    following.abort();
    server.say(ok(newer.encode()));
    assert!(matches!(client.fetch().await, Ok(Fetched::Snapshot(_))));
}

#[tokio::test]
async fn what_was_held_ahead_of_time_is_no_measure() {
    /// Seconds that the client's clock is ahead.
    static AHEAD: AtomicUsize = AtomicUsize::new(0);
    let ahead = || SystemTime::now() + Duration::from_secs(AHEAD.load(Ordering::Relaxed) as u64);
    let days = 3 * 86_400;
    let (server, url) = Server::start(ok(snapshot(now().plus(days)).encode())).await;
    let mut client = DirectoryClient::with_clock(&url, id(), ahead).unwrap();
    AHEAD.store(days.try_into().unwrap(), Ordering::Relaxed);
    client.fetch().await.unwrap();
    AHEAD.store(0, Ordering::Relaxed);
    server.say(ok(snapshot(now()).encode()));
    client.fetch().await.unwrap();
}

#[tokio::test]
async fn a_tag_is_kept_only_with_its_snapshot() {
    let (server, url) = Server::start(Answer {
        headers: vec![("etag", "\"bad\"".into())],
        ..ok(b"noise".to_vec())
    })
    .await;
    let mut client = DirectoryClient::new(&url, id()).unwrap();
    assert!(client.fetch().await.is_err());
    server.say(ok(snapshot(now()).encode()));
    client.fetch().await.unwrap();
    assert!(
        server.asked.lock().unwrap()[1]
            .1
            .get("if-none-match")
            .is_none()
    );
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let mut bent = snapshot(now()).encode();
    *bent.last_mut().unwrap() ^= 1;
    assert!(matches!(
        fetch_from(ok(bent)).await,
        Err(Error::Signature { .. })
    ));

    let old = snapshot(now().minus(700)).encode();
    let error = fetch_from(ok(old)).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Expired {
                seconds_ago: 100..110,
                ..
            }
        ),
        "{error}"
    );

    let early = snapshot(now().plus(3600)).encode();
    let error = fetch_from(ok(early)).await.unwrap_err();
    assert!(matches!(error, Error::NotYetValid { .. }), "{error}");

    for (answer, word) in [
        (ok(b"<html>".to_vec()), "malformed"),
        (ok(vec![0; (8 << 20) + 1]), "bytes"),
        (
            Answer {
                status: 404,
                ..Answer::default()
            },
            "404",
        ),
        (
            Answer {
                status: 304,
                ..Answer::default()
            },
            "304",
        ),
        (
            Answer {
                status: 500,
                ..Answer::default()
            },
            "500",
        ),
        // Nobody is led elsewhere.
        (
            Answer {
                status: 302,
                headers: vec![("location", "http://127.0.0.1:1/".into())],
                body: vec![],
            },
            "302",
        ),
    ] {
        let error = fetch_from(answer).await.unwrap_err();
        assert!(matches!(error, Error::NotADirectory { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(word) && text.lines().count() == 1, "{text}");
    }
}

#[tokio::test]
async fn another_directory_is_not_believed() {
    let (_, url) = Server::start(ok(snapshot(now()).encode())).await;
    let other = IdentityKey::from_seed([8; 32]).anonymous_id();
    let error = DirectoryClient::new(&url, other)
        .unwrap()
        .fetch()
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Signature { expected, .. } if expected == NetworkId::from(other))
    );
    assert!(error.to_string().contains("bad signature"), "{error}");
}

type Clock = fn() -> SystemTime;

#[tokio::test]
async fn a_wrong_clock_is_named() {
    let (server, url) = Server::start(ok(snapshot(now()).encode())).await;
    let clocks: [(Clock, &str); 2] = [
        (
            || SystemTime::now() + Duration::from_secs(3660),
            "61 minutes ahead of the directory's",
        ),
        (
            || SystemTime::now() - Duration::from_secs(7300),
            "2 hours behind the directory's",
        ),
    ];
    for (clock, words) in clocks {
        let mut client = DirectoryClient::with_clock(&url, id(), clock).unwrap();
        let error = client.fetch().await.unwrap_err();
        assert!(matches!(error, Error::Clock(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(client.clock_ahead().unwrap().unsigned_abs() > 3600);
    }
    // A relay whose descriptor is refused for its time is told the same.
    server.say(Answer {
        status: 400,
        headers: vec![],
        body: b"your clock\n".to_vec(),
    });
    let mut client = DirectoryClient::with_clock(&url, id(), clocks[0].0).unwrap();
    let error = client.register(&registration()).await.unwrap_err();
    assert!(matches!(error, Error::Clock(_)), "{error}");
}

#[tokio::test]
async fn an_absent_directory_is_unreachable() {
    // A port that was free a moment ago.
    let url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let mut client = DirectoryClient::new(&url, id()).unwrap();
    let error = client.fetch().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }));
    let text = error.to_string();
    assert!(
        text.contains("unreachable") && text.contains("refused"),
        "{text}"
    );
    assert!(text.contains(&url), "{text}");
}

/// Time passes at once whenever nothing else happens.
#[tokio::test(start_paused = true)]
async fn a_silent_directory_is_not_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let began = tokio::time::Instant::now();
    let mut client = DirectoryClient::new(&url, id()).unwrap();
    let error = client.fetch().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("no answer in time"), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(16));
}

/// A firewall between client and server. What it has forgotten is dropped without a word, both ways.
struct Firewall {
    url: String,
    /// Connections so far, and how many of them are forgotten.
    made: Arc<AtomicUsize>,
    forgotten: Arc<AtomicUsize>,
}

impl Firewall {
    async fn before(url: &str) -> Self {
        let server: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let firewall = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            made: Arc::default(),
            forgotten: Arc::default(),
        };
        let (made, forgotten) = (Arc::clone(&firewall.made), Arc::clone(&firewall.forgotten));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = made.fetch_add(1, Ordering::Relaxed);
                let far = TcpStream::connect(server).await.unwrap();
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                for (from, to) in [(near_in, far_out), (far_in, near_out)] {
                    tokio::spawn(pass(from, to, number, Arc::clone(&forgotten)));
                }
            }
        });
        firewall
    }

    /// Forgets all connections that there are.
    fn forget(&self) {
        let made = self.made.load(Ordering::Relaxed);
        self.forgotten.store(made, Ordering::Relaxed);
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: usize,
    forgotten: Arc<AtomicUsize>,
) {
    let mut buffer = [0; 4096];
    while let Ok(length) = from.read(&mut buffer).await {
        if number < forgotten.load(Ordering::Relaxed) {
            // The ends stay open: nobody is told.
            std::future::pending::<()>().await;
        }
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_connection_that_a_firewall_forgot_costs_seconds() {
    let (server, url) = Server::start(ok(snapshot(now()).encode())).await;
    let firewall = Firewall::before(&url).await;
    let mut client = DirectoryClient::new(&firewall.url, id()).unwrap();
    for _ in 0..3 {
        client.fetch().await.unwrap();
    }
    assert_eq!(firewall.made.load(Ordering::Relaxed), 1, "it is kept");
    for made in 2..4 {
        firewall.forget();
        let began = std::time::Instant::now();
        client.fetch().await.unwrap();
        let took = began.elapsed();
        println!("a fresh connection after {took:?}");
        assert!(took < Duration::from_secs(8), "{took:?}");
        assert_eq!(firewall.made.load(Ordering::Relaxed), made);
        // The fresh one is kept.
        client.fetch().await.unwrap();
        assert_eq!(firewall.made.load(Ordering::Relaxed), made);
    }
    // Registrations, too.
    server.say(Answer {
        status: 204,
        ..Answer::default()
    });
    firewall.forget();
    client.register(&registration()).await.unwrap();
}

/// A server that begins an answer and does not go on.
#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1000];
        let _ = stream.read(&mut request).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbeginning";
        stream.write_all(head).await.unwrap();
        std::future::pending::<()>().await;
    });
    let began = tokio::time::Instant::now();
    let mut client = DirectoryClient::new(&url, id()).unwrap();
    let error = client.fetch().await.unwrap_err();
    assert!(error.to_string().contains("no answer in time"), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(16));
}

#[tokio::test]
async fn relays_are_registered_or_told_why_not() {
    let (server, url) = Server::start(Answer {
        status: 204,
        ..Answer::default()
    })
    .await;
    let mut client = DirectoryClient::new(&format!("{url}/sub"), id()).unwrap();
    let registration = registration();
    client.register(&registration).await.unwrap();
    let (path, _, body) = server.asked.lock().unwrap()[0].clone();
    assert_eq!(
        (path.as_str(), body.to_vec()),
        ("/sub/v2/relays", registration.encode())
    );

    let body = b"the short ID is\x1b[31m taken\nsecond line".to_vec();
    server.say(Answer {
        status: 409,
        headers: vec![],
        body,
    });
    let error = client.register(&registration).await.unwrap_err();
    let Error::Refused { text, .. } = &error else {
        panic!("{error}")
    };
    assert!(!error.is_forbidden());
    assert_eq!(text, "the short ID is [31m taken second line");

    for (status, is_forbidden) in [(503, false), (403, true)] {
        server.say(Answer {
            status,
            headers: vec![],
            body: b"no\n".to_vec(),
        });
        let error = client.register(&registration).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert_eq!(error.is_forbidden(), is_forbidden);
    }
    server.say(Answer {
        status: 429,
        headers: vec![],
        body: vec![b'x'; 1 << 20],
    });
    let long = client.register(&registration).await.unwrap_err();
    assert!(long.to_string().len() < 400, "{long}");
    server.say(Answer {
        status: 200,
        ..Answer::default()
    });
    let odd = client.register(&registration).await.unwrap_err();
    assert!(matches!(odd, Error::NotADirectory { .. }), "{odd}");
}

#[tokio::test]
async fn a_heartbeat_is_taken_or_the_record_is_asked_for() {
    let (server, url) = Server::start(Answer {
        status: 204,
        ..Answer::default()
    })
    .await;
    let mut client = DirectoryClient::new(&url, id()).unwrap();
    let heartbeat = heartbeat(&record());
    client.heartbeat(&heartbeat).await.unwrap();
    let (path, _, body) = server.asked.lock().unwrap()[0].clone();
    assert_eq!(
        (path.as_str(), body.to_vec()),
        ("/v2/heartbeats", heartbeat.encode())
    );
    server.say(Answer {
        status: 404,
        headers: vec![],
        body: b"no such record\n".to_vec(),
    });
    let error = client.heartbeat(&heartbeat).await.unwrap_err();
    assert!(matches!(error, Error::NotRegistered { .. }), "{error}");
    // Who is asked for a record and does not take it is no directory with another record.
    let error = client.register(&registration()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                status: Status::NOT_FOUND,
                ..
            }
        ),
        "{error}"
    );
    server.say(Answer {
        status: 409,
        ..Answer::default()
    });
    let error = client.heartbeat(&heartbeat).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[test]
fn addresses_that_are_none_are_refused() {
    for url in [
        "",
        "directory",
        "https://192.0.2.1",
        "ftp://x",
        "http://",
        "http://192.0.2.1:80800",
        "http://user@192.0.2.1",
    ] {
        let error = DirectoryClient::new(url, id()).unwrap_err();
        assert!(matches!(error, Error::Url { .. }), "{url}: {error}");
        assert_eq!(error.to_string().lines().count(), 1);
    }
}

#[tokio::test]
async fn following_survives_failures_and_shows_them() {
    let (server, url) = Server::start(Answer {
        status: 500,
        ..Answer::default()
    })
    .await;
    let (snapshots, mut newest) = watch::channel(None);
    let (status, mut shown) = watch::channel(FollowStatus::default());
    let client = DirectoryClient::new(&url, id()).unwrap();
    let following = tokio::spawn(client.follow(snapshots, status));

    let failed = shown.wait_for(|s| s.failures > 0).await.unwrap().clone();
    assert!(failed.last_error.unwrap().contains("500") && failed.last_success.is_none());
    let fresh = vec![("cache-control", "max-age=1".to_owned())];
    let first = snapshot(now());
    server.say(Answer {
        headers: fresh.clone(),
        ..ok(first.encode())
    });
    let got = newest
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    assert_eq!(*got, first);
    let well = shown
        .wait_for(|s| s.last_success.is_some())
        .await
        .unwrap()
        .clone();
    assert_eq!((well.last_error, well.failures), (None, 0));
    assert_eq!(well.valid_until, Some(first.valid_until));

    let second = snapshot(now().plus(1));
    server.say(Answer {
        headers: fresh,
        ..ok(second.encode())
    });
    let is_second = |s: &Option<Arc<Snapshot>>| s.as_deref() == Some(&second);
    newest.wait_for(is_second).await.unwrap();

    // The last one stays while the directory is away.
    server.say(Answer {
        status: 500,
        ..Answer::default()
    });
    shown.wait_for(|s| s.last_error.is_some()).await.unwrap();
    assert!(is_second(&newest.borrow()));
    drop(newest);
    following.await.unwrap();
}
