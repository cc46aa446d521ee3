//! What is answered to a query.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::time::UnixTime;
use tokio::sync::watch;

use super::cache::{Cache, POSITIVE_LIFE};
use super::forward::Forwarder;
use super::neighbours::Neighbours;
use super::response::{MAX_UDP_ANSWER, encode, reply, soa};
use super::shares::{Asker, Shares};
use super::zone::{Subject, Zone};
use super::{Backend, Entry, LookupError, Reach, Transport};
use crate::host::prefix::Prefix;

/// Bytes of a DNS header.
const HEADER: usize = 12;
/// Queries over UDP that are being answered at once, and how many of them may be the host's alone; what
/// comes beyond is dropped, and asked again by its sender.
const MAX_QUERIES: usize = 512;
const HOSTS_QUERIES: usize = 256;
/// TCP connections at once, and how many of them may be the host's alone; one more is closed (RFC 7766,
/// section 6.2.2). Each has one query at a time.
const MAX_CONNECTIONS: usize = 64;
const HOSTS_CONNECTIONS: usize = 32;

/// What was looked up, and so what the cache is keyed by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Label(Label),
    Id(AnonymousId),
    Address(IpAddr),
}

/// What is known of a subject: its addresses, and its name once somebody asked for it.
#[derive(Debug, Clone)]
struct Known {
    entry: Entry,
    name: Option<Label>,
}

/// Answers queries.
#[derive(Debug)]
pub struct Responder<B> {
    backend: Arc<B>,
    zone: Zone,
    reach: watch::Receiver<Reach>,
    forwarder: Option<Forwarder>,
    neighbours: Option<Neighbours>,
    cache: Cache<Key, Known>,
    /// Queries over UDP that are being answered.
    pub(super) queries: Arc<Shares>,
    /// TCP connections.
    pub(super) connections: Arc<Shares>,
}

impl<B: Backend> Responder<B> {
    /// A responder for `zone`, which tells only addresses in `reach`. Without a `forwarder`, what
    /// lies outside is refused.
    #[must_use]
    pub fn new(
        backend: Arc<B>,
        zone: Zone,
        reach: watch::Receiver<Reach>,
        forwarder: Option<Forwarder>,
    ) -> Self {
        Self {
            backend,
            zone,
            reach,
            forwarder,
            neighbours: None,
            cache: Cache::default(),
            queries: Shares::new(MAX_QUERIES, HOSTS_QUERIES),
            connections: Shares::new(MAX_CONNECTIONS, HOSTS_CONNECTIONS),
        }
    }

    /// Has reverse names of neighbourhoods asked of their servers. Without, there are none.
    #[must_use]
    pub fn with_neighbours(self, neighbours: Neighbours) -> Self {
        Self {
            neighbours: Some(neighbours),
            ..self
        }
    }

    /// Whether a virtual address is somebody else's.
    #[must_use]
    pub fn leaves(&self, address: IpAddr) -> bool {
        self.reach.borrow().leaves(address)
    }

    /// The names that it answers for.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The response to `request`, or `None` where silence is the only sound answer: too
    /// short to have a header, or itself a response.
    pub async fn answer(
        &self,
        request: &[u8],
        transport: Transport,
        asker: Asker,
    ) -> Option<Vec<u8>> {
        let header = Header::read(&mut BinDecoder::new(request.get(..HEADER)?)).ok()?;
        if header.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut response = reply(&header.metadata);
        if header.metadata.op_code != OpCode::Query {
            return encode(response, ResponseCode::NotImp, transport, 0);
        }
        // The counts are checked before the rest is decoded, so that what is reserved
        // for the sections is in proportion to what was sent.
        let records = usize::from(header.counts.answers)
            + usize::from(header.counts.authorities)
            + usize::from(header.counts.additionals);
        if header.counts.queries != 1 || records > 4 {
            return encode(response, ResponseCode::FormErr, transport, 0);
        }
        let Ok(query) = Message::from_vec(request) else {
            return encode(response, ResponseCode::FormErr, transport, 0);
        };
        let question = query.queries.first()?.clone();
        response.add_query(question.clone());
        let limit = query.max_payload();
        if let Some(edns) = &query.edns {
            let mut own = Edns::new();
            own.set_max_payload(MAX_UDP_ANSWER).set_version(0);
            own.set_dnssec_ok(edns.flags().dnssec_ok);
            response.set_edns(own);
            if edns.version() > 0 {
                return encode(response, ResponseCode::BADVERS, transport, limit);
            }
        }
        if question.query_class() != DNSClass::IN
            || matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR)
        {
            return encode(response, ResponseCode::Refused, transport, limit);
        }
        let mut subject = self.zone.subject(question.name());
        let network = match &subject {
            Subject::Reverse(address) => Some(Prefix::host(*address)),
            Subject::ReverseParent(network) => Some(*network),
            _ => None,
        };
        let is_neighbours = network.is_some_and(|n| self.reach.borrow().is_neighbours(n));
        // Services ask who has connected to them. A neighbour does not hear it, who may have announced
        // the network of a client of his to see who asks.
        let is_peers = match &subject {
            Subject::Reverse(address) if is_neighbours => self.backend.is_peers(*address).await,
            _ => false,
        };
        let passed_on = if is_neighbours && !is_peers {
            // Of what is somebody else's, the directory is not asked either.
            subject = Subject::Nothing;
            self.neighbours.as_ref().and_then(Neighbours::forwarder)
        } else {
            None
        };
        let forwarder = match (&passed_on, &subject) {
            (Some(forwarder), _) => Some(&**forwarder),
            (None, Subject::Outside) => match &self.forwarder {
                Some(forwarder) => Some(forwarder),
                None => return encode(response, ResponseCode::Refused, transport, limit),
            },
            (None, _) => None,
        };
        if let Some(forwarder) = forwarder {
            let answer = forwarder
                .forward(request, &question, transport, asker)
                .await;
            return answer.or_else(|| {
                response.metadata.recursion_available = true;
                encode(response, ResponseCode::ServFail, transport, limit)
            });
        }
        let code = self.fill(&mut response, &question, subject, asker).await;
        encode(response, code, transport, limit)
    }

    /// Adds the records that answer a question of ours.
    async fn fill(
        &self,
        response: &mut Message,
        question: &Query,
        subject: Subject,
        asker: Asker,
    ) -> ResponseCode {
        response.metadata.authoritative = true;
        response.metadata.recursion_available = self.forwarder.is_some();
        let apex = self.zone.apex(question.name());
        let kind = question.query_type();
        let holds = |known: &Known| known.entry.left(now()).is_some();
        let (result, left) = match subject {
            Subject::Label(label) => {
                let backend = &self.backend;
                let lookup = || async { known(backend.by_label(&label).await) };
                self.cache
                    .get(&Key::Label(label), Instant::now(), holds, lookup)
                    .await
            }
            Subject::Id(id) => {
                let backend = &self.backend;
                let lookup = || async { known(backend.by_id(&id).await) };
                self.cache
                    .get(&Key::Id(id), Instant::now(), holds, lookup)
                    .await
            }
            Subject::Reverse(address) => {
                let lookup = || self.named(address);
                self.cache
                    .get(&Key::Address(address), Instant::now(), holds, lookup)
                    .await
            }
            Subject::Apex | Subject::ReverseParent(_) => {
                if kind == RecordType::SOA && *question.name() == apex {
                    response.add_answer(soa(apex));
                } else {
                    response.add_authority(soa(apex));
                }
                return ResponseCode::NoError;
            }
            Subject::Nothing | Subject::Outside => {
                response.add_authority(soa(apex));
                return ResponseCode::NXDomain;
            }
        };
        match result {
            Ok(found) => {
                let reverse = !self.is_forward(&apex);
                self.records(response, question, kind, &found, left, reverse);
                for answer in &response.answers {
                    match &answer.data {
                        RData::A(A(address)) => self.backend.told((*address).into(), asker),
                        RData::AAAA(AAAA(address)) => self.backend.told((*address).into(), asker),
                        _ => {}
                    }
                }
                if response.answers.is_empty() {
                    response.add_authority(soa(apex));
                }
                ResponseCode::NoError
            }
            Err(LookupError::NotFound) => {
                response.add_authority(soa(apex));
                ResponseCode::NXDomain
            }
            Err(LookupError::Unreachable | LookupError::Offline) => {
                response.metadata.authoritative = false;
                ResponseCode::ServFail
            }
        }
    }

    fn is_forward(&self, apex: &Name) -> bool {
        apex.num_labels() == 1
    }

    fn records(
        &self,
        response: &mut Message,
        question: &Query,
        kind: RecordType,
        found: &Known,
        left: Duration,
        reverse: bool,
    ) {
        let now = now();
        // What a name or a lease ends before is not told longer.
        let left = left
            .min(POSITIVE_LIFE)
            .min(found.entry.left(now).unwrap_or_default());
        let mut add = |data: RData, life: Duration| {
            let ttl = u32::try_from(left.min(life).as_secs()).unwrap_or(0);
            response.add_answer(Record::from_rdata(question.name().clone(), ttl, data));
        };
        let wanted = |of: RecordType| kind == of || kind == RecordType::ANY;
        if reverse {
            if wanted(RecordType::PTR) {
                let host = match &found.name {
                    Some(label) => label.host(),
                    None => found.entry.id.host(),
                };
                if let Ok(name) = Name::from_ascii(format!("{host}.")) {
                    add(RData::PTR(PTR(name)), POSITIVE_LIFE);
                }
            }
            return;
        }
        let reach = self.reach.borrow();
        if wanted(RecordType::A)
            && let Some((address, life)) = found.entry.leased(now)
            && reach.has(address.into())
        {
            add(RData::A(A(address)), life);
        }
        if wanted(RecordType::AAAA) && reach.has(found.entry.ipv6.into()) {
            add(RData::AAAA(AAAA(found.entry.ipv6)), POSITIVE_LIFE);
        }
    }

    /// Who holds `address`, and under what name.
    async fn named(&self, address: IpAddr) -> Result<Known, LookupError> {
        let entry = self.backend.by_address(address).await?;
        let name = match self.backend.name_of(&entry.id).await {
            Ok(name) => name,
            Err(LookupError::NotFound) => None,
            Err(error) => return Err(error),
        };
        Ok(Known { entry, name })
    }
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

fn known(entry: Result<Entry, LookupError>) -> Result<Known, LookupError> {
    entry.map(|entry| Known { entry, name: None })
}
