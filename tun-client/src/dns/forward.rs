//! Passing on a query that is not ours to the servers that the host used before.
//!
//! One of them may be a program on this host that asks here in turn, as a dnsmasq that reads
//! `/etc/resolv.conf`. So one question is under way once: who asks the same meanwhile waits for its
//! end. What containers ask is apart from what the host asks: neither waits for the other. And a server
//! on this host is asked with the letters of the name in random cases, which mean
//! nothing in DNS: when the name comes here with just these, the server has passed it on, and the
//! next one is used.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Header, MessageType, Query};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use mixline_protocol::random::OsRandom;
use rand_core::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;

use super::Transport;
use super::shares::{Asker, Shares};
use crate::host_dns::upstream::Upstream;

/// How long one server is waited for.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
/// For this time a server that did not answer is asked after the others, and one that asks here is
/// not asked.
const AVOIDED: Duration = Duration::from_secs(20);
/// How many servers are used, as many as a stub resolver takes (resolv.conf(5)).
pub const MAX_UPSTREAMS: usize = 3;
/// Questions under way at one server, and how many of them may be the host's alone: one that is silent
/// does not take all places, nor does a container that asks much.
const MAX_AT_ONE: usize = 96;
const HOSTS_AT_ONE: usize = 32;
/// Who may wait for one question that is under way: the host as often as it may ask at all, and
/// containers, all together.
const MAX_WAITING: usize = 320;
const HOSTS_WAITING: usize = 256;
/// Bytes of a message's header, and the longest label of a name (RFC 1035, sections 4.1.1 and 2.3.4).
const HEADER: usize = 12;
const MAX_LABEL: usize = 63;
/// The bit by which a letter's two cases differ.
const OTHER_CASE: u8 = 0x20;
/// A name with fewer letters comes here in the same cases by chance, or by guess.
const LETTERS_TO_TELL: usize = 12;
/// The largest datagram taken as an answer.
const MAX_ANSWER: usize = 4096;

/// The servers that other domains are asked of, in order.
#[derive(Debug)]
pub struct Forwarder {
    servers: Vec<Server>,
    /// Questions under way; there are no more than questions at all, which the responder bounds.
    flights: Mutex<HashMap<Vec<u8>, Flight>>,
}

/// One of the servers.
#[derive(Debug)]
struct Server {
    upstream: Upstream,
    /// It is on this host, and so may ask here.
    is_here: bool,
    places: Arc<Shares>,
    health: Mutex<Health>,
}

/// What is known of a server.
#[derive(Debug, Default)]
struct Health {
    /// It did not answer, and is asked last until then.
    silent_until: Option<Instant>,
    /// It asked here what it was asked, and is not asked until then.
    loops_until: Option<Instant>,
}

/// A question that is under way.
#[derive(Debug, Clone)]
struct Flight {
    /// All but the ID, with the name in small letters: cases make no other question (RFC 4343).
    asked: Arc<[u8]>,
    /// The name as it stood in the last question about the same.
    echo: Arc<watch::Sender<Vec<u8>>>,
    /// What came of it, once that is known.
    outcome: watch::Receiver<Option<Outcome>>,
    /// Who waits for that.
    waiting: Arc<Shares>,
}

/// What comes of a question.
#[derive(Debug, Clone)]
enum Outcome {
    /// An answer, whose ID is nobody's.
    Answer(Arc<[u8]>),
    /// No server answers it.
    Silence,
    /// Who asked it had its share of a server's places, which says nothing about others.
    NoPlace,
}

/// Takes a flight away, however it ends.
struct Landing<'a> {
    forwarder: &'a Forwarder,
    key: &'a [u8],
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.forwarder.flights().remove(self.key);
    }
}

impl Forwarder {
    /// A forwarder to the first [`MAX_UPSTREAMS`] of `upstreams`; `None` if there are none.
    #[must_use]
    pub fn new(upstreams: &[Upstream]) -> Option<Self> {
        let servers: Vec<Server> = upstreams
            .iter()
            .take(MAX_UPSTREAMS)
            .map(|upstream| Server {
                upstream: upstream.clone(),
                is_here: is_own(upstream.address),
                places: Shares::new(MAX_AT_ONE, HOSTS_AT_ONE),
                health: Mutex::default(),
            })
            .collect();
        (!servers.is_empty()).then_some(Self {
            servers,
            flights: Mutex::default(),
        })
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
        asker: Asker,
    ) -> Option<Vec<u8>> {
        let (own_id, rest) = request.split_first_chunk::<2>()?;
        let name = request.get(name_in(request)?)?;
        // Lengths of labels are below the letters.
        let mut asked = rest.to_vec();
        asked
            .get_mut(HEADER - 2..)?
            .get_mut(..name.len())?
            .make_ascii_lowercase();
        let asked: Arc<[u8]> = asked.into();
        let is_host = asker == Asker::Host;
        let (key, of_others) = (
            key(question, transport, is_host),
            key(question, transport, !is_host),
        );
        let answer = loop {
            let (sender, outcome) = watch::channel(None);
            let own = Flight {
                asked: Arc::clone(&asked),
                echo: Arc::new(watch::Sender::new(Vec::new())),
                outcome,
                waiting: Shares::new(MAX_WAITING, HOSTS_WAITING),
            };
            let other = {
                let mut flights = self.flights();
                // A server on this host asks here as the host, whoever had asked it.
                if let Some(flight) = flights.get(&of_others).filter(|_| is_host) {
                    flight.echo.send_replace(name.to_vec());
                }
                let other = flights.get(&key).cloned();
                if other.is_none() {
                    flights.insert(key.clone(), own.clone());
                }
                other
            };
            let Some(mut other) = other else {
                let landing = Landing {
                    forwarder: self,
                    key: &key,
                };
                let echo = own.echo.subscribe();
                let outcome = self.ask(request, question, transport, asker, echo).await;
                drop(landing);
                sender.send_replace(Some(outcome.clone()));
                break outcome.answer()?;
            };
            if is_host {
                other.echo.send_replace(name.to_vec());
            }
            let _place = other.waiting.take(asker)?;
            // Who had it under way may have gone; then there is nothing to wait for.
            let outcome = other.outcome.wait_for(Option::is_some).await;
            let outcome = outcome.ok().and_then(|outcome| outcome.clone());
            match outcome {
                // Another question about the same, as with signatures, has an answer of its own.
                Some(outcome @ (Outcome::Answer(_) | Outcome::Silence)) if other.asked == asked => {
                    break outcome.answer()?;
                }
                _ => {}
            }
        };
        let mut answer = answer.to_vec();
        answer.get_mut(..2)?.copy_from_slice(own_id);
        // The question stands in it as it was asked.
        answer.get_mut(name_in(request)?)?.copy_from_slice(name);
        Some(answer)
    }

    async fn ask(
        &self,
        request: &[u8],
        question: &Query,
        transport: Transport,
        asker: Asker,
        mut echo: watch::Receiver<Vec<u8>>,
    ) -> Outcome {
        let mut query = request.to_vec();
        let mut end = Outcome::Silence;
        for server in self.in_order() {
            let upstream = &server.upstream;
            let Ok(address) = upstream.socket_address() else {
                tracing::debug!(%upstream, "name server passed over");
                continue;
            };
            let Some(_place) = server.places.take(asker) else {
                tracing::debug!(%upstream, ?asker, "no place at the name server");
                end = Outcome::NoPlace;
                continue;
            };
            let Some(name) = renewed(&mut query, request) else {
                return end;
            };
            let sent = server.is_here.then(|| in_random_cases(name)).flatten();
            let letters = |name: &Vec<u8>| name.iter().filter(|b| b.is_ascii_alphabetic()).count();
            let sent = sent.filter(|name| letters(name) >= LETTERS_TO_TELL);
            let exchange = async {
                match transport {
                    Transport::Udp => over_udp(address, &query, question).await,
                    Transport::Tcp => over_tcp(address, &query, question).await,
                }
            };
            let answer = tokio::select! {
                answer = tokio::time::timeout(SERVER_TIMEOUT, exchange) => answer,
                () = comes_back(&mut echo, sent) => {
                    tracing::debug!(%upstream, "the name server asks here");
                    server.health().loops_until = Some(Instant::now() + AVOIDED);
                    continue;
                }
            };
            match answer {
                Ok(Ok(answer)) => {
                    *server.health() = Health::default();
                    return Outcome::Answer(answer.into());
                }
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "name server failed"),
                Err(_) => tracing::debug!(%upstream, "name server did not answer"),
            }
            server.health().silent_until = Some(Instant::now() + AVOIDED);
        }
        end
    }

    /// The servers that may be asked, those that were silent last.
    fn in_order(&self) -> Vec<&Server> {
        let now = Instant::now();
        let is_ahead = |time: Option<Instant>| time.is_some_and(|time| time > now);
        let (silent, ready): (Vec<&Server>, Vec<&Server>) = self
            .servers
            .iter()
            .filter(|server| !is_ahead(server.health().loops_until))
            .partition(|server| is_ahead(server.health().silent_until));
        ready.into_iter().chain(silent).collect()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    fn answer(self) -> Option<Arc<[u8]>> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Silence | Self::NoPlace => None,
        }
    }
}

/// Gives a query an ID of its own, and the name as it stands in the request; that name.
fn renewed<'a>(query: &'a mut [u8], request: &[u8]) -> Option<&'a mut [u8]> {
    let id = (OsRandom::new().next_u32() as u16).to_be_bytes();
    query.get_mut(..2)?.copy_from_slice(&id);
    let at = name_in(request)?;
    let name = query.get_mut(at.clone())?;
    name.copy_from_slice(request.get(at)?);
    Some(name)
}

/// Waits until a name comes here as it was sent.
async fn comes_back(echo: &mut watch::Receiver<Vec<u8>>, sent: Option<Vec<u8>>) {
    let came = async {
        let sent = sent.as_ref()?;
        echo.wait_for(|name| name == sent).await.ok().map(drop)
    };
    if came.await.is_none() {
        std::future::pending().await
    }
}

/// Where the name of the first question stands in a message.
fn name_in(message: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(HEADER..at + 1),
            // The first name has nothing before it to point to.
            length if length > MAX_LABEL => return None,
            length => at += 1 + length,
        }
    }
}

/// Puts the letters of a name into random cases, others than before; gives the name. None if it has no
/// letters.
fn in_random_cases(name: &mut [u8]) -> Option<Vec<u8>> {
    let before = name.to_vec();
    let mut random = OsRandom::new();
    for byte in name.iter_mut().filter(|byte| byte.is_ascii_alphabetic()) {
        if random.next_u32() & 1 == 1 {
            *byte ^= OTHER_CASE;
        }
    }
    if *name == before {
        let mut letters = name.iter_mut().filter(|byte| byte.is_ascii_alphabetic());
        *letters.next()? ^= OTHER_CASE;
    }
    Some(name.to_vec())
}

/// What two questions about the same have in common: both are the host's, or both are not.
fn key(question: &Query, transport: Transport, is_host: bool) -> Vec<u8> {
    let mut key = vec![u8::from(transport == Transport::Tcp), u8::from(is_host)];
    key.extend(u16::from(question.query_type()).to_be_bytes());
    key.extend(u16::from(question.query_class()).to_be_bytes());
    key.extend(question.name().to_lowercase().to_ascii().bytes());
    key
}

/// Whether an address is one of this host's.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || std::net::UdpSocket::bind((address, 0)).is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_messages_and_in_random_cases() {
        let mut message = vec![0; HEADER];
        message.extend(b"\x03www\x07example\x03org\0\0\x01\0\x01");
        let at = name_in(&message).unwrap();
        assert_eq!(&message[at.clone()], b"\x03www\x07example\x03org\0");
        let before = message[at.clone()].to_vec();
        for _ in 0..100 {
            let name = in_random_cases(&mut message[at.clone()]).unwrap();
            assert_ne!(name, before);
            assert_eq!(name.to_ascii_lowercase(), before);
            message[at.clone()].copy_from_slice(&before);
        }
        assert_eq!(in_random_cases(&mut b"\x011\0".to_vec()), None);
        // A name that points elsewhere, or does not end, is none.
        for bad in [&b"\xc0\x0c"[..], b"\x03ww", b"\x40", b""] {
            message.truncate(HEADER);
            message.extend(bad);
            assert_eq!(name_in(&message), None, "{bad:?}");
        }
    }
}
