//! A directory for tests: it signs all that registers, and can be told to misbehave.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mixline_protocol::identity::{AnonymousId, IdentityKey, RelayId, SIGNATURE, X25519Secret};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{
    Parameters, Registration, RelayDescriptor, ServiceDescriptor, Snapshot,
};
use mixline_protocol::time::UnixTime;

/// What the directory does, and what it has.
#[derive(Default)]
struct State {
    relays: HashMap<RelayId, RelayDescriptor>,
    parameters: Parameters,
    /// Signs with another key than it should.
    forge: bool,
    /// Seconds that its clock is ahead.
    ahead: u64,
    /// Refuses so many registrations, for want of room.
    full_for: usize,
    /// The first addresses of all registrations.
    first: Vec<SocketAddr>,
}

pub struct Directory {
    pub address: SocketAddr,
    pub id: AnonymousId,
    key: Arc<IdentityKey>,
    state: Arc<Mutex<State>>,
}

impl Directory {
    pub fn start(parameters: Parameters) -> Self {
        Self::start_at("127.0.0.1:0", parameters)
    }

    pub fn start_at(address: &str, parameters: Parameters) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let key = Arc::new(IdentityKey::generate(&mut OsRandom::new()));
        let id = key.anonymous_id();
        let state = Arc::new(Mutex::new(State {
            parameters,
            ..State::default()
        }));
        let directory = Self {
            address,
            id,
            key,
            state,
        };
        directory.serve(listener);
        directory
    }

    /// Answers at another address as well: that, and how often it is asked there.
    pub fn also_elsewhere(&self) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (address, self.serve(listener))
    }

    fn serve(&self, listener: TcpListener) -> Arc<AtomicUsize> {
        let (key, shared) = (Arc::clone(&self.key), Arc::clone(&self.state));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = answer(stream, &key, &shared);
            }
        });
        asked
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn relays(&self) -> Vec<RelayDescriptor> {
        self.state
            .lock()
            .unwrap()
            .relays
            .values()
            .cloned()
            .collect()
    }

    pub fn relay(&self, name: &str) -> Option<RelayDescriptor> {
        self.relays().into_iter().find(|relay| relay.name == name)
    }

    pub fn forge(&self, forge: bool) {
        self.state.lock().unwrap().forge = forge;
    }

    pub fn is_full_for(&self, registrations: usize) {
        self.state.lock().unwrap().full_for = registrations;
    }

    pub fn first_addresses(&self) -> Vec<SocketAddr> {
        self.state.lock().unwrap().first.clone()
    }

    pub fn set_ahead(&self, seconds: u64) {
        self.state.lock().unwrap().ahead = seconds;
    }
}

fn answer(stream: TcpStream, key: &IdentityKey, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(&stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut state = state.lock().unwrap();
    let wall = SystemTime::now() + Duration::from_secs(state.ahead);
    let now = UnixTime::from(wall);
    let (status, answer) = if request.starts_with("GET /v1/snapshot ") {
        ("200 OK", snapshot(&state, key, now).encode())
    } else if request.starts_with("POST /v1/relays ") {
        let source = stream.peer_addr()?.ip();
        let registered = registered(&body, now);
        state
            .first
            .extend(registered.iter().map(|relay| relay.addresses[0]));
        match registered {
            Ok(_) if state.full_for > 0 => {
                state.full_for -= 1;
                ("503 Service Unavailable", b"full".to_vec())
            }
            // As a directory that checks sources.
            Ok(relay)
                if relay.addresses[0].ip() != source
                    && relay.addresses.iter().any(|at| at.ip() == source) =>
            {
                ("403 Forbidden", b"the other address first".to_vec())
            }
            Ok(relay) => {
                let known = state.relays.get(&relay.id).map_or(0, |known| known.version);
                assert!(relay.version > known, "versions grow");
                state.relays.insert(relay.id, relay);
                ("204 No Content", Vec::new())
            }
            Err(error) => ("400 Bad Request", error.to_string().into_bytes()),
        }
    } else {
        ("404 Not Found", Vec::new())
    };
    let date = httpdate::fmt_http_date(wall);
    let mut out = format!(
        "HTTP/1.1 {status}\r\nDate: {date}\r\nCache-Control: max-age=1\r\n\
         Connection: close\r\n"
    );
    if !status.starts_with("204") {
        out += &format!("Content-Length: {}\r\n", answer.len());
    }
    out += "\r\n";
    (&stream).write_all(out.as_bytes())?;
    (&stream).write_all(&answer)
}

/// The directory's session key, with which relays prove their link keys.
fn session() -> X25519Secret {
    X25519Secret::from_bytes([9; 32])
}

fn registered(body: &[u8], now: UnixTime) -> mixline_protocol::Result<RelayDescriptor> {
    let registration = Registration::decode(body)?;
    registration.verify_proof(&session())?;
    registration.descriptor.verify(now)?;
    Ok(registration.descriptor)
}

fn snapshot(state: &State, key: &IdentityKey, now: UnixTime) -> Snapshot {
    let id = key.anonymous_id();
    let service = ServiceDescriptor {
        id,
        version: now.0,
        issued: now,
        expires: now.plus(600),
        session: session().public(),
        effort: mixline_protocol::effort::EffortTerms::default(),
        lease: None,
        tails: Vec::new(),
        clients: None,
        signature: [0; SIGNATURE],
    };
    let mut snapshot = Snapshot {
        directory: id,
        issued: now,
        valid_until: now.plus(600),
        parameters: state.parameters,
        relays: state.relays.values().cloned().collect(),
        directory_service: service.sign(key).unwrap(),
        signature: [0; SIGNATURE],
    }
    .sign(key)
    .unwrap();
    if state.forge {
        snapshot.signature[5] ^= 1;
    }
    snapshot
}
