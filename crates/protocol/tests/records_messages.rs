//! Directory messages: each request and answer survives encoding, nothing else gets through.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod records_common;

use std::net::{IpAddr, Ipv4Addr};

use mixline_protocol::Error;
use mixline_protocol::authorisation::LookupToken;
use mixline_protocol::directory::{
    MAX_MESSAGE, MAX_REFUSAL, RefusalCode, Request, RequestBody, Response, ResponseBody,
};
use mixline_protocol::identity::{AnonymousId, IdentityKey};
use mixline_protocol::name::Label;
use mixline_protocol::records::{Lease, LeaseRequest};
use proptest::prelude::*;
use records_common::*;

fn key() -> IdentityKey {
    IdentityKey::from_seed([2; 32])
}

fn requests() -> Vec<RequestBody> {
    vec![
        RequestBody::Publish(service(&key(), 8, true)),
        RequestBody::LookupId(AnonymousId([7; 32])),
        RequestBody::LookupName(Label::new("freespeech").unwrap()),
        RequestBody::LookupAddress("10.1.2.3".parse().unwrap()),
        RequestBody::LookupAddress("fd00::1".parse().unwrap()),
        RequestBody::Lease(LeaseRequest::new(NOW, None, &key())),
        RequestBody::ClaimName(name(&key(), "freespeech")),
        RequestBody::NameOf(AnonymousId([7; 32])),
        RequestBody::LookupListed(AnonymousId([7; 32]), LookupToken([9; 16])),
    ]
}

fn responses() -> Vec<ResponseBody> {
    vec![
        ResponseBody::Done,
        ResponseBody::Descriptor(service(&key(), 8, true)),
        ResponseBody::Named {
            name: name(&key(), "a"),
            descriptor: None,
        },
        ResponseBody::Named {
            name: name(&key(), "a"),
            descriptor: Some(service(&key(), 8, true)),
        },
        ResponseBody::Lease(lease(&key())),
        ResponseBody::NotFound,
        ResponseBody::Refused {
            code: RefusalCode::Taken,
            text: "a.anon is taken".into(),
        },
    ]
}

fn read(bytes: &[u8]) -> Result<Response, Error> {
    Response::decode_and_verify(bytes, &directory_key().anonymous_id(), NOW)
}

#[test]
fn every_message_survives() {
    for (id, body) in (0..).zip(requests()) {
        let request = Request { id, body };
        let bytes = request.encode();
        assert!(bytes.len() <= MAX_MESSAGE);
        assert_eq!(Request::decode(&bytes), Ok(request));
        assert_eq!(Request::id_of(&bytes), Some(id));
    }
    for (id, body) in (0..).zip(responses()) {
        let response = Response { id, body };
        let bytes = response.encode();
        assert!(bytes.len() <= MAX_MESSAGE);
        assert_eq!(read(&bytes), Ok(response));
    }
}

#[test]
fn truncated_and_extended_messages_are_refused() {
    for body in requests() {
        let mut bytes = Request { id: 1, body }.encode();
        for end in 0..bytes.len() {
            assert!(Request::decode(&bytes[..end]).is_err());
        }
        bytes.push(0);
        assert!(Request::decode(&bytes).is_err());
    }
    for body in responses() {
        let mut bytes = Response { id: 1, body }.encode();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err());
        }
        bytes.push(0);
        assert!(read(&bytes).is_err());
    }
}

#[test]
fn records_in_answers_are_verified() {
    // Signed by somebody else, of another ID, with a lease that the directory did not grant.
    let mut forged = service(&key(), 1, false);
    forged.version += 1;
    let forged = Response {
        id: 1,
        body: ResponseBody::Descriptor(forged),
    };
    assert!(matches!(
        read(&forged.encode()),
        Err(Error::Authentication { .. })
    ));

    let other = IdentityKey::from_seed([3; 32]);
    let mixed = ResponseBody::Named {
        name: name(&key(), "a"),
        descriptor: Some(service(&other, 1, false)),
    };
    assert!(matches!(
        read(&Response { id: 1, body: mixed }.encode()),
        Err(Error::Malformed { .. })
    ));

    let own = Lease::grant(
        Ipv4Addr::new(10, 9, 9, 9),
        key().anonymous_id(),
        NOW.plus(9),
        &key(),
    );
    let leased = Response {
        id: 1,
        body: ResponseBody::Lease(own),
    };
    assert!(matches!(
        read(&leased.encode()),
        Err(Error::Authentication { .. })
    ));
    let mut descriptor = service(&key(), 1, false);
    descriptor.lease = Some(own);
    let descriptor = descriptor.sign(&key()).unwrap();
    let described = Response {
        id: 1,
        body: ResponseBody::Descriptor(descriptor),
    };
    assert!(matches!(
        read(&described.encode()),
        Err(Error::Authentication { .. })
    ));
}

#[test]
fn refusals_are_one_short_line() {
    let refused = Response::refused(4, RefusalCode::Full, &format!("a\nb{}", "é".repeat(200)));
    let ResponseBody::Refused { text, .. } = &refused.body else {
        panic!("not a refusal")
    };
    assert!(
        text.starts_with("a b") && text.len() <= MAX_REFUSAL,
        "{text}"
    );
    assert_eq!(read(&refused.encode()), Ok(refused));
    // Nobody else's terminal is told to do something.
    let mut bytes = Response::refused(4, RefusalCode::Full, "abc").encode();
    let last = bytes.len() - 1;
    bytes[last] = 0x1b;
    assert!(read(&bytes).is_err());
}

#[test]
fn messages_that_are_too_long_are_refused() {
    let mut bytes = Request {
        id: 1,
        body: RequestBody::LookupId(AnonymousId([1; 32])),
    }
    .encode();
    bytes.resize(MAX_MESSAGE + 1, 0);
    assert!(matches!(Request::decode(&bytes), Err(Error::Limit { .. })));
    assert_eq!(Request::id_of(&bytes), None);
    assert!(matches!(read(&bytes), Err(Error::Limit { .. })));
}

proptest! {
    #[test]
    fn lookups_round_trip(id: u64, who: [u8; 32], ip: IpAddr, label in "[a-z0-9]{1,40}") {
        for body in [
            RequestBody::LookupId(AnonymousId(who)),
            RequestBody::NameOf(AnonymousId(who)),
            RequestBody::LookupAddress(ip),
            RequestBody::LookupName(Label::new(&label).unwrap()),
        ] {
            let request = Request { id, body };
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn noise_does_no_harm(kind in 0u8..9, rest in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![1];
        bytes.extend(7u64.to_be_bytes());
        bytes.push(kind);
        bytes.extend(rest);
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), bytes.clone());
        }
        if let Ok(response) = read(&bytes) {
            prop_assert_eq!(response.encode(), bytes.clone());
        }
    }
}
