//! Records of the ring, and messages to and from its relays.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use mixline_protocol::effort::{EffortTerms, Solution};
use mixline_protocol::identity::{IdentityKey, RelayId, X25519Public};
use mixline_protocol::records::ServiceDescriptor;
use mixline_protocol::ring::{
    BlindedId, CONTENT, Credential, MAX_MESSAGE, MIN_EFFORT, Member, Record, Refusal, Request,
    RequestBody, Response, ResponseBody, Ring, STEP, Store, Terms,
};
use mixline_protocol::time::UnixTime;

use super::Target;

/// A record from anybody.
pub const RECORD: Target = Target {
    name: "ring_record",
    seeds: || vec![record(b"text").as_bytes().to_vec()],
    run: |data| {
        let Ok(record) = Record::parse(data) else {
            return false;
        };
        assert_eq!(record.as_bytes(), data);
        let opened = record.open(&credential(), PERIOD, NOW).is_ok();
        record.verify(NOW).is_ok() || opened
    },
};

/// What a service seals.
pub const SEALED_RECORD: Target = Target {
    name: "ring_record_sealed",
    seeds: || {
        let empty = descriptor().encode();
        vec![Vec::new(), vec![1; CONTENT], empty]
    },
    run: |data| {
        let content = &data[..data.len().min(CONTENT)];
        let record = record(content);
        let opened = record.open_content(&credential(), PERIOD, NOW);
        assert_eq!(&opened.expect("what was sealed")[..], content);
        if let Ok(descriptor) = record.open(&credential(), PERIOD, NOW) {
            assert_eq!(descriptor.encode(), content);
            assert_eq!(descriptor.id, credential().id());
        }
        data.len() <= CONTENT
    },
};

/// A request to a relay, which answers it.
pub const REQUEST: Target = Target {
    name: "ring_request",
    seeds: request_seeds,
    run: request,
};

/// An answer of a relay.
pub const RESPONSE: Target = Target {
    name: "ring_response",
    seeds: response_seeds,
    run: |data| {
        let Ok(response) = Response::decode(data) else {
            return false;
        };
        assert!(data.len() <= MAX_MESSAGE);
        assert_eq!(response.encode(), data);
        if let ResponseBody::Record(record) = response.body {
            let _ = record.open(&credential(), PERIOD, NOW);
        }
        true
    },
};

const NOW: UnixTime = UnixTime(1_800_000_000);
const PERIOD: u64 = 20_833;

fn key() -> IdentityKey {
    IdentityKey::from_seed([2; 32])
}

fn credential() -> Credential {
    Credential::of(key().anonymous_id())
}

fn record(content: &[u8]) -> Record {
    let terms = Terms {
        revision: 5,
        expires: NOW.plus(STEP),
    };
    let blinded = credential()
        .blinded_key(&key(), PERIOD)
        .expect("the ID's key");
    Record::seal_content(&blinded, terms, [3; 16], content).expect("a record")
}

fn descriptor() -> ServiceDescriptor {
    ServiceDescriptor {
        id: key().anonymous_id(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(600),
        session: X25519Public([12; 32]),
        effort: EffortTerms::default(),
        lease: None,
        tails: Vec::new(),
        clients: None,
        signature: [0; 64],
    }
    .sign(&key())
    .expect("a descriptor")
}

fn request_seeds() -> Vec<Vec<u8>> {
    let spent = Solution {
        nonce: [4; 16],
        effort: MIN_EFFORT,
    };
    [
        RequestBody::Store(Solution::default(), record(b"text")),
        RequestBody::Store(spent, record(b"text")),
        RequestBody::Fetch(record(b"text").blinded()),
        RequestBody::Fetch(BlindedId([5; 32])),
    ]
    .map(|body| Request { id: 7, body }.encode())
    .into()
}

/// A relay that has one record, and room for one more.
fn store() -> Store {
    let relay = RelayId([1; 32]);
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let member = Member {
        id: relay,
        addresses: &addresses,
        family: None,
    };
    let mut store = Store::new(relay, 2, [0; 16]);
    store.keep([Arc::new(Ring::new(&[member], [7; 32], PERIOD))]);
    store
        .store(&Solution::default(), record(b"text"), NOW)
        .expect("there is room");
    store
}

fn request(data: &[u8]) -> bool {
    let answer = store().answer(1, data, NOW, Instant::now());
    assert_eq!(answer.as_ref().map(|it| it.id), Request::id_of(data));
    if let Some(answer) = &answer {
        assert_eq!(Response::decode(&answer.encode()).as_ref(), Ok(answer));
    }
    let Ok(request) = Request::decode(data) else {
        let refused = |it: Response| matches!(it.body, ResponseBody::Refused(_));
        assert!(answer.is_none_or(refused));
        return false;
    };
    assert!(data.len() <= MAX_MESSAGE);
    assert_eq!(request.encode(), data);
    true
}

fn response_seeds() -> Vec<Vec<u8>> {
    [
        ResponseBody::Done,
        ResponseBody::Record(record(&descriptor().encode())),
        ResponseBody::NotFound,
        ResponseBody::Refused(Refusal::NotHere),
        ResponseBody::Refused(Refusal::Full(MIN_EFFORT)),
    ]
    .map(|body| Response { id: 7, body }.encode())
    .into()
}
