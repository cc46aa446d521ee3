//! A response, from the request's header to its bytes.

use hickory_proto::op::{Message, Metadata, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};

use super::Transport;
use super::cache::NEGATIVE_LIFE;

/// The largest answer over UDP, and what the responder says that it takes: what fits
/// every path without fragments (RFC 9715, section 3.1).
pub const MAX_UDP_ANSWER: u16 = 1232;
/// An empty response to a request.
#[must_use]
pub fn reply(request: &Metadata) -> Message {
    let mut response = Message::response(request.id, request.op_code);
    response.metadata = Metadata::response_from_request(request);
    response
}

/// A response as bytes, with its code. Over UDP it is cut to `limit` bytes, and marked so. `None`
/// if it cannot be encoded.
#[must_use]
pub fn encode(
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
#[must_use]
pub fn soa(apex: Name) -> Record {
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
    use hickory_proto::op::{OpCode, Query};
    use hickory_proto::rr::RecordType;
    use hickory_proto::rr::rdata::AAAA;

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
        let whole = encode(response.clone(), code, Transport::Tcp, 512).unwrap();
        assert!(whole.len() > usize::from(MAX_UDP_ANSWER));
        for limit in [0, 512, 4096] {
            let cut = encode(response.clone(), code, Transport::Udp, limit).unwrap();
            assert!(cut.len() <= 512);
            let cut = Message::from_vec(&cut).unwrap();
            assert!(cut.metadata.truncation && cut.answers.is_empty());
            assert_eq!(cut.queries, response.queries);
        }
    }
}
