//! Other domains on a host with a name server of its own: a real dnsmasq, which may have the responder
//! for its own server. In network namespaces of their own: needs root, skips without it unless
//! `MIXLINE_REQUIRE_ROOT=1`.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use mixline_client::testing::{
    Asker, Backend, DnsServer, Entry, Forwarder, LookupError, Reach, Responder, Upstream, Zone,
};
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_testnet::netns;
use mixline_testnet::skip;
use tokio::net::UdpSocket;
use tokio::sync::watch;

const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 53)), 53);
/// Where dnsmasq listens, and where servers outside would be.
const LOCAL: &str = "127.0.0.1";
const OUTSIDE: &str = "127.0.0.2";
const ANSWER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// No name is there.
struct Nobody;

impl Backend for Nobody {
    async fn by_label(&self, _: &Label) -> Result<Entry, LookupError> {
        Err(LookupError::NotFound)
    }

    async fn by_id(&self, _: &AnonymousId) -> Result<Entry, LookupError> {
        Err(LookupError::NotFound)
    }

    async fn by_address(&self, _: IpAddr) -> Result<Entry, LookupError> {
        Err(LookupError::NotFound)
    }

    async fn is_peers(&self, _: IpAddr) -> bool {
        false
    }

    fn told(&self, _: IpAddr, _: Asker) {}

    async fn name_of(&self, _: &AnonymousId) -> Result<Option<Label>, LookupError> {
        Ok(None)
    }
}

/// Runs a test in a host with the resolver's address.
fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let Some(host) = skip::namespace_or_skip() else {
        return;
    };
    host.run(|| {
        for line in ["link set lo up", "address add 10.0.0.53/32 dev lo"] {
            netns::ip_output(line).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    })
    .unwrap();
}

/// The responder at its address, which forwards to these servers.
async fn responder(upstreams: &[&str]) {
    responder_of(upstreams, &[]).await;
}

/// The same, also for those behind interfaces: where they ask, and the interface's index.
async fn responder_of(upstreams: &[&str], behind: &[(SocketAddr, u32)]) {
    let upstreams: Vec<Upstream> = upstreams
        .iter()
        .map(|text| Upstream::parse(text).unwrap())
        .collect();
    let responder = Arc::new(Responder::new(
        Arc::new(Nobody),
        Zone::new(VirtualNetwork::default(), &[]),
        watch::channel(Reach::default()).1,
        Forwarder::new(&upstreams),
    ));
    let server = DnsServer::bind(RESOLVER, "lo").await.unwrap();
    tokio::spawn(server.serve(Arc::clone(&responder), None));
    for (at, link) in behind {
        let server = DnsServer::bind(*at, "lo").await.unwrap();
        tokio::spawn(server.serve(Arc::clone(&responder), Some(*link)));
    }
}

/// How often each name was asked for.
type Asked = Arc<Mutex<BTreeMap<String, usize>>>;

/// A server that answers every question about IPv4, after a time, but for names with `silent` before.
async fn outside(address: &str, after: Duration) -> Asked {
    let asked = Asked::default();
    let socket = Arc::new(UdpSocket::bind((address, 53)).await.unwrap());
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let Ok(query) = Message::from_vec(&buffer[..length]) else {
                continue;
            };
            let question = query.queries[0].clone();
            let name = question.name().to_lowercase().to_ascii();
            let silent = name.starts_with("silent");
            *counted.lock().unwrap().entry(name).or_default() += 1;
            if silent {
                continue;
            }
            let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
            answer.metadata.recursion_available = true;
            if question.query_type() == RecordType::A {
                let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 7)));
                answer.add_answer(Record::from_rdata(question.name().clone(), 0, data));
            }
            answer.add_query(question);
            let bytes = answer.to_vec().unwrap();
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let _ = socket.send_to(&bytes, from).await;
            });
        }
    });
    asked
}

/// A dnsmasq that is ended with the test.
struct Dnsmasq {
    process: Child,
    directory: tempfile::TempDir,
}

impl Dnsmasq {
    /// Starts one at [`LOCAL`], as Debian does, and waits until it answers. `nameservers` is
    /// what its `resolv.conf` says.
    async fn start(user: &str, nameservers: &str, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        std::fs::write(&file, nameservers).unwrap();
        // It reads them as another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let process = netns::tool("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-hosts",
            ])
            .args(["--bind-interfaces", "--cache-size=0", "--pid-file="])
            .arg(format!("--listen-address={LOCAL}"))
            .arg(format!("--user={user}"))
            .arg(format!("--resolv-file={}", file.display()))
            .args(["--log-queries", "--log-facility=-"])
            .arg("--address=/ready.test/192.0.2.1")
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .expect("dnsmasq (Debian's package dnsmasq-base)");
        let this = Self { process, directory };
        let began = Instant::now();
        while ask(format!("{LOCAL}:53").parse().unwrap(), "ready.test.", 1)
            .await
            .is_none()
        {
            assert!(began.elapsed() < Duration::from_secs(10), "{}", this.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        this
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// How often it sent a question on, in whatever case.
    fn forwarded(&self, name: &str) -> usize {
        let forwarded = format!("forwarded {name} to ");
        self.log().to_lowercase().matches(&forwarded).count()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A question about IPv4.
fn query(name: &str) -> Vec<u8> {
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    query.to_vec().unwrap()
}

/// The answer to a question about IPv4, if one comes within so many seconds.
async fn ask(server: SocketAddr, name: &str, seconds: u64) -> Option<Message> {
    ask_from("0.0.0.0", server, name, seconds).await
}

async fn ask_from(from: &str, server: SocketAddr, name: &str, seconds: u64) -> Option<Message> {
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    socket.send_to(&query(name), server).await.unwrap();
    let mut buffer = [0; 4096];
    let answer = tokio::time::timeout(Duration::from_secs(seconds), socket.recv(&mut buffer));
    let length = answer.await.ok()?.ok()?;
    Some(Message::from_vec(&buffer[..length]).unwrap())
}

fn addresses(answer: &Message) -> Vec<IpAddr> {
    let records = answer.answers.iter();
    records.filter_map(|record| record.data.ip_addr()).collect()
}

#[test]
fn a_dnsmasq_that_asks_here_is_passed_over() {
    // As another user, as Debian's packages are, and as root.
    for user in ["nobody", "root"] {
        on_a_host(|| async {
            let asked = outside(OUTSIDE, Duration::ZERO).await;
            responder(&[LOCAL, OUTSIDE]).await;
            let dnsmasq = Dnsmasq::start(user, "nameserver 10.0.0.53\n", &[]).await;
            for (name, seconds) in [("one.example.org.", 1), ("two.example.org.", 1)] {
                let began = Instant::now();
                let answer = ask(RESOLVER, name, seconds).await;
                let answer = answer.unwrap_or_else(|| panic!("{user}: {}", dnsmasq.log()));
                assert_eq!(addresses(&answer), [ANSWER], "after {:?}", began.elapsed());
            }
            // Who asks the dnsmasq is answered as well.
            let local = format!("{LOCAL}:53").parse().unwrap();
            let answer = ask(local, "three.example.org.", 3).await.unwrap();
            assert_eq!(addresses(&answer), [ANSWER]);
            let asked = asked.lock().unwrap();
            assert!(asked.values().all(|times| *times <= 2), "{asked:?}");
            let forwarded = ["one", "two"].map(|n| dnsmasq.forwarded(&format!("{n}.example.org")));
            assert_eq!(forwarded, [1, 0], "{}", dnsmasq.log());
        });
    }
}

#[test]
fn a_loop_without_another_server_is_a_failure_and_no_storm() {
    on_a_host(|| async {
        responder(&[LOCAL]).await;
        let dnsmasq = Dnsmasq::start("nobody", "nameserver 10.0.0.53\n", &[]).await;
        for name in ["one.example.org.", "two.example.org."] {
            let answer = ask(RESOLVER, name, 1).await.expect("an answer");
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        }
        // It writes down what it has done after it has done it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let forwarded = ["one", "two"].map(|n| dnsmasq.forwarded(&format!("{n}.example.org")));
        assert_eq!(forwarded, [1, 0], "{}", dnsmasq.log());
    });
}

#[test]
fn a_dnsmasq_with_servers_of_its_own_is_asked() {
    on_a_host(|| async {
        // Slower than it takes to ask twice.
        let asked = outside(OUTSIDE, Duration::from_millis(700)).await;
        responder(&[LOCAL]).await;
        let server = format!("--server={OUTSIDE}");
        let _dnsmasq = Dnsmasq::start("nobody", "", &["--no-resolv", &server]).await;
        for name in ["one.example.org.", "two.example.org."] {
            let other = name.to_uppercase();
            let (a, b, c) = tokio::join!(
                ask(RESOLVER, name, 5),
                ask(RESOLVER, name, 5),
                ask(RESOLVER, &other, 5)
            );
            for answer in [a, b, c] {
                assert_eq!(addresses(&answer.expect("an answer")), [ANSWER]);
            }
        }
        assert_eq!(asked.lock().unwrap()["one.example.org."], 1);
    });
}

#[test]
fn a_link_local_server_is_asked_by_its_interface() {
    on_a_host(|| async {
        for line in [
            "link add wire0 type veth peer name wire1",
            "link set wire0 up",
            "link set wire1 up",
            "address add fe80::1/64 dev wire1 nodad",
            "address add fe80::2/64 dev wire0 nodad",
        ] {
            netns::ip_output(line).unwrap();
        }
        let index = nix::net::if_::if_nametoindex("wire1").unwrap();
        let at = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, index);
        let socket = UdpSocket::bind(at).await.unwrap();
        responder(&["fe80::1%wire0"]).await;
        let asking = tokio::spawn(ask(RESOLVER, "example.org.", 3));
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let query = Message::from_vec(&buffer[..length]).unwrap();
        let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        answer.add_query(query.queries[0].clone());
        answer.metadata.response_code = ResponseCode::NXDomain;
        socket
            .send_to(&answer.to_vec().unwrap(), from)
            .await
            .unwrap();
        let answer = asking.await.unwrap().expect("an answer");
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    });
}

/// Where containers behind two bridges ask, and the bridges' indices.
const BRIDGES: [(SocketAddr, u32); 2] = [
    (
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 53)), 53),
        7,
    ),
    (
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 2, 53)), 53),
        8,
    ),
];

/// Whether somebody is answered at once.
async fn is_answered(from: &str, server: SocketAddr, name: &str) -> bool {
    let answer = ask_from(from, server, name, 1).await;
    answer.is_some_and(|answer| addresses(&answer) == [ANSWER])
}

#[test]
fn a_container_that_asks_much_leaves_others_their_places() {
    on_a_host(|| async {
        outside(OUTSIDE, Duration::ZERO).await;
        responder_of(&[OUTSIDE], &BRIDGES).await;
        let [(bridge, _), (other, _)] = BRIDGES;
        let loud = UdpSocket::bind("127.0.0.9:0").await.unwrap();
        for number in 0..300 {
            let name = format!("silent{number}.example.org.");
            loud.send_to(&query(&name), bridge).await.unwrap();
        }
        assert!(is_answered("0.0.0.0", RESOLVER, "host.example.org.").await);
        assert!(is_answered("127.0.0.10", bridge, "beside.example.org.").await);
        assert!(is_answered("127.0.0.11", other, "other.example.org.").await);
        // The same with as many sources as it likes.
        for number in 0..600u32 {
            let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 9, 0, 0).to_bits() + number);
            let made_up = UdpSocket::bind((from, 0)).await.unwrap();
            let name = format!("silent-too{number}.example.org.");
            made_up.send_to(&query(&name), bridge).await.unwrap();
        }
        for number in 0..20 {
            let names = ["host", "other"].map(|who| format!("{who}{number}.example.org."));
            assert!(is_answered("0.0.0.0", RESOLVER, &names[0]).await);
            assert!(is_answered("127.0.0.11", other, &names[1]).await);
        }
    });
}

#[test]
fn who_waits_for_a_question_of_others_has_a_share_too() {
    on_a_host(|| async {
        outside(OUTSIDE, Duration::ZERO).await;
        responder_of(&[OUTSIDE], &BRIDGES).await;
        let [(bridge, _), _] = BRIDGES;
        let loud = UdpSocket::bind("127.0.0.9:0").await.unwrap();
        for _ in 0..80 {
            loud.send_to(&query("silent.example.org."), bridge)
                .await
                .unwrap();
        }
        // What is too much is told at once; the server is waited for three seconds.
        let mut refused = 0;
        let mut buffer = [0; 512];
        let moment = Duration::from_millis(500);
        while let Ok(answer) = tokio::time::timeout(moment, loud.recv(&mut buffer)).await {
            let answer = Message::from_vec(&buffer[..answer.unwrap()]).unwrap();
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
            refused += 1;
        }
        assert!((50..80).contains(&refused), "{refused}");
        // Others wait, the host among them, and hear what comes of it.
        let ask = |from, at| ask_from(from, at, "silent.example.org.", 1);
        let (beside, host) = tokio::join!(ask("127.0.0.10", bridge), ask("0.0.0.0", RESOLVER));
        assert!(beside.is_none() && host.is_none(), "{beside:?} {host:?}");
    });
}

#[test]
fn connections_of_a_container_do_not_keep_others_from_theirs() {
    on_a_host(|| async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        outside(OUTSIDE, Duration::ZERO).await;
        responder_of(&[OUTSIDE], &BRIDGES).await;
        let [(bridge, _), _] = BRIDGES;
        let connect = async |from: &str| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket
                .bind((from.parse::<IpAddr>().unwrap(), 0).into())
                .unwrap();
            socket.connect(bridge).await.unwrap()
        };
        let mut idle = Vec::new();
        for _ in 0..100 {
            idle.push(connect("127.0.0.9").await);
        }
        let mut beside = connect("127.0.0.10").await;
        let question = query("x.anon.");
        let length = u16::try_from(question.len()).unwrap().to_be_bytes();
        beside
            .write_all(&[&length, &question[..]].concat())
            .await
            .unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(1), beside.read_u16()).await;
        assert!(answer.unwrap().unwrap() > 12);
    });
}
