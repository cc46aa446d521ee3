//! Messages to and from a directory, within a session.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mixline_protocol::authorisation::LookupToken;
use mixline_protocol::directory::{
    MAX_MESSAGE, RefusalCode, Request, RequestBody, Response, ResponseBody,
};
use mixline_protocol::name::Label;

use super::Target;
use super::samples::*;

/// A request to the directory.
pub const REQUEST: Target = Target {
    name: "directory_request",
    seeds: request_seeds,
    run: request,
};

/// An answer of the directory, whose records are signed as they are in the seeds.
pub const RESPONSE: Target = Target {
    name: "directory_response",
    seeds: response_seeds,
    run: response,
};

fn request_seeds() -> Vec<Vec<u8>> {
    [
        RequestBody::Publish(service(&key(), Some(lease()))),
        RequestBody::LookupId(key().anonymous_id()),
        RequestBody::LookupName(Label::new("name").expect("a label")),
        RequestBody::LookupAddress(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3))),
        RequestBody::LookupAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        RequestBody::Lease(lease_request()),
        RequestBody::ClaimName(name()),
        RequestBody::NameOf(key().anonymous_id()),
        RequestBody::LookupListed(key().anonymous_id(), LookupToken([9; 16])),
    ]
    .into_iter()
    .map(|body| Request { id: 7, body }.encode())
    .collect()
}

fn request(data: &[u8]) -> bool {
    let Ok(request) = Request::decode(data) else {
        return false;
    };
    assert!(data.len() <= MAX_MESSAGE);
    assert_eq!(request.encode(), data);
    assert_eq!(Request::id_of(data), Some(request.id));
    true
}

fn response_seeds() -> Vec<Vec<u8>> {
    [
        ResponseBody::Done,
        ResponseBody::Descriptor(service(&key(), Some(lease()))),
        ResponseBody::Named {
            name: name(),
            descriptor: Some(service(&key(), None)),
        },
        ResponseBody::Named {
            name: name(),
            descriptor: None,
        },
        ResponseBody::Lease(lease()),
        ResponseBody::NotFound,
    ]
    .into_iter()
    .map(|body| Response { id: 7, body })
    .chain([Response::refused(
        7,
        RefusalCode::Malformed,
        "not like this",
    )])
    .map(|response| response.encode())
    .collect()
}

fn response(data: &[u8]) -> bool {
    let directory = directory().anonymous_id();
    let Ok(response) = Response::decode_and_verify(data, &directory, NOW) else {
        return false;
    };
    assert!(data.len() <= MAX_MESSAGE);
    assert_eq!(response.encode(), data);
    true
}
