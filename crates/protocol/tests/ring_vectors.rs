//! The ring against vectors that an independent implementation has made of docs/protocol.md.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use mixline_protocol::authorisation::Authorisation;
use mixline_protocol::effort::Solution;
use mixline_protocol::identity::{IdentityKey, RelayId, X25519Secret};
use mixline_protocol::ring::{
    BlindedId, COPIES, Credential, Member, Record, Ring, TAKERS, Terms, puzzle,
};
use mixline_protocol::time::UnixTime;
use serde_json::Value;

fn vectors(of: &str) -> Vec<Value> {
    let text = include_str!("vectors/ring.json");
    let mut all: Value = serde_json::from_str(text).unwrap();
    let vectors = std::mem::take(all[of].as_array_mut().unwrap());
    assert!(vectors.len() >= 3, "{of}");
    vectors
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

/// Numbers of 64 bits are written as text: JSON's are those of JavaScript.
fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

/// The service of a vector, and the credential as the service and as the reader has it.
fn credentials(vector: &Value) -> (IdentityKey, Credential, Credential) {
    let key = IdentityKey::from_seed(array(&vector["seed"]));
    let id = key.anonymous_id();
    if vector["client"].is_null() {
        return (key, Credential::of(id), Credential::of(id));
    }
    let client = X25519Secret::from_bytes(array(&vector["client"]));
    let ours = Authorisation::of_service(&key, &client.public()).unwrap();
    let theirs = Authorisation::of_client(&client, &id).unwrap();
    let [ours, theirs] = [ours, theirs].map(|it| Credential::of_client(id, &it));
    (key, ours, theirs)
}

#[test]
fn blinded_keys() {
    for vector in vectors("blinding") {
        let (key, ours, theirs) = credentials(&vector);
        let period = number(&vector["period"]);
        assert_eq!(key.public(), array(&vector["id"]));
        let blinded = BlindedId(array(&vector["blinded"]));
        assert_eq!(theirs.blinded_id(period), Ok(blinded));
        assert_eq!(ours.blinded_key(&key, period).unwrap().id(), blinded);
    }
}

#[test]
fn relays_of_services() {
    for vector in vectors("rings") {
        let relays = vector["relays"].as_array().unwrap();
        let addresses: Vec<Vec<IpAddr>> = relays
            .iter()
            .map(|relay| {
                let all = relay["addresses"].as_array().unwrap().iter();
                all.map(|ip| ip.as_str().unwrap().parse().unwrap())
                    .collect()
            })
            .collect();
        let members: Vec<_> = relays
            .iter()
            .zip(&addresses)
            .map(|(relay, addresses)| Member {
                id: RelayId(array(&relay["id"])),
                addresses,
                family: relay["family"].as_str(),
            })
            .collect();
        let ring = Ring::new(
            &members,
            array(&vector["random"]),
            number(&vector["period"]),
        );
        for (number, member) in members.iter().enumerate() {
            assert_eq!(ring.number_of(&member.id), Some(number));
        }
        for service in vector["services"].as_array().unwrap() {
            let blinded = BlindedId(array(&service["blinded"]));
            let takers: Vec<usize> = serde_json::from_value(service["takers"].clone()).unwrap();
            assert_eq!(&ring.takers(&blinded)[..], &takers[..]);
            let holders = &takers[..COPIES.min(takers.len())];
            assert_eq!(&ring.holders(&blinded)[..], holders);
            assert_eq!(takers.len(), TAKERS.min(members.len()));
        }
    }
}

#[test]
fn records() {
    for vector in vectors("records") {
        let (key, ours, theirs) = credentials(&vector);
        let period = number(&vector["period"]);
        let terms = Terms {
            revision: number(&vector["revision"]),
            expires: UnixTime(vector["expires"].as_u64().unwrap()),
        };
        let content = bytes(&vector["content"]);
        let blinded = ours.blinded_key(&key, period).unwrap();
        let record =
            Record::seal_content(&blinded, terms, array(&vector["salt"]), &content).unwrap();
        assert_eq!(
            HEXLOWER.encode(record.as_bytes()),
            vector["record"].as_str().unwrap()
        );
        let record = Record::parse(&bytes(&vector["record"])).unwrap();
        let now = terms.expires.minus(1);
        let opened = record.open_content(&theirs, period, now).unwrap();
        assert_eq!(*opened, content);
    }
}

#[test]
fn efforts() {
    for vector in vectors("efforts") {
        let puzzle = puzzle(
            &array(&vector["random"]),
            number(&vector["period"]),
            &BlindedId(array(&vector["blinded"])),
            &RelayId(array(&vector["relay"])),
        );
        let effort = vector["effort"].as_u64().unwrap().try_into().unwrap();
        let nonce = array(&vector["nonce"]);
        let solution = Solution { nonce, effort };
        assert!(puzzle.is_solved_by(&solution));
        let mut search = puzzle.search(effort, array(&vector["begin"]));
        assert_eq!(search.go_on(1 << 20), Some(solution));
    }
}
