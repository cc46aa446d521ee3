//! Records against `vectors/directory.json`, which another implementation has made, and can be checked by.
//!
//! In the file all bytes are hexadecimal, and directories are called by their index in the first roster (the one
//! past its end is new in the second). Ed25519 is deterministic, so each record can be made again from the seeds.
//! `body`, `message`, `mac_key` and `digest` are what is met on the way.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use mixline_protocol::identity::{Digest, IdentityKey, NetworkId, X25519Public, X25519Secret};
use mixline_protocol::records::{
    Contradiction, DirectoryEntry, Endorsement, Heartbeat, ListedRelay, LogHead, Member, OnionKeys,
    OnlineKey, Parameters, Registration, RelayDescriptor, RelayFlags, RelayRecord, Roster, Said,
    ServiceDescriptor, SharedRandom, Signatures, Snapshot, Statement, Vote, VotedRelay,
};
use mixline_protocol::time::UnixTime;
use serde_json::Value;

use crate::kinds::{decode, encode};

static FILE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../vectors/directory.json")).expect("JSON")
});

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array(value: &Value) -> [u8; 32] {
    bytes(value).try_into().unwrap()
}

fn digest(value: &Value) -> Digest {
    Digest(array(value))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn small(value: &Value) -> u32 {
    number(value).try_into().unwrap()
}

fn time(value: &Value) -> UnixTime {
    UnixTime(number(value))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().into()
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().unwrap().iter().map(read).collect()
}

fn indices(value: &Value) -> Vec<u8> {
    list(value, |index| small(index) as u8)
}

fn identity(index: u8) -> IdentityKey {
    let directory = &FILE["directories"][usize::from(index)];
    let key = IdentityKey::from_seed(array(&directory["identity_seed"]));
    assert_eq!(key.public(), array(&directory["identity"]));
    key
}

fn online(index: u8) -> IdentityKey {
    let directory = &FILE["directories"][usize::from(index)];
    let key = IdentityKey::from_seed(array(&directory["online_seed"]));
    assert_eq!(key.public(), array(&directory["online"]));
    key
}

fn network() -> NetworkId {
    NetworkId(array(&FILE["network"]))
}

fn rosters() -> Vec<Roster> {
    list(&FILE["rosters"], |roster| {
        Roster::decode(&bytes(&roster["encoded"])).unwrap()
    })
}

fn certificate(index: u8) -> OnlineKey {
    let key = &FILE["online_keys"][usize::from(index)];
    OnlineKey::decode(&bytes(&key["encoded"])).unwrap()
}

fn relays() -> Vec<RelayRecord> {
    list(&FILE["relays"], |relay| {
        RelayRecord::decode(&bytes(&relay["record"])).unwrap()
    })
}

fn service() -> ServiceDescriptor {
    ServiceDescriptor::decode(&bytes(&FILE["service"]["encoded"])).unwrap()
}

#[test]
fn rosters_and_the_name_of_the_network() {
    let all: Vec<_> = (0..5).map(identity).collect();
    let members = |roster: &Value| {
        list(&roster["members"], |member| Member {
            key: array(&member["key"]),
            name: text(&member["name"]),
            url: text(&member["url"]),
        })
    };
    let values = FILE["rosters"].as_array().unwrap();
    let numbers = |value: &Value| {
        (
            small(&value["round_seconds"]),
            small(&value["validity_seconds"]),
        )
    };
    let (round, validity) = numbers(&values[0]);
    let mut first = Roster::first(members(&values[0]), round, validity).unwrap();
    let (round, validity) = numbers(&values[1]);
    let mut second = first.next(members(&values[1]), round, validity).unwrap();
    for key in &all {
        first.sign(key, None);
        second.sign(key, Some(&first));
    }
    for (roster, value) in [&mut first, &mut second].into_iter().zip(values) {
        let (before, own) = (indices(&value["signed_before"]), indices(&value["signed"]));
        roster
            .signed_before
            .retain(|index, _| before.contains(&index));
        roster.signed.retain(|index, _| own.contains(&index));
        let encoded = bytes(&value["encoded"]);
        assert_eq!(roster.encode(), encoded);
        assert!(encoded.starts_with(&bytes(&value["body"])));
        assert_eq!(u64::from(roster.version), number(&value["version"]));
        assert_eq!(Roster::decode(&encoded).as_ref(), Ok(&*roster));
    }
    assert_eq!(first.network(), network());
    assert_eq!(network().to_string(), text(&FILE["network_text"]));
    assert_eq!(first.verify_first(network()), Ok(()));
    assert_eq!(second.verify_after(&first), Ok(()));
    let chain = bytes(&FILE["chain"]);
    assert_eq!(Roster::encode_chain([&first, &second]), chain);
    assert_eq!(
        Roster::decode_chain(&chain, network()),
        Ok(vec![first, second])
    );
}

#[test]
fn online_keys() {
    for value in FILE["online_keys"].as_array().unwrap() {
        let index = small(&value["directory"]) as u8;
        let life = (time(&value["issued"]), time(&value["expires"]));
        let key = online(index).public();
        let made = OnlineKey::certify(network(), key, life, &identity(index)).unwrap();
        assert_eq!(made.encode(), bytes(&value["encoded"]));
        assert_eq!(certificate(index), made);
        assert_eq!(made.verify(&rosters()[0], life.0), Ok(index));
    }
}

#[test]
fn relays_register() {
    for value in FILE["relays"].as_array().unwrap() {
        let key = IdentityKey::from_seed(array(&value["identity_seed"]));
        assert_eq!(key.public(), array(&value["identity"]));
        let link = X25519Secret::from_bytes(array(&value["link_secret"]));
        let family = text(&value["family"]);
        let descriptor = RelayDescriptor {
            id: key.relay_id(),
            version: number(&value["version"]),
            issued: time(&value["issued"]),
            expires: time(&value["expires"]),
            link: link.public(),
            addresses: list(&value["addresses"], |address| {
                text(address).parse().unwrap()
            }),
            capacity: small(&value["capacity"]),
            family: (!family.is_empty()).then_some(family),
            name: text(&value["name"]),
            software: text(&value["software"]),
            signature: [0; 64],
        };
        let descriptor = descriptor.sign(&key).unwrap();
        assert_eq!(descriptor.encode(), bytes(&value["descriptor"]));
        assert_eq!(descriptor.short_id().to_string(), text(&value["short_id"]));
        let keys = list(&value["onion_secrets"], |secret| {
            X25519Secret::from_bytes(array(secret)).public()
        });
        let onion: OnionKeys = (small(&value["first_epoch"])..).zip(keys).collect();
        let version = number(&value["record_version"]);
        let record = RelayRecord::sign(descriptor, version, onion, &key).unwrap();
        assert_eq!(record.encode(), bytes(&value["record"]));
        assert_eq!(record.digest(), digest(&value["digest"]));
        let read = RelayRecord::decode(&bytes(&value["record"])).unwrap();
        assert_eq!(read.verify(time(&value["issued"])), Ok(()));
        assert_eq!(read, record);
    }
}

#[test]
fn a_relay_beats() {
    let value = &FILE["heartbeat"];
    let relay = &FILE["relays"][small(&value["relay"]) as usize];
    let link = X25519Secret::from_bytes(array(&relay["link_secret"]));
    let session = X25519Secret::from_bytes(array(&value["session_secret"]));
    let public = X25519Public(array(&value["session_key"]));
    assert_eq!(session.public(), public);
    let record = RelayRecord::decode(&bytes(&relay["record"])).unwrap();
    let made = Heartbeat::new(
        record.descriptor.id,
        number(&value["version"]),
        (small(&value["load"]), value["leaving"].as_bool().unwrap()),
        digest(&relay["digest"]),
        (&link, &public),
    );
    let made = made.unwrap();
    assert_eq!(made.encode(), bytes(&value["encoded"]));
    assert_eq!(made.verify(&record.descriptor.link, &session), Ok(()));
    let shared = link.exchange(&public).unwrap();
    let key = Digest::of("mixline/v2/heartbeat", &[&*shared]);
    assert_eq!(key, digest(&value["mac_key"]));

    let registration = Registration {
        heartbeat: made,
        record,
    };
    let encoded = bytes(&FILE["registration"]);
    assert_eq!(registration.encode(), encoded);
    assert_eq!(Registration::decode(&encoded), Ok(registration));
}

fn vote() -> Vote {
    let value = &FILE["vote"];
    let mut relays: Vec<_> = relays()
        .iter()
        .enumerate()
        .map(|(at, record)| VotedRelay {
            id: record.descriptor.id,
            record: record.digest(),
            flags: RelayFlags {
                ring: value["ring"][at].as_bool().unwrap(),
            },
            capacity: small(&value["capacities"][at]),
        })
        .collect();
    relays.sort_by_key(|relay| relay.id);
    Vote {
        network: network(),
        roster: small(&value["roster"]),
        voter: small(&value["voter"]) as u8,
        round: time(&value["round"]),
        previous: (time(&value["previous_issued"]), digest(&value["previous"])),
        parameters: Parameters::default(),
        keys: [certificate(0)].into_iter().collect(),
        commitment: Some(digest(&value["commitment"])),
        revealed: Some(array(&value["revealed"])),
        service: Some(service()),
        relays,
    }
}

#[test]
fn a_directory_votes() {
    let (value, vote) = (&FILE["vote"], vote());
    let committed = Vote::commitment_of(&array(&value["committed"]));
    assert_eq!(committed, digest(&value["commitment"]));
    assert_eq!(vote.encode(), bytes(&value["encoded"]));
    assert_eq!(vote.digest(), digest(&value["digest"]));
    assert_eq!(Vote::decode(&bytes(&value["encoded"])), Ok(vote));
}

#[test]
fn others_endorse_it() {
    let (value, vote) = (&FILE["endorsement"], vote());
    let voter = identity(vote.voter).public();
    let said = (&voter, vote.round, &vote.digest());
    let mut signatures = Signatures::default();
    for index in indices(&value["by"]) {
        let key = online(index);
        let signature = Endorsement::signature(&network(), said, &key);
        assert_eq!(
            key.sign("mixline/v2/endorsement", &bytes(&value["message"])),
            signature
        );
        signatures.put(index, signature);
    }
    let endorsement = Endorsement {
        voter: vote.voter,
        round: vote.round,
        vote: vote.digest(),
        signatures,
    };
    assert_eq!(encode(&endorsement), bytes(&value["encoded"]));
    assert_eq!(decode(&bytes(&value["encoded"])), Ok(endorsement));
}

#[test]
fn four_directories_make_a_snapshot() {
    let (value, vote) = (&FILE["snapshot"], vote());
    let said = |id| vote.relays.iter().find(|relay| relay.id == id).unwrap();
    let listed = |record: RelayRecord| {
        let VotedRelay {
            flags, capacity, ..
        } = *said(record.descriptor.id);
        ListedRelay {
            descriptor: record.descriptor,
            onion: record.onion,
            capacity,
            since: time(&value["listed_since"]),
            flags,
        }
    };
    let entry = |index: u8| DirectoryEntry {
        keys: [certificate(index)].into_iter().collect(),
        commitment: vote.commitment.filter(|_| index == vote.voter),
        service: (index == vote.voter).then(service),
    };
    let random = list(&value["random"], digest);
    let mut snapshot = Snapshot {
        network: network(),
        roster: small(&value["roster"]),
        issued: time(&value["issued"]),
        valid_until: time(&value["valid_until"]),
        previous: vote.previous,
        log: LogHead {
            size: number(&value["log_size"]),
            root: digest(&value["log_root"]),
        },
        random: SharedRandom {
            period: number(&value["period"]),
            current: random[0],
            next: random[1],
            chain: random[2],
        },
        parameters: Parameters::default(),
        directories: (0..4).map(entry).collect(),
        relays: relays().into_iter().map(listed).collect(),
        signatures: Signatures::default(),
    }
    .ordered()
    .unwrap();
    let (own, encoded) = (snapshot.digest(), bytes(&value["encoded"]));
    assert_eq!(own, digest(&value["digest"]));
    for index in indices(&value["signed"]) {
        let key = online(index);
        let signature = Snapshot::signature(&network(), snapshot.issued, &own, &key);
        assert_eq!(
            key.sign("mixline/v2/snapshot", &bytes(&value["message"])),
            signature
        );
        snapshot.signatures.put(index, signature);
    }
    assert_eq!(snapshot.encode(), encoded);
    assert_eq!(Snapshot::entity_tag(&encoded), text(&value["entity_tag"]));
    let read = Snapshot::decode_and_verify(&encoded, &rosters()[0], snapshot.issued);
    assert_eq!(read, Ok(snapshot));
}

#[test]
fn a_liar_is_found_out() {
    for name in ["contradiction", "contradiction_of_votes"] {
        let value = &FILE[name];
        let (index, round) = (small(&value["directory"]) as u8, time(&value["round"]));
        let (key, voter) = (online(index), identity(index).public());
        let statement = match value["statement"].as_str() {
            Some("vote") => Statement::Vote,
            _ => Statement::Snapshot,
        };
        let said = list(&value["digests"], |value| {
            let digest = digest(value);
            let signature = match statement {
                Statement::Vote => {
                    Endorsement::signature(&network(), (&voter, round, &digest), &key)
                }
                Statement::Snapshot => Snapshot::signature(&network(), round, &digest, &key),
            };
            Said {
                key: certificate(index),
                digest,
                signature,
            }
        });
        let proof = Contradiction::new(statement, round, said.try_into().unwrap()).unwrap();
        assert_eq!(proof.encode(), bytes(&value["encoded"]), "{name}");
        let read = Contradiction::decode(&bytes(&value["encoded"])).unwrap();
        assert_eq!(read.verify(&rosters()[0]), Ok(index));
    }
}
