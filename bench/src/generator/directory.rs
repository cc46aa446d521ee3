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
    DirectoryEntry, Heartbeat, ListedRelay, LogHead, Parameters, Registration, RelayFlags,
    RelayRecord, ServiceDescriptor, SharedRandom, Signatures, Snapshot,
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
    neighbours: Vec<ListedRelay>,
    registered: Mutex<Option<RelayRecord>>,
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
            neighbours: neighbours.listed(parameters.epoch_seconds)?,
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
    pub fn registered(&self) -> Option<RelayRecord> {
        self.state.registered().clone()
    }

    /// How long epochs are, in seconds.
    #[must_use]
    pub fn epoch_seconds(&self) -> u32 {
        self.state.parameters.epoch_seconds
    }
}

impl State {
    fn registered(&self) -> MutexGuard<'_, Option<RelayRecord>> {
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
        let (status, answer) = if request.starts_with("GET /v2/snapshot ") {
            ("200 OK", self.snapshot(now)?.encode())
        } else if request.starts_with("GET /v2/roster ") {
            ("204 No Content", Vec::new())
        } else if request.starts_with("POST /v2/relays ") {
            let relay = Registration::decode(&body)?.record;
            relay.verify(now)?;
            *self.registered() = Some(relay);
            ("204 No Content", Vec::new())
        } else if request.starts_with("POST /v2/heartbeats ") && self.knows(&body)? {
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

    /// Whether what a heartbeat is about has been registered.
    fn knows(&self, heartbeat: &[u8]) -> Result<bool> {
        let named = Heartbeat::decode(heartbeat)?.record;
        let registered = self.registered();
        Ok(registered.as_ref().is_some_and(|it| it.digest() == named))
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
        let registered = self.registered().clone().map(|relay| listed(relay, now));
        let snapshot = Snapshot {
            network: id.into(),
            roster: 0,
            issued: now,
            valid_until: now.plus(VALID),
            previous: Default::default(),
            log: LogHead::default(),
            random: SharedRandom::default(),
            parameters: self.parameters,
            directories: vec![DirectoryEntry {
                service: Some(service.sign(&self.key)?),
                ..DirectoryEntry::default()
            }],
            relays: relays.chain(registered).collect(),
            signatures: Signatures::default(),
        };
        Ok(snapshot.sign(&self.key)?)
    }
}

/// A relay as it is listed: as it says itself.
fn listed(relay: RelayRecord, since: UnixTime) -> ListedRelay {
    ListedRelay {
        capacity: relay.descriptor.capacity,
        descriptor: relay.descriptor,
        onion: relay.onion,
        since,
        flags: RelayFlags::default(),
    }
}
