//! A directory's memory, and its answers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use mixline_protocol::address::{self, VirtualNetwork, ipv4_candidate};
use mixline_protocol::directory::{RefusalCode, Request, RequestBody, Response, ResponseBody};
use mixline_protocol::identity::{AnonymousId, IdentityKey};
use mixline_protocol::name::Label;
use mixline_protocol::records::{CLOCK_SKEW, Lease, NameRecord, ServiceDescriptor};
use mixline_protocol::time::UnixTime;

/// What the directory knows.
#[derive(Default)]
pub struct Store {
    pub services: HashMap<AnonymousId, ServiceDescriptor>,
    pub leases: HashMap<Ipv4Addr, Lease>,
    pub names: HashMap<Label, NameRecord>,
    /// Who asked what.
    pub log: Vec<(AnonymousId, RequestBody)>,
}

impl Store {
    /// Answers a request.
    pub fn answer(
        &mut self,
        from: AnonymousId,
        message: &[u8],
        now: UnixTime,
        key: &IdentityKey,
    ) -> Vec<u8> {
        let request = Request::decode(message).unwrap();
        self.log.push((from, request.body.clone()));
        let store = self;
        let found = |descriptor: Option<&ServiceDescriptor>| {
            descriptor.map_or(ResponseBody::NotFound, |d| {
                ResponseBody::Descriptor(d.clone())
            })
        };
        let body = match request.body {
            RequestBody::Publish(descriptor) if descriptor.issued > now.plus(CLOCK_SKEW) => {
                let why = "it is not valid yet";
                return Response::refused(request.id, RefusalCode::NotYetValid, why).encode();
            }
            RequestBody::Publish(descriptor)
                if store
                    .services
                    .get(&descriptor.id)
                    .is_some_and(|it| it.version >= descriptor.version && *it != descriptor) =>
            {
                let why = "it is older than what is stored";
                return Response::refused(request.id, RefusalCode::Older, why).encode();
            }
            RequestBody::Publish(descriptor) => {
                store.services.insert(descriptor.id, descriptor);
                ResponseBody::Done
            }
            RequestBody::LookupId(id) => {
                found(store.services.get(&id).filter(|it| it.is_for(None)))
            }
            RequestBody::LookupListed(id, token) => {
                found(store.services.get(&id).filter(|it| it.is_for(Some(&token))))
            }
            RequestBody::LookupName(label) => match store.names.get(&label) {
                Some(name) => ResponseBody::Named {
                    name: *name,
                    descriptor: store
                        .services
                        .get(&name.id)
                        .filter(|it| it.is_for(None))
                        .cloned(),
                },
                None => ResponseBody::NotFound,
            },
            RequestBody::LookupAddress(IpAddr::V4(ip)) => found(
                store
                    .leases
                    .get(&ip)
                    .and_then(|lease| store.services.get(&lease.id))
                    .filter(|it| it.is_for(None)),
            ),
            RequestBody::LookupAddress(IpAddr::V6(ip)) => found(
                store
                    .services
                    .values()
                    .find(|d| address::ipv6(&d.id) == ip && d.is_for(None)),
            ),
            RequestBody::Lease(request) => {
                let ipv4 = ipv4_candidate(&request.id, 0, &VirtualNetwork::default());
                let expires = now.plus(7200);
                let lease = Lease::grant(ipv4, request.id, expires, key);
                store.leases.insert(ipv4, lease);
                ResponseBody::Lease(lease)
            }
            RequestBody::ClaimName(record) => match store.names.get(&record.label) {
                Some(other) if other.id != record.id => {
                    let refused = Response::refused(request.id, RefusalCode::Taken, "it is taken");
                    return refused.encode();
                }
                Some(other) if other.version >= record.version && *other != record => {
                    let why = "it is older than what is stored";
                    return Response::refused(request.id, RefusalCode::Older, why).encode();
                }
                _ => {
                    store.names.insert(record.label, record);
                    ResponseBody::Done
                }
            },
            RequestBody::NameOf(id) => match store.names.values().find(|record| record.id == id) {
                Some(name) => ResponseBody::Named {
                    name: *name,
                    descriptor: None,
                },
                None => ResponseBody::NotFound,
            },
        };
        Response {
            id: request.id,
            body,
        }
        .encode()
    }
}
