//! A path through two relays, or twice through one, from its sender to its mailbox: for tests that
//! send cells by themselves.
#![expect(clippy::unwrap_used, reason = "keys of a test that are wrong fail it")]

use mixline_protocol::epoch;
use mixline_protocol::identity::X25519Public;
use mixline_protocol::path::{
    Head, HeadSecrets, Hop, MailboxToken, TailKeys, TailSecrets, build_head, build_tail,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{ListedRelay, Parameters};
use mixline_protocol::size::{Cell, PATH_HEADER, Payload};
use mixline_protocol::time::UnixTime;

/// A path of two relays as its ends know it.
pub struct Path {
    head: Head,
    tail: TailKeys,
    /// The mailbox at its end.
    pub token: MailboxToken,
}

/// The relay's onion key of this epoch, if epochs last so many seconds.
pub fn onion(relay: &ListedRelay, seconds: u32) -> X25519Public {
    let now = UnixTime::from(std::time::SystemTime::now());
    *relay
        .onion_for(epoch::current(now, seconds))
        .expect("a key of this epoch")
}

impl Path {
    /// A path that enters by `first` and ends in the mailbox of this number at `last`.
    pub fn new(first: &ListedRelay, last: &ListedRelay, token: u64) -> Self {
        let mut rng = OsRandom::new();
        let hop = |relay: &ListedRelay| Hop {
            relay: relay.short_id(),
            onion: onion(relay, Parameters::default().epoch_seconds),
        };
        let token = MailboxToken(token.to_be_bytes());
        let (published, tail) =
            build_tail(&TailSecrets::random(&mut rng), &[hop(last)], token).unwrap();
        let head = build_head(&HeadSecrets::random(&mut rng), &[hop(first)], &published).unwrap();
        Self { head, tail, token }
    }

    /// The cell of a message, with which the path's first relay is sent it.
    pub fn cell(&self, message: u64) -> Cell {
        let mut payload: Payload = [8; 1072];
        payload[..8].copy_from_slice(&message.to_be_bytes());
        payload[8..16].copy_from_slice(&self.token.0);
        self.head.wrap(&mut payload);
        let mut cell = [0; 1368];
        cell[..PATH_HEADER].copy_from_slice(self.head.header());
        cell[PATH_HEADER..].copy_from_slice(&payload);
        cell
    }

    /// The message in a cell that came to the mailbox. Ends the test if anything of it has changed.
    pub fn message(&self, cell: &Cell) -> u64 {
        assert_eq!(cell[..8], self.token.0);
        let mut payload: Payload = *cell[PATH_HEADER..].first_chunk().unwrap();
        self.tail.unwrap(&mut payload);
        assert!(
            payload[16..].iter().all(|byte| *byte == 8),
            "changed on the way"
        );
        u64::from_be_bytes(*payload.first_chunk().unwrap())
    }
}
