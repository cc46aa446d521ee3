//! Arbitrary records to test with.

use std::net::{Ipv4Addr, SocketAddr};

use arrayvec::ArrayVec;
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::effort::EffortTerms;
use mixline_protocol::identity::{Digest, IdentityKey, NetworkId, RelayId, ShortId, X25519Public};
use mixline_protocol::name::Label;
use mixline_protocol::path::PublishedTail;
use mixline_protocol::records::{
    Contradiction, DirectoryEntry, Endorsement, Heartbeat, Lease, LeaseRequest, ListedRelay,
    LogHead, Member, NameRecord, OnionKeys, OnlineKey, Parameters, Registration, RelayDescriptor,
    RelayFlags, RelayRecord, Roster, ServiceDescriptor, SharedRandom, Signatures, Snapshot,
    Statement, TailOffer, Vote, VotedRelay,
};
use mixline_protocol::time::UnixTime;
use proptest::collection::vec;
use proptest::prelude::*;

use super::directories::Directories;
use super::*;

prop_compose! {
    /// Any relay that can be signed.
    pub fn any_relay()(
        seed: [u8; 32],
        version: u64,
        issued in 0..u64::MAX / 2,
        life in 1..=RelayDescriptor::MAX_LIFETIME,
        link: [u8; 32],
        v4 in vec((1u8..224, any::<[u8; 3]>(), 1..=u16::MAX), 1..=2),
        v6 in vec((0x2000u16..0x4000, any::<[u16; 7]>(), 1..=u16::MAX), 0..=2),
        capacity: u32,
        family in proptest::option::of("[a-zA-Z0-9-]{1,32}"),
        name in "[a-zA-Z0-9-]{1,32}",
        software in "[ -~]{0,32}",
    ) -> RelayDescriptor {
        let key = IdentityKey::from_seed(seed);
        let ipv6 = |(front, rest, port): (u16, [u16; 7], u16)| {
            let mut segments = [front; 8];
            segments[1..].copy_from_slice(&rest);
            SocketAddr::from((segments, port))
        };
        let ipv4 = |(front, [b, c, d], port): (u8, [u8; 3], u16)| {
            SocketAddr::from(([front, b, c, d], port))
        };
        RelayDescriptor {
            id: key.relay_id(),
            version,
            issued: UnixTime(issued),
            expires: UnixTime(issued + life),
            link: X25519Public(link),
            addresses: v4.into_iter().map(ipv4).chain(v6.into_iter().map(ipv6)).collect(),
            capacity,
            family,
            name,
            software,
            signature: [0; 64],
        }
        .sign(&key)
        .unwrap()
    }
}

prop_compose! {
    /// Any onion keys, the first within so many epochs from one.
    pub fn any_onion(first: u32, skipped: u32)(
        skipped in 0..=skipped,
        keys in vec(any::<[u8; 32]>(), 1..=4),
    ) -> OnionKeys {
        let epochs = first.saturating_add(skipped).min(u32::MAX - 4)..;
        epochs.zip(keys).map(|(epoch, key)| (epoch, X25519Public(key))).collect()
    }
}

prop_compose! {
    /// Any entry of a snapshot whose first epoch this is.
    pub fn any_listed(first_epoch: u32)(
        descriptor in any_relay(),
        onion in any_onion(first_epoch, 15),
        capacity: u32,
        since: u32,
        ring: bool,
    ) -> ListedRelay {
        let (since, flags) = (UnixTime(since.into()), RelayFlags { ring });
        ListedRelay { descriptor, onion, capacity, since, flags }
    }
}

prop_compose! {
    /// Any record that a relay can register.
    pub fn any_relay_record()(
        seed: [u8; 32],
        descriptor in any_relay(),
        version: u64,
        onion in any_onion(500_000, u32::MAX),
    ) -> RelayRecord {
        let key = IdentityKey::from_seed(seed);
        let descriptor = RelayDescriptor { id: key.relay_id(), ..descriptor };
        RelayRecord::sign(descriptor.sign(&key).unwrap(), version, onion, &key).unwrap()
    }
}

prop_compose! {
    /// Any registration, with a proof by [`link_secret`] for [`session_secret`].
    pub fn any_registration()(
        record in any_relay_record(),
        version: u64,
        load: u32,
        leaving: bool,
    ) -> Registration {
        let (link, session) = (link_secret(), session_secret().public());
        let (relay, digest) = (record.descriptor.id, record.digest());
        let keys = (&link, &session);
        let heartbeat = Heartbeat::new(relay, version, (load, leaving), digest, keys).unwrap();
        Registration { heartbeat, record }
    }
}

prop_compose! {
    fn any_tail()(
        first: [u8; 8],
        alpha: [u8; 32],
        gamma: [u8; 16],
        beta in vec(any::<u8>(), 100),
        seed: [u8; 16],
        expires: u32,
    ) -> TailOffer {
        let beta = beta.try_into().unwrap();
        TailOffer {
            tail: PublishedTail { first: ShortId(first), alpha, gamma, beta, seed },
            expires: UnixTime(expires.into()),
        }
    }
}

prop_compose! {
    /// Any service that can be signed.
    pub fn any_service()(
        seed: [u8; 32],
        version: u64,
        issued in 0..u64::MAX / 2,
        life in 1..=ServiceDescriptor::MAX_LIFETIME,
        session: [u8; 32],
        lease: Option<(u32, u64)>,
        effort in (any::<[u8; 16]>(), prop::option::of(0..32u32)),
        tails in vec(any_tail(), 0..=8),
        clients: Option<[u8; 8]>,
    ) -> ServiceDescriptor {
        let key = IdentityKey::from_seed(seed);
        let grant = |(ip, expires)| {
            let ip = Ipv4Addr::from_bits(ip);
            Lease::grant(ip, key.anonymous_id(), UnixTime(expires), &directory_key())
        };
        ServiceDescriptor {
            id: key.anonymous_id(),
            version,
            issued: UnixTime(issued),
            expires: UnixTime(issued + life),
            session: X25519Public(session),
            effort: EffortTerms {
                seed: effort.0,
                suggested: effort.1.map_or(0, |exponent| 1 << exponent),
            },
            lease: lease.map(grant),
            tails,
            clients: clients.map(entries),
            signature: [0; 64],
        }
        .sign(&key)
        .unwrap()
    }
}

prop_compose! {
    /// Any name record that can be signed.
    pub fn any_name()(
        seed: [u8; 32],
        label in "[a-z0-9]([a-z0-9]{0,38}[a-z0-9])?",
        version: u64,
        issued in 0..u64::MAX / 2,
        life in 1..=NameRecord::MAX_LIFETIME,
    ) -> NameRecord {
        let key = IdentityKey::from_seed(seed);
        NameRecord {
            label: Label::new(&label).unwrap(),
            id: key.anonymous_id(),
            version,
            issued: UnixTime(issued),
            expires: UnixTime(issued + life),
            signature: [0; 64],
        }
        .sign(&key)
        .unwrap()
    }
}

prop_compose! {
    /// Any parameters.
    pub fn any_parameters()(
        epoch_seconds in 1..=u32::MAX,
        grace_seconds: u32,
        length in 8u8..=22,
        relay_timeout_s: u32,
        period_seconds in 1..=u32::MAX,
    ) -> Parameters {
        Parameters {
            epoch_seconds,
            grace_seconds,
            network: VirtualNetwork { prefix: Ipv4Addr::new(10, 0, 0, 0), length },
            relay_timeout_s,
            period_seconds,
        }
    }
}

prop_compose! {
    /// Any snapshot that can be signed, now.
    pub fn any_snapshot()(parameters in any_parameters())(
        parameters in Just(parameters),
        relays in vec(any_listed((NOW.0 / u64::from(parameters.epoch_seconds)) as u32), 0..5),
        tails in vec(any_tail(), 0..=8),
        life in 1..=Snapshot::MAX_LIFETIME,
        digests in any::<[[u8; 32]; 5]>(),
        numbers in any::<[u64; 3]>(),
        commitment in any::<bool>()
    ) -> Snapshot {
        let key = directory_key();
        let mut own = service(&key, 0, false);
        own.tails = tails;
        let [a, b, c, d, e] = digests.map(Digest);
        Snapshot {
            network: key.anonymous_id().into(),
            roster: 0,
            issued: NOW,
            valid_until: NOW.plus(life),
            previous: (UnixTime(numbers[0]), a),
            log: LogHead { size: numbers[1], root: b },
            random: SharedRandom { period: numbers[2], current: c, next: d, chain: e },
            parameters,
            directories: vec![DirectoryEntry {
                commitment: commitment.then_some(a),
                service: Some(own.sign(&key).unwrap()),
                ..DirectoryEntry::default()
            }],
            relays,
            signatures: Signatures::default(),
        }
        .sign(&key)
        .unwrap()
    }
}

prop_compose! {
    /// Any lease of the directory that is alone.
    pub fn any_lease()(id: [u8; 32], ip: u32, expires in 1..=u64::MAX) -> Lease {
        let id = IdentityKey::from_seed(id).anonymous_id();
        Lease::grant(Ipv4Addr::from_bits(ip), id, UnixTime(expires), &directory_key())
    }
}

prop_compose! {
    /// Any request for a lease, made now.
    pub fn any_lease_request()(id: [u8; 32], wanted: Option<u32>) -> LeaseRequest {
        LeaseRequest::new(NOW, wanted.map(Ipv4Addr::from_bits), &IdentityKey::from_seed(id))
    }
}

/// How many directories there may be.
fn any_count() -> impl Strategy<Value = u8> {
    prop_oneof![Just(1), Just(4), Just(7), Just(10)]
}

prop_compose! {
    fn any_member(key: [u8; 32])(
        name in "[a-zA-Z0-9-]{1,32}",
        url in "http://[!-~]{1,193}",
    ) -> Member {
        Member { key: IdentityKey::from_seed(key).public(), name, url }
    }
}

/// Seeds of keys, and directories that have them.
fn any_members() -> impl Strategy<Value = (Vec<[u8; 32]>, Vec<Member>)> {
    let seeds = |count: u8, first: [u8; 31]| {
        let seed = move |n: u8| -> [u8; 32] { [&[n][..], &first].concat().try_into().unwrap() };
        (0..count).map(seed).collect::<Vec<_>>()
    };
    (any_count(), any::<[u8; 31]>()).prop_flat_map(move |(count, first)| {
        let seeds = seeds(count, first);
        let members: Vec<_> = seeds.iter().map(|seed| any_member(*seed)).collect();
        (Just(seeds), members)
    })
}

prop_compose! {
    /// Any first roster that all of its directories have signed, with the seeds of their keys.
    pub fn any_roster()(
        (seeds, members) in any_members(),
        round_seconds in 10..=3600u32,
        validity in 7200..=24 * 3600u32,
    ) -> (Vec<[u8; 32]>, Roster) {
        let mut roster = Roster::first(members, round_seconds, validity).unwrap();
        for seed in &seeds {
            roster.sign(&IdentityKey::from_seed(*seed), None);
        }
        (seeds, roster)
    }
}

prop_compose! {
    /// Any second roster that all have signed, and the one before.
    pub fn any_next_roster()(
        (old, before) in any_roster(),
        (new, members) in any_members(),
        validity in 7200..=24 * 3600u32,
    ) -> (Roster, Roster) {
        let mut next = before.next(members, 3600, validity).unwrap();
        for seed in old.iter().chain(&new) {
            next.sign(&IdentityKey::from_seed(*seed), Some(&before));
        }
        (before, next)
    }
}

prop_compose! {
    /// Any certificate of a directory of a roster.
    pub fn any_online_key()(
        (seeds, roster) in any_roster(),
        by: prop::sample::Index,
        key: [u8; 32],
        issued in 0..u64::MAX / 2,
        life in 1..=OnlineKey::MAX_LIFETIME,
    ) -> (Roster, OnlineKey) {
        let life = (UnixTime(issued), UnixTime(issued + life));
        let identity = IdentityKey::from_seed(*by.get(&seeds));
        let key = OnlineKey::certify(roster.network(), key, life, &identity).unwrap();
        (roster, key)
    }
}

prop_compose! {
    /// Any snapshot that a quorum or more of its directories have signed, and these.
    pub fn any_snapshot_of_several()(
        count in any_count(),
        alone in any_snapshot(),
        life in 1..=directories::VALIDITY,
        away in any::<prop::sample::Index>(),
    ) -> (Roster, Snapshot) {
        let directories = Directories::new(count);
        let mut snapshot = Snapshot {
            valid_until: NOW.plus(life.into()),
            relays: alone.relays,
            parameters: alone.parameters,
            random: alone.random,
            log: alone.log,
            previous: alone.previous,
            ..directories.snapshot(0)
        }
        .ordered()
        .unwrap();
        let away = away.index(directories.identities.len()) as u8;
        let enough = directories.indices().filter(|index| count == 1 || *index != away);
        directories.sign(&mut snapshot, enough);
        (directories.roster, snapshot)
    }
}

prop_compose! {
    /// Any vote that somebody could endorse.
    pub fn any_vote()(
        network: [u8; 32],
        (roster, voter, round) in any::<(u32, u8, u64)>(),
        previous in any::<(u64, [u8; 32])>(),
        parameters in any_parameters(),
        keys in vec((any::<[u8; 32]>(), 1..=OnlineKey::MAX_LIFETIME), 0..=2),
        commitment: Option<[u8; 32]>,
        revealed: Option<[u8; 32]>,
        service in prop::option::of(any_service()),
        relays in vec(any::<([u8; 32], [u8; 32], bool, u32)>(), 0..5),
    ) -> Vote {
        let (network, identity) = (NetworkId(network), directory_key());
        let certified = |(key, life): ([u8; 32], u64)| {
            OnlineKey::certify(network, key, (NOW, NOW.plus(life)), &identity).unwrap()
        };
        let mut relays: Vec<_> = relays
            .into_iter()
            .map(|(id, record, ring, capacity)| VotedRelay {
                id: RelayId(id),
                record: Digest(record),
                flags: RelayFlags { ring },
                capacity,
            })
            .collect();
        relays.sort_by_key(|relay| relay.id);
        Vote {
            network,
            roster,
            voter: voter % 10,
            round: UnixTime(round),
            previous: (UnixTime(previous.0), Digest(previous.1)),
            parameters,
            keys: keys.into_iter().map(certified).collect::<ArrayVec<_, 2>>(),
            commitment: commitment.map(Digest),
            revealed,
            service,
            relays,
        }
    }
}

prop_compose! {
    /// Any endorsement, by some of so many directories.
    pub fn any_endorsement()(
        count in any_count(),
        voter: prop::sample::Index,
        by in 1u16..1 << 10,
        round: u64,
        vote: [u8; 32],
    ) -> (u8, Endorsement) {
        let directories = Directories::new(count);
        let (voter, round) = (voter.index(count.into()) as u8, UnixTime(round));
        let mut signatures = Signatures::default();
        for index in directories.indices().filter(|index| by & (1 << index) != 0) {
            signatures.put(index, directories.endorse(index, voter, round, &Digest(vote)));
        }
        (count, Endorsement { voter, round, vote: Digest(vote), signatures })
    }
}

prop_compose! {
    /// Any proof against a directory.
    pub fn any_contradiction()(
        count in any_count(),
        of: prop::sample::Index,
        snapshot: bool,
        later in 0..80 * 24 * 3600u64,
        digests: [[u8; 32]; 2],
    ) -> (Roster, Contradiction) {
        let directories = Directories::new(count);
        let statement = if snapshot { Statement::Snapshot } else { Statement::Vote };
        let (of, round) = (of.index(count.into()) as u8, NOW.plus(later));
        let said = digests.map(|digest| directories.said(of, statement, round, Digest(digest)));
        let proof = Contradiction::new(statement, round, said);
        (directories.roster, proof.expect("two digests"))
    }
}
