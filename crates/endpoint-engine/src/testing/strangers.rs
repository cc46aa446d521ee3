//! Who has thrown an ID together to get an answer from a service, and is not heard of again.

use mixline_protocol::effort::Effort;
use mixline_protocol::identity::{IdentityKey, X25519Secret};
use mixline_protocol::path::{HeadSecrets, PublishedTail, build_head};
use mixline_protocol::records::TailOffer;
use mixline_protocol::session::{Certificate, Form, SessionInitiator, effort};
use mixline_protocol::size::Payload;
use rand_core::Rng;

use super::world::{Delivery, World};

/// An ID, and the key of its sessions.
pub struct Stranger {
    pub key: IdentityKey,
    pub secret: X25519Secret,
}

impl World {
    pub fn stranger(&mut self) -> Stranger {
        Stranger {
            key: self.random_key(),
            secret: self.random_secret(),
        }
    }

    /// An initiation of a session with a node, on which so much was spent. (The answer goes to tails of the
    /// directory's.)
    pub fn initiation_of(&mut self, stranger: &Stranger, node: usize, spent: Effort) -> Payload {
        let offers: Vec<TailOffer> = self.nodes[0].descriptor.clone().unwrap().tails[..2].to_vec();
        let service = self.nodes[node].descriptor.clone().unwrap();
        let public = stranger.secret.public();
        let until = self.unix().plus(3600);
        let certificate = Certificate::sign(&stranger.key, &public, until, None).unwrap();
        let (at, rng) = (self.now.unix_ms, self.rng());
        let (_, mut payload) = SessionInitiator::start(
            &stranger.secret,
            &service.session,
            &service.id,
            Form::Public,
            &certificate,
            &offers,
            None,
            at,
            rng,
        )
        .unwrap();
        let seed = &service.effort.seed;
        let solution = match spent {
            0 => Some(mixline_protocol::effort::Solution::default()),
            _ => effort::puzzle(&service.id, seed, &payload)
                .search(spent, [0; 16])
                .go_on(u32::MAX),
        };
        effort::write(seed, &solution.unwrap(), &mut payload);
        *payload
    }

    /// Initiations of so many strangers.
    pub fn initiations(&mut self, count: usize, node: usize, spent: Effort) -> Vec<Payload> {
        (0..count)
            .map(|_| {
                let stranger = self.stranger();
                self.initiation_of(&stranger, node, spent)
            })
            .collect()
    }

    /// Sends payloads through a published tail, over one head of one relay.
    pub fn inject_all(&mut self, payloads: &[Payload], tail: &PublishedTail) {
        let at = usize::try_from(self.rng().next_u32()).unwrap() % self.relays.len();
        let hop = self.relays[at].hop();
        let head = build_head(&HeadSecrets::random(self.rng()), &[hop], tail).unwrap();
        for payload in payloads {
            let mut wrapped = *payload;
            head.wrap(&mut wrapped);
            let mut cell = Box::new([0; 1368]);
            cell[..296].copy_from_slice(head.header());
            cell[296..].copy_from_slice(&wrapped);
            self.post(Delivery::Cell {
                to: at,
                from: None,
                cell,
            });
        }
    }
}
