//! What stands between this host and its guards: of which kind a NAT is, and how long it keeps a
//! mapping. A firewall that translates nothing forgets as well, and then lets no answer in.

use std::net::SocketAddr;
use std::time::Duration;

use mixline_protocol::identity::X25519Public;
use mixline_protocol::link::probe::{MAX_DELAY, MIN_PROBE, answer_number};
use mixline_protocol::size::DATAGRAM;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::socket::{open, question};
use super::{Nat, NatKind, ProbeOptions};
use crate::sockets::source_to;

/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a relay is asked.
const TRIES: usize = 3;
/// Mappings that are left alone at the same time.
const MAX_MAPPINGS: usize = 8;
/// Relays that are asked about one mapping: a late answer may be lost.
const WITNESSES: usize = 2;

/// What is between here and these relays, all of one family.
pub async fn find(relays: &[(SocketAddr, X25519Public)], options: &ProbeOptions) -> Nat {
    let mut nat = Nat::default();
    let Some((first, _)) = relays.first() else {
        return nat;
    };
    let Ok(socket) = open(first.is_ipv4()) else {
        return nat;
    };
    let seen = all_seen_by(&socket, relays).await;
    let own_port = socket.local_addr().map_or(0, |local| local.port());
    let own = |(relay, by): &(SocketAddr, SocketAddr)| {
        source_to(relay) == Some(by.ip()) && by.port() == own_port
    };
    nat.kind = match seen.as_slice() {
        [] => NatKind::Unknown,
        all if all.iter().all(own) => NatKind::None,
        [_] => NatKind::Some,
        [(_, first), rest @ ..] if rest.iter().all(|(_, by)| by == first) => {
            NatKind::EndpointIndependent
        }
        _ => NatKind::AddressDependent,
    };
    let mut silences: Vec<Duration> = options.mappings.clone();
    silences.sort_unstable();
    match nat.kind {
        // Nobody is there.
        NatKind::Unknown => return nat,
        NatKind::None if !options.all_without_nat => silences.truncate(1),
        _ => silences.truncate(MAX_MAPPINGS),
    }
    let answering: Vec<_> = relays
        .iter()
        .filter(|(address, _)| seen.iter().any(|(of, _)| of == address))
        .copied()
        .take(WITNESSES)
        .collect();
    leave_alone(&mut nat, &answering, &silences).await;
    nat
}

/// Leaves mappings alone, and sees which of them still let an answer in afterwards.
async fn leave_alone(nat: &mut Nat, relays: &[(SocketAddr, X25519Public)], silences: &[Duration]) {
    let mut waiting = JoinSet::new();
    for silence in silences {
        let seconds = silence.min(&MAX_DELAY).as_secs();
        for (address, key) in relays.iter().copied() {
            waiting.spawn(async move { (seconds, outlives(address, key, seconds).await) });
        }
    }
    let mut lived = Vec::new();
    while let Some(one) = waiting.join_next().await {
        lived.extend(one.ok());
    }
    nat.mapping_lives_s = lived
        .iter()
        .filter(|(_, lives)| *lives)
        .map(|(s, _)| *s)
        .max();
    nat.mapping_gone_s = lived
        .iter()
        .map(|(seconds, _)| *seconds)
        .filter(|seconds| nat.mapping_lives_s.is_none_or(|lives| *seconds > lives))
        .min();
}

/// Whether an answer still comes after so many seconds in which nothing was sent.
async fn outlives(address: SocketAddr, relay: X25519Public, seconds: u64) -> bool {
    let (Ok(socket), Ok(delay)) = (open(address.is_ipv4()), u16::try_from(seconds)) else {
        return false;
    };
    // Relays look at the time once a second.
    let patience = Duration::from_secs(seconds) + 2 * PATIENCE;
    seen_by(&socket, address, &relay, delay, 1, patience)
        .await
        .is_some()
}

/// As whom each of these relays sees a socket that is not connected, in their order; those that do not
/// answer are left out. All are asked at once.
async fn all_seen_by(
    socket: &UdpSocket,
    relays: &[(SocketAddr, X25519Public)],
) -> Vec<(SocketAddr, SocketAddr)> {
    let mut seen = vec![None; relays.len()];
    let mut asked = Vec::new();
    let mut buffer = [0; DATAGRAM];
    for _ in 0..TRIES {
        let mut waits = false;
        for (index, (address, key)) in relays.iter().enumerate() {
            if seen[index].is_some() {
                continue;
            }
            let Some(probe) = question(key, MIN_PROBE, MIN_PROBE, 0) else {
                continue;
            };
            // An error may be about one that was asked before: the others are asked all the same.
            waits |= socket.send_to(&probe.bytes, address).await.is_ok();
            asked.push((index, probe));
        }
        if !waits {
            break;
        }
        let until = Instant::now() + PATIENCE;
        while seen.contains(&None)
            && let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await
        {
            let Ok((length, _)) = received else { continue };
            let answer = &buffer[..length];
            let number = answer_number(answer);
            let answered = asked
                .iter()
                .find(|(_, probe)| number == Some(probe.number()));
            if let Some((index, probe)) = answered
                && let Ok(answer) = probe.answered(answer)
            {
                seen[*index] = Some(answer.seen);
            }
        }
    }
    let both = relays.iter().zip(seen);
    both.filter_map(|((relay, _), by)| Some((*relay, by?)))
        .collect()
}

/// As whom a relay sees a socket that is not connected.
async fn seen_by(
    socket: &UdpSocket,
    relay: SocketAddr,
    key: &X25519Public,
    delay: u16,
    tries: usize,
    patience: Duration,
) -> Option<SocketAddr> {
    let mut buffer = [0; DATAGRAM];
    for _ in 0..tries {
        let probe = question(key, MIN_PROBE, MIN_PROBE, delay)?;
        socket.send_to(&probe.bytes, relay).await.ok()?;
        let until = Instant::now() + patience;
        while let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await {
            let Ok((length, _)) = received else { continue };
            if answer_number(&buffer[..length]) == Some(probe.number())
                && let Ok(answer) = probe.answered(&buffer[..length])
            {
                return Some(answer.seen);
            }
        }
    }
    None
}
