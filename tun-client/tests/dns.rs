//! The DNS responder over loopback, with a table in place of the directory.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use mixline_client::host::prefix::Prefix;
use mixline_client::testing::{
    Asker, Backend, DnsServer, Entry, Forwarder, LookupError, Neighbours, Reach, Responder,
    Transport, Upstream, Zone,
};
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::time::UnixTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

const WITH_LEASE: AnonymousId = AnonymousId([1; 32]);
const WITHOUT_LEASE: AnonymousId = AnonymousId([2; 32]);
const IPV4: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const BOTH: Reach = Reach {
    ipv4: true,
    ipv6: true,
    others: Vec::new(),
    neighbours: Vec::new(),
    kept: BTreeSet::new(),
};

#[derive(Default)]
struct Table {
    names: HashMap<Label, Entry>,
    unreachable: AtomicBool,
    asked: AtomicUsize,
}

impl Table {
    fn new() -> Arc<Self> {
        let entry = |id, ipv4| Entry {
            id,
            ipv4,
            ipv6: ipv6(&id),
            published: true,
            lease_expires: None,
            name_expires: None,
        };
        let mut table = Self::default();
        table
            .names
            .insert("freespeech".parse().unwrap(), entry(WITH_LEASE, Some(IPV4)));
        table
            .names
            .insert("fresh".parse().unwrap(), entry(WITHOUT_LEASE, None));
        Arc::new(table)
    }

    fn find(
        &self,
        matches: impl Fn(&Label, &Entry) -> bool,
    ) -> Result<(Label, Entry), LookupError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.unreachable.load(Ordering::Relaxed) {
            return Err(LookupError::Unreachable);
        }
        let found = self
            .names
            .iter()
            .find(|(label, entry)| matches(label, entry));
        found
            .map(|(label, entry)| (*label, *entry))
            .ok_or(LookupError::NotFound)
    }
}

impl Backend for Table {
    async fn by_label(&self, label: &Label) -> Result<Entry, LookupError> {
        self.find(|name, _| name == label).map(|found| found.1)
    }

    async fn is_peers(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(PEERS)
    }

    fn told(&self, _: IpAddr, _: Asker) {}

    async fn by_id(&self, id: &AnonymousId) -> Result<Entry, LookupError> {
        self.find(|_, entry| entry.id == *id).map(|found| found.1)
    }

    async fn by_address(&self, address: IpAddr) -> Result<Entry, LookupError> {
        let found = self.find(|_, entry| match address {
            IpAddr::V4(address) => entry.ipv4 == Some(address),
            IpAddr::V6(address) => entry.ipv6 == address,
        });
        found.map(|found| found.1)
    }

    async fn name_of(&self, id: &AnonymousId) -> Result<Option<Label>, LookupError> {
        // The second one is reachable by its ID alone.
        let found = self.find(|_, entry| entry.id == *id)?;
        Ok((*id == WITH_LEASE).then_some(found.0))
    }
}

/// A peer's address.
const PEERS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 77);

fn ipv6(id: &AnonymousId) -> Ipv6Addr {
    mixline_protocol::address::ipv6(id)
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn query(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

async fn start(table: &Arc<Table>, reach: Reach, upstreams: &[SocketAddr]) -> SocketAddr {
    let zone = Zone::new(VirtualNetwork::default(), &["corp.example".to_owned()]);
    let upstreams: Vec<Upstream> = upstreams.iter().copied().map(Upstream::from).collect();
    let forwarder = Forwarder::new(&upstreams);
    let responder = Responder::new(Arc::clone(table), zone, watch::channel(reach).1, forwarder)
        .with_neighbours(Neighbours::new(move || upstreams.clone()));
    // TCP and UDP share a port; one that is free for UDP may be taken for TCP.
    for _ in 0..20 {
        if let Ok(server) = DnsServer::bind("127.0.0.1:0".parse().unwrap(), "lo").await {
            let address = server.address().unwrap();
            tokio::spawn(server.serve(Arc::new(responder), None));
            return address;
        }
    }
    panic!("no port is free for both UDP and TCP");
}

async fn exchange(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(request, server).await.unwrap();
    let mut buffer = vec![0; 4096];
    let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
    buffer.truncate(length);
    buffer
}

async fn ask(server: SocketAddr, message: &Message) -> Message {
    let answer = exchange(server, &message.to_vec().unwrap()).await;
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    answer
}

fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect()
}

fn has_soa(answer: &Message) -> bool {
    answer
        .authorities
        .iter()
        .any(|record| record.record_type() == RecordType::SOA)
}

#[tokio::test]
async fn names_have_addresses() {
    let table = Table::new();
    let server = start(&table, BOTH, &[]).await;
    let answer = ask(server, &query("FreeSpeech.ANON.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.authoritative);
    assert_eq!(addresses(&answer), [IpAddr::V4(IPV4)]);
    assert!((1..=60).contains(&answer.answers[0].ttl));

    let answer = ask(server, &query("freespeech.anon.", RecordType::AAAA)).await;
    assert_eq!(addresses(&answer), [IpAddr::V6(ipv6(&WITH_LEASE))]);

    let host = format!("{}.", WITHOUT_LEASE.host());
    let answer = ask(server, &query(&host, RecordType::AAAA)).await;
    assert_eq!(addresses(&answer), [IpAddr::V6(ipv6(&WITHOUT_LEASE))]);
    assert!(answer.edns.is_none());
}

#[tokio::test]
async fn one_lookup_answers_both_families() {
    let table = Table::new();
    let server = start(&table, BOTH, &[]).await;
    ask(server, &query("freespeech.anon.", RecordType::A)).await;
    ask(server, &query("freespeech.anon.", RecordType::AAAA)).await;
    assert_eq!(table.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_not_there() {
    let server = start(&Table::new(), BOTH, &[]).await;
    for missing in [
        "nobody.anon.",
        "www.nobody.anon.",
        &format!("{}.", AnonymousId([9; 32]).host()),
    ] {
        let answer = ask(server, &query(missing, RecordType::A)).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{missing}"
        );
        assert!(has_soa(&answer) && answer.answers.is_empty());
    }
    // It exists, but has no such record.
    for (there, kind) in [
        ("freespeech.anon.", RecordType::TXT),
        ("freespeech.anon.", RecordType::HTTPS),
        ("fresh.anon.", RecordType::A),
        ("anon.", RecordType::A),
    ] {
        let answer = ask(server, &query(there, kind)).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{there} {kind}"
        );
        assert!(has_soa(&answer) && answer.answers.is_empty());
    }
    let answer = ask(server, &query("anon.", RecordType::SOA)).await;
    assert_eq!(answer.answers[0].record_type(), RecordType::SOA);
}

#[tokio::test]
async fn an_address_that_would_leave_in_the_clear_is_not_told() {
    let reach = Reach {
        ipv6: false,
        ..BOTH
    };
    let server = start(&Table::new(), reach, &[]).await;
    let answer = ask(server, &query("freespeech.anon.", RecordType::AAAA)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(has_soa(&answer) && answer.answers.is_empty());
    let answer = ask(server, &query("freespeech.anon.", RecordType::A)).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(IPV4)]);
}

#[tokio::test]
async fn an_unreachable_directory_is_a_server_failure() {
    let table = Table::new();
    let server = start(&table, BOTH, &[]).await;
    table.unreachable.store(true, Ordering::Relaxed);
    let answer = ask(server, &query("freespeech.anon.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    // And as soon as it is back, it is asked again.
    table.unreachable.store(false, Ordering::Relaxed);
    let answer = ask(server, &query("freespeech.anon.", RecordType::A)).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(IPV4)]);
}

#[tokio::test]
async fn reverse_names() {
    let table = Table::new();
    let server = start(&table, BOTH, &[]).await;
    let target = |answer: &Message| match &answer.answers[0].data {
        RData::PTR(name) => name.0.to_ascii(),
        other => panic!("{other:?}"),
    };
    let answer = ask(server, &query("3.2.1.10.in-addr.arpa.", RecordType::PTR)).await;
    assert_eq!(target(&answer), "freespeech.anon.");
    for (id, host) in [
        (WITH_LEASE, "freespeech.anon.".to_owned()),
        (WITHOUT_LEASE, format!("{}.", WITHOUT_LEASE.host())),
    ] {
        let reverse: Name = ipv6(&id).into();
        let answer = ask(server, &query(&reverse.to_ascii(), RecordType::PTR)).await;
        assert_eq!(target(&answer), host);
    }
    let answer = ask(server, &query("9.9.9.10.in-addr.arpa.", RecordType::PTR)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities[0].name.to_ascii(), "10.in-addr.arpa.");
    let answer = ask(server, &query("3.2.1.10.in-addr.arpa.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn reverse_names_of_a_neighbourhood_are_passed_on_and_no_other() {
    let (address, seen) = upstream(false).await;
    let others = vec![
        Prefix::new(Ipv4Addr::new(10, 1, 0, 0), 16),
        Prefix::new(Ipv4Addr::new(10, 200, 16, 0), 20),
        Prefix::new(Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 0, 0, 0, 0, 0), 48),
    ];
    let reach = Reach {
        others: others.clone(),
        neighbours: others,
        kept: [IpAddr::from([10, 1, 0, 9])].into(),
        ..BOTH
    };
    let table = Table::new();
    let server = start(&table, reach, &[address]).await;
    let inside: Name = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0, 0, 1).into();
    let beside: Name = Ipv6Addr::new(0xfd12, 0x3456, 0x789b, 1, 0, 0, 0, 1).into();
    for theirs in [
        "7.0.1.10.in-addr.arpa.",
        "1.10.in-addr.arpa.",
        "7.31.200.10.in-addr.arpa.",
        &inside.to_ascii(),
    ] {
        let answer = ask(server, &query(theirs, RecordType::PTR)).await;
        assert_eq!(answer.answers.len(), 1, "{theirs}");
        assert_eq!(*seen.lock().unwrap(), [theirs]);
        seen.lock().unwrap().clear();
    }
    assert_eq!(table.asked.load(Ordering::Relaxed), 0);
    for ours in [
        // A name had it before they came.
        "9.0.1.10.in-addr.arpa.",
        "7.0.2.10.in-addr.arpa.",
        "7.32.200.10.in-addr.arpa.",
        "10.in-addr.arpa.",
        "200.10.in-addr.arpa.",
        "lb._dns-sd._udp.0.0.1.10.in-addr.arpa.",
        &beside.to_ascii(),
        "7.0.1.10.in-addr.arpa.corp.example.",
        // Who has connected to this host.
        "77.0.1.10.in-addr.arpa.",
    ] {
        let answer = ask(server, &query(ours, RecordType::PTR)).await;
        assert!(has_soa(&answer) && answer.answers.is_empty(), "{ours}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn other_domains_are_refused_without_upstream() {
    let server = start(&Table::new(), BOTH, &[]).await;
    let answer = ask(server, &query("example.org.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(
        ask(server, &chaos).await.metadata.response_code,
        ResponseCode::Refused
    );
}

/// A name server elsewhere, that counts and answers A with 192.0.2.7.
async fn upstream(answer_wrongly_first: bool) -> (SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let respond = |request: &[u8]| {
        let query = Message::from_vec(request).unwrap();
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        answer.add_query(query.queries[0].clone());
        let owner = query.queries[0].name().clone();
        answer.add_answer(Record::from_rdata(
            owner,
            300,
            RData::A(A(Ipv4Addr::new(192, 0, 2, 7))),
        ));
        (query.queries[0].name().to_ascii(), answer)
    };
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, source) = udp.recv_from(&mut buffer).await.unwrap();
            let (asked, answer) = respond(&buffer[..length]);
            log.lock().unwrap().push(asked.to_lowercase());
            if answer_wrongly_first {
                let mut forged = answer.clone();
                forged.metadata.id = forged.metadata.id.wrapping_add(1);
                forged.answers[0].data = RData::A(A(Ipv4Addr::new(203, 0, 113, 66)));
                udp.send_to(&forged.to_vec().unwrap(), source)
                    .await
                    .unwrap();
                let mut forged = answer.clone();
                forged.queries[0].set_name(Name::from_ascii("other.example.").unwrap());
                udp.send_to(&forged.to_vec().unwrap(), source)
                    .await
                    .unwrap();
            }
            udp.send_to(&answer.to_vec().unwrap(), source)
                .await
                .unwrap();
        }
    });
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut request = vec![0; length.into()];
            stream.read_exact(&mut request).await.unwrap();
            let (asked, answer) = respond(&request);
            log.lock().unwrap().push(asked.to_lowercase());
            let bytes = answer.to_vec().unwrap();
            stream
                .write_u16(bytes.len().try_into().unwrap())
                .await
                .unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    });
    (address, seen)
}

#[tokio::test]
async fn other_domains_are_forwarded_and_ours_never() {
    let (address, seen) = upstream(true).await;
    let server = start(&Table::new(), BOTH, &[address]).await;
    let answer = ask(server, &query("example.org.", RecordType::A)).await;
    assert_eq!(addresses(&answer), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    for ours in [
        "nobody.anon.",
        "a.b.anon.",
        "nobody.anon.corp.example.",
        "anon.",
        "9.9.9.10.in-addr.arpa.",
        "lb._dns-sd._udp.0.0.0.10.in-addr.arpa.",
        "1.d.f.ip6.arpa.",
    ] {
        for kind in [
            RecordType::A,
            RecordType::PTR,
            RecordType::TXT,
            RecordType::DS,
        ] {
            let answer = ask(server, &query(ours, kind)).await;
            assert_ne!(answer.metadata.response_code, ResponseCode::Refused);
        }
    }
    assert_eq!(*seen.lock().unwrap(), ["example.org."]);
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over() {
    // Bound and dropped: nobody listens there.
    let dead = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (alive, _) = upstream(false).await;
    let server = start(&Table::new(), BOTH, &[dead, alive]).await;
    let answer = ask(server, &query("example.org.", RecordType::A)).await;
    assert_eq!(addresses(&answer), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    let server = start(&Table::new(), BOTH, &[dead]).await;
    let answer = ask(server, &query("example.org.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn who_asks_the_same_at_once_waits_for_one_answer() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let server = start(&Table::new(), BOTH, &[address]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let query = Message::from_vec(&buffer[..length]).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
            answer.add_query(query.queries[0].clone());
            socket
                .send_to(&answer.to_vec().unwrap(), from)
                .await
                .unwrap();
        }
    });
    let plain = query("example.org.", RecordType::A);
    let mut with_more = plain.clone();
    with_more.set_edns(Edns::new());
    let mut asking = tokio::task::JoinSet::new();
    for id in 0..20 {
        let mut message = if id < 15 {
            plain.clone()
        } else {
            with_more.clone()
        };
        message.metadata.id = id;
        asking.spawn(async move { ask(server, &message).await });
    }
    // Each has the answer with its own ID, which `ask` looks at.
    assert_eq!(asking.join_all().await.len(), 20);
    assert_eq!(
        asked.load(Ordering::Relaxed),
        2,
        "one for each kind of query"
    );
}

#[tokio::test]
async fn a_silent_upstream_is_asked_last() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (alive, _) = upstream(false).await;
    let upstreams = [silent.local_addr().unwrap(), alive];
    let server = start(&Table::new(), BOTH, &upstreams).await;
    ask(server, &query("one.example.org.", RecordType::A)).await;
    let began = std::time::Instant::now();
    let answer = ask(server, &query("two.example.org.", RecordType::A)).await;
    assert_eq!(addresses(&answer), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert!(began.elapsed() < std::time::Duration::from_secs(1));
}

#[tokio::test]
async fn answers_do_not_outlive_what_they_tell_of() {
    let now = UnixTime::from(std::time::SystemTime::now());
    let mut table = Table::default();
    let mut add = |name: &str, number, lease_expires, name_expires| {
        let id = AnonymousId([number; 32]);
        let entry = Entry {
            id,
            ipv4: Some(Ipv4Addr::new(10, 1, 2, number)),
            ipv6: ipv6(&id),
            published: true,
            lease_expires,
            name_expires,
        };
        table.names.insert(name.parse().unwrap(), entry);
    };
    add("long", 11, Some(now.plus(9999)), Some(now.plus(9999)));
    add("lease", 12, Some(now.plus(20)), Some(now.plus(9999)));
    add("claim", 13, Some(now.plus(9999)), Some(now.plus(10)));
    add("ended", 14, Some(UnixTime(1)), Some(now.plus(9999)));
    let server = start(&Arc::new(table), BOTH, &[]).await;
    let ttls = async |name: &str, kind| {
        let answer = ask(server, &query(name, kind)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        let ttls = answer.answers.iter().map(|record| record.ttl);
        ttls.collect::<Vec<u32>>()
    };
    for (name, ipv4, ipv6) in [
        ("long.anon.", vec![60], 60),
        ("lease.anon.", vec![20], 60),
        ("claim.anon.", vec![10], 10),
        ("ended.anon.", vec![], 60),
    ] {
        // A second may have passed.
        let near = |ttl: u32, wanted: u32| (wanted - 2..=wanted).contains(&ttl);
        let told = ttls(name, RecordType::A).await;
        assert_eq!(told.len(), ipv4.len(), "{name}");
        assert!(
            told.iter()
                .zip(&ipv4)
                .all(|(ttl, wanted)| near(*ttl, *wanted)),
            "{name}: {told:?}"
        );
        let told = ttls(name, RecordType::AAAA).await;
        assert!(told.len() == 1 && near(told[0], ipv6), "{name}: {told:?}");
    }
}

#[tokio::test]
async fn a_type_that_a_name_has_none_of_is_no_error() {
    let server = start(&Table::new(), BOTH, &[]).await;
    for name in [
        "freespeech.anon.",
        "www.a.b.c.freespeech.anon.",
        "_443._tcp.freespeech.anon.",
    ] {
        for kind in [
            RecordType::HTTPS,
            RecordType::SVCB,
            RecordType::TXT,
            RecordType::MX,
            RecordType::SRV,
            RecordType::CAA,
            RecordType::DS,
            RecordType::DNSKEY,
            RecordType::NS,
            RecordType::CNAME,
            RecordType::Unknown(65400),
        ] {
            let answer = ask(server, &query(name, kind)).await;
            assert_eq!(
                answer.metadata.response_code,
                ResponseCode::NoError,
                "{name} {kind}"
            );
            assert!(
                answer.answers.is_empty() && has_soa(&answer),
                "{name} {kind}"
            );
            let soa = &answer.authorities[0];
            assert!(soa.ttl <= 10 && soa.name == self::name("anon."), "{soa}");
        }
    }
    let canary = ask(server, &query("use-application-dns.net.", RecordType::A)).await;
    assert_eq!(canary.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn several_queries_over_one_connection() {
    let (address, seen) = upstream(false).await;
    let server = start(&Table::new(), BOTH, &[address]).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    for (asked, expected) in [
        ("freespeech.anon.", IPV4),
        ("example.org.", Ipv4Addr::new(192, 0, 2, 7)),
    ] {
        let request = query(asked, RecordType::A).to_vec().unwrap();
        stream
            .write_u16(request.len().try_into().unwrap())
            .await
            .unwrap();
        stream.write_all(&request).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, 4711);
        assert_eq!(addresses(&answer), [IpAddr::V4(expected)]);
    }
    assert_eq!(*seen.lock().unwrap(), ["example.org."]);
}

#[tokio::test]
async fn edns() {
    let server = start(&Table::new(), BOTH, &[]).await;
    let mut message = query("freespeech.anon.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns.clone());
    let answer = ask(server, &message).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(IPV4)]);
    assert_eq!(answer.edns.unwrap().max_payload(), 1232);
    edns.set_version(1);
    message.set_edns(edns);
    let answer = ask(server, &message).await;
    // BADVERS and BADSIG share a number (RFC 6895, section 2.3).
    assert_eq!(
        u16::from(answer.metadata.response_code),
        u16::from(ResponseCode::BADVERS)
    );
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn bad_queries() {
    let server = start(&Table::new(), BOTH, &[]).await;
    let good = query("freespeech.anon.", RecordType::A).to_vec().unwrap();
    let code = |bytes: Vec<u8>| async move {
        Message::from_vec(&exchange(server, &bytes).await)
            .unwrap()
            .metadata
            .response_code
    };
    let mut two = query("freespeech.anon.", RecordType::A);
    two.add_query(Query::query(name("a.anon."), RecordType::A));
    assert_eq!(code(two.to_vec().unwrap()).await, ResponseCode::FormErr);
    // A count without the records.
    let mut lying = good.clone();
    lying[4..6].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(code(lying).await, ResponseCode::FormErr);
    assert_eq!(
        code(good[..good.len() - 3].to_vec()).await,
        ResponseCode::FormErr
    );
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(code(update).await, ResponseCode::NotImp);
    // Too short to answer, and a response: silence. The next query is answered.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut response = good.clone();
    response[2] |= 0x80;
    response[0] ^= 1;
    for silent in [&good[..11], &response] {
        socket.send_to(silent, server).await.unwrap();
    }
    socket.send_to(&good, server).await.unwrap();
    let mut buffer = [0; 512];
    let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
    assert_eq!(
        Message::from_vec(&buffer[..length]).unwrap().metadata.id,
        4711
    );
}

#[tokio::test]
async fn answers_fit_and_marks_of_cut_ones_are_kept() {
    let zone = Zone::new(VirtualNetwork::default(), &[]);
    let responder = Responder::new(Table::new(), zone, watch::channel(BOTH).1, None);
    // The question comes back in the answer: with the longest name there is and an SOA
    // record behind, it stays below the limit, so every answer of ours fits.
    let long = format!(
        "{}.{}.{}.anon.",
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63)
    );
    let request = query(&long, RecordType::A).to_vec().unwrap();
    let answer = responder
        .answer(&request, Transport::Udp, Asker::Host)
        .await
        .unwrap();
    assert!(answer.len() <= 512 && !Message::from_vec(&answer).unwrap().metadata.truncation);
    // A forwarded record that is too long is the upstream's to cut; see that we keep its mark.
    let mut cut = Message::response(1, OpCode::Query);
    cut.metadata.truncation = true;
    cut.add_query(Query::query(name("example.org."), RecordType::TXT));
    cut.add_answer(Record::from_rdata(
        name("example.org."),
        1,
        RData::TXT(TXT::new(vec!["x".to_owned()])),
    ));
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, source) = udp.recv_from(&mut buffer).await.unwrap();
        let mut answer = cut;
        answer.metadata.id = Message::from_vec(&buffer[..length]).unwrap().metadata.id;
        udp.send_to(&answer.to_vec().unwrap(), source)
            .await
            .unwrap();
    });
    let server = start(&Table::new(), BOTH, &[address]).await;
    assert!(
        ask(server, &query("example.org.", RecordType::TXT))
            .await
            .metadata
            .truncation
    );
}

#[test]
fn any_bytes_are_survived() {
    use proptest::prelude::*;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let zone = Zone::new(VirtualNetwork::default(), &[]);
    let responder = Responder::new(Table::new(), zone, watch::channel(BOTH).1, None);
    let valid = query("freespeech.anon.", RecordType::A).to_vec().unwrap();
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..40, bit in 0u8..8)| {
        let answer = runtime.block_on(responder.answer(&bytes, Transport::Udp, Asker::Host));
        if let Some(answer) = answer {
            prop_assert_eq!(&answer[..2], &bytes[..2]);
        }
        let mut bent = valid.clone();
        let at = at % bent.len();
        bent[at] ^= 1 << bit;
        let _ = runtime.block_on(responder.answer(&bent, Transport::Tcp, Asker::Host));
    });
}
