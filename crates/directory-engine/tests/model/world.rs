//! Directories, the network between them, and what goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use mixline_directory_engine::message::Body;
use mixline_directory_engine::rounds::Start;
use mixline_directory_engine::{
    Certified, Draft, Message, Output, Promise, Rounds, Signable, Wanted,
};
use mixline_protocol::identity::{Digest, IdentityKey, X25519Public};
use mixline_protocol::records::{
    Endorsement, Member, OnlineKey, Parameters, RelayDescriptor, RelayFlags, RelayRecord, Roster,
    Signatures, Snapshot, Vote, VotedRelay,
};
use mixline_protocol::round_log::{Leaf, RoundLog};
use mixline_protocol::time::UnixTime;

use crate::dice::Dice;
use crate::pretended::{Held, Pretended, signature};

const ROUND: u64 = 20;
const START: u64 = 1_800_000_000_000;
const RELAYS: u8 = 5;

/// How the world is.
#[derive(Debug, Clone)]
pub struct Nature {
    /// The longest that a message takes, milliseconds.
    pub delay: u64,
    /// Of a hundred messages so many are lost.
    pub loss: u64,
    /// Directories that say what they want to whom they want: those with the greatest indices.
    pub liars: u8,
    /// Whether they work together: one directory alone hears of their second votes, at the last moment.
    pub conspire: bool,
    /// In a hundred events one honest directory dies so often, and comes back later.
    pub deaths: u64,
    /// Which may die: those with the smallest indices.
    pub mortal: u8,
    /// Clocks are wrong by up to so many milliseconds.
    pub skew: u64,
}

impl Nature {
    pub fn quiet(_: u64) -> Self {
        Self {
            delay: 300,
            loss: 0,
            liars: 0,
            conspire: false,
            deaths: 0,
            mortal: 0,
            skew: 0,
        }
    }

    pub fn orderly(seed: u64, directories: u8) -> Self {
        let mut dice = Dice::new(seed);
        let faults = (directories - 1) / 3;
        let liars = dice.below(u64::from(faults) + 1) as u8;
        Self {
            delay: 900,
            loss: 0,
            liars,
            conspire: false,
            deaths: if liars < faults { 2 } else { 0 },
            mortal: faults - liars,
            skew: 500,
        }
    }

    pub fn lying(seed: u64) -> Self {
        Self {
            liars: 1,
            ..Self::quiet(seed)
        }
    }

    pub fn hostile(seed: u64, directories: u8) -> Self {
        let mut dice = Dice::new(seed);
        let mut pick = |of: &[u64]| of[dice.below(of.len() as u64) as usize];
        Self {
            delay: pick(&[200, 2_000, 6_000, 25_000]),
            loss: pick(&[0, 0, 5, 30, 60]),
            liars: pick(&[0, 1, u64::from(directories - 1) / 3]) as u8,
            conspire: pick(&[0, 0, 0, 1]) == 1,
            deaths: pick(&[0, 1, 5]),
            mortal: directories,
            skew: pick(&[0, 0, 2_000, 30_000]),
        }
    }
}

#[derive(Debug)]
enum Event {
    Tick(u8),
    Deliver(u8, Rc<Message>),
    Asked { by: u8, of: u8, what: Wanted },
    Answer(u8, Box<Answer>),
    Revive(u8),
}

#[derive(Debug)]
enum Answer {
    Vote(Digest, Arc<Vote>),
    Records(Vec<Arc<RelayRecord>>),
    Body(Vec<u8>, Box<Snapshot>),
    Snapshot(Certified, Vec<Leaf>),
}

/// What is on a directory's disk.
#[derive(Default, Clone)]
struct Disk {
    log: RoundLog,
    newest: Option<Certified>,
    vote: Option<(UnixTime, Vec<u8>)>,
    signed: Option<(UnixTime, Digest)>,
}

struct Node {
    rounds: Option<Rounds<Pretended, Held>>,
    held: Held,
    disk: Disk,
    skew: i64,
    proofs: BTreeSet<(u8, UnixTime)>,
    lies: bool,
}

pub struct World {
    seed: u64,
    dice: Dice,
    nature: Nature,
    roster: Roster,
    keys: Rc<Vec<OnlineKey>>,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, Event>,
    sequence: u64,
    now: u64,
    /// What each honest directory has signed in each round.
    signed: BTreeMap<(UnixTime, u8), Digest>,
    snapshots: BTreeMap<UnixTime, Digest>,
    forks: usize,
    tolerant: bool,
    /// Votes of liars that nobody has asked for yet.
    inventions: HashMap<Digest, Arc<Vote>>,
}

/// Keys and records are real, and made once.
struct Made {
    rosters: [(Roster, Vec<OnlineKey>); 2],
    records: Vec<Arc<RelayRecord>>,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| Made {
        rosters: [4, 7].map(roster),
        records: (0..RELAYS).map(record).collect(),
    })
}

fn roster(directories: u8) -> (Roster, Vec<OnlineKey>) {
    let identities: Vec<_> = (0..directories)
        .map(|n| IdentityKey::from_seed([n + 1; 32]))
        .collect();
    let member = |(n, key): (usize, &IdentityKey)| Member {
        key: key.public(),
        name: format!("d{n}"),
        url: format!("http://d{n}"),
    };
    let members = identities.iter().enumerate().map(member).collect();
    let roster = Roster::first(members, ROUND as u32, 3600).unwrap();
    let life = (
        UnixTime(START / 1000 - 1000),
        UnixTime(START / 1000 + 1_000_000),
    );
    let keys = identities
        .iter()
        .map(|identity| {
            OnlineKey::certify(roster.network(), identity.public(), life, identity).unwrap()
        })
        .collect();
    (roster, keys)
}

fn record(n: u8) -> Arc<RelayRecord> {
    let key = IdentityKey::from_seed([100 + n; 32]);
    let issued = UnixTime(START / 1000 - 100);
    let descriptor = RelayDescriptor {
        id: key.relay_id(),
        version: 1,
        issued,
        expires: issued.plus(80_000),
        link: X25519Public([n + 1; 32]),
        addresses: vec![([45, 1, n, 1], 7000).into()],
        capacity: 1000,
        family: None,
        name: format!("r{n}"),
        software: String::new(),
        signature: [0; 64],
    };
    let epoch = (START / 3_600_000) as u32;
    let onion = [
        (epoch, X25519Public([n + 50; 32])),
        (epoch + 1, X25519Public([n + 80; 32])),
    ];
    let descriptor = descriptor.sign(&key).unwrap();
    Arc::new(RelayRecord::sign(descriptor, 1, onion.into_iter().collect(), &key).unwrap())
}

impl World {
    pub fn new(seed: u64, directories: u8, nature: Nature) -> Self {
        let (roster, keys) = made().rosters[usize::from(directories == 7)].clone();
        let mut dice = Dice::new(seed ^ 0xabcd);
        let nodes = (0..directories)
            .map(|index| {
                let held = Held::default();
                for (n, record) in made().records.iter().enumerate() {
                    // Each directory lacks some, but each relay is known to most.
                    if (n + usize::from(index)) % usize::from(directories) != 0 {
                        held.0.borrow_mut().insert(record.digest(), record.clone());
                    }
                }
                let skew = dice.below(2 * nature.skew + 1) as i64 - nature.skew as i64;
                Node {
                    rounds: None,
                    held,
                    disk: Disk::default(),
                    skew: if index == 0 { skew } else { skew / 4 },
                    proofs: BTreeSet::new(),
                    lies: index >= directories - nature.liars,
                }
            })
            .collect();
        let mut world = Self {
            seed,
            dice,
            nature,
            roster,
            keys: Rc::new(keys),
            nodes,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            sequence: 0,
            now: START,
            signed: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            forks: 0,
            tolerant: false,
            inventions: HashMap::new(),
        };
        for index in 0..directories {
            world.revive(index);
        }
        world
    }

    /// For so many rounds.
    pub fn run(&mut self, rounds: u64) {
        let until = (self.now / 1000 / ROUND + rounds + 1) * ROUND * 1000 + 3_000;
        while let Some(Reverse((at, id))) = self.queue.peek().copied() {
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = at;
            let event = self.events.remove(&id).unwrap();
            self.happen(event);
            self.maybe_die();
        }
        self.now = until;
    }

    pub fn kill(&mut self, index: u8) {
        self.nodes[usize::from(index)].rounds = None;
    }

    pub fn revive(&mut self, index: u8) {
        let now = self.clock(index);
        let roster = self.roster.clone();
        let scheme = Pretended {
            me: index,
            keys: self.keys.clone(),
        };
        let node = &mut self.nodes[usize::from(index)];
        if node.rounds.is_some() {
            return;
        }
        let Disk {
            log,
            newest,
            vote,
            signed,
        } = node.disk.clone();
        let start = Start {
            log,
            newest,
            vote,
            signed,
        };
        node.rounds = Some(Rounds::new(
            roster,
            index,
            scheme,
            node.held.clone(),
            start,
            now,
        ));
        self.after(0, Event::Tick(index));
    }

    pub fn tolerate_forks(&mut self) {
        self.tolerant = true;
    }

    pub fn forks(&self) -> usize {
        self.forks
    }

    /// Rounds that have a snapshot.
    pub fn published(&self) -> usize {
        self.snapshots.len()
    }

    pub fn all_published(&self, rounds: usize) {
        let seed = self.seed;
        assert!(
            self.snapshots.len() >= rounds,
            "seed {seed}: {} of {rounds} rounds, {:?}",
            self.snapshots.len(),
            self.nature
        );
        let last = *self.snapshots.keys().last().unwrap();
        for (index, node) in self.nodes.iter().enumerate() {
            let honest = !node.lies && node.rounds.is_some() && self.nature.deaths == 0;
            let newest = node
                .disk
                .newest
                .as_ref()
                .map(|newest| newest.snapshot.issued);
            assert!(
                !honest || newest == Some(last),
                "seed {seed}: directory {index} is behind"
            );
        }
        // And not an empty one: each relay is known to a majority.
        let with_relays = self.nodes.iter().filter(|node| {
            let newest = node.disk.newest.as_ref();
            newest.is_some_and(|newest| newest.snapshot.relays.len() >= usize::from(RELAYS) - 1)
        });
        assert!(
            with_relays.count() >= self.roster.quorum() - usize::from(self.nature.liars),
            "seed {seed}"
        );
    }

    pub fn all_have_one_log(&self) {
        let heads: Vec<_> = self.nodes.iter().map(|node| node.disk.log.head()).collect();
        assert!(
            heads.iter().all(|head| *head == heads[0]),
            "seed {}: {heads:?}",
            self.seed
        );
        assert!(heads[0].size >= 6, "seed {}", self.seed);
    }

    /// Every proof that one honest directory has, all have; gives how many there are.
    pub fn proofs_are_everywhere(&self) -> usize {
        let honest = || self.nodes.iter().filter(|node| !node.lies);
        // Of the last round some are still under way.
        let told = |(_, round): &&(u8, UnixTime)| round.0 * 1000 + 7_000 < self.now;
        let all: BTreeSet<_> = honest()
            .flat_map(|node| &node.proofs)
            .filter(told)
            .collect();
        for node in honest() {
            assert_eq!(
                node.proofs.iter().filter(told).count(),
                all.len(),
                "seed {}: {:?} of {all:?}, {:?}",
                self.seed,
                node.proofs,
                self.now
            );
        }
        assert!(
            all.iter()
                .all(|(index, _)| self.nodes[usize::from(*index)].lies)
        );
        all.len()
    }

    fn clock(&self, index: u8) -> u64 {
        self.now
            .saturating_add_signed(self.nodes[usize::from(index)].skew)
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.insert(self.sequence, event);
        self.queue.push(Reverse((self.now + delay, self.sequence)));
    }

    fn delay(&mut self) -> u64 {
        self.dice.below(self.nature.delay) + 1
    }

    fn maybe_die(&mut self) {
        if self.nature.deaths == 0 || self.dice.below(1000) >= self.nature.deaths * 2 {
            return;
        }
        let victim = self.dice.below(self.nature.mortal.into()) as u8;
        if self.nature.mortal > 0 && !self.nodes[usize::from(victim)].lies {
            self.kill(victim);
            let after = self.dice.below(30_000);
            self.after(after, Event::Revive(victim));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Revive(index) => self.revive(index),
            Event::Tick(index) => {
                let clock = self.clock(index);
                if let Some(rounds) = &mut self.nodes[usize::from(index)].rounds {
                    rounds.tick(clock);
                    let pause = 700 + self.dice.below(300);
                    self.after(pause, Event::Tick(index));
                }
                self.carry_out(index);
            }
            Event::Deliver(index, message) => {
                let clock = self.clock(index);
                if let Some(rounds) = &mut self.nodes[usize::from(index)].rounds {
                    rounds.receive(&message, clock);
                }
                self.lie_about(index, &message);
                self.carry_out(index);
            }
            Event::Asked { by, of, what } => self.answer(by, of, &what),
            Event::Answer(index, answer) => self.learn(index, *answer),
        }
    }

    fn learn(&mut self, index: u8, answer: Answer) {
        let clock = self.clock(index);
        let node = &mut self.nodes[usize::from(index)];
        let Some(rounds) = &mut node.rounds else {
            return;
        };
        match answer {
            Answer::Vote(digest, vote) => rounds.learn_vote(digest, (*vote).clone(), clock),
            Answer::Records(records) => {
                for record in records {
                    node.held.0.borrow_mut().insert(record.digest(), record);
                }
                rounds.records_changed(clock);
            }
            Answer::Body(body, snapshot) => rounds.learn_body(body, *snapshot, clock),
            Answer::Snapshot(certified, leaves) => {
                // What a daemon does before: a quorum has signed.
                let digest = certified.digest;
                let what = Signable::Snapshot {
                    round: certified.snapshot.issued,
                    digest,
                };
                let right = |(index, given): (u8, &[u8; 64])| signature(index, &what) == *given;
                let signed = certified
                    .snapshot
                    .signatures
                    .iter()
                    .filter(|s| right(*s))
                    .count();
                if signed >= self.roster.quorum() && certified.snapshot.digest() == digest {
                    rounds.learn_snapshot(certified, &leaves, clock);
                }
            }
        }
        self.carry_out(index);
    }

    fn answer(&mut self, by: u8, of: u8, what: &Wanted) {
        let node = &self.nodes[usize::from(of)];
        let Some(rounds) = &node.rounds else { return };
        if node.lies && self.dice.chance(30) {
            return;
        }
        let answer = match what {
            Wanted::Vote(digest) => {
                let vote = rounds
                    .vote_with(digest)
                    .or(self.inventions.get(digest).cloned());
                vote.map(|vote| Answer::Vote(*digest, vote))
            }
            Wanted::Records(wanted) => {
                let held = node.held.0.borrow();
                Some(Answer::Records(
                    wanted
                        .iter()
                        .filter_map(|digest| held.get(digest).cloned())
                        .collect(),
                ))
            }
            Wanted::Body(digest) => rounds.body_with(digest).map(|merged| {
                Answer::Body(merged.body.clone(), Box::new((*merged.snapshot).clone()))
            }),
            Wanted::Newest(_) => rounds.newest().map(|newest| {
                let size = newest.snapshot.log.size as usize;
                Answer::Snapshot(newest.clone(), rounds.log().leaves()[..size].to_vec())
            }),
        };
        if let Some(answer) = answer {
            let delay = self.delay();
            if !self.dice.chance(self.nature.loss) {
                self.after(delay, Event::Answer(by, Box::new(answer)));
            }
        }
    }

    fn carry_out(&mut self, index: u8) {
        while let Some(rounds) = &mut self.nodes[usize::from(index)].rounds {
            let outputs = rounds.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                self.carry_out_one(index, output);
                if self.nodes[usize::from(index)].rounds.is_none() {
                    // It has died between one and the next.
                    return;
                }
            }
        }
    }

    fn carry_out_one(&mut self, index: u8, output: Output) {
        let clock = self.clock(index);
        let lies = self.nodes[usize::from(index)].lies;
        match output {
            Output::VoteWanted(round) => {
                let random = self.dice.bytes();
                let node = &mut self.nodes[usize::from(index)];
                let draft = draft(&node.held, random);
                if let Some(rounds) = &mut node.rounds {
                    rounds.vote(round, draft, clock);
                }
                if lies {
                    self.vote_twice(index, round);
                }
            }
            Output::Store(promise) => {
                let mortal = index < self.nature.mortal && !lies;
                // It dies before it is stored, or after.
                let dies = mortal && self.dice.chance(self.nature.deaths);
                let stored = !dies || self.dice.chance(50);
                let node = &mut self.nodes[usize::from(index)];
                if stored {
                    match &promise {
                        Promise::Vote { round, vote } => {
                            node.disk.vote = Some((*round, vote.clone()));
                        }
                        Promise::Snapshot { round, digest } => {
                            node.disk.signed = Some((*round, *digest));
                        }
                    }
                }
                if dies {
                    self.kill(index);
                    let after = self.dice.below(20_000);
                    self.after(after, Event::Revive(index));
                } else if let Some(rounds) = &mut node.rounds {
                    rounds.stored(&promise, clock);
                }
            }
            Output::Send(message) => {
                if !lies {
                    self.note(index, &message);
                }
                self.send(index, message);
            }
            Output::Fetch { from, what } => {
                let delay = self.delay();
                if !self.dice.chance(self.nature.loss) {
                    self.after(
                        delay,
                        Event::Asked {
                            by: index,
                            of: from,
                            what,
                        },
                    );
                }
            }
            Output::Publish(certified) => {
                let round = certified.snapshot.issued;
                let node = &mut self.nodes[usize::from(index)];
                let rounds = node.rounds.as_ref().unwrap();
                node.disk.log = rounds.log().clone();
                assert_eq!(rounds.log().last().map(|leaf| leaf.round), Some(round));
                node.disk.newest = Some(certified.clone());
                if !lies {
                    let other = self.snapshots.insert(round, certified.digest);
                    if other.is_some_and(|other| other != certified.digest) {
                        self.forks += 1;
                        assert!(
                            self.tolerant,
                            "seed {}: two snapshots of {round:?}",
                            self.seed
                        );
                    }
                }
            }
            Output::Contradiction(of, proof) => {
                let round = proof.round;
                self.nodes[usize::from(index)].proofs.insert((of, round));
            }
        }
    }

    /// What an honest directory has signed, and whether it should have.
    fn note(&mut self, index: u8, message: &Message) {
        let Body::Signature { round, digest, .. } = &message.body else {
            return;
        };
        let seed = self.seed;
        let before = self.signed.insert((*round, index), *digest);
        assert!(
            before.is_none_or(|before| before == *digest),
            "seed {seed}: {index} signed twice"
        );
        let of_round = self.signed.range((*round, 0)..=(*round, u8::MAX));
        let mut counts: HashMap<Digest, usize> = HashMap::new();
        for (_, digest) in of_round {
            *counts.entry(*digest).or_default() += 1;
        }
        // Liars sign everything.
        let enough = self.roster.quorum() - usize::from(self.nature.liars);
        let possible = counts.values().filter(|count| **count >= enough).count();
        assert!(
            possible <= 1 || self.tolerant,
            "seed {seed}: two quorums for {round:?}"
        );
    }

    fn send(&mut self, from: u8, message: Message) {
        let message = Rc::new(message);
        let lies = self.nodes[usize::from(from)].lies;
        for to in 0..self.nodes.len() as u8 {
            if to == from || self.dice.chance(self.nature.loss) {
                continue;
            }
            // A liar tells some of them, and those when it likes.
            if lies && self.dice.chance(25) {
                continue;
            }
            let mut delay = self.delay();
            if lies && self.dice.chance(25) {
                delay += self.dice.below(8_000);
            }
            self.after(delay, Event::Deliver(to, message.clone()));
        }
    }

    /// A second vote, for some of the others.
    fn vote_twice(&mut self, index: u8, round: UnixTime) {
        let random = self.dice.bytes();
        let node = &self.nodes[usize::from(index)];
        let Some(rounds) = &node.rounds else { return };
        let mut draft = draft(&node.held, random);
        draft.relays.truncate(2);
        let newest = rounds.newest();
        let vote = Vote {
            network: self.roster.network(),
            roster: self.roster.version,
            voter: index,
            round,
            previous: newest
                .map(|n| (n.snapshot.issued, n.digest))
                .unwrap_or_default(),
            parameters: draft.parameters,
            keys: [self.keys[usize::from(index)]].into_iter().collect(),
            commitment: None,
            revealed: None,
            service: None,
            relays: draft.relays,
        };
        let digest = vote.digest();
        self.inventions.insert(digest, Arc::new(vote));
        let what = Signable::Endorsement {
            voter: index,
            round,
            vote: digest,
        };
        let mut signatures = Signatures::default();
        signatures.put(index, signature(index, &what));
        // Other liars help.
        for (other, node) in (0u8..).zip(&self.nodes) {
            if node.lies && (self.nature.conspire || self.dice.chance(50)) {
                signatures.put(other, signature(other, &what));
            }
        }
        let endorsement = Endorsement {
            voter: index,
            round,
            vote: digest,
            signatures,
        };
        let message = Message {
            keys: self.keys.to_vec(),
            body: Body::Endorsements(vec![endorsement]),
        };
        if self.nature.conspire {
            // So late that the others do not hear of it in time from the one that does.
            let late = 8_500 + self.dice.below(1_400);
            self.after(late, Event::Deliver(0, Rc::new(message)));
            return;
        }
        let late = self.dice.below(9_000);
        for to in 0..self.nodes.len() as u8 {
            if to != index && self.dice.chance(60) {
                let delay = self.delay() + late;
                self.after(delay, Event::Deliver(to, Rc::new(message.clone())));
            }
        }
    }

    /// A liar signs every snapshot that anybody signs.
    fn lie_about(&mut self, index: u8, message: &Message) {
        if !self.nodes[usize::from(index)].lies {
            return;
        }
        let Body::Signature { round, digest, .. } = &message.body else {
            return;
        };
        let what = Signable::Snapshot {
            round: *round,
            digest: *digest,
        };
        let message = Message {
            keys: self.keys.to_vec(),
            body: Body::Signature {
                round: *round,
                index,
                digest: *digest,
                signature: signature(index, &what),
            },
        };
        self.send(index, message);
    }
}

fn draft(held: &Held, random: [u8; 32]) -> Draft {
    let mut relays: Vec<VotedRelay> = held
        .0
        .borrow()
        .iter()
        .map(|(digest, record)| VotedRelay {
            id: record.descriptor.id,
            record: *digest,
            flags: RelayFlags { ring: true },
            capacity: record.descriptor.capacity,
        })
        .collect();
    relays.sort_by_key(|relay| relay.id);
    Draft {
        parameters: Parameters::default(),
        service: None,
        relays,
        random,
    }
}
