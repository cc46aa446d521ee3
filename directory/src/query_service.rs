//! The private part: answers to requests that come through the relays.
//!
//! An asker is known by an ID that it made up for asking, so limits by ID are fairness among
//! the polite; the limits over all askers are what holds.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mixline_endpoint::MessageService;
use mixline_protocol::directory::{RefusalCode, Request, RequestBody, Response, ResponseBody};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::rate_limit::Rate;
use mixline_protocol::time::UnixTime;

use crate::limit::SharedLimiter;
use crate::metrics::{Metrics, count};
use crate::registry::{Decision, Refusal, Registry};

/// Requests of one asker.
const ASKER: Rate = Rate {
    burst: 200,
    interval: Duration::from_millis(20),
};
/// Requests of one asker that write.
const WRITER: Rate = Rate {
    burst: 40,
    interval: Duration::from_millis(500),
};
/// Requests of all askers that write.
const WRITERS: Rate = Rate {
    burst: 2000,
    interval: Duration::from_millis(2),
};
/// Askers that are counted at one time.
const ASKERS: usize = 65_536;

/// Answers requests from the registry.
pub struct QueryService {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    askers: SharedLimiter<AnonymousId>,
    writers: SharedLimiter<AnonymousId>,
    all_writers: SharedLimiter<()>,
}

impl QueryService {
    /// A service of the registry.
    #[must_use]
    pub fn new(registry: Arc<Registry>, metrics: Arc<Metrics>) -> Self {
        Self {
            registry,
            metrics,
            askers: SharedLimiter::new(ASKER, ASKERS),
            writers: SharedLimiter::new(WRITER, ASKERS),
            all_writers: SharedLimiter::new(WRITERS, 1),
        }
    }

    /// The answer to a request, encoded; nothing if the request is too broken to be answered.
    #[must_use]
    pub fn respond(&self, from: AnonymousId, request: &[u8], now: UnixTime) -> Vec<u8> {
        let Some(id) = Request::id_of(request) else {
            count(&self.metrics.requests_refused);
            return Vec::new();
        };
        let response = match self.decide(from, request, now) {
            Ok(body) => {
                count(&self.metrics.requests);
                Response { id, body }
            }
            Err(Refusal { code, text }) => {
                count(&self.metrics.requests_refused);
                Response::refused(id, code, &text)
            }
        };
        response.encode()
    }

    fn decide(&self, from: AnonymousId, request: &[u8], now: UnixTime) -> Decision<ResponseBody> {
        let at = Instant::now();
        self.admit(self.askers.admit(from, at))?;
        let request = Request::decode(request)
            .map_err(|e| Refusal::new(RefusalCode::Malformed, e.to_string()))?;
        let writes = matches!(
            request.body,
            RequestBody::Publish(_) | RequestBody::Lease(_) | RequestBody::ClaimName(_)
        );
        if writes {
            self.admit(self.writers.admit(from, at) && self.all_writers.admit((), at))?;
        }
        let registry = &self.registry;
        let described = |found: Option<_>| found.map(ResponseBody::Descriptor);
        let found = match request.body {
            RequestBody::Publish(descriptor) => {
                registry.publish(&descriptor, now)?;
                Some(ResponseBody::Done)
            }
            RequestBody::LookupId(id) => described(registry.lookup_id(&id, None, now)?),
            RequestBody::LookupListed(id, token) => {
                described(registry.lookup_id(&id, Some(&token), now)?)
            }
            RequestBody::LookupAddress(ip) => described(registry.lookup_address(ip, now)?),
            RequestBody::LookupName(label) => match registry.lookup_name(&label, now)? {
                Some(name) => {
                    let descriptor = registry.lookup_id(&name.id, None, now)?;
                    Some(ResponseBody::Named { name, descriptor })
                }
                None => None,
            },
            RequestBody::Lease(request) => {
                Some(ResponseBody::Lease(registry.lease(&request, now)?))
            }
            RequestBody::ClaimName(record) => {
                registry.claim_name(&record, now)?;
                Some(ResponseBody::Done)
            }
            RequestBody::NameOf(id) => {
                registry.name_of(&id, now)?.map(|name| ResponseBody::Named {
                    name,
                    descriptor: None,
                })
            }
        };
        Ok(found.unwrap_or(ResponseBody::NotFound))
    }

    fn admit(&self, admitted: bool) -> Decision<()> {
        if admitted {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::TooFast,
            "too many requests; again in a minute",
        ))
    }
}

impl MessageService for QueryService {
    fn answer(&self, from: AnonymousId, request: &[u8]) -> Vec<u8> {
        self.respond(from, request, SystemTime::now().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tests::*;
    use mixline_protocol::address::ipv6;
    use mixline_protocol::authorisation::{ENTRIES, Entry, LookupToken};
    use mixline_protocol::identity::IdentityKey;
    use mixline_protocol::name::Label;
    use mixline_protocol::records::LeaseRequest;

    const ASKING: AnonymousId = AnonymousId([77; 32]);

    fn private() -> QueryService {
        QueryService::new(Arc::new(registry()), Arc::default())
    }

    fn ask(service: &QueryService, body: RequestBody) -> ResponseBody {
        let request = Request { id: 5, body }.encode();
        let answer = service.respond(ASKING, &request, NOW);
        let directory = directory_key().anonymous_id();
        let response = Response::decode_and_verify(&answer, &directory, NOW).unwrap();
        assert_eq!(response.id, 5);
        response.body
    }

    #[test]
    fn everything_that_can_be_asked() {
        let directory = private();
        let key = IdentityKey::from_seed([1; 32]);
        let id = key.anonymous_id();
        let label = Label::new("freespeech").unwrap();

        assert_eq!(
            ask(&directory, RequestBody::LookupName(label)),
            ResponseBody::NotFound
        );
        let request = LeaseRequest::new(NOW, None, &key);
        let ResponseBody::Lease(lease) = ask(&directory, RequestBody::Lease(request)) else {
            panic!("no lease")
        };
        let mut descriptor = service(1, 1, NOW);
        descriptor.lease = Some(lease);
        let descriptor = descriptor.sign(&key).unwrap();
        let published = RequestBody::Publish(descriptor.clone());
        assert_eq!(ask(&directory, published.clone()), ResponseBody::Done);
        assert_eq!(
            ask(&directory, published),
            ResponseBody::Done,
            "twice is as good as once"
        );
        let record = name(1, "freespeech", NOW);
        assert_eq!(
            ask(&directory, RequestBody::ClaimName(record)),
            ResponseBody::Done
        );

        let described = ResponseBody::Descriptor(descriptor.clone());
        assert_eq!(ask(&directory, RequestBody::LookupId(id)), described);
        for address in [lease.ipv4.into(), ipv6(&id).into()] {
            assert_eq!(
                ask(&directory, RequestBody::LookupAddress(address)),
                described
            );
        }
        let named = |descriptor| ResponseBody::Named {
            name: record,
            descriptor,
        };
        assert_eq!(
            ask(&directory, RequestBody::LookupName(label)),
            named(Some(descriptor))
        );
        assert_eq!(ask(&directory, RequestBody::NameOf(id)), named(None));
        let nobody = RequestBody::LookupAddress([10, 200, 0, 1].into());
        assert_eq!(ask(&directory, nobody), ResponseBody::NotFound);

        let second = ask(
            &directory,
            RequestBody::ClaimName(name(2, "freespeech", NOW)),
        );
        let ResponseBody::Refused {
            code: RefusalCode::Taken,
            text,
        } = second
        else {
            panic!("granted twice: {second:?}")
        };
        assert!(text.contains("freespeech.anon"), "{text}");
    }

    #[test]
    fn broken_requests_are_refused_or_dropped() {
        let directory = private();
        assert!(directory.respond(ASKING, b"", NOW).is_empty());
        assert!(directory.respond(ASKING, &[0; 100], NOW).is_empty());
        let mut forged = service(1, 1, NOW);
        forged.version += 1;
        assert!(matches!(
            ask(&directory, RequestBody::Publish(forged)),
            ResponseBody::Refused {
                code: RefusalCode::BadSignature,
                ..
            }
        ));
        let mut bytes = Request {
            id: 5,
            body: RequestBody::LookupId(ASKING),
        }
        .encode();
        bytes.truncate(20);
        let answer = directory.respond(ASKING, &bytes, NOW);
        let id = directory_key().anonymous_id();
        assert!(matches!(
            Response::decode_and_verify(&answer, &id, NOW).unwrap().body,
            ResponseBody::Refused {
                code: RefusalCode::Malformed,
                ..
            }
        ));
    }

    #[test]
    fn a_hasty_asker_is_told_to_wait() {
        let directory = private();
        let refused = (0..10_000).any(|_| {
            matches!(
                ask(&directory, RequestBody::LookupId(ASKING)),
                ResponseBody::Refused {
                    code: RefusalCode::TooFast,
                    ..
                }
            )
        });
        assert!(refused);
    }

    #[test]
    fn who_is_not_on_the_list_hears_that_nothing_was_published() {
        let directory = private();
        let key = IdentityKey::from_seed([1; 32]);
        let id = key.anonymous_id();
        let ResponseBody::Lease(lease) = ask(
            &directory,
            RequestBody::Lease(LeaseRequest::new(NOW, None, &key)),
        ) else {
            panic!("no lease")
        };
        let record = name(1, "freespeech", NOW);
        let claim = RequestBody::ClaimName(record);
        assert_eq!(ask(&directory, claim), ResponseBody::Done);
        let token = LookupToken([9; 16]);
        let mut clients: Vec<Entry> = (1..ENTRIES as u8).map(|n| Entry([n; 16])).collect();
        clients.push(token.entry(&id));
        clients.sort();
        let mut descriptor = service(1, 1, NOW);
        descriptor.lease = Some(lease);
        descriptor.clients = Some(clients);
        let descriptor = descriptor.sign(&key).unwrap();
        let published = RequestBody::Publish(descriptor.clone());
        assert_eq!(ask(&directory, published), ResponseBody::Done);

        for question in [
            RequestBody::LookupId(id),
            RequestBody::LookupAddress(lease.ipv4.into()),
            RequestBody::LookupAddress(ipv6(&id).into()),
            RequestBody::LookupListed(id, LookupToken([8; 16])),
        ] {
            assert_eq!(ask(&directory, question), ResponseBody::NotFound);
        }
        let label = Label::new("freespeech").unwrap();
        let named = ResponseBody::Named {
            name: record,
            descriptor: None,
        };
        assert_eq!(ask(&directory, RequestBody::LookupName(label)), named);
        let found = ask(&directory, RequestBody::LookupListed(id, token));
        assert_eq!(found, ResponseBody::Descriptor(descriptor));
    }
}
