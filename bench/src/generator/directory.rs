//! A directory of one relay under measurement and of the neighbours that it has: just what a
//! relay needs to start.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use mixline_protocol::identity::{AnonymousId, IdentityKey, SIGNATURE, X25519Secret};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{
    Parameters, Registration, RelayDescriptor, ServiceDescriptor, Snapshot,
};
use mixline_protocol::time::UnixTime;

use super::neighbours::Neighbours;

/// The longest request.
const LONGEST: usize = 64 << 10;
/// How long snapshots are good for, in seconds.
const VALID: u64 = 3600;

/// A directory that answers as long as the process lives.
pub struct Directory {
    /// Its ID.
    pub id: AnonymousId,
    state: Arc<State>,
}

struct State {
    key: IdentityKey,
    parameters: Parameters,
    neighbours: Vec<RelayDescriptor>,
    registered: Mutex<Option<RelayDescriptor>>,
}

impl Directory {
    /// Answers on `address` in the namespace of this thread. Snapshots have these neighbours, and
    /// who registers.
    ///
    /// # Errors
    /// Of the network.
    pub fn start(address: SocketAddr, neighbours: &Neighbours) -> Result<Self> {
        // One epoch for a whole day: no key changes under a measurement.
        let parameters = Parameters {
            epoch_seconds: 86_400,
            ..Parameters::default()
        };
        let listener = TcpListener::bind(address)?;
        let key = IdentityKey::generate(&mut OsRandom::new());
        let id = key.anonymous_id();
        let state = Arc::new(State {
            key,
            parameters,
            neighbours: neighbours.descriptors(parameters.epoch_seconds)?,
            registered: Mutex::new(None),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who asks wrongly is told by the end of the connection.
                let _ = shared.answer(stream);
            }
        });
        Ok(Self { id, state })
    }

    /// What the relay says of itself, once it has registered.
    #[must_use]
    pub fn registered(&self) -> Option<RelayDescriptor> {
        self.state.registered().clone()
    }

    /// How long epochs are, in seconds.
    #[must_use]
    pub fn epoch_seconds(&self) -> u32 {
        self.state.parameters.epoch_seconds
    }
}

impl State {
    fn registered(&self) -> MutexGuard<'_, Option<RelayDescriptor>> {
        self.registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(&stream).take(LONGEST as u64);
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        ensure!(length <= LONGEST, "too long");
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let now = UnixTime::from(SystemTime::now());
        let (status, answer) = if request.starts_with("GET /v1/snapshot ") {
            ("200 OK", self.snapshot(now)?.encode())
        } else if request.starts_with("POST /v1/relays ") {
            let relay = Registration::decode(&body)?.descriptor;
            relay.verify(now)?;
            *self.registered() = Some(relay);
            ("204 No Content", Vec::new())
        } else {
            ("404 Not Found", Vec::new())
        };
        let mut head =
            format!("HTTP/1.1 {status}\r\nCache-Control: max-age=1\r\nConnection: close\r\n");
        if !status.starts_with("204") {
            head += &format!("Content-Length: {}\r\n", answer.len());
        }
        head += "\r\n";
        (&stream).write_all(head.as_bytes())?;
        Ok((&stream).write_all(&answer)?)
    }

    fn snapshot(&self, now: UnixTime) -> Result<Snapshot> {
        let id = self.key.anonymous_id();
        let service = ServiceDescriptor {
            id,
            version: now.0,
            issued: now,
            expires: now.plus(VALID),
            session: X25519Secret::from_bytes([9; 32]).public(),
            effort: mixline_protocol::effort::EffortTerms::default(),
            lease: None,
            tails: Vec::new(),
            clients: None,
            signature: [0; SIGNATURE],
        };
        let relays = self.neighbours.iter().cloned();
        let snapshot = Snapshot {
            directory: id,
            issued: now,
            valid_until: now.plus(VALID),
            parameters: self.parameters,
            relays: relays.chain(self.registered().clone()).collect(),
            directory_service: service.sign(&self.key)?,
            signature: [0; SIGNATURE],
        };
        Ok(snapshot.sign(&self.key)?)
    }
}
