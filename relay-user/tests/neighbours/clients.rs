//! Clients: mailboxes, moves, and probes.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::link::control::Control;
use mixline_protocol::link::probe::{Probe, lengthen};
use mixline_protocol::link::{Established, Initiator, REJECT_AFTER, Timestamp};
use mixline_protocol::path::MailboxToken;
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::DATAGRAM;
use mixline_relay::testing::KEEP_MAILBOXES;
use mixline_relay_engine::messages::Signal;

use super::node::{Client, Node, pass};

fn register(tokens: &[(u64, u32)]) -> Control {
    let tokens = tokens
        .iter()
        .map(|(token, life)| (MailboxToken(token.to_be_bytes()), *life))
        .collect();
    Control::Register { request: 3, tokens }
}

#[test]
fn clients_register_mailboxes() {
    let now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let (first, second) = (Client::new("192.0.2.1:1"), Client::new("198.51.100.1:1"));
    let one = first.connect(&mut node, now).unwrap();
    let two = second.connect(&mut node, now).unwrap();
    let done = first.say(&mut node, &one, &register(&[(7, 600), (8, 600)]), now);
    assert_eq!(
        done,
        [Control::Registered {
            request: 3,
            refused: vec![]
        }]
    );
    // Not another's.
    let done = second.say(&mut node, &two, &register(&[(8, 600), (9, 600)]), now);
    let eight = MailboxToken(8_u64.to_be_bytes());
    assert_eq!(
        done,
        [Control::Registered {
            request: 3,
            refused: vec![eight]
        }]
    );
    assert_eq!(node.mailboxes.len(), 3);
    let owner = node.mailboxes[&eight];
    assert_eq!(node.links[&owner].to, first.address);
    assert_eq!(
        first.say(&mut node, &one, &Control::Ping(5), now),
        [Control::Pong(5)]
    );

    // A new session of the same key, from elsewhere: the mailboxes go along.
    let moved = Client {
        address: "203.0.113.9:5".parse().unwrap(),
        ..first
    };
    let one = moved
        .connect(&mut node, now + Duration::from_secs(2))
        .unwrap();
    assert_eq!(node.mailboxes[&eight], owner);
    assert_eq!(node.links[&owner].to, moved.address);

    // Who goes leaves nothing.
    moved.say(&mut node, &one, &Control::Close, now);
    assert_eq!(node.mailboxes.len(), 1);
    assert!(!node.links.contains_key(&owner));
    let done = second.say(&mut node, &two, &register(&[(8, 600)]), now);
    assert_eq!(
        done,
        [Control::Registered {
            request: 3,
            refused: vec![]
        }]
    );
    // A registration ends by itself, too.
    node.neighbours.tick(now + Duration::from_secs(601));
    node.apply();
    assert!(node.mailboxes.is_empty());
}

/// Registers so many new tokens; how many the relay takes.
fn fill(
    client: &Client,
    node: &mut Node,
    session: &Established,
    first: u64,
    count: u64,
    now: Instant,
) -> usize {
    let tokens: Vec<_> = (first..first + count)
        .map(|token| (token, 90_000))
        .collect();
    let mut taken = 0;
    for tokens in tokens.chunks(100) {
        let said = client.say(node, session, &register(tokens), now);
        let [Control::Registered { refused, .. }] = &said[..] else {
            panic!("{said:?}");
        };
        taken += tokens.len() - refused.len();
    }
    taken
}

#[test]
fn the_keys_of_one_address_do_not_take_all_mailboxes() {
    let mut now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let mut taken = 0;
    for n in 0..64 {
        let client = Client::new(&format!("192.0.2.1:{}", n + 1));
        let session = client.connect(&mut node, now).unwrap();
        taken += fill(&client, &mut node, &session, n * 4096, 4096, now);
    }
    assert!(taken >= 16_384, "{taken}");
    assert_eq!(node.neighbours.census().mailboxes, taken);
    for (n, ip) in ["198.51.100.1:1", "192.0.2.2:1", "192.0.2.1:99"]
        .into_iter()
        .enumerate()
    {
        let client = Client::new(ip);
        let session = client.connect(&mut node, now).unwrap();
        let first = 1_000_000 * (n as u64 + 1);
        assert_eq!(
            fill(&client, &mut node, &session, first, 100, now),
            100,
            "{ip}"
        );
    }
    // Whoever left has none any more, although they were registered for a day.
    pass(
        &mut node,
        &mut now,
        REJECT_AFTER + KEEP_MAILBOXES + Duration::from_secs(2),
    );
    assert_eq!(node.neighbours.census().mailboxes, 0);
    assert!(node.mailboxes.is_empty());
}

#[test]
fn mailboxes_outlast_an_outage_of_their_clients_line() {
    let mut now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let client = Client::new("192.0.2.1:1");
    let session = client.connect(&mut node, now).unwrap();
    assert_eq!(fill(&client, &mut node, &session, 7, 3, now), 3);
    pass(
        &mut node,
        &mut now,
        REJECT_AFTER + KEEP_MAILBOXES - Duration::from_secs(2),
    );
    assert_eq!(node.mailboxes.len(), 3);
    let session = client.connect(&mut node, now).unwrap();
    pass(&mut node, &mut now, Duration::from_secs(60));
    assert_eq!(node.mailboxes.len(), 3);
    client.say(&mut node, &session, &Control::Close, now);
    assert!(node.mailboxes.is_empty());
}

#[test]
fn a_client_behind_a_nat_moves() {
    let now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let client = Client::new("192.0.2.1:1");
    let session = client.connect(&mut node, now).unwrap();
    let elsewhere: SocketAddr = "192.0.2.200:999".parse().unwrap();
    let number = node.sessions[&session.remote_index].1;
    node.neighbours
        .signal(Signal::Moved(session.remote_index, elsewhere), now);
    node.apply();
    assert_eq!(node.links[&number].to, elsewhere);
    // An initiation that somebody sends on from elsewhere moves nobody: only who uses the
    // session does.
    let at = Timestamp::from(SystemTime::now() + Duration::from_secs(1));
    let key = node.descriptor.link;
    let (_, datagram) =
        Initiator::start(&client.secret, &key, 5, at, None, &mut OsRandom::new()).unwrap();
    let far: SocketAddr = "203.0.113.66:6".parse().unwrap();
    node.take(&datagram, far, now + Duration::from_secs(5));
    assert_eq!(node.sent.pop().unwrap().1, far);
    assert_eq!(node.links[&number].to, elsewhere);
}

#[test]
fn probes_are_answered_now_and_later() {
    let now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let source: SocketAddr = "192.0.2.9:1234".parse().unwrap();
    let ask = |node: &mut Node, delay| {
        let probe = Probe {
            number: 5,
            answer: 64,
            delay,
        };
        let sent = probe.encode(200, &node.descriptor.link).unwrap();
        let mut datagram = [0; DATAGRAM];
        datagram[..200].copy_from_slice(&sent.bytes);
        assert!(lengthen(&mut datagram, 200));
        node.take(&datagram, source, now);
        sent
    };
    let sent = ask(&mut node, 0);
    let answer = node.answers.pop().unwrap();
    assert_eq!((answer.to, answer.bytes.len()), (source, 64));
    let said = sent.answered(&answer.bytes).unwrap();
    assert_eq!((said.seen, said.length), (source, 200));
    let later = ask(&mut node, 3);
    for (seconds, answers) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
        node.neighbours.tick(now + Duration::from_secs(seconds));
        node.apply();
        assert_eq!(node.answers.len(), answers);
    }
    assert!(later.answered(&node.answers[0].bytes).is_ok());
    // No neighbour comes of it.
    assert_eq!(node.neighbours.census().clients, 0);
    assert!(node.sessions.is_empty() && node.links.is_empty());
}

/// As a directory does that looks whether the relay is there.
#[test]
fn whoever_closes_its_session_at_once_leaves_nothing() {
    let mut now = Instant::now();
    let mut node = Node::new("10.0.0.1:7000", now);
    let empty = node.neighbours.census();
    for said in [Some(&Control::Close), None] {
        let visitor = Client::new("192.0.2.1:1");
        let (mut initiator, response) = visitor.half(&mut node, now).unwrap();
        let session = initiator.finish(&response).unwrap();
        assert_eq!(node.sessions.len(), 1);
        if let Some(said) = said {
            assert_eq!(visitor.say(&mut node, &session, said, now), []);
        } else {
            // One whose close was lost is forgotten for its silence.
            pass(&mut node, &mut now, Duration::from_secs(11));
        }
        assert!(node.sessions.is_empty() && node.links.is_empty());
        assert_eq!(node.neighbours.census(), empty);
    }
}
