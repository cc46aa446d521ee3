//! The snapshots of several directories, of which this is one: what the engine of rounds wants done.
//!
//! One task owns what happens in order ([`Several::run`]): time, messages, what was fetched; then what the engine asks for, one after
//! the other. What it is to remember is in the store before anything is sent that rests on it.

mod fetch;
mod held;
mod membership;
mod peers;
mod promises;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mixline_directory_engine::rounds::{RoundStatus, Start};
use mixline_directory_engine::{Certified, Draft, Message, Output, Promise, Rounds, SigningKeys};
use mixline_protocol::identity::Digest;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{
    Contradiction, RelayRecord, Roster, ServiceDescriptor, Snapshot, Vote,
};
use mixline_protocol::round_log::{Leaf, RoundLog};
use mixline_protocol::time::UnixTime;
use rand_core::Rng as _;
use tokio::sync::{mpsc, watch};

use self::held::Held;
pub use self::membership::{Membership, read_rosters};
use self::peers::Peers;
use self::promises::Promises;
use super::past::Past;
use super::{ServiceKeys, voted};
use crate::Result;
use crate::board::{Board, Published};
use crate::registry::Registry;
use crate::service::Life;

/// How often time goes on for the engine.
const TICK: Duration = Duration::from_millis(250);
/// What waits for the task. Past it messages are dropped, and peers say them again by passing on others.
const WAITING: usize = 1024;
/// Contradictions that are kept and shown: who has proven to lie needs no more of them.
const PROOFS: usize = 64;

/// Something that has come.
enum Input {
    Message(Message),
    Vote(Digest, Box<Vote>),
    Records(Vec<RelayRecord>),
    Body(Vec<u8>, Box<Snapshot>),
    Snapshot(Certified, Vec<Leaf>),
}

/// What a directory has said against itself, and when this was known.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The directory's index.
    pub index: u8,
    /// Since when this is known here.
    pub known: UnixTime,
    /// What it has said.
    pub contradiction: Contradiction,
}

/// This directory among the others.
pub struct Several {
    membership: Membership,
    keys: ServiceKeys,
    rounds: Mutex<Rounds<SigningKeys, Held>>,
    held: Held,
    registry: Arc<Registry>,
    board: Arc<Board>,
    past: Past,
    promises: Promises,
    peers: Peers,
    proofs: Mutex<Vec<Proof>>,
    inputs: mpsc::Sender<Input>,
}

impl Several {
    /// Goes on from the past, if there is one. The receiver is for [`Several::run`].
    ///
    /// # Errors
    /// [`Error::State`] or [`Error::Store`] if the past cannot be read.
    pub fn new(
        membership: Membership,
        keys: ServiceKeys,
        (registry, board): (Arc<Registry>, Arc<Board>),
        past: Past,
        now: SystemTime,
    ) -> Result<(Arc<Self>, Inbox)> {
        let roster = membership.roster().clone();
        let (log, newest) = past.load(membership.rosters())?;
        if let Some(newest) = &newest {
            board.publish(Published::new(newest.snapshot.clone(), max_age(&roster)));
        }
        let promises = Promises::new(registry.clone(), &past);
        let start = Start {
            log,
            newest,
            vote: promises.vote()?,
            signed: promises.signed()?,
        };
        let held = Held::new(registry.clone());
        let rounds = Rounds::new(
            roster,
            membership.index(),
            membership.signing_keys(now.into()),
            held.clone(),
            start,
            millis(now),
        );
        let (inputs, inbox) = mpsc::channel(WAITING);
        let several = Self {
            peers: Peers::new(membership.roster(), membership.index())?,
            membership,
            keys,
            rounds: Mutex::new(rounds),
            held,
            registry,
            board,
            past,
            promises,
            proofs: Mutex::default(),
            inputs,
        };
        Ok((Arc::new(several), Inbox(inbox)))
    }

    /// Takes part until `stop`.
    pub async fn run(
        self: Arc<Self>,
        inbox: Inbox,
        life: Arc<Life>,
        mut stop: watch::Receiver<bool>,
    ) {
        let Inbox(mut inbox) = inbox;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => None,
                input = inbox.recv() => match input {
                    Some(input) => Some(input),
                    None => return,
                },
            };
            Life::count(&life.snapshots);
            let own = self.clone();
            // Checking signatures and merging votes are not for a thread that serves.
            let outputs = tokio::task::spawn_blocking(move || own.take_in(input)).await;
            self.carry_out(outputs.unwrap_or_default()).await;
        }
    }

    /// A message of another directory. False if there are too many.
    pub fn receive(&self, message: Message) -> bool {
        self.inputs.try_send(Input::Message(message)).is_ok()
    }

    /// A vote that is here, encoded.
    #[must_use]
    pub fn vote_with(&self, digest: &Digest) -> Option<Vec<u8>> {
        let vote = self.lock().vote_with(digest)?;
        Some(vote.encode())
    }

    /// The body of a snapshot that is not published yet.
    #[must_use]
    pub fn body_with(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.lock()
            .body_with(digest)
            .map(|merged| merged.body.clone())
    }

    /// The record of a relay.
    #[must_use]
    pub fn record_with(&self, digest: &Digest) -> Option<Arc<RelayRecord>> {
        mixline_directory_engine::Records::get(&self.held, digest)
    }

    /// Reads the log of all rounds.
    pub fn with_log<T>(&self, read: impl FnOnce(&RoundLog) -> T) -> T {
        read(self.lock().log())
    }

    /// The rosters of the network, one after the other.
    #[must_use]
    pub fn rosters(&self) -> &[Roster] {
        self.membership.rosters()
    }

    /// The roster that counts.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        self.membership.roster()
    }

    /// This directory's index.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.membership.index()
    }

    /// How the last rounds went, the newest first.
    #[must_use]
    pub fn status(&self) -> Vec<RoundStatus> {
        self.lock().status()
    }

    /// Which directories have proven to lie.
    #[must_use]
    pub fn proofs(&self) -> Vec<Proof> {
        self.proofs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn lock(&self) -> MutexGuard<'_, Rounds<SigningKeys, Held>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, input: Option<Input>) -> Vec<Output> {
        let now = millis(SystemTime::now());
        let mut rounds = self.lock();
        match input {
            None => rounds.tick(now),
            Some(Input::Message(message)) => rounds.receive(&message, now),
            Some(Input::Vote(digest, vote)) => rounds.learn_vote(digest, *vote, now),
            Some(Input::Records(records)) => {
                self.held
                    .keep(records.into_iter().map(Arc::new), UnixTime(now / 1000));
                rounds.records_changed(now);
            }
            Some(Input::Body(body, snapshot)) => rounds.learn_body(body, *snapshot, now),
            Some(Input::Snapshot(certified, leaves)) => {
                if !rounds.learn_snapshot(certified, &leaves, now) {
                    tracing::warn!(
                        "another directory has a newer snapshot, whose log does not go on from the one here"
                    );
                }
            }
        }
        let mut outputs = Vec::new();
        // A vote that is wanted is made here, so that nothing comes between.
        for output in rounds.take_outputs() {
            match output {
                Output::VoteWanted(round) => {
                    let draft = self.draft(round);
                    rounds.vote(round, draft, millis(SystemTime::now()));
                    outputs.extend(rounds.take_outputs());
                }
                other => outputs.push(other),
            }
        }
        outputs
    }

    /// What this directory would put into the snapshot of a round.
    fn draft(&self, round: UnixTime) -> Draft {
        let live = self.registry.live_relays();
        let relays = voted(&live);
        // Others ask for them, also when a relay has another one meanwhile.
        let past = 2 * u64::from(self.roster().round_seconds);
        self.held.forget_before(round.minus(past));
        self.held
            .keep_own(live.into_iter().map(|relay| relay.record), round);
        let mut random = [0; 32];
        OsRandom::new().fill_bytes(&mut random);
        Draft {
            parameters: self.registry.parameters(),
            service: self.service_at(round),
            relays,
            random,
        }
    }

    fn service_at(&self, round: UnixTime) -> Option<ServiceDescriptor> {
        let validity = u64::from(self.roster().validity_s);
        match self.keys.descriptor(&self.board, round, validity) {
            Ok(service) => Some(service),
            Err(error) => {
                tracing::error!("this directory is not in the snapshot: {error}");
                None
            }
        }
    }

    /// Does what the engine asks for, in order. What cannot be stored is not said.
    async fn carry_out(self: &Arc<Self>, outputs: Vec<Output>) {
        let mut left = VecDeque::from(outputs);
        while let Some(output) = left.pop_front() {
            match output {
                Output::VoteWanted(_) => {}
                Output::Store(promise) => {
                    let own = self.clone();
                    let said = tokio::task::spawn_blocking(move || own.promise(&promise)).await;
                    left.extend(said.unwrap_or_default());
                }
                Output::Send(message) => self.peers.send(&message),
                Output::Fetch { from, what } => fetch::spawn(self, from, what),
                Output::Publish(certified) => self.publish(&certified).await,
                Output::Contradiction(index, contradiction) => {
                    self.note_contradiction(index, *contradiction);
                }
            }
        }
    }

    /// Stores what this directory is about to say; gives what is to be done once it is stored.
    fn promise(&self, promise: &Promise) -> Vec<Output> {
        match self.promises.keep(promise) {
            Ok(true) => {
                let mut rounds = self.lock();
                rounds.stored(promise, millis(SystemTime::now()));
                rounds.take_outputs()
            }
            Ok(false) => {
                tracing::warn!(
                    "another front end of this directory has said something else in this round, or its clock was \
                     ahead once: nothing is said here"
                );
                Vec::new()
            }
            Err(error) => {
                tracing::error!("nothing is said in this round: {error}");
                Vec::new()
            }
        }
    }

    async fn publish(self: &Arc<Self>, certified: &Certified) {
        let round = certified.snapshot.issued;
        let relays = certified.snapshot.relays.len();
        tracing::info!("the snapshot of round {} has {relays} relays", round.0);
        let age = max_age(self.roster());
        self.board
            .publish(Published::new(certified.snapshot.clone(), age));
        let (own, certified) = (self.clone(), certified.clone());
        let kept = tokio::task::spawn_blocking(move || {
            let log = own.with_log(RoundLog::clone);
            own.past.keep(&certified, &log)
        });
        if let Ok(Err(error)) = kept.await {
            // The others have it.
            tracing::error!("{error}");
        }
    }

    fn note_contradiction(&self, index: u8, contradiction: Contradiction) {
        let name = self
            .roster()
            .member(index)
            .map_or("?", |member| &member.name);
        let round = contradiction.round.0;
        tracing::error!(
            "directory {name} has contradicted itself in round {round}: it has signed two {}",
            match contradiction.statement {
                mixline_protocol::records::Statement::Vote => "votes",
                mixline_protocol::records::Statement::Snapshot => "snapshots",
            }
        );
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        if proofs.len() >= PROOFS {
            proofs.remove(0);
        }
        proofs.push(Proof {
            index,
            known: SystemTime::now().into(),
            contradiction,
        });
    }
}

/// What has come and waits for [`Several::run`].
pub struct Inbox(mpsc::Receiver<Input>);

/// For how many seconds clients need not ask again: a new snapshot comes every round.
fn max_age(roster: &Roster) -> u64 {
    u64::from(roster.round_seconds / 3).clamp(1, 120)
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
