//! Records to begin with.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use mixline_protocol::authorisation::{ENTRIES, Entry};
use mixline_protocol::effort::EffortTerms;
use mixline_protocol::identity::{Digest, IdentityKey, ShortId, X25519Public, X25519Secret};
use mixline_protocol::name::Label;
use mixline_protocol::path::PublishedTail;
use mixline_protocol::records::{
    DirectoryEntry, Heartbeat, Lease, LeaseRequest, ListedRelay, LogHead, Member, NameRecord,
    OnlineKey, Parameters, Registration, RelayDescriptor, RelayFlags, RelayRecord, Roster,
    ServiceDescriptor, SharedRandom, Signatures, Snapshot, TailOffer,
};
use mixline_protocol::time::UnixTime;

/// When all this takes place.
pub const NOW: UnixTime = UnixTime(1_800_000_000);

/// The directory that is alone.
pub fn directory() -> IdentityKey {
    IdentityKey::from_seed([1; 32])
}

/// Of an anonymous ID.
pub fn key() -> IdentityKey {
    IdentityKey::from_seed([2; 32])
}

/// A lease of the directory that is alone.
pub fn lease() -> Lease {
    let ipv4 = Ipv4Addr::new(10, 1, 2, 3);
    Lease::grant(ipv4, key().anonymous_id(), NOW.plus(600), &directory())
}

/// A relay.
pub fn relay(n: u8) -> RelayDescriptor {
    let key = IdentityKey::from_seed([n; 32]);
    RelayDescriptor {
        id: key.relay_id(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(600),
        link: link().public(),
        addresses: vec![
            SocketAddr::from(([198, 51, 100, 1], 7000)),
            SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 7000)),
        ],
        capacity: 5,
        family: Some("red".into()),
        name: "relay".into(),
        software: "fuzz".into(),
        signature: [0; 64],
    }
    .sign(&key)
    .expect("a descriptor")
}

/// The link key of all relays.
pub fn link() -> X25519Secret {
    X25519Secret::from_bytes([3; 32])
}

/// Of the directory's sessions.
pub fn session() -> X25519Secret {
    X25519Secret::from_bytes([12; 32])
}

/// What a relay registers.
pub fn relay_record(n: u8) -> RelayRecord {
    let onion = (500_000..500_004).map(|epoch| (epoch, X25519Public([4; 32])));
    let key = IdentityKey::from_seed([n; 32]);
    RelayRecord::sign(relay(n), 1, onion.collect(), &key).expect("a record")
}

/// How it registers that.
pub fn registration() -> Registration {
    let record = relay_record(20);
    let (relay, digest) = (record.descriptor.id, record.digest());
    let (link, session) = (link(), session().public());
    let heartbeat = Heartbeat::new(relay, 1, (6, false), digest, (&link, &session));
    Registration {
        heartbeat: heartbeat.expect("a heartbeat"),
        record,
    }
}

/// How an ID is reached.
pub fn service(key: &IdentityKey, lease: Option<Lease>) -> ServiceDescriptor {
    let tail = PublishedTail {
        first: ShortId([7; 8]),
        alpha: [8; 32],
        gamma: [9; 16],
        beta: [10; 100],
        seed: [11; 16],
    };
    ServiceDescriptor {
        id: key.anonymous_id(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(600),
        session: X25519Public([12; 32]),
        effort: EffortTerms {
            seed: [13; 16],
            suggested: 1 << 12,
        },
        lease,
        tails: vec![TailOffer {
            tail,
            expires: NOW.plus(300),
        }],
        clients: lease.map(|_| (0..ENTRIES as u8).map(|n| Entry([n; 16])).collect()),
        signature: [0; 64],
    }
    .sign(key)
    .expect("a descriptor")
}

/// The right to a name.
pub fn name() -> NameRecord {
    NameRecord {
        label: Label::new("name").expect("a label"),
        id: key().anonymous_id(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(600),
        signature: [0; 64],
    }
    .sign(&key())
    .expect("a record")
}

/// The wish for an address.
pub fn lease_request() -> LeaseRequest {
    LeaseRequest::new(NOW, Some(Ipv4Addr::new(10, 9, 8, 7)), &key())
}

/// A snapshot of a directory that is alone.
pub fn snapshot(relays: u8) -> Snapshot {
    let entry = DirectoryEntry {
        service: Some(service(&directory(), None)),
        ..DirectoryEntry::default()
    };
    let alone = Roster::alone(directory().anonymous_id());
    unsigned(&alone, vec![entry], relays)
        .sign(&directory())
        .expect("a snapshot")
}

/// A snapshot of four directories, of which three have signed.
pub fn snapshot_of_four(relays: u8) -> Snapshot {
    let entry = |index: u8| DirectoryEntry {
        keys: [certificate(index)].into_iter().collect(),
        commitment: (index > 0).then_some(Digest([index; 32])),
        service: (index == 2).then(|| service(&key(), None)),
    };
    let mut snapshot = unsigned(&roster(), (0..4).map(entry).collect(), relays);
    let digest = snapshot.digest();
    for index in [0, 1, 3] {
        let signature = Snapshot::signature(&snapshot.network, NOW, &digest, &online(index));
        snapshot.signatures.put(index, signature);
    }
    snapshot
}

fn unsigned(roster: &Roster, directories: Vec<DirectoryEntry>, relays: u8) -> Snapshot {
    let listed = |n: u8| ListedRelay {
        descriptor: relay(n + 20),
        onion: relay_record(n + 20).onion,
        capacity: 5,
        since: NOW.minus(600),
        flags: RelayFlags {
            ring: n.is_multiple_of(2),
        },
    };
    Snapshot {
        network: roster.network(),
        roster: roster.version,
        issued: NOW,
        valid_until: NOW.plus(600),
        previous: (NOW.minus(300), Digest([1; 32])),
        log: LogHead::default(),
        random: SharedRandom::default(),
        parameters: Parameters::default(),
        directories,
        relays: (0..relays).map(listed).collect(),
        signatures: Signatures::default(),
    }
    .ordered()
    .expect("a snapshot")
}

/// The identity of one of four directories.
pub fn identity(index: u8) -> IdentityKey {
    IdentityKey::from_seed([100 + index; 32])
}

/// The key that it signs with.
pub fn online(index: u8) -> IdentityKey {
    IdentityKey::from_seed([110 + index; 32])
}

/// That it does.
pub fn certificate(index: u8) -> OnlineKey {
    static CERTIFICATES: LazyLock<[OnlineKey; 4]> = LazyLock::new(|| {
        [0, 1, 2, 3].map(|index| {
            let (key, identity) = (online(index).public(), identity(index));
            let life = (NOW.minus(1000), NOW.plus(1000));
            OnlineKey::certify(roster().network(), key, life, &identity).expect("a certificate")
        })
    });
    CERTIFICATES[usize::from(index)]
}

fn members() -> Vec<Member> {
    let member = |index: u8| Member {
        key: identity(index).public(),
        name: format!("d{index}"),
        url: format!("http://d{index}.example"),
    };
    (0..4).map(member).collect()
}

/// The four directories.
pub fn roster() -> Roster {
    static ROSTER: LazyLock<Roster> = LazyLock::new(|| {
        let mut roster = Roster::first(members(), 300, 10_800).expect("a roster");
        for index in 0..3 {
            assert!(roster.sign(&identity(index), None));
        }
        roster
    });
    ROSTER.clone()
}

/// The same in another order.
pub fn next_roster() -> Roster {
    let (before, mut members) = (roster(), members());
    members.reverse();
    let mut next = before.next(members, 300, 10_800).expect("a roster");
    for index in 0..4 {
        assert!(next.sign(&identity(index), Some(&before)));
    }
    next
}
