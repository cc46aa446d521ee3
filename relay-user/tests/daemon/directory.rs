//! Directories for tests: each signs all that registers with most of them, and can be told to misbehave.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use mixline_protocol::Error;
use mixline_protocol::identity::{
    Digest, IdentityKey, NetworkId, RelayId, SIGNATURE, X25519Secret,
};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{
    DirectoryEntry, Heartbeat, ListedRelay, LogHead, Member, OnlineKey, Parameters, Registration,
    RelayFlags, RelayRecord, Roster, ServiceDescriptor, SharedRandom, Signatures, Snapshot,
};
use mixline_protocol::time::UnixTime;

/// How long the rounds of several directories are, in seconds.
const ROUND: u32 = 10;

/// What a relay has told a directory.
struct Told {
    record: RelayRecord,
    heartbeat: Heartbeat,
}

/// What a directory does, and what it has.
#[derive(Default)]
struct State {
    relays: HashMap<RelayId, Told>,
    /// Signs with another key than it should.
    forge: bool,
    /// Does not answer.
    dead: bool,
    /// Goes on to show this round.
    stopped_at: Option<Vec<u8>>,
    /// Seconds that its clock is ahead.
    ahead: u64,
    /// Refuses so many registrations, for want of room.
    full_for: usize,
    /// The first addresses of all registrations.
    first: Vec<SocketAddr>,
    registrations: usize,
    heartbeats: usize,
}

/// What the directories of a network have in common; in truth they would not have each other's keys.
struct Network {
    parameters: Parameters,
    keys: Vec<(IdentityKey, IdentityKey)>,
    /// Empty for one that is alone.
    chain: Mutex<Vec<Roster>>,
    states: Vec<Mutex<State>>,
}

/// One directory.
#[derive(Clone)]
pub struct Directory {
    pub address: SocketAddr,
    pub id: NetworkId,
    network: Arc<Network>,
    index: usize,
}

impl Directory {
    pub fn start(parameters: Parameters) -> Self {
        Self::start_at("127.0.0.1:0", parameters)
    }

    pub fn start_at(address: &str, parameters: Parameters) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let network = Network::new(parameters, 1);
        let id = network.keys[0].0.anonymous_id().into();
        Self::serving(listener, id, Arc::new(network), 0)
    }

    /// Several directories of one network.
    pub fn start_several(count: usize, parameters: Parameters) -> Vec<Self> {
        let network = Network::new(parameters, count);
        let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = (0..count).map(bind).collect();
        let member = |(index, listener): (usize, &TcpListener)| Member {
            key: network.keys[index].0.public(),
            name: format!("d{index}"),
            url: format!("http://{}", listener.local_addr().unwrap()),
        };
        let members = listeners.iter().enumerate().map(member).collect();
        let mut roster = Roster::first(members, ROUND, 3600).unwrap();
        for (identity, _) in &network.keys {
            roster.sign(identity, None);
        }
        let id = roster.network();
        network.chain.lock().unwrap().push(roster);
        let network = Arc::new(network);
        let listeners = listeners.into_iter().enumerate();
        let directory =
            |(index, listener)| Self::serving(listener, id, Arc::clone(&network), index);
        listeners.map(directory).collect()
    }

    fn serving(listener: TcpListener, id: NetworkId, network: Arc<Network>, index: usize) -> Self {
        let directory = Self {
            address: listener.local_addr().unwrap(),
            id,
            network,
            index,
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
        let (network, index) = (Arc::clone(&self.network), self.index);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = answer(stream, &network, index);
            }
        });
        asked
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is listed.
    pub fn relays(&self) -> Vec<ListedRelay> {
        self.network.listed(now())
    }

    pub fn relay(&self, name: &str) -> Option<ListedRelay> {
        let mut relays = self.relays().into_iter();
        relays.find(|relay| relay.descriptor.name == name)
    }

    /// Whether this one has a relay.
    pub fn has(&self, name: &str) -> bool {
        let state = self.state();
        let mut relays = state.relays.values();
        relays.any(|told| told.record.descriptor.name == name)
    }

    /// Forgets all relays, as one that is started again.
    pub fn forget(&self) {
        self.state().relays.clear();
    }

    pub fn forge(&self, forge: bool) {
        self.state().forge = forge;
    }

    pub fn be_dead(&self, dead: bool) {
        self.state().dead = dead;
    }

    /// Shows the snapshot of now from now on.
    pub fn stop_at_this_round(&self) {
        let snapshot = self.network.snapshot(now()).encode();
        self.state().stopped_at = Some(snapshot);
    }

    pub fn is_full_for(&self, registrations: usize) {
        self.state().full_for = registrations;
    }

    pub fn first_addresses(&self) -> Vec<SocketAddr> {
        self.state().first.clone()
    }

    pub fn set_ahead(&self, seconds: u64) {
        self.state().ahead = seconds;
    }

    /// Registrations and heartbeats so far.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.registrations, state.heartbeats)
    }

    /// The roster becomes another one: the last directory has another name in it.
    pub fn rename_last(&self, name: &str) {
        let mut chain = self.network.chain.lock().unwrap();
        let before = chain.last().unwrap().clone();
        let mut members = before.members.clone();
        members.last_mut().unwrap().name = name.into();
        let mut next = before.next(members, ROUND, 3600).unwrap();
        for (identity, _) in &self.network.keys {
            next.sign(identity, Some(&before));
        }
        chain.push(next);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.network.states[self.index].lock().unwrap()
    }
}

fn now() -> UnixTime {
    SystemTime::now().into()
}

fn answer(stream: TcpStream, network: &Network, index: usize) -> std::io::Result<()> {
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
    let (ahead, dead) = {
        let state = network.states[index].lock().unwrap();
        (state.ahead, state.dead)
    };
    if dead {
        return Ok(());
    }
    let wall = SystemTime::now() + Duration::from_secs(ahead);
    let now = UnixTime::from(wall);
    let source = stream.peer_addr()?.ip();
    let (status, answer) = if request.starts_with("GET /v2/snapshot ") {
        ("200 OK", network.shown(index, now))
    } else if request.starts_with("GET /v2/roster ") {
        match &network.chain.lock().unwrap()[..] {
            [] => ("204 No Content", Vec::new()),
            chain => ("200 OK", Roster::encode_chain(chain)),
        }
    } else {
        let mut state = network.states[index].lock().unwrap();
        if request.starts_with("POST /v2/relays ") {
            state.register(&body, index, source, now)
        } else if request.starts_with("POST /v2/heartbeats ") {
            state.hear(&body, index)
        } else {
            ("404 Not Found", Vec::new())
        }
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

/// A directory's session key, with which relays prove their link keys.
fn session(index: usize) -> X25519Secret {
    X25519Secret::from_bytes([9 + index as u8; 32])
}

impl State {
    fn register(
        &mut self,
        body: &[u8],
        index: usize,
        source: std::net::IpAddr,
        now: UnixTime,
    ) -> (&'static str, Vec<u8>) {
        self.registrations += 1;
        let registration = match registered(body, index, now) {
            Ok(registration) => registration,
            Err(error) => return ("400 Bad Request", error.to_string().into_bytes()),
        };
        let Registration { heartbeat, record } = registration;
        let addresses = &record.descriptor.addresses;
        self.first.push(addresses[0]);
        if self.full_for > 0 {
            self.full_for -= 1;
            return ("503 Service Unavailable", b"full".to_vec());
        }
        // As a directory that checks sources.
        if addresses[0].ip() != source && addresses.iter().any(|at| at.ip() == source) {
            return ("403 Forbidden", b"the other address first".to_vec());
        }
        if let Some(known) = self.relays.get(&record.descriptor.id) {
            assert!(record.age() >= known.record.age(), "versions grow");
            assert!(heartbeat.version > known.heartbeat.version, "versions grow");
        }
        let told = Told { record, heartbeat };
        self.relays.insert(told.record.descriptor.id, told);
        ("204 No Content", Vec::new())
    }

    fn hear(&mut self, body: &[u8], index: usize) -> (&'static str, Vec<u8>) {
        self.heartbeats += 1;
        let heartbeat = Heartbeat::decode(body).unwrap();
        let known = self.relays.get_mut(&heartbeat.relay);
        let Some(told) = known.filter(|told| told.record.digest() == heartbeat.record) else {
            return ("404 Not Found", b"no such record".to_vec());
        };
        let link = told.record.descriptor.link;
        heartbeat.verify(&link, &session(index)).unwrap();
        assert!(heartbeat.version > told.heartbeat.version, "versions grow");
        if heartbeat.leaving {
            self.relays.remove(&heartbeat.relay);
        } else {
            told.heartbeat = heartbeat;
        }
        ("204 No Content", Vec::new())
    }
}

fn registered(body: &[u8], index: usize, now: UnixTime) -> Result<Registration, Error> {
    let registration = Registration::decode(body)?;
    let link = &registration.record.descriptor.link;
    registration.heartbeat.verify(link, &session(index))?;
    registration.record.verify(now)?;
    Ok(registration)
}

impl Network {
    fn new(parameters: Parameters, count: usize) -> Self {
        let rng = &mut OsRandom::new();
        let mut keys = || (IdentityKey::generate(rng), IdentityKey::generate(rng));
        Self {
            parameters,
            keys: (0..count).map(|_| keys()).collect(),
            chain: Mutex::default(),
            states: (0..count).map(|_| Mutex::default()).collect(),
        }
    }

    /// What one directory shows.
    fn shown(&self, index: usize, now: UnixTime) -> Vec<u8> {
        let mut snapshot = self.snapshot(now);
        let state = self.states[index].lock().unwrap();
        if let Some(old) = &state.stopped_at {
            return old.clone();
        }
        if state.forge {
            snapshot.signatures.put(0, [5; SIGNATURE]);
        }
        snapshot.encode()
    }

    /// The relays that most directories have.
    fn listed(&self, now: UnixTime) -> Vec<ListedRelay> {
        let first = mixline_protocol::epoch::current(now, self.parameters.epoch_seconds);
        let mut found = HashMap::new();
        for state in &self.states {
            for told in state.lock().unwrap().relays.values() {
                let entry = found.entry(told.record.descriptor.id);
                let (count, newest) = entry.or_insert_with(|| (0, told.record.clone()));
                *count += 1;
                if told.record.age() > newest.age() {
                    *newest = told.record.clone();
                }
            }
        }
        let listed = found.into_values().filter_map(|(count, record)| {
            let onion = record.onion.iter().filter(|(epoch, _)| *epoch >= first);
            Some(ListedRelay {
                onion: onion.copied().collect(),
                capacity: record.descriptor.capacity,
                flags: RelayFlags::default(),
                since: record.descriptor.issued,
                descriptor: record.descriptor,
            })
            .filter(|relay| count * 2 > self.states.len() && !relay.onion.is_empty())
        });
        listed.collect()
    }

    fn entry(&self, index: usize, roster: &Roster, now: UnixTime) -> DirectoryEntry {
        let (identity, online) = &self.keys[index];
        let service = ServiceDescriptor {
            id: identity.anonymous_id(),
            version: now.0,
            issued: now,
            expires: now.plus(600),
            session: session(index).public(),
            effort: mixline_protocol::effort::EffortTerms::default(),
            lease: None,
            tails: Vec::new(),
            clients: None,
            signature: [0; SIGNATURE],
        };
        let times = (now.minus(3600), now.plus(3600));
        let certified =
            OnlineKey::certify(roster.network(), online.public(), times, identity).unwrap();
        let keys = [certified].into_iter().filter(|_| !roster.is_alone());
        DirectoryEntry {
            keys: keys.collect(),
            commitment: None,
            service: Some(service.sign(identity).unwrap()),
        }
    }

    fn snapshot(&self, now: UnixTime) -> Snapshot {
        let roster = self.chain.lock().unwrap().last().cloned();
        let alone = || Roster::alone(self.keys[0].0.anonymous_id());
        let roster = roster.unwrap_or_else(alone);
        let issued = match roster.round_seconds {
            0 => now,
            round => now.minus(now.0 % u64::from(round)),
        };
        let indices = 0..self.keys.len();
        let entry = |index| self.entry(index, &roster, issued);
        let mut snapshot = Snapshot {
            network: roster.network(),
            roster: roster.version,
            issued,
            valid_until: issued.plus(600),
            previous: (UnixTime(0), Digest::default()),
            log: LogHead::default(),
            random: SharedRandom::default(),
            parameters: self.parameters,
            directories: indices.map(entry).collect(),
            relays: self.listed(issued),
            signatures: Signatures::default(),
        };
        if roster.is_alone() {
            return snapshot.sign(&self.keys[0].0).unwrap();
        }
        snapshot = snapshot.ordered().unwrap();
        let digest = snapshot.digest();
        for (index, (_, online)) in self.keys.iter().enumerate() {
            let signature = Snapshot::signature(&snapshot.network, issued, &digest, online);
            snapshot.signatures.put(index as u8, signature);
        }
        snapshot
    }
}
