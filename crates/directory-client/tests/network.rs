//! The client of a network of several directories: some lie, some are away, some are behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mixline_directory_client::{
    DirectoryStatus, Error, Fetched, FollowStatus, Following, Known, NetworkClient,
};
use mixline_protocol::identity::{Digest, IdentityKey, NetworkId};
use mixline_protocol::records::{
    DirectoryEntry, LogHead, Member, OnlineKey, Parameters, Roster, SharedRandom, Signatures,
    Snapshot,
};
use mixline_protocol::time::UnixTime;
use tokio::sync::watch;

mod common;

use common::{Answer, Server, ok};

const SNAPSHOT: &str = "/v2/snapshot";
const ROSTER: &str = "/v2/roster";
/// How long rounds are, in seconds.
const ROUND: u32 = 300;

fn now() -> UnixTime {
    SystemTime::now().into()
}

fn identity(number: u8) -> IdentityKey {
    IdentityKey::from_seed([number; 32])
}

/// The key that directory `number` signs with from day to day.
fn online(number: u8) -> IdentityKey {
    IdentityKey::from_seed([100 + number; 32])
}

/// Directories by number, each with a server.
struct Network {
    servers: Vec<(u8, Server, String)>,
    chain: Vec<Roster>,
}

impl Network {
    /// Of directories 1 to `count`, which know their roster and have a snapshot.
    async fn of(count: u8) -> Self {
        let mut network = Self {
            servers: Vec::new(),
            chain: Vec::new(),
        };
        for number in 1..=count {
            network.open(number).await;
        }
        let numbers: Vec<_> = (1..=count).collect();
        let mut roster = Roster::first(network.members(&numbers), ROUND, 3 * 3600).unwrap();
        for number in numbers {
            assert!(roster.sign(&identity(number), None));
        }
        network.chain.push(roster);
        network.publish(now());
        network
    }

    async fn open(&mut self, number: u8) {
        let (server, url) = Server::start(Answer {
            status: 500,
            ..Answer::default()
        })
        .await;
        self.servers.push((number, server, url));
    }

    fn members(&self, numbers: &[u8]) -> Vec<Member> {
        let member = |number: &u8| Member {
            key: identity(*number).public(),
            name: format!("d{number}"),
            url: self.url(*number).to_owned(),
        };
        numbers.iter().map(member).collect()
    }

    fn roster(&self) -> &Roster {
        self.chain.last().unwrap()
    }

    fn id(&self) -> NetworkId {
        self.roster().network()
    }

    fn server(&self, number: u8) -> &Server {
        let mut servers = self.servers.iter();
        &servers.find(|(of, ..)| *of == number).unwrap().1
    }

    fn url(&self, number: u8) -> &str {
        let mut servers = self.servers.iter();
        &servers.find(|(of, ..)| *of == number).unwrap().2
    }

    /// The next roster, signed by those before and those after.
    fn next(&self, numbers: &[u8]) -> Roster {
        let before = self.roster();
        let mut next = before.next(self.members(numbers), ROUND, 3 * 3600).unwrap();
        for (number, ..) in &self.servers {
            next.sign(&identity(*number), Some(before));
        }
        next
    }

    /// A round's snapshot that these directories of a roster have signed.
    fn snapshot(roster: &Roster, issued: UnixTime, signers: &[u8]) -> Snapshot {
        let certified = |member: &Member| {
            let number = (1..100).find(|n| identity(*n).public() == member.key);
            let key = online(number.unwrap()).public();
            let times = (issued.minus(3600), issued.plus(3600));
            let identity = identity(number.unwrap());
            OnlineKey::certify(roster.network(), key, times, &identity).unwrap()
        };
        let entry = |member: &Member| DirectoryEntry {
            keys: [certified(member)].into_iter().collect(),
            ..DirectoryEntry::default()
        };
        let mut snapshot = Snapshot {
            network: roster.network(),
            roster: roster.version,
            issued,
            valid_until: issued.plus(3 * 3600),
            previous: (UnixTime(0), Digest::default()),
            log: LogHead::default(),
            random: SharedRandom::default(),
            parameters: Parameters::default(),
            directories: roster.members.iter().map(entry).collect(),
            relays: vec![],
            signatures: Signatures::default(),
        }
        .ordered()
        .unwrap();
        let digest = snapshot.digest();
        for number in signers {
            let index = roster.index_of(&identity(*number).public()).unwrap();
            let key = online(*number);
            let signature = Snapshot::signature(&roster.network(), issued, &digest, &key);
            snapshot.signatures.put(index, signature);
        }
        snapshot
    }

    fn newest(&self, issued: UnixTime) -> Snapshot {
        let numbers: Vec<_> = self.numbers().collect();
        Self::snapshot(self.roster(), issued, &numbers)
    }

    fn numbers(&self) -> impl Iterator<Item = u8> {
        let servers = self.servers.iter().map(|(number, ..)| *number);
        servers.filter(|number| {
            self.roster()
                .index_of(&identity(*number).public())
                .is_some()
        })
    }

    /// All directories have a new snapshot.
    fn publish(&self, issued: UnixTime) -> Snapshot {
        let snapshot = self.newest(issued);
        for number in self.numbers() {
            self.publish_at(number, &snapshot);
        }
        snapshot
    }

    fn publish_at(&self, number: u8, snapshot: &Snapshot) {
        let server = self.server(number);
        server.say_at(SNAPSHOT, ok(snapshot.encode()));
        server.say_at(ROSTER, ok(Roster::encode_chain(&self.chain)));
    }

    /// A client that is told where these directories are, and nothing else.
    fn client(&self, numbers: &[u8]) -> NetworkClient {
        self.client_with(numbers, Known::nothing(self.id()))
    }

    fn client_with(&self, numbers: &[u8], known: Known) -> NetworkClient {
        let urls: Vec<_> = numbers.iter().map(|n| self.url(*n).to_owned()).collect();
        NetworkClient::new(&urls, known).unwrap()
    }
}

fn status<'a>(client: &'a NetworkClient, url: &str) -> &'a DirectoryStatus {
    client.directories().find(|of| of.url == url).unwrap()
}

async fn fetched(client: &mut NetworkClient) -> Arc<Snapshot> {
    match client.fetch().await.unwrap() {
        Fetched::Snapshot(snapshot) => snapshot,
        Fetched::NotModified => panic!("nothing new"),
    }
}

#[tokio::test]
async fn one_address_leads_to_all_directories() {
    let network = Network::of(4).await;
    let mut client = network.client(&[2]);
    let snapshot = fetched(&mut client).await;
    assert_eq!(*snapshot, network.newest(snapshot.issued));
    assert_eq!(client.known().round(), Some(snapshot.issued));
    assert_eq!(client.known().roster().unwrap().version, 1);
    let names: Vec<_> = client
        .directories()
        .map(|of| of.name.clone().unwrap())
        .collect();
    assert_eq!(names.len(), 4);
    // By chance, all of them are asked.
    for _ in 0..200 {
        client.fetch().await.unwrap();
    }
    for number in 1..=4 {
        assert!(
            network.server(number).count(SNAPSHOT) > 0,
            "directory {number}"
        );
        // The roster is asked for once, when it is not known.
        let rosters = network.server(number).count(ROSTER);
        assert_eq!(rosters, usize::from(number == 2));
    }
}

#[tokio::test]
async fn one_that_lies_one_that_is_dead_and_one_that_is_behind_keep_nothing_from_anybody() {
    let mut network = Network::of(7).await;
    let issued = now().minus(30);
    let before = network.newest(issued.minus(300));
    let newest = network.publish(issued);
    // Signed by too few; signed by others; not there; behind.
    let few = Network::snapshot(network.roster(), issued.plus(20), &[1, 2, 3, 4]);
    network.publish_at(1, &few);
    let mut forged = newest.clone();
    forged.signatures.put(0, [7; 64]);
    network.publish_at(2, &forged);
    network.publish_at(4, &before);
    let dead = network
        .servers
        .iter_mut()
        .find(|(number, ..)| *number == 3)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    dead.2 = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);

    // Wherever it begins, it ends with the newest.
    let mut client = network.client(&[1, 2, 3, 5]);
    let mut last = UnixTime(0);
    for _ in 0..150 {
        match client.fetch().await.unwrap() {
            Fetched::Snapshot(snapshot) => {
                assert!(snapshot.issued >= last);
                last = snapshot.issued;
            }
            Fetched::NotModified => {}
        }
    }
    assert_eq!(client.known().round(), Some(issued));
    let error = |number| status(&client, network.url(number)).last_error.clone();
    for (number, words) in [
        (
            1,
            "signed by 4 of the network's directories, and it takes 5",
        ),
        (2, "bad signature"),
        (3, "unreachable"),
        (4, "300 s older"),
    ] {
        let error = error(number).unwrap_or_else(|| panic!("{number} was not asked"));
        assert!(
            error.contains(words) && error.lines().count() == 1,
            "{error}"
        );
    }
    assert_eq!(error(5), None);
    // Who is wrong is left alone for a while.
    assert!(network.server(1).count(SNAPSHOT) <= 1);
    assert!(network.server(2).count(SNAPSHOT) <= 1);
    assert!(network.server(4).count(SNAPSHOT) <= 2);
}

#[tokio::test]
async fn without_any_that_is_of_use_one_line_says_so() {
    let network = Network::of(4).await;
    let few = Network::snapshot(network.roster(), now(), &[1, 2]);
    for number in 1..=4 {
        network.publish_at(number, &few);
    }
    let mut client = network.client(&[1, 2, 3, 4]);
    let error = client.fetch().await.unwrap_err();
    assert!(
        matches!(error, Error::NoDirectory { asked: 4, .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("signed by 2") && text.lines().count() == 1,
        "{text}"
    );
    assert_eq!(client.known().round(), None);
    // They are all asked again nevertheless, and believed when they are right.
    let right = network.publish(now());
    assert_eq!(*fetched(&mut client).await, right);
}

#[tokio::test]
async fn a_directory_that_withholds_the_newest_is_found_out() {
    let network = Network::of(4).await;
    let long_ago = now().minus(u64::from(ROUND) * 2);
    let old = network.publish(long_ago);
    let newest = network.newest(now());
    network.publish_at(3, &newest);
    network.publish_at(4, &newest);
    network.publish_at(2, &newest);
    for _ in 0..10 {
        // Directory 1 shows what it had, which is valid still, and another is asked as well.
        let mut client = network.client(&[1, 2, 3, 4]);
        client.fetch().await.unwrap();
        assert_eq!(client.known().round(), Some(newest.issued));
    }
    // Nobody has anything newer: it is no error, and not all are asked each time.
    let network = Network::of(4).await;
    network.publish(long_ago);
    let mut client = network.client(&[1, 2, 3, 4]);
    assert_eq!(fetched(&mut client).await.issued, old.issued);
    let asked: usize = (1..=4).map(|n| network.server(n).count(SNAPSHOT)).sum();
    assert_eq!(asked, 2);
}

#[tokio::test]
async fn the_roster_changes_in_the_middle() {
    let mut network = Network::of(4).await;
    let first = network.publish(now().minus(20));
    let mut client = network.client(&[1]);
    fetched(&mut client).await;
    // Directory 4 goes, and 5 comes.
    network.open(5).await;
    let second = network.next(&[1, 2, 3, 5]);
    network.chain.push(second);
    network.publish(now().minus(10));
    for _ in 0..100 {
        client.fetch().await.unwrap();
    }
    assert_eq!(client.known().roster().unwrap().version, 2);
    let mut names: Vec<_> = client
        .directories()
        .map(|of| of.name.clone().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["d1", "d2", "d3", "d5"]);
    assert_eq!(
        network.server(5).count(ROSTER),
        0,
        "each roster is fetched once"
    );
    // What the old ones sign from now on is not believed.
    let retired = Network::snapshot(&network.chain[0], now().minus(5), &[1, 2, 3, 4]);
    let mut client = network.client_with(&[4], client.known().clone());
    network.publish_at(4, &retired);
    for _ in 0..100 {
        client.fetch().await.unwrap();
    }
    let error = status(&client, network.url(4)).last_error.clone().unwrap();
    assert!(
        error.contains("version 1 of the network's roster"),
        "{error}"
    );
    assert!(client.known().round() > Some(first.issued));
}

#[tokio::test]
async fn a_roster_that_does_not_verify_is_not_taken() {
    let mut network = Network::of(4).await;
    network.open(5).await;
    let next = network.next(&[1, 2, 3, 5]);
    let mut few_before = next.clone();
    few_before.signed_before.retain(|index, _| index < 2);
    let mut few_after = next.clone();
    few_after.signed.retain(|index, _| index < 2);
    let first = network.chain[0].clone();
    let skipped = network
        .roster()
        .next(network.members(&[1, 2, 3, 5]), ROUND, 3600)
        .unwrap();
    for chain in [
        vec![first.clone(), few_before],
        vec![first.clone(), few_after],
        vec![first.clone(), skipped],
        vec![next.clone()],
        vec![],
    ] {
        let snapshot = Network::snapshot(&next, now(), &[1, 2, 3, 5]);
        let (server, url) = Server::start(ok(snapshot.encode())).await;
        server.say_at(ROSTER, ok(Roster::encode_chain(&chain)));
        let mut client = NetworkClient::new(&[url], Known::nothing(network.id())).unwrap();
        let error = client.fetch().await.unwrap_err();
        assert!(matches!(error, Error::Roster { .. }), "{error}");
        assert_eq!(client.known(), &Known::nothing(network.id()));
    }
    // One that says that it is alone, and has a snapshot of several.
    let snapshot = network.newest(now());
    let (server, url) = Server::start(ok(snapshot.encode())).await;
    server.say_at(
        ROSTER,
        Answer {
            status: 204,
            ..Answer::default()
        },
    );
    let mut client = NetworkClient::new(&[url], Known::nothing(network.id())).unwrap();
    let error = client.fetch().await.unwrap_err();
    assert!(matches!(error, Error::Roster { .. }), "{error}");
}

#[tokio::test]
async fn what_is_known_outlives_a_restart() {
    let mut network = Network::of(4).await;
    network.open(5).await;
    network.open(6).await;
    let [second, fork] = [[1, 2, 3, 5], [1, 2, 3, 6]].map(|numbers| network.next(&numbers));
    network.chain.push(second);
    let issued = now().minus(5);
    network.publish(issued);
    let mut client = network.client(&[1]);
    fetched(&mut client).await;
    let bytes = client.known().encode();
    assert!(bytes.len() <= Known::MAX_ENCODED);
    let known = Known::decode(&bytes, network.id()).unwrap();
    assert_eq!(&known, client.known());
    for length in 0..bytes.len() {
        // Without a roster it is whole as well.
        let cut = Known::decode(&bytes[..length], network.id());
        assert!(cut.is_err() || length == 41, "{length}");
    }
    assert!(Known::decode(&[&bytes[..], &[0]].concat(), network.id()).is_err());
    // Another network has nothing to do with it.
    let other = NetworkId([1; 32]);
    assert_eq!(Known::decode(&bytes, other), Ok(Known::nothing(other)));

    // The retired ones go on as if nothing had happened, for whoever does not know better.
    let [first, second] = network.chain.clone().try_into().unwrap();
    let retired = Network::snapshot(&first, now(), &[1, 2, 3, 4]);
    let answer = |server: &Server, chain: &[&Roster], snapshot: &Snapshot| {
        server.say_at(ROSTER, ok(Roster::encode_chain(chain.iter().copied())));
        server.say_at(SNAPSHOT, ok(snapshot.encode()));
    };
    let (server, url) = Server::start(Answer::default()).await;
    let urls = [url.clone()];
    let unknown = || Known::nothing(network.id());
    let client = |known: Known| NetworkClient::new(&urls, known).unwrap();
    answer(&server, &[&first], &retired);
    client(unknown()).fetch().await.unwrap();
    // Those of the roster are not reached: what this one says is all there is.
    let silent = Answer {
        status: 500,
        ..Answer::default()
    };
    for (_, server, _) in &network.servers {
        server.say_at(SNAPSHOT, silent.clone());
    }
    let said = async |known: Known| {
        let mut client = client(known);
        client.fetch().await.unwrap_err();
        status(&client, &url).last_error.clone().unwrap()
    };
    let error = said(known.clone()).await;
    assert!(
        error.contains("version 1 of the network's roster"),
        "{error}"
    );
    // An earlier round of the right ones.
    let older = Network::snapshot(&second, issued.minus(300), &[1, 2, 3, 5]);
    answer(&server, &[&first, &second], &older);
    client(unknown()).fetch().await.unwrap();
    let error = said(known.clone()).await;
    assert!(error.contains("300 s older"), "{error}");
    // Another second version, and what goes on from there.
    let mut third = fork
        .next(network.members(&[1, 2, 3, 6]), ROUND, 3 * 3600)
        .unwrap();
    for number in [1, 2, 3, 6] {
        third.sign(&identity(number), Some(&fork));
    }
    let forked = Network::snapshot(&third, now(), &[1, 2, 3, 6]);
    answer(&server, &[&first, &fork, &third], &forked);
    client(unknown()).fetch().await.unwrap();
    let error = said(known).await;
    assert!(
        error.contains("roster") && error.contains("does not verify"),
        "{error}"
    );
}

#[tokio::test]
async fn following_shows_each_directory_and_tells_what_is_to_be_kept() {
    let network = Network::of(4).await;
    let fresh = vec![("cache-control", "max-age=1".to_owned())];
    let newest = network.newest(now());
    for number in 1..=3 {
        network.server(number).say_at(
            SNAPSHOT,
            Answer {
                headers: fresh.clone(),
                ..ok(newest.encode())
            },
        );
    }
    network.server(4).say_at(
        SNAPSHOT,
        Answer {
            status: 500,
            ..Answer::default()
        },
    );
    let (snapshots, mut seen) = watch::channel(None);
    let (known, mut keep) = watch::channel(Known::nothing(network.id()));
    let (status, mut shown) = watch::channel(FollowStatus::default());
    let client = network.client(&[4, 1]);
    let following = tokio::spawn(client.follow(Following {
        snapshots,
        known,
        status,
    }));
    seen.wait_for(Option::is_some).await.unwrap();
    let kept = keep
        .wait_for(|known| known.roster().is_some())
        .await
        .unwrap()
        .clone();
    assert_eq!(kept.round(), Some(newest.issued));
    let all_right = |status: &FollowStatus| {
        let wrong = status
            .directories
            .iter()
            .filter(|of| of.last_error.is_some());
        let well = status
            .directories
            .iter()
            .filter(|of| of.last_success.is_some());
        wrong.count() == 1 && well.count() == 3
    };
    let shown = shown.wait_for(all_right).await.unwrap().clone();
    assert_eq!((shown.round, shown.roster), (Some(newest.issued), Some(1)));
    assert_eq!(shown.valid_until, Some(newest.valid_until));
    assert_eq!(shown.last_error, None, "others are of use");
    let failing = shown.directories.iter().find(|of| of.last_error.is_some());
    assert_eq!(failing.unwrap().name.as_deref(), Some("d4"));
    drop(seen);
    tokio::time::timeout(Duration::from_secs(60), following)
        .await
        .unwrap()
        .unwrap();
}
