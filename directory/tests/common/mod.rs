//! A directory daemon of the test's own: its own state, its own port, its own process.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::SystemTime;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, Uri};
use hyper_util::rt::TokioIo;
use mixline_protocol::identity::{AnonymousId, IdentityKey, X25519Public, X25519Secret};
use mixline_protocol::records::{Heartbeat, Registration, RelayDescriptor, RelayRecord};
use mixline_protocol::time::UnixTime;
use tokio::net::TcpSocket;

pub const BINARY: &str = env!("CARGO_BIN_EXE_mixline-directory");

pub fn now() -> UnixTime {
    SystemTime::now().into()
}

/// A directory of files: configuration and state.
pub struct Setup {
    pub dir: tempfile::TempDir,
}

impl Setup {
    /// With a configuration that listens at a port of the kernel's choice.
    pub fn new(more: &str) -> Self {
        let setup = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        setup.configure("127.0.0.1:0", more);
        setup
    }

    pub fn configure(&self, listen: &str, more: &str) {
        let state = self.state();
        let text = format!(
            "state_dir: {}\nlisten: {listen}\nallow_private_addresses: true\n{more}\n",
            state.display()
        );
        std::fs::write(self.config(), text).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("directory.yaml")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// `mixline-directory init`.
    pub fn init(&self) -> AnonymousId {
        let output = self.output(&["init"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// What relay `n` sends to register in this version.
    pub fn registration(&self, n: u16, version: u64) -> Vec<u8> {
        self.sign(n, relay(n, version)).encode()
    }

    /// A descriptor with onion keys, and relay `n`'s proof that the link key in it is its own.
    pub fn sign(&self, n: u16, descriptor: RelayDescriptor) -> Registration {
        self.sign_at(n, descriptor, now())
    }

    /// The same, at a time.
    pub fn sign_at(&self, n: u16, descriptor: RelayDescriptor, at: UnixTime) -> Registration {
        let record = relay_record(n, descriptor);
        let heartbeat = self.heartbeat(n, &record, at.0 * 1000);
        Registration { heartbeat, record }
    }

    /// That relay `n` is there.
    pub fn heartbeat(&self, n: u16, record: &RelayRecord, version: u64) -> Heartbeat {
        let session = std::fs::read(self.state().join("session.key")).unwrap();
        let session = X25519Secret::from_bytes(session.try_into().unwrap());
        let keys = (&relay_link(n), &session.public());
        let (id, digest) = (record.descriptor.id, record.digest());
        Heartbeat::new(id, version, (7, false), digest, keys).unwrap()
    }

    /// Runs a command to its end.
    pub fn output(&self, args: &[&str]) -> Output {
        command(&self.config()).args(args).output().unwrap()
    }

    /// The one line with which a command that must fail fails.
    pub fn failure(&self, args: &[&str]) -> String {
        one_line(&self.output(args))
    }
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command
        .arg("--config")
        .arg(config)
        .env("MIXLINE_LOG", "info");
    command
}

/// What a failed program said: one line.
#[track_caller]
pub fn one_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it did not fail");
    assert_eq!(output.status.code(), Some(1), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].starts_with("mixline-directory: "), "{text}");
    lines[0].to_owned()
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    pub child: Child,
    pub url: String,
    log: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Daemon {
    /// Starts it, and waits until it serves.
    pub fn start(setup: &Setup) -> Self {
        Self::from(command(&setup.config()))
    }

    /// Starts it by a command, and waits until it serves.
    pub fn from(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        let url = loop {
            match lines.next() {
                Some(Ok(line)) => match line.split_once("serves ") {
                    Some((_, url)) => break url.trim().to_owned(),
                    None => seen.push(line),
                },
                _ => panic!("it did not start: {seen:?}"),
            }
        };
        // Somebody must read what it says, or it waits for ever.
        let log = std::thread::spawn(move || lines.map_while(Result::ok).collect());
        Self {
            child,
            url,
            log: Some(log),
        }
    }

    /// What it said, once it has ended.
    pub fn log(&mut self) -> Vec<String> {
        self.log.take().unwrap().join().unwrap()
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("http://").parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Relay `n`'s own loopback address.
pub fn address_of(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(127, 77, high, low)
}

pub fn relay_key(n: u16) -> IdentityKey {
    let mut seed = [3; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    IdentityKey::from_seed(seed)
}

pub fn relay_link(n: u16) -> X25519Secret {
    // The first byte is clamped.
    let mut bytes = [4; 32];
    bytes[1..3].copy_from_slice(&n.to_be_bytes());
    X25519Secret::from_bytes(bytes)
}

/// Relay `n` as it describes itself now.
pub fn relay(n: u16, version: u64) -> RelayDescriptor {
    let key = relay_key(n);
    RelayDescriptor {
        id: key.relay_id(),
        version,
        issued: now(),
        expires: now().plus(600),
        link: relay_link(n).public(),
        addresses: vec![SocketAddr::from((address_of(n), 7000))],
        capacity: 1000,
        family: Some("red".into()),
        name: format!("relay{n}"),
        software: "test".into(),
        signature: [0; 64],
    }
    .sign(&key)
    .unwrap()
}

/// A descriptor with onion keys of now, which are relay `n`'s alone.
pub fn relay_record(n: u16, descriptor: RelayDescriptor) -> RelayRecord {
    let mut key = [2; 32];
    key[..2].copy_from_slice(&n.to_be_bytes());
    let epoch = mixline_protocol::epoch::current(now(), 3600);
    let onion = [(epoch, X25519Public(key))].into_iter().collect();
    let version = descriptor.version;
    RelayRecord::sign(descriptor, version, onion, &relay_key(n)).unwrap()
}

/// What was answered to a request.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }
}

/// A request that comes from relay `n`'s address, over a connection of its own.
pub async fn ask(
    n: u16,
    method: Method,
    url: &str,
    header: Option<(&'static str, &str)>,
    body: Vec<u8>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let uri: Uri = url.parse()?;
    let to = uri.authority().ok_or("no authority")?.as_str();
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((address_of(n), 0)))?;
    let stream = socket.connect(to.parse()?).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(uri.path())
        .header("host", to);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Full::<Bytes>::from(body))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.collect().await?.to_bytes(),
    })
}
