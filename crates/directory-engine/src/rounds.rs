//! The rounds, as one directory takes part in them.
//!
//! What comes in: time ([`Rounds::tick`]), [messages](Message) of the others, and what was fetched for it. What is to
//! be done comes out ([`Rounds::take_outputs`]), in order: what is to be stored is on the disk before anything after
//! it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrayvec::ArrayVec;
use mixline_protocol::identity::Digest;
use mixline_protocol::records::{
    Contradiction, Endorsement, MAX_DIRECTORIES, Parameters, RelayRecord, Roster, Said,
    ServiceDescriptor, Signatures, Snapshot, Statement, Vote, VotedRelay,
};
use mixline_protocol::round_log::{Leaf, RoundLog};
use mixline_protocol::time::UnixTime;

use crate::merge::{Before, Merged, merge};
use crate::message::{Body, Message};
use crate::round::{Named, Round, Seen, State, VOTES};
use crate::schedule::Schedule;
use crate::scheme::{Scheme, Signable};

/// What was asked for is asked for again after so many milliseconds.
const AGAIN: u64 = 1_000;
/// Contradictions that are passed on once: two of each directory in each of three rounds.
const PROVEN: usize = 6 * MAX_DIRECTORIES;
/// Values that were committed to and may still be revealed.
const SECRETS: usize = 4;

/// The records of relays that are here.
pub trait Records {
    /// The record with this digest. Its signatures have been checked.
    fn get(&self, digest: &Digest) -> Option<Arc<RelayRecord>>;
}

/// A snapshot with the signatures of a quorum.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The snapshot, with its signatures.
    pub snapshot: Arc<Snapshot>,
    /// The digest of its body.
    pub digest: Digest,
}

impl Certified {
    fn leaf(&self) -> Leaf {
        Leaf {
            round: self.snapshot.issued,
            digest: self.digest,
        }
    }
}

/// What this directory would put into a snapshot.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The parameters.
    pub parameters: Parameters,
    /// How this directory is reached.
    pub service: Option<ServiceDescriptor>,
    /// The relays, by ID, ascending. Their records are here.
    pub relays: Vec<VotedRelay>,
    /// 32 random bytes, which nobody else knows.
    pub random: [u8; 32],
}

/// What must not be forgotten once it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promise {
    /// This is the vote in this round.
    Vote {
        /// The round.
        round: UnixTime,
        /// The vote.
        vote: Vec<u8>,
    },
    /// This is the snapshot that was signed in this round.
    Snapshot {
        /// The round.
        round: UnixTime,
        /// The snapshot.
        digest: Digest,
    },
}

/// What is to be fetched from another directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A vote: [`Rounds::learn_vote`].
    Vote(Digest),
    /// Records of relays, which are to be checked and put where [`Records`] finds them, and then
    /// [`Rounds::records_changed`].
    Records(Vec<Digest>),
    /// The body of a snapshot: [`Rounds::learn_body`].
    Body(Digest),
    /// The newest snapshot, with its signatures, if it is of a later round than this.
    Newest(UnixTime),
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Say what this directory votes in a round: [`Rounds::vote`].
    VoteWanted(UnixTime),
    /// Have this on the disk, and say whether it is: [`Rounds::stored`]. Nothing is said that rests on it before.
    Store(Promise),
    /// Send to all others.
    Send(Message),
    /// Fetch from another directory.
    Fetch {
        /// Its index.
        from: u8,
        /// What.
        what: Wanted,
    },
    /// This is the newest snapshot now.
    Publish(Certified),
    /// A directory, of this index, has contradicted itself.
    Contradiction(u8, Box<Contradiction>),
}

/// What a directory begins with.
pub struct Start {
    /// The snapshots of all rounds so far.
    pub log: RoundLog,
    /// The newest of them.
    pub newest: Option<Certified>,
    /// What it has promised last.
    pub vote: Option<(UnixTime, Vec<u8>)>,
    /// The snapshot that it has signed last.
    pub signed: Option<(UnixTime, Digest)>,
}

/// How the last rounds went, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoundStatus {
    /// The round.
    pub round: UnixTime,
    /// Whose vote is here and counts, by index.
    pub voted: Vec<bool>,
    /// Who has signed the snapshot that was chosen, or this directory's own.
    pub signed: Vec<bool>,
    /// Whether it has a snapshot.
    pub published: bool,
}

/// The rounds.
pub struct Rounds<S, R> {
    roster: Roster,
    me: u8,
    scheme: S,
    records: R,
    schedule: Schedule,
    log: RoundLog,
    newest: Option<Certified>,
    /// The one before that: votes may have been cast before the newest came.
    before: Option<Certified>,
    rounds: BTreeMap<UnixTime, Round>,
    /// This directory votes and signs from this round on: what it has said in earlier ones it may not know.
    first: UnixTime,
    vote: Option<(UnixTime, Vec<u8>)>,
    signed: Option<(UnixTime, Digest)>,
    secrets: ArrayVec<(Digest, [u8; 32]), SECRETS>,
    newest_asked: u64,
    /// Contradictions that were passed on.
    proven: ArrayVec<(UnixTime, u8, Statement), PROVEN>,
    outputs: Vec<Output>,
}

impl<S: Scheme, R: Records> Rounds<S, R> {
    /// Takes part as directory number `me` from the first round that begins after `now` on (milliseconds since
    /// 1970). If that is the round of the last promise, from that one on.
    #[must_use]
    pub fn new(roster: Roster, me: u8, scheme: S, records: R, start: Start, now: u64) -> Self {
        let schedule = Schedule::of(&roster);
        let going = schedule.round_at(now);
        let promised = start
            .vote
            .as_ref()
            .is_some_and(|(round, _)| *round == going);
        let first = if promised {
            going
        } else {
            schedule.after(going)
        };
        Self {
            roster,
            me,
            scheme,
            records,
            schedule,
            log: start.log,
            newest: start.newest,
            before: None,
            rounds: BTreeMap::new(),
            first,
            vote: start.vote,
            signed: start.signed,
            secrets: ArrayVec::new(),
            newest_asked: 0,
            proven: ArrayVec::new(),
            outputs: Vec::new(),
        }
    }

    /// What is to be done, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// The newest snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<&Certified> {
        self.newest.as_ref()
    }

    /// All rounds.
    #[must_use]
    pub fn log(&self) -> &RoundLog {
        &self.log
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> &R {
        &self.records
    }

    /// Who signs.
    #[must_use]
    pub fn scheme(&self) -> &S {
        &self.scheme
    }

    /// When what happens.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// A vote that is here.
    #[must_use]
    pub fn vote_with(&self, digest: &Digest) -> Option<Arc<Vote>> {
        let mut seen = self
            .rounds
            .values()
            .flat_map(|round| &round.voters)
            .flat_map(|voter| &voter.votes);
        seen.find(|seen| seen.digest == *digest)?.content.clone()
    }

    /// The body of a snapshot that is not published yet.
    #[must_use]
    pub fn body_with(&self, digest: &Digest) -> Option<&Merged> {
        self.rounds.values().find_map(|round| round.body(digest))
    }

    /// How the rounds go that are known, the newest first.
    #[must_use]
    pub fn status(&self) -> Vec<RoundStatus> {
        let of = |round: &Round| {
            let voted = round.voters.iter().map(|voter| {
                let accepted = voter.votes.iter().filter(|v| v.state == State::Accepted);
                accepted.count() == 1
            });
            let chosen = round.chosen(self.roster.quorum());
            let digest = chosen.or(round.bodies.first().map(|body| body.digest));
            let signed = |signed: &Option<Said>| signed.map(|signed| signed.digest) == digest;
            RoundStatus {
                round: round.at,
                voted: voted.collect(),
                signed: round
                    .signed
                    .iter()
                    .map(|of| of.is_some() && signed(of))
                    .collect(),
                published: round.published,
            }
        };
        self.rounds.values().rev().map(of).collect()
    }

    /// Time goes on. Milliseconds since 1970, by the wall clock; a few times a second.
    pub fn tick(&mut self, now: u64) {
        let going = self.schedule.round_at(now);
        self.round(going, now);
        let oldest = self
            .schedule
            .round_at(now)
            .minus(self.schedule.round_seconds());
        self.rounds.retain(|at, _| *at >= oldest);
        if going >= self.first {
            self.begin(going, now);
        }
        let known: Vec<UnixTime> = self.rounds.keys().copied().collect();
        for at in known {
            for voter in 0..self.directories() {
                self.consider(at, voter, now);
            }
            if now >= self.schedule.merging(at) {
                self.close(at);
            }
            self.publish(at, now);
        }
        self.look_for_newer(now);
    }

    /// This directory votes in a round, as it was asked to.
    pub fn vote(&mut self, at: UnixTime, draft: Draft, now: u64) {
        let asked = self.rounds.get(&at).is_some_and(|round| round.asked);
        let said = self.vote.as_ref().is_some_and(|(round, _)| *round >= at);
        if !asked || said || self.schedule.step(at, now) != Some(1) {
            return;
        }
        let commitment = Vote::commitment_of(&draft.random);
        let newest = self.newest.as_ref();
        let committed = newest
            .and_then(|newest| newest.snapshot.directories.get(usize::from(self.me)))
            .and_then(|entry| entry.commitment);
        let revealed = self.secrets.iter().find(|(of, _)| Some(*of) == committed);
        let vote = Vote {
            network: self.roster.network(),
            roster: self.roster.version,
            voter: self.me,
            round: at,
            previous: newest
                .map(|newest| (newest.snapshot.issued, newest.digest))
                .unwrap_or_default(),
            parameters: draft.parameters,
            keys: self.scheme.keys(self.me),
            commitment: Some(commitment),
            revealed: revealed.map(|(_, value)| *value),
            service: draft.service,
            relays: draft.relays,
        };
        // The one that the newest snapshot has is to be revealed, however long that takes.
        if self.secrets.is_full() {
            let old = self
                .secrets
                .iter()
                .position(|(of, _)| Some(*of) != committed);
            self.secrets.remove(old.unwrap_or(0));
        }
        self.secrets.push((commitment, draft.random));
        let bytes = vote.encode();
        self.vote = Some((at, bytes.clone()));
        let promise = Promise::Vote {
            round: at,
            vote: bytes,
        };
        self.outputs.push(Output::Store(promise));
    }

    /// A promise is on the disk, and so is kept: now it is said. One that could not be stored is not heard of again.
    pub fn stored(&mut self, promise: &Promise, now: u64) {
        match promise {
            Promise::Vote { round, .. } => self.say_vote(*round, now),
            Promise::Snapshot { round, digest } => {
                self.say_signature(*round, *digest);
                self.publish(*round, now);
            }
        }
    }

    /// Another directory says something. What is wrong in it is dropped.
    pub fn receive(&mut self, message: &Message, now: u64) {
        for key in &message.keys {
            self.scheme.learn(key, UnixTime(now / 1000));
        }
        match &message.body {
            Body::Endorsements(endorsements) => {
                for endorsement in endorsements {
                    self.hear_vote(endorsement, now);
                }
            }
            Body::Signature {
                round,
                index,
                digest,
                signature,
            } => self.hear_signature(*round, *index, *digest, signature, now),
            Body::Contradiction(proof) => {
                // Those of other rounds have been passed on in their time.
                let near = self.round(proof.round, now).is_some();
                if let Some(index) = self.scheme.proven(proof).filter(|_| near) {
                    self.tell_contradiction(index, proof.clone());
                }
            }
        }
    }

    /// A vote with this digest, which was fetched.
    pub fn learn_vote(&mut self, digest: Digest, vote: Vote, now: u64) {
        let wanted = |round: &Round| {
            let mut voters = (0..).zip(&round.voters);
            let (voter, _) = voters.find(|(_, voter)| {
                let mut votes = voter.votes.iter();
                votes.any(|seen| seen.digest == digest && seen.content.is_none())
            })?;
            Some((round.at, voter))
        };
        let Some((at, voter)) = self.rounds.values().find_map(wanted) else {
            return;
        };
        let right = self.is_vote_of(&vote, at, voter);
        let have = self
            .newest
            .as_ref()
            .map_or(UnixTime(0), |newest| newest.snapshot.issued);
        let newer = right && vote.previous.0 > have && voter != self.me;
        if newer && now >= self.newest_asked.saturating_add(AGAIN) {
            self.newest_asked = now;
            let what = Wanted::Newest(have);
            self.outputs.push(Output::Fetch { from: voter, what });
        }
        let seen = self
            .rounds
            .get_mut(&at)
            .and_then(|r| r.vote(voter, &digest));
        if let Some(seen) = seen {
            if right {
                seen.content = Some(Arc::new(vote));
            } else {
                seen.state = State::Refused;
            }
        }
        self.consider(at, voter, now);
    }

    /// There are more records of relays than before.
    pub fn records_changed(&mut self, now: u64) {
        let known: Vec<UnixTime> = self.rounds.keys().copied().collect();
        for at in known {
            for voter in 0..self.directories() {
                self.consider(at, voter, now);
            }
        }
    }

    /// The body of a snapshot that others have signed, which was fetched; its parts have been checked.
    pub fn learn_body(&mut self, body: Vec<u8>, snapshot: Snapshot, now: u64) {
        let digest = Snapshot::digest_of(&body);
        let at = snapshot.issued;
        let Some(round) = self.rounds.get_mut(&at) else {
            return;
        };
        if round.chosen(self.roster.quorum()) == Some(digest) && round.body(&digest).is_none() {
            if round.bodies.is_full() {
                round.bodies.remove(0);
            }
            round.bodies.push(Merged {
                snapshot: Arc::new(snapshot),
                body,
                digest,
            });
        }
        self.publish(at, now);
    }

    /// A snapshot that was fetched; its signatures have been checked, a quorum of the roster. `rounds`: those
    /// of its log that come behind the ones that this directory has in common with it, as far as they are
    /// needed. False if they do not lead to it: then more of them are needed, or it tells of another past.
    pub fn learn_snapshot(&mut self, certified: Certified, rounds: &[Leaf], now: u64) -> bool {
        let newer = self
            .newest
            .as_ref()
            .is_none_or(|newest| newest.snapshot.issued < certified.snapshot.issued);
        let fits = if newer {
            self.adopt(certified, rounds)
        } else {
            true
        };
        self.records_changed(now);
        fits
    }

    fn directories(&self) -> u8 {
        u8::try_from(self.roster.members.len()).unwrap_or(u8::MAX)
    }

    /// The round, if it is one that something is to be known of now.
    fn round(&mut self, at: UnixTime, now: u64) -> Option<&mut Round> {
        let going = self.schedule.round_at(now);
        let seconds = self.schedule.round_seconds();
        let near = going.minus(seconds)..=going.plus(seconds);
        if !near.contains(&at) || !self.schedule.is_round(at) {
            return None;
        }
        let directories = self.roster.members.len();
        Some(
            self.rounds
                .entry(at)
                .or_insert_with(|| Round::new(at, directories)),
        )
    }

    /// Asks for this directory's vote, or says again what it has said before it was started again.
    fn begin(&mut self, at: UnixTime, now: u64) {
        let said = self.vote.as_ref().is_some_and(|(round, _)| *round == at);
        let Some(round) = self.rounds.get_mut(&at) else {
            return;
        };
        if std::mem::replace(&mut round.asked, true) {
            return;
        }
        if said {
            self.say_vote(at, now);
        } else {
            self.outputs.push(Output::VoteWanted(at));
        }
    }

    /// Endorses this directory's own vote, which is stored.
    fn say_vote(&mut self, at: UnixTime, now: u64) {
        let Some((_, bytes)) = self.vote.clone() else {
            return;
        };
        let what = Signable::Endorsement {
            voter: self.me,
            round: at,
            vote: Vote::digest_of(&bytes),
        };
        let mut signatures = Signatures::default();
        signatures.put(self.me, self.scheme.sign(&what));
        let endorsement = Endorsement {
            voter: self.me,
            round: at,
            vote: Vote::digest_of(&bytes),
            signatures,
        };
        self.send(Body::Endorsements(vec![endorsement.clone()]));
        self.hear_vote(&endorsement, now);
        if let Ok(vote) = Vote::decode(&bytes) {
            self.learn_vote(endorsement.vote, vote, now);
        }
    }

    fn hear_vote(&mut self, endorsement: &Endorsement, now: u64) {
        let Endorsement {
            voter,
            round: at,
            vote: digest,
            signatures,
        } = endorsement;
        if self.round(*at, now).is_none() || usize::from(*voter) >= self.roster.members.len() {
            return;
        }
        let what = Signable::Endorsement {
            voter: *voter,
            round: *at,
            vote: *digest,
        };
        let known = self
            .rounds
            .get_mut(at)
            .and_then(|round| round.vote(*voter, digest));
        let known = known.map(|seen| seen.chain.clone()).unwrap_or_default();
        // Those that were checked before are not checked again. The voter's first: without it the rest is nothing.
        let mut chain = known.clone();
        let is_known = |index: u8| known.iter().any(|(of, _)| of == index);
        let mut voters_key = None;
        if !is_known(*voter) {
            let own = signatures.iter().find(|(index, _)| index == voter);
            let Some((_, own)) = own else { return };
            let Some(key) = self.scheme.verify(*voter, &what, own) else {
                return;
            };
            chain.put(*voter, *own);
            voters_key = Some(key);
        }
        for (index, signature) in signatures.iter() {
            let new = index != *voter && !is_known(index);
            if new && self.scheme.verify(index, &what, signature).is_some() {
                chain.put(index, *signature);
            }
        }
        let Some(voters) = self.rounds.get_mut(at).map(|round| &mut round.voters) else {
            return;
        };
        let Some(of) = voters.get_mut(usize::from(*voter)) else {
            return;
        };
        match of.votes.iter_mut().find(|seen| seen.digest == *digest) {
            Some(seen) => seen.chain = chain,
            None => {
                let Some(key) = voters_key else { return };
                let others = chain.iter().map(|(index, _)| index);
                let others: ArrayVec<u8, MAX_DIRECTORIES> =
                    others.filter(|index| index != voter).collect();
                let own = [*voter];
                let bringers: &[u8] = if others.is_empty() { &own } else { &others };
                let by = bringers.iter().find(|by| of.has_place_for(**by)).copied();
                let Some(by) = by else { return };
                of.votes.push(Seen {
                    digest: *digest,
                    chain,
                    key,
                    by,
                    records: Vec::new(),
                    content: None,
                    state: State::Waiting,
                    asked: (0, 0),
                });
                self.find_contradiction(*at, *voter);
            }
        }
        self.consider(*at, *voter, now);
    }

    /// Two votes of one voter.
    fn find_contradiction(&mut self, at: UnixTime, voter: u8) {
        let round = self.rounds.get(&at);
        let Some([a, b, ..]) = round
            .and_then(|round| round.voters.get(usize::from(voter)))
            .map(|voter| voter.votes.as_slice())
        else {
            return;
        };
        let said = |seen: &Seen| {
            let own = seen.chain.iter().find(|(index, _)| *index == voter);
            own.map(|(_, signature)| Said {
                key: seen.key,
                digest: seen.digest,
                signature: *signature,
            })
        };
        if let (Some(first), Some(second)) = (said(a), said(b)) {
            self.contradiction(voter, Statement::Vote, at, [first, second]);
        }
    }

    fn contradiction(&mut self, index: u8, statement: Statement, at: UnixTime, said: [Said; 2]) {
        if let Some(proof) = Contradiction::new(statement, at, said) {
            self.tell_contradiction(index, Box::new(proof));
        }
    }

    /// Keeps and passes on a proof; one of each directory, round and kind.
    fn tell_contradiction(&mut self, index: u8, proof: Box<Contradiction>) {
        let of = (proof.round, index, proof.statement);
        if self.proven.contains(&of) {
            return;
        }
        if self.proven.is_full() {
            self.proven.remove(0);
        }
        self.proven.push(of);
        self.outputs
            .push(Output::Contradiction(index, proof.clone()));
        self.send(Body::Contradiction(proof));
    }

    /// Looks whether votes of a directory can be accepted, and passes on those that are.
    fn consider(&mut self, at: UnixTime, voter: u8, now: u64) {
        let Some(step) = self.schedule.step(at, now) else {
            return;
        };
        let waiting: Vec<Digest> = self
            .rounds
            .get(&at)
            .and_then(|round| round.voters.get(usize::from(voter)))
            .map(|voter| {
                let waiting = voter.votes.iter().filter(|v| v.state == State::Waiting);
                waiting.map(|seen| seen.digest).collect()
            })
            .unwrap_or_default();
        for digest in waiting {
            let missing = self.missing(at, voter, &digest);
            // Two are a contradiction, and all will know of both: others change nothing.
            let accepted = self
                .rounds
                .get(&at)
                .and_then(|round| round.voters.get(usize::from(voter)))
                .map_or(0, |voter| voter.accepted().count());
            let Some(seen) = self
                .rounds
                .get_mut(&at)
                .and_then(|r| r.vote(voter, &digest))
            else {
                continue;
            };
            match missing {
                Missing::Nothing(records) => {
                    if seen.chain.count() as u64 >= step && accepted < VOTES {
                        seen.state = State::Accepted;
                        seen.records = records;
                        self.pass_on(at, voter, &digest);
                    }
                }
                Missing::Never => seen.state = State::Refused,
                Missing::Some(what) => {
                    if now < seen.asked.0.saturating_add(AGAIN) && seen.asked.1 > 0 {
                        continue;
                    }
                    // Whoever has passed it on has all of it; whoever has brought it here was the first.
                    let me = self.me;
                    let others = seen.chain.iter().map(|(of, _)| of);
                    let holders: ArrayVec<u8, MAX_DIRECTORIES> = [seen.by]
                        .into_iter()
                        .chain(others.filter(|of| *of != seen.by))
                        .filter(|of| *of != me)
                        .collect();
                    let turn = seen.asked.1.checked_rem(holders.len()).unwrap_or(0);
                    seen.asked = (now, seen.asked.1.saturating_add(1));
                    if let Some(from) = holders.get(turn) {
                        self.outputs.push(Output::Fetch { from: *from, what });
                    }
                }
            }
        }
    }

    /// What is not here yet of a vote.
    fn missing(&self, at: UnixTime, voter: u8, digest: &Digest) -> Missing {
        let votes = self
            .rounds
            .get(&at)
            .and_then(|r| r.voters.get(usize::from(voter)));
        let seen = votes.and_then(|voter| voter.votes.iter().find(|v| v.digest == *digest));
        let Some(seen) = seen else {
            return Missing::Never;
        };
        let Some(vote) = &seen.content else {
            return Missing::Some(Wanted::Vote(*digest));
        };
        let (mut wanted, mut records) = (Vec::new(), Vec::new());
        for relay in &vote.relays {
            match self.records.get(&relay.record) {
                Some(record) if record.descriptor.id != relay.id => return Missing::Never,
                Some(record) => records.push((relay.record, record)),
                None => wanted.push(relay.record),
            }
        }
        if wanted.is_empty() {
            Missing::Nothing(records)
        } else {
            Missing::Some(Wanted::Records(wanted))
        }
    }

    fn is_vote_of(&self, vote: &Vote, at: UnixTime, voter: u8) -> bool {
        let says = (vote.network, vote.roster, vote.round, vote.voter);
        says == (self.roster.network(), self.roster.version, at, voter)
            && !vote.keys.is_empty()
            && vote
                .keys
                .iter()
                .all(|key| self.scheme.whose(key, at) == Some(voter))
            && vote.previous.0 < at
    }

    fn pass_on(&mut self, at: UnixTime, voter: u8, digest: &Digest) {
        let what = Signable::Endorsement {
            voter,
            round: at,
            vote: *digest,
        };
        let me = self.me;
        let Some(seen) = self.rounds.get_mut(&at).and_then(|r| r.vote(voter, digest)) else {
            return;
        };
        if seen.chain.iter().any(|(index, _)| index == me) {
            return;
        }
        seen.chain.put(me, self.scheme.sign(&what));
        let endorsement = Endorsement {
            voter,
            round: at,
            vote: *digest,
            signatures: seen.chain.clone(),
        };
        self.send(Body::Endorsements(vec![endorsement]));
    }

    /// Merges the votes of a round, and signs what comes out.
    fn close(&mut self, at: UnixTime) {
        let Some(round) = self.rounds.get_mut(&at) else {
            return;
        };
        if std::mem::replace(&mut round.closed, true) {
            return;
        }
        let (votes, records) = round.counted();
        if votes.len() < self.roster.quorum() {
            return;
        }
        let Some(merged) = self.merged(at, &votes, &records) else {
            return;
        };
        let digest = merged.digest;
        if let Some(round) = self.rounds.get_mut(&at) {
            if round.bodies.is_full() {
                round.bodies.remove(0);
            }
            round.bodies.push(merged);
        }
        self.sign(at, digest);
    }

    /// The snapshot that votes make. It goes on from the newest that `f + 1` of them call the previous one, so that an honest
    /// one has it; if that is not here, there is none, and this directory catches up.
    fn merged(&self, at: UnixTime, votes: &[Arc<Vote>], records: &Named) -> Option<Merged> {
        let enough = self.roster.faults() + 1;
        let named = |wanted: &(UnixTime, Digest)| {
            votes.iter().filter(|vote| vote.previous == *wanted).count() >= enough
        };
        let previous = votes.iter().map(|vote| vote.previous).filter(named);
        let (round, digest) = previous.max_by_key(|(round, _)| *round)?;
        let first = (round, digest) == Default::default();
        let held = [&self.newest, &self.before].into_iter().flatten();
        let mut held = held.filter(|held| (held.snapshot.issued, held.digest) == (round, digest));
        let snapshot = held.next();
        if snapshot.is_none() && !first {
            return None;
        }
        let place = self.log.place_of(round).filter(|_| !first);
        let log = self.log.head_at(place.map_or(0, |place| place + 1))?;
        merge(
            &self.roster,
            at,
            u64::from(self.roster.validity_s),
            Before {
                snapshot: snapshot.map(|held| (&*held.snapshot, held.digest)),
                log,
            },
            votes,
            records,
        )
    }

    fn sign(&mut self, at: UnixTime, digest: Digest) {
        let said = |(round, of): (UnixTime, Digest)| round >= at && (round, of) != (at, digest);
        if at < self.first || self.signed.is_some_and(said) {
            return;
        }
        self.signed = Some((at, digest));
        let promise = Promise::Snapshot { round: at, digest };
        self.outputs.push(Output::Store(promise));
    }

    /// Says what this directory has signed, which is stored.
    fn say_signature(&mut self, at: UnixTime, digest: Digest) {
        let what = Signable::Snapshot { round: at, digest };
        let signature = self.scheme.sign(&what);
        let Some(key) = self.scheme.verify(self.me, &what, &signature) else {
            // Its own key is over: nobody would take this.
            return;
        };
        let signed = Said {
            key,
            digest,
            signature,
        };
        self.note_signature(at, self.me, signed);
        self.send(Body::Signature {
            round: at,
            index: self.me,
            digest,
            signature,
        });
    }

    fn hear_signature(
        &mut self,
        at: UnixTime,
        index: u8,
        digest: Digest,
        signature: &[u8; 64],
        now: u64,
    ) {
        if self.round(at, now).is_none() {
            return;
        }
        let noted = self
            .rounds
            .get(&at)
            .and_then(|r| r.signed.get(usize::from(index)).copied());
        let Some(before) = noted else { return };
        if before.is_some_and(|before| before.digest == digest) {
            return;
        }
        let what = Signable::Snapshot { round: at, digest };
        let Some(key) = self.scheme.verify(index, &what, signature) else {
            return;
        };
        let signed = Said {
            key,
            digest,
            signature: *signature,
        };
        match before {
            None => self.note_signature(at, index, signed),
            Some(before) => self.contradiction(index, Statement::Snapshot, at, [before, signed]),
        }
        self.publish(at, now);
    }

    fn note_signature(&mut self, at: UnixTime, index: u8, signed: Said) {
        let places = self.rounds.get_mut(&at).map(|round| &mut round.signed);
        if let Some(place) = places.and_then(|places| places.get_mut(usize::from(index))) {
            *place = Some(signed);
        }
    }

    /// Publishes the snapshot of a round if it is time and a quorum has signed it.
    fn publish(&mut self, at: UnixTime, now: u64) {
        let quorum = self.roster.quorum();
        let me = self.me;
        let Some(round) = self.rounds.get_mut(&at) else {
            return;
        };
        if round.published || now < self.schedule.publishing(at) {
            return;
        }
        let Some(digest) = round.chosen(quorum) else {
            return;
        };
        let signatures = round.signers(&digest);
        let Some(merged) = round.body(&digest).cloned() else {
            if round.body_asked == 0 || now >= round.body_asked.saturating_add(AGAIN) {
                let turn = (now / AGAIN) as usize;
                let others: Vec<u8> = signatures
                    .iter()
                    .map(|(of, _)| of)
                    .filter(|of| *of != me)
                    .collect();
                round.body_asked = now;
                if let Some(from) = turn.checked_rem(others.len()).and_then(|at| others.get(at)) {
                    let (from, what) = (*from, Wanted::Body(digest));
                    self.outputs.push(Output::Fetch { from, what });
                }
            }
            return;
        };
        // Readers find the keys in the snapshot: a signature by another one would spoil it for them.
        let mut signatures = signatures;
        signatures.retain(|index, _| {
            let listed = merged.snapshot.directories.get(usize::from(index));
            let signed = round.signed.get(usize::from(index)).copied().flatten();
            listed
                .zip(signed)
                .is_some_and(|(listed, signed)| listed.keys.contains(&signed.key))
        });
        if signatures.count() < quorum {
            return;
        }
        round.published = true;
        let mut snapshot = (*merged.snapshot).clone();
        snapshot.signatures = signatures;
        let certified = Certified {
            snapshot: Arc::new(snapshot),
            digest,
        };
        let newer = self
            .newest
            .as_ref()
            .is_none_or(|newest| newest.snapshot.issued < at);
        if newer && !self.adopt(certified, &[]) {
            // It goes on from something that is not here: it comes with what leads to it.
            self.newest_asked = 0;
            self.look_for_newer(now);
        }
    }

    /// Takes a snapshot of a quorum as the newest, if the log and these rounds lead to it.
    fn adopt(&mut self, certified: Certified, rounds: &[Leaf]) -> bool {
        let wanted = certified.snapshot.log;
        let Ok(size) = usize::try_from(wanted.size) else {
            return false;
        };
        let mut log = None;
        if self.log.head_at(size) == Some(wanted) {
            log = Some(self.log.clone());
        } else if let Some(common) = size.checked_sub(rounds.len()) {
            let mut longer = self.log.clone();
            longer.truncate(common);
            if longer.leaves().len() == common && rounds.iter().all(|leaf| longer.push(*leaf)) {
                log = (longer.head() == wanted).then_some(longer);
            }
        }
        let Some(mut log) = log else { return false };
        log.truncate(size);
        if !log.push(certified.leaf()) {
            return false;
        }
        self.log = log;
        self.before = self.newest.replace(certified.clone());
        self.outputs.push(Output::Publish(certified));
        true
    }

    /// Asks the others, in turn, for a snapshot that this directory should have.
    fn look_for_newer(&mut self, now: u64) {
        let going = self.schedule.round_at(now);
        let due = if now >= self.schedule.publishing(going).saturating_add(AGAIN) {
            going
        } else {
            going.minus(self.schedule.round_seconds())
        };
        let have = self
            .newest
            .as_ref()
            .map_or(UnixTime(0), |newest| newest.snapshot.issued);
        if have >= due || now < self.newest_asked.saturating_add(AGAIN) {
            return;
        }
        self.newest_asked = now;
        let others = u64::from(self.directories()).saturating_sub(1).max(1);
        let turn = u8::try_from((now / AGAIN) % others).unwrap_or(0);
        let from = if turn < self.me { turn } else { turn + 1 };
        if from < self.directories() {
            let what = Wanted::Newest(have);
            self.outputs.push(Output::Fetch { from, what });
        }
    }

    /// Sends to all others, with the keys that it takes to check it.
    fn send(&mut self, body: Body) {
        let indices = 0..self.directories();
        let keys = indices.flat_map(|index| self.scheme.keys(index)).collect();
        self.outputs.push(Output::Send(Message { keys, body }));
    }
}

/// What is not here of a vote.
enum Missing {
    /// Here are the records that it names.
    Nothing(Vec<(Digest, Arc<RelayRecord>)>),
    Some(Wanted),
    /// It is no vote.
    Never,
}
