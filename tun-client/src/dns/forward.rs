//! Passing on a query that is not ours to the servers that the host used before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Header, MessageType, Query};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use mixline_protocol::random::OsRandom;
use rand_core::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::Transport;

/// How long one server is waited for.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
/// How many servers are used, as many as a stub resolver takes (resolv.conf(5)).
pub const MAX_UPSTREAMS: usize = 3;
/// The largest datagram taken as an answer.
const MAX_ANSWER: usize = 4096;

/// The servers that other domains are asked of, in order.
#[derive(Debug, Clone)]
pub struct Forwarder {
    upstreams: Vec<SocketAddr>,
}

impl Forwarder {
    /// A forwarder to the first [`MAX_UPSTREAMS`] of `upstreams`; `None` if there are none.
    #[must_use]
    pub fn new(upstreams: &[SocketAddr]) -> Option<Self> {
        let upstreams: Vec<SocketAddr> = upstreams.iter().copied().take(MAX_UPSTREAMS).collect();
        (!upstreams.is_empty()).then_some(Self { upstreams })
    }

    /// The answer of the first server that gives one, with the ID of `request`.
    ///
    /// Each query leaves from a port and with an ID of its own, and an answer counts only
    /// if server, ID and question agree (RFC 5452, section 9).
    pub async fn forward(
        &self,
        request: &[u8],
        question: &Query,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let own_id: [u8; 2] = request.get(..2)?.try_into().ok()?;
        let mut query = request.to_vec();
        for upstream in &self.upstreams {
            let id = (OsRandom::new().next_u32() as u16).to_be_bytes();
            query.get_mut(..2)?.copy_from_slice(&id);
            let exchange = async {
                match transport {
                    Transport::Udp => over_udp(*upstream, &query, question).await,
                    Transport::Tcp => over_tcp(*upstream, &query, question).await,
                }
            };
            match tokio::time::timeout(SERVER_TIMEOUT, exchange).await {
                Ok(Ok(mut answer)) => {
                    answer.get_mut(..2)?.copy_from_slice(&own_id);
                    return Some(answer);
                }
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "name server failed"),
                Err(_) => tracing::debug!(%upstream, "name server did not answer"),
            }
        }
        None
    }
}

async fn over_udp(
    upstream: SocketAddr,
    query: &[u8],
    question: &Query,
) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length)
            && answers(answer, query, question)
        {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(
    upstream: SocketAddr,
    query: &[u8],
    question: &Query,
) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), query].concat())
        .await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if answers(&answer, query, question) {
        Ok(answer)
    } else {
        Err(std::io::Error::other("the answer is for another question"))
    }
}

/// Whether `answer` is a response with the ID and the question of `query`.
fn answers(answer: &[u8], query: &[u8], question: &Query) -> bool {
    let mut decoder = BinDecoder::new(answer);
    let Ok(header) = Header::read(&mut decoder) else {
        return false;
    };
    answer.get(..2) == query.get(..2)
        && header.metadata.message_type == MessageType::Response
        && header.counts.queries == 1
        && Query::read(&mut decoder).is_ok_and(|asked| {
            asked.name() == question.name()
                && asked.query_type() == question.query_type()
                && asked.query_class() == question.query_class()
        })
}
