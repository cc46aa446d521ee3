//! Query bytes in, response bytes out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;

use super::cache::{Cache, NEGATIVE_LIFE, POSITIVE_LIFE};
use super::forward::Forwarder;
use super::zone::{Subject, Zone};
use super::{Backend, Entry, LookupError};

/// The largest answer over UDP, and what the responder says that it takes: what fits
/// every path without fragments (RFC 9715, section 3.1).
pub const MAX_UDP_ANSWER: u16 = 1232;
/// Bytes of a DNS header.
const HEADER: usize = 12;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram; a long answer is cut and marked so.
    Udp,
    /// A stream, with a length before each message.
    Tcp,
}

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

/// Which address families this host can use. An address whose packets would not enter
/// the tunnel must not be told: they would leave in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// The virtual IPv4 network is routed into the tunnel.
    pub ipv4: bool,
    /// `fd00::/8` is routed into the tunnel.
    pub ipv6: bool,
}

/// Answers queries.
#[derive(Debug)]
pub struct Responder<B> {
    backend: Arc<B>,
    zone: Zone,
    families: Families,
    forwarder: Option<Forwarder>,
    cache: Cache<Key, Known>,
}

impl<B: Backend> Responder<B> {
    /// A responder for `zone`. Without a `forwarder`, what lies outside is refused.
    #[must_use]
    pub fn new(
        backend: Arc<B>,
        zone: Zone,
        families: Families,
        forwarder: Option<Forwarder>,
    ) -> Self {
        Self {
            backend,
            zone,
            families,
            forwarder,
            cache: Cache::default(),
        }
    }

    /// The names that it answers for.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The response to `request`, or `None` where silence is the only sound answer: too
    /// short to have a header, or itself a response.
    pub async fn answer(&self, request: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let header = Header::read(&mut BinDecoder::new(request.get(..HEADER)?)).ok()?;
        if header.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut response = reply(&header.metadata);
        if header.metadata.op_code != OpCode::Query {
            return finish(response, ResponseCode::NotImp, transport, 0);
        }
        // The counts are checked before the rest is decoded, so that what is reserved
        // for the sections is in proportion to what was sent.
        let records = usize::from(header.counts.answers)
            + usize::from(header.counts.authorities)
            + usize::from(header.counts.additionals);
        if header.counts.queries != 1 || records > 4 {
            return finish(response, ResponseCode::FormErr, transport, 0);
        }
        let Ok(query) = Message::from_vec(request) else {
            return finish(response, ResponseCode::FormErr, transport, 0);
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
                return finish(response, ResponseCode::BADVERS, transport, limit);
            }
        }
        if question.query_class() != DNSClass::IN
            || matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR)
        {
            return finish(response, ResponseCode::Refused, transport, limit);
        }
        let subject = self.zone.subject(question.name());
        if subject == Subject::Outside {
            return self
                .outside(request, &question, response, transport, limit)
                .await;
        }
        let code = self.fill(&mut response, &question, subject).await;
        finish(response, code, transport, limit)
    }

    /// Passes on what is not ours, or refuses it.
    async fn outside(
        &self,
        request: &[u8],
        question: &Query,
        mut response: Message,
        transport: Transport,
        limit: u16,
    ) -> Option<Vec<u8>> {
        let Some(forwarder) = &self.forwarder else {
            return finish(response, ResponseCode::Refused, transport, limit);
        };
        match forwarder.forward(request, question, transport).await {
            Some(answer) => Some(answer),
            None => {
                response.metadata.recursion_available = true;
                finish(response, ResponseCode::ServFail, transport, limit)
            }
        }
    }

    /// Adds the records that answer a question of ours.
    async fn fill(
        &self,
        response: &mut Message,
        question: &Query,
        subject: Subject,
    ) -> ResponseCode {
        response.metadata.authoritative = true;
        response.metadata.recursion_available = self.forwarder.is_some();
        let apex = self.zone.apex(question.name());
        let kind = question.query_type();
        let (result, left) = match subject {
            Subject::Label(label) => {
                let backend = &self.backend;
                let lookup = || async { known(backend.by_label(&label).await) };
                self.cache
                    .get(&Key::Label(label), Instant::now(), lookup)
                    .await
            }
            Subject::Id(id) => {
                let backend = &self.backend;
                let lookup = || async { known(backend.by_id(&id).await) };
                self.cache.get(&Key::Id(id), Instant::now(), lookup).await
            }
            Subject::Reverse(address) => {
                let lookup = || self.named(address);
                self.cache
                    .get(&Key::Address(address), Instant::now(), lookup)
                    .await
            }
            Subject::Apex | Subject::ReverseParent => {
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
                if response.answers.is_empty() {
                    response.add_authority(soa(apex));
                }
                ResponseCode::NoError
            }
            Err(LookupError::NotFound) => {
                response.add_authority(soa(apex));
                ResponseCode::NXDomain
            }
            Err(LookupError::Unreachable) => {
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
        let ttl = u32::try_from(left.min(POSITIVE_LIFE).as_secs().max(1)).unwrap_or(1);
        let mut add = |data: RData| {
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
                    add(RData::PTR(PTR(name)));
                }
            }
            return;
        }
        if self.families.ipv4
            && wanted(RecordType::A)
            && let Some(address) = found.entry.ipv4
        {
            add(RData::A(A(address)));
        }
        if self.families.ipv6 && wanted(RecordType::AAAA) {
            add(RData::AAAA(AAAA(found.entry.ipv6)));
        }
    }

    /// Who holds `address`, and under what name.
    async fn named(&self, address: IpAddr) -> Result<Known, LookupError> {
        let entry = self.backend.by_address(address).await?;
        let name = match self.backend.name_of(&entry.id).await {
            Ok(name) => name,
            Err(LookupError::NotFound) => None,
            Err(LookupError::Unreachable) => return Err(LookupError::Unreachable),
        };
        Ok(Known { entry, name })
    }
}

fn known(entry: Result<Entry, LookupError>) -> Result<Known, LookupError> {
    entry.map(|entry| Known { entry, name: None })
}

fn reply(request: &Metadata) -> Message {
    let mut response = Message::response(request.id, request.op_code);
    response.metadata = Metadata::response_from_request(request);
    response
}

/// Encodes a response with its code, cut to `limit` bytes over UDP.
fn finish(
    mut response: Message,
    code: ResponseCode,
    transport: Transport,
    limit: u16,
) -> Option<Vec<u8>> {
    response.metadata.response_code = code;
    let bytes = response.to_vec().ok()?;
    let limit = usize::from(limit.clamp(512, MAX_UDP_ANSWER));
    if transport == Transport::Udp && bytes.len() > limit {
        return response.truncate().to_vec().ok();
    }
    Some(bytes)
}

/// The SOA record of a zone of ours: its minimum says how long a negative answer is kept
/// (RFC 2308, section 5).
fn soa(apex: Name) -> Record {
    let life = NEGATIVE_LIFE.as_secs();
    let (seconds, minimum) = (
        i32::try_from(life).unwrap_or(1),
        u32::try_from(life).unwrap_or(1),
    );
    let data = SOA::new(
        apex.clone(),
        apex.clone(),
        1,
        seconds,
        seconds,
        seconds,
        minimum,
    );
    Record::from_rdata(apex, minimum, RData::SOA(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_cut_over_udp_only() {
        let owner = Name::from_ascii("freespeech.anon.").unwrap();
        let mut response = Message::response(7, OpCode::Query);
        response.add_query(Query::query(owner.clone(), RecordType::AAAA));
        for host in 0..100u16 {
            let address = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host);
            let data = RData::AAAA(AAAA(address));
            response.add_answer(Record::from_rdata(owner.clone(), 60, data));
        }
        let code = ResponseCode::NoError;
        let whole = finish(response.clone(), code, Transport::Tcp, 512).unwrap();
        assert!(whole.len() > usize::from(MAX_UDP_ANSWER));
        for limit in [0, 512, 4096] {
            let cut = finish(response.clone(), code, Transport::Udp, limit).unwrap();
            assert!(cut.len() <= 512);
            let cut = Message::from_vec(&cut).unwrap();
            assert!(cut.metadata.truncation && cut.answers.is_empty());
            assert_eq!(cut.queries, response.queries);
        }
    }
}
