//! Cells over a link that was made in order: through somebody's public tails, or of ever new paths
//! that lead nowhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use mixline_protocol::effort::{Effort, Seed};
use mixline_protocol::epoch;
use mixline_protocol::identity::{AnonymousId, IdentityKey, ShortId, X25519Public, X25519Secret};
use mixline_protocol::link::CellKind;
use mixline_protocol::path::{
    Head, HeadSecrets, Hop, MailboxToken, TailSecrets, build_head, build_tail,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{ListedRelay, RelayDescriptor, Snapshot, TailOffer};
use mixline_protocol::session::{Certificate, Form, SessionInitiator, effort};
use mixline_protocol::size::{Cell, PATH_HEADER, Payload};
use mixline_testnet::link_client::Client;
use rand_core::Rng as _;

use super::identities::Asker;
use super::spending::solve;
use super::turns::{Limits, Turn};
use super::{Network, listed, now};
use crate::testbed::header_over;

/// Tries to get a link before the attack begins.
const TRIES: usize = 5;

/// How often it is asked what a service suggests.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Random bytes through public tails.
    Garbage,
    /// Session initiations through public tails, each of an ID of its own that never comes back.
    Initiations,
    /// Headers of new paths whose next relay is none.
    Paths,
}

/// What is sent, and whom it hits.
#[derive(Debug, clap::Args)]
pub struct How {
    #[arg(long, value_enum)]
    kind: Kind,
    /// Whose public tails; the directory's without.
    #[arg(long)]
    to: Option<AnonymousId>,
    /// The neighbour that is sent new paths.
    #[arg(long)]
    relay: Vec<String>,
    /// How many new paths are made, which are sent over and over.
    #[arg(long, default_value_t = 0)]
    count: usize,
    /// Hashes that are spent on each session initiation.
    #[arg(long, default_value_t = 0)]
    effort: Effort,
    /// As many as are suggested at the time, if that is more; what that is the directory is asked once a second.
    #[arg(long, requires = "to")]
    suggested: bool,
}

pub fn attack(network: &Network, limits: &Limits, how: &How) -> Result<()> {
    let snapshot = network.snapshot()?;
    let client = Client::at("0.0.0.0:0");
    match how.kind {
        Kind::Paths => new_paths(client, limits, how, &snapshot),
        Kind::Garbage | Kind::Initiations => through_tails(client, limits, how, snapshot),
    }
}

fn new_paths(mut client: Client, limits: &Limits, how: &How, snapshot: &Snapshot) -> Result<()> {
    let relays = listed(snapshot, &how.relay)?;
    let relay = relays.first().context("no relay is named")?;
    let hop = hop(relay, snapshot)?;
    let rng = &mut OsRandom::new();
    let mut cells = (0..how.count)
        .map(|_| {
            let mut nobody = [0; 8];
            rng.fill_bytes(&mut nobody);
            let mut cell: Cell = [0; 1368];
            cell[..PATH_HEADER].copy_from_slice(&header_over(&hop, ShortId(nobody))?);
            Ok(cell)
        })
        .collect::<Result<Vec<_>>>()?;
    ensure!(!cells.is_empty(), "no paths to send");
    let link = link(&mut client, &relay.descriptor)?;
    let mut turn = Turn::wait(limits)?;
    let mut message = 0_u64;
    while turn.goes_on() {
        for cell in &mut cells {
            // Another payload each time, so that none is a replay.
            message += 1;
            cell[PATH_HEADER..PATH_HEADER + 8].copy_from_slice(&message.to_be_bytes());
            client.send(link, cell, CellKind::Cell);
            turn.sent(1);
            if !turn.goes_on() {
                break;
            }
        }
    }
    turn.end()
}

fn through_tails(mut client: Client, limits: &Limits, how: &How, snapshot: Snapshot) -> Result<()> {
    let target = Target::find(&snapshot, how)?;
    let mut ways = Vec::new();
    for (number, offer) in target.tails.iter().enumerate() {
        // Each by a first relay of its own, as far as there are relays.
        let others = snapshot.relays.iter().cycle().skip(number);
        // The one that registers again and again has no key that could be used.
        let first = others
            .take(snapshot.relays.len())
            .filter(|relay| relay.short_id() != offer.tail.first)
            .find_map(|relay| Some((&relay.descriptor, hop(relay, &snapshot).ok()?)));
        let (first, hop) = first.context("no relay to begin at")?;
        let secrets = HeadSecrets::random(&mut OsRandom::new());
        let head = build_head(&secrets, &[hop], &offer.tail)?;
        ways.push((link(&mut client, first)?, head));
    }
    ensure!(!ways.is_empty(), "nobody has public tails");
    let answers = nowhere(&snapshot)?;
    let rng = &mut OsRandom::new();
    let mut turn = Turn::wait(limits)?;
    for (link, head) in ways.iter().cycle() {
        if !turn.goes_on() {
            break;
        }
        let mut payload: Payload = [0; 1072];
        if how.kind == Kind::Garbage {
            rng.fill_bytes(&mut payload);
        } else {
            let effort = how.effort.max(target.suggested.load(Ordering::Relaxed));
            let Some(initiation) = initiation(&target, &answers, effort, &mut turn)? else {
                break;
            };
            payload = initiation;
        }
        client.send(*link, &wrapped(head, payload), CellKind::Cell);
        turn.sent(1);
    }
    turn.end()
}

/// An endpoint, as everybody who wants a session with it knows it.
struct Target {
    id: AnonymousId,
    session: X25519Public,
    tails: Vec<TailOffer>,
    seed: Seed,
    /// What it suggests to spend, if that is followed; else nothing.
    suggested: Arc<AtomicU32>,
}

impl Target {
    fn find(snapshot: &Snapshot, how: &How) -> Result<Self> {
        let suggested = Arc::new(AtomicU32::new(0));
        let descriptor = match how.to {
            None => snapshot.service().cloned().context("no directory")?,
            Some(id) => {
                let asker = Asker::new(snapshot)?;
                let descriptor = asker.look_up(id)?;
                if how.suggested {
                    follow(asker, id, Arc::clone(&suggested));
                }
                descriptor
            }
        };
        Ok(Self {
            id: descriptor.id,
            session: descriptor.session,
            tails: descriptor.tails,
            seed: descriptor.effort.seed,
            suggested,
        })
    }
}

/// Asks again and again what somebody suggests, as long as the attacker lives.
fn follow(asker: Asker, id: AnonymousId, suggested: Arc<AtomicU32>) {
    thread::spawn(move || {
        loop {
            // Who has no answer goes on with what was suggested before.
            if let Ok(descriptor) = asker.look_up(id) {
                suggested.store(descriptor.effort.suggested, Ordering::Relaxed);
            }
            thread::sleep(ASK_EVERY);
        }
    });
}

/// What somebody sends who wants a session, was never there before, and spends so much on it; none if the turn
/// ends before that is spent.
fn initiation(
    target: &Target,
    tails: &[TailOffer],
    spent: Effort,
    turn: &mut Turn,
) -> Result<Option<Payload>> {
    let rng = &mut OsRandom::new();
    let (key, secret) = (IdentityKey::generate(rng), X25519Secret::generate(rng));
    let until = now().plus(3600);
    let certificate = Certificate::sign(&key, &secret.public(), until, None)?;
    let at = now().0 * 1000;
    let (_, mut payload) = SessionInitiator::start(
        &secret,
        &target.session,
        &target.id,
        Form::Public,
        &certificate,
        tails,
        None,
        at,
        rng,
    )?;
    let puzzle = effort::puzzle(&target.id, &target.seed, &payload);
    Ok(solve(&puzzle, spent, turn).map(|solution| {
        effort::write(&target.seed, &solution, &mut payload);
        *payload
    }))
}

/// A tail that ends in no mailbox: answers are not read.
fn nowhere(snapshot: &Snapshot) -> Result<Vec<TailOffer>> {
    let rng = &mut OsRandom::new();
    // The one that registers again and again has no key that could be used.
    let mut hops = snapshot
        .relays
        .iter()
        .filter_map(|it| hop(it, snapshot).ok());
    let hop = hops.next().context("no relay")?;
    let token = MailboxToken(rng.next_u64().to_be_bytes());
    let (tail, _) = build_tail(&TailSecrets::random(rng), &[hop], token)?;
    let expires = now().plus(1800);
    Ok(vec![TailOffer { tail, expires }])
}

fn wrapped(head: &Head, mut payload: Payload) -> Cell {
    head.wrap(&mut payload);
    let mut cell = [0; 1368];
    cell[..PATH_HEADER].copy_from_slice(head.header());
    cell[PATH_HEADER..].copy_from_slice(&payload);
    cell
}

fn hop(relay: &ListedRelay, snapshot: &Snapshot) -> Result<Hop> {
    let epoch = epoch::current(now(), snapshot.parameters.epoch_seconds);
    let onion = relay.onion_for(epoch).context("no key of this epoch")?;
    Ok(Hop {
        relay: relay.short_id(),
        onion: *onion,
    })
}

/// A link to a relay.
pub fn link(client: &mut Client, relay: &RelayDescriptor) -> Result<usize> {
    let address = SocketAddr::V4(super::address_of(relay)?);
    client.set_patience(Duration::from_secs(2));
    for _ in 0..TRIES {
        if let Some(link) = client.try_connect(address, &relay.link) {
            return Ok(link);
        }
    }
    bail!("{} does not answer", relay.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mixline_protocol::session;

    #[test]
    fn an_endpoint_would_answer_an_initiation() {
        let rng = &mut OsRandom::new();
        let (key, secret) = (IdentityKey::generate(rng), X25519Secret::generate(rng));
        let target = Target {
            id: key.anonymous_id(),
            session: secret.public(),
            tails: Vec::new(),
            seed: [6; 16],
            suggested: Arc::default(),
        };
        let mut tail = TailOffer {
            tail: mixline_protocol::path::PublishedTail {
                first: ShortId([1; 8]),
                alpha: [2; 32],
                gamma: [3; 16],
                beta: [4; 100],
                seed: [5; 16],
            },
            expires: now().plus(60),
        };
        rng.fill_bytes(&mut tail.tail.seed);
        let mut ids = Vec::new();
        for spent in [0, 1 << 12] {
            let turn = &mut Turn::of_seconds(1000);
            let payload = initiation(&target, &[tail], spent, turn).unwrap().unwrap();
            // One with a wrong front would be dropped as garbage is.
            let counted = effort::spent(&target.id, [&target.seed], &payload);
            assert_eq!(counted, Some(spent));
            let directory = AnonymousId([9; 32]);
            let at = now().0 * 1000;
            let read = session::accept(
                &secret,
                &target.id,
                &directory,
                Form::Public,
                &payload,
                at,
                rng,
            );
            ids.push(read.unwrap().certificate.id);
        }
        assert_ne!(ids[0], ids[1]);
    }
}
