//! The snapshot that some votes make.
//!
//! Every honest directory that counts the same votes makes the same snapshot, to the byte: nothing here depends
//! on a clock, on chance, or on what this directory alone knows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mixline_protocol::address_scope::{Scope, scope};
use mixline_protocol::epoch;
use mixline_protocol::identity::{Digest, RelayId};
use mixline_protocol::listing::{Candidate, Identified, choose};
use mixline_protocol::records::{
    DirectoryEntry, ListedRelay, LogHead, MAX_RELAYS, OnionKeys, Parameters, RelayFlags,
    RelayRecord, Roster, Signatures, Snapshot, Vote, VotedRelay,
};
use mixline_protocol::time::UnixTime;

use crate::rounds::Records;
use crate::shared_random;

/// What a round goes on from.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// The snapshot before, if there is one, and its digest.
    pub snapshot: Option<(&'a Snapshot, Digest)>,
    /// The log up to it, and with it.
    pub log: LogHead,
}

/// A snapshot that has been made of votes, and which nobody has signed yet.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The snapshot, without signatures.
    pub snapshot: Arc<Snapshot>,
    /// Its encoded body.
    pub body: Vec<u8>,
    /// The hash of that.
    pub digest: Digest,
}

/// Makes the snapshot of a round from the votes that count, of different voters of the roster, each of
/// which has been [checked](crate::rounds). `validity`: for how many seconds it is valid.
///
/// - A relay is in if more than half of *all* directories list it, with the newest of its records that `f + 1` of them name
///   (of two that are as new, the one with the smaller digest), if that is valid at the time of the round; without one, as it was in the snapshot before.
/// - Of two that name one thing, a key or an address, one is in ([`choose`]).
/// - What is said of it is what most say who list it; its capacity is the low median, and at most what the relay says.
/// - The parameters are those that a quorum is for, else those before.
/// - A directory that has not voted stays as it was, without a commitment.
///
/// `None` if there are no parameters: in the first round, without a quorum for any.
#[must_use]
pub fn merge(
    roster: &Roster,
    round: UnixTime,
    validity: u64,
    before: Before<'_>,
    votes: &[Arc<Vote>],
    records: &dyn Records,
) -> Option<Merged> {
    let old = before.snapshot.map(|(snapshot, _)| snapshot);
    let parameters = parameters(roster, old, votes)?;
    let period = round.0 / u64::from(parameters.period_seconds.max(1));
    let revealed = revealed(old, votes);
    let snapshot = Snapshot {
        network: roster.network(),
        roster: roster.version,
        issued: round,
        valid_until: round.plus(validity),
        previous: before
            .snapshot
            .map(|(snapshot, digest)| (snapshot.issued, digest))
            .unwrap_or_default(),
        log: before.log,
        random: shared_random::advance(old.map(|old| &old.random), &revealed, period),
        parameters,
        directories: directories(roster, round, old, votes),
        relays: relays(roster, round, &parameters, old, votes, records),
        signatures: Signatures::default(),
    };
    let snapshot = snapshot.ordered().ok()?;
    let body = snapshot.encode_body();
    Some(Merged {
        digest: Snapshot::digest_of(&body),
        snapshot: Arc::new(snapshot),
        body,
    })
}

fn parameters(roster: &Roster, old: Option<&Snapshot>, votes: &[Arc<Vote>]) -> Option<Parameters> {
    let are_for = |wanted: &Parameters| votes.iter().filter(|v| v.parameters == *wanted).count();
    let mut wanted = votes.iter().map(|vote| vote.parameters);
    let chosen = wanted.find(|wanted| are_for(wanted) >= roster.quorum());
    chosen.or(old.map(|old| old.parameters))
}

/// What directories reveal that fits what they have committed to, by index.
fn revealed(old: Option<&Snapshot>, votes: &[Arc<Vote>]) -> Vec<(u8, [u8; 32])> {
    let committed = |voter: u8| {
        let entry = old?.directories.get(usize::from(voter))?;
        entry.commitment
    };
    let mut revealed: Vec<_> = votes
        .iter()
        .filter_map(|vote| Some((vote.voter, vote.revealed?)))
        .filter(|(voter, value)| committed(*voter) == Some(Vote::commitment_of(value)))
        .collect();
    revealed.sort_unstable();
    revealed
}

fn directories(
    roster: &Roster,
    round: UnixTime,
    old: Option<&Snapshot>,
    votes: &[Arc<Vote>],
) -> Vec<DirectoryEntry> {
    let indices = (0..).take(roster.members.len());
    indices
        .map(|index: u8| {
            let vote = votes.iter().find(|vote| vote.voter == index);
            let mut entry = match vote {
                Some(vote) => DirectoryEntry {
                    keys: vote.keys.clone(),
                    commitment: vote.commitment,
                    service: vote.service.clone(),
                },
                None => {
                    let member = roster.member(index);
                    let kept = member.and_then(|member| stays(member.key, old));
                    DirectoryEntry {
                        commitment: None,
                        ..kept.unwrap_or_default()
                    }
                }
            };
            // Their signatures were checked: with the vote, or by those who have signed the snapshot before.
            let identity = roster.member(index).map(|member| member.key);
            entry
                .keys
                .retain(|key| Some(key.directory) == identity && round < key.expires);
            entry.service = entry.service.filter(|service| service.expires > round);
            entry
        })
        .collect()
}

/// What the snapshot before says of a directory; its index may have been another one.
fn stays(identity: [u8; 32], old: Option<&Snapshot>) -> Option<DirectoryEntry> {
    let mut entries = old?.directories.iter();
    let is_its = |entry: &&DirectoryEntry| entry.keys.iter().any(|key| key.directory == identity);
    entries.find(is_its).cloned()
}

fn relays(
    roster: &Roster,
    round: UnixTime,
    parameters: &Parameters,
    old: Option<&Snapshot>,
    votes: &[Arc<Vote>],
    records: &dyn Records,
) -> Vec<ListedRelay> {
    let mut said: BTreeMap<RelayId, Vec<&VotedRelay>> = BTreeMap::new();
    for relay in votes.iter().flat_map(|vote| &vote.relays) {
        said.entry(relay.id).or_default().push(relay);
    }
    let before: HashMap<RelayId, &ListedRelay> = old
        .into_iter()
        .flat_map(|old| &old.relays)
        .map(|relay| (relay.descriptor.id, relay))
        .collect();
    let epoch = epoch::current(round, parameters.epoch_seconds);
    let mut relays = Vec::new();
    for (id, said) in said {
        if said.len() * 2 <= roster.members.len() {
            continue;
        }
        // Of a relay that has just changed there may be no record that enough name: it stays as it was.
        let named = newest(roster, &id, &said, round, records)
            .map(|record| (record.descriptor.clone(), record.onion.clone()));
        let listed = || {
            let listed = before
                .get(&id)
                .filter(|listed| listed.descriptor.alive(round))?;
            Some((listed.descriptor.clone(), listed.onion.clone()))
        };
        let Some((descriptor, onion)) = named.or_else(listed) else {
            continue;
        };
        let Some(onion) = usable(&onion, epoch) else {
            continue;
        };
        let ring = said.iter().filter(|relay| relay.flags.ring).count() * 2 > said.len();
        let capacity = low_median(said.iter().map(|relay| relay.capacity).collect());
        relays.push(ListedRelay {
            capacity: capacity.min(descriptor.capacity),
            descriptor,
            onion,
            since: before.get(&id).map_or(round, |listed| listed.since),
            flags: RelayFlags { ring },
        });
    }
    let candidates: Vec<Candidate<'_>> = relays
        .iter()
        .map(|relay| Candidate {
            id: relay.descriptor.id,
            since: relay.since,
            now: identified(relay),
            before: before
                .get(&relay.descriptor.id)
                .map(|listed| identified(listed)),
        })
        .collect();
    let is_public = |ip| scope(ip, &parameters.network) == Scope::Public;
    let mut refused = choose(&candidates, is_public).into_iter();
    relays.retain(|_| refused.next().flatten().is_none());
    // Those who were there first, if there are too many.
    relays.sort_by_key(|relay| (relay.since, relay.descriptor.id));
    relays.truncate(MAX_RELAYS);
    relays
}

/// What is a relay's alone. Of its addresses the first, from which it registers: who names another's behind it has proven nothing.
fn identified(relay: &ListedRelay) -> Identified<'_> {
    let all = &relay.descriptor.addresses[..];
    Identified {
        link: relay.descriptor.link,
        onion: &relay.onion,
        addresses: all.get(..1).unwrap_or(all),
    }
}

/// The newest record that `f + 1` name: an honest one of them has had it from the relay, and has looked at its addresses.
fn newest(
    roster: &Roster,
    id: &RelayId,
    said: &[&VotedRelay],
    round: UnixTime,
    records: &dyn Records,
) -> Option<Arc<RelayRecord>> {
    let named = |digest: &Digest| said.iter().filter(|relay| relay.record == *digest).count();
    let enough = said
        .iter()
        .filter(|relay| named(&relay.record) > roster.faults());
    let known = enough.filter_map(|relay| Some((relay.record, records.get(&relay.record)?)));
    let valid = known.filter(|(_, record)| {
        let descriptor = &record.descriptor;
        descriptor.id == *id && descriptor.alive(round)
    });
    let (_, record) = valid.max_by_key(|(digest, record)| (record.age(), Reverse(*digest)))?;
    Some(record)
}

/// The keys of this epoch and of those after it.
fn usable(onion: &OnionKeys, now: u32) -> Option<OnionKeys> {
    let keys: OnionKeys = onion.iter().filter(|(of, _)| *of >= now).copied().collect();
    let first = keys.first()?.0;
    // Further ahead than a snapshot can say; such keys are of no use yet.
    (first - now <= 15).then_some(keys)
}

fn low_median(mut numbers: Vec<u32>) -> u32 {
    numbers.sort_unstable();
    let middle = numbers.len().saturating_sub(1) / 2;
    numbers.get(middle).copied().unwrap_or(0)
}
