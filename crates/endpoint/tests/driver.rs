//! The driver with real sockets on loopback: relays in a thread, and three endpoints.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use chacha20::ChaCha20Rng;
use mixline_endpoint::{
    Config, Endpoint, Error, Handle, Identity, MessageService, NoDevice, PacketBatch, PacketDevice,
};
use mixline_endpoint_engine::access::Access;
use mixline_endpoint_engine::clock::Now;
use mixline_endpoint_engine::testing::*;
use mixline_protocol::identity::{AnonymousId, IdentityKey, X25519Secret};
use mixline_protocol::name::Label;
use mixline_protocol::records::{
    DirectoryEntry, ListedRelay, LogHead, Parameters, ServiceDescriptor, SharedRandom, Signatures,
    Snapshot,
};
use rand_core::SeedableRng;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

/// Relays on 127.20.0.2, 127.21.0.2 and so on.
struct Relays {
    listed: Vec<ListedRelay>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Relays {
    fn start(count: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let (mut relays, mut sockets) = (Vec::new(), Vec::new());
        for number in 0..count {
            let mut relay = SimRelay::new(number.into(), &Parameters::default(), now(), &mut rng);
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 20 + number, 0, 2), 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            relay.addresses = vec![socket.local_addr().unwrap()];
            relays.push(relay);
            sockets.push(socket);
        }
        let (parameters, at) = (Parameters::default(), now().unix());
        let listed = relays.iter().map(|relay| relay.listed(&parameters, at));
        let listed = listed.collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if !poll(&mut relays, &sockets, &mut rng) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        });
        Self {
            listed,
            stop,
            thread: Some(thread),
        }
    }

    fn snapshot(
        &self,
        key: &IdentityKey,
        service: Option<Arc<ServiceDescriptor>>,
    ) -> Arc<Snapshot> {
        let at = now();
        let nothing = ServiceDescriptor {
            id: key.anonymous_id(),
            version: at.unix_ms,
            issued: at.unix(),
            expires: at.unix().plus(3600),
            session: mixline_protocol::identity::X25519Public([9; 32]),
            effort: mixline_protocol::effort::EffortTerms::default(),
            lease: None,
            tails: Vec::new(),
            clients: None,
            signature: [0; 64],
        };
        let snapshot = Snapshot {
            network: key.anonymous_id().into(),
            roster: 0,
            issued: at.unix(),
            valid_until: at.unix().plus(3600),
            previous: Default::default(),
            log: LogHead::default(),
            random: SharedRandom::default(),
            parameters: Parameters::default(),
            directories: vec![DirectoryEntry {
                service: Some(match service {
                    Some(service) => (*service).clone(),
                    None => nothing.sign(key).unwrap(),
                }),
                ..DirectoryEntry::default()
            }],
            relays: self.listed.clone(),
            signatures: Signatures::default(),
        };
        Arc::new(snapshot.sign(key).unwrap())
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn now() -> Now {
    Now::new(Instant::now(), SystemTime::now())
}

/// Moves what has come; false if nothing has.
fn poll(relays: &mut [SimRelay], sockets: &[UdpSocket], rng: &mut ChaCha20Rng) -> bool {
    let mut todo: Vec<(usize, Action)> = Vec::new();
    let mut bytes = [0; 1409];
    for at in 0..relays.len() {
        while let Ok((length, from)) = sockets[at].recv_from(&mut bytes) {
            assert_eq!(length, 1408, "every datagram has the same length");
            let mut datagram = bytes[..1408].try_into().unwrap();
            let actions = relays[at].datagram(&mut datagram, from, now(), rng);
            todo.extend(actions.into_iter().map(|action| (at, action)));
        }
    }
    let some = !todo.is_empty();
    while let Some((at, action)) = todo.pop() {
        match action {
            Action::Send(to, datagram) => {
                let _ = sockets[at].send_to(&datagram[..], to);
            }
            Action::Pass(short, mut cell) => {
                let next = relays
                    .iter()
                    .position(|relay| relay.short == short)
                    .unwrap();
                let actions = relays[next].cell(&mut cell, now(), rng);
                todo.extend(actions.into_iter().map(|action| (next, action)));
            }
        }
    }
    some
}

/// A device made of channels.
struct Wire {
    from_application: mpsc::Receiver<Vec<u8>>,
    to_application: mpsc::Sender<Vec<u8>>,
    attached: Arc<AtomicBool>,
}

impl PacketDevice for Wire {
    fn attach(&mut self) -> io::Result<()> {
        // Within the runtime: otherwise this panics.
        let _ = tokio::runtime::Handle::current();
        self.attached.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn receive(&mut self, packets: &mut PacketBatch) -> io::Result<()> {
        let gone = || io::Error::other("unplugged");
        let packet = self.from_application.recv().await.ok_or_else(gone)?;
        packets.push(&packet);
        while let Some(packet) = (!packets.is_full())
            .then(|| self.from_application.try_recv().ok())
            .flatten()
        {
            packets.push(&packet);
        }
        Ok(())
    }

    async fn send(&mut self, packets: &mut PacketBatch) -> io::Result<()> {
        for packet in packets.iter() {
            let _ = self.to_application.try_send(packet.to_vec());
        }
        Ok(())
    }
}

struct Directory(Mutex<Store>, IdentityKey);

impl MessageService for Directory {
    fn answer(&self, from: AnonymousId, request: &[u8]) -> Vec<u8> {
        self.0
            .lock()
            .unwrap()
            .answer(from, request, now().unix(), &self.1)
    }
}

struct Application {
    handle: Handle,
    send: mpsc::Sender<Vec<u8>>,
    receive: mpsc::Receiver<Vec<u8>>,
    attached: Arc<AtomicBool>,
}

fn identity() -> Identity {
    let mut random = mixline_protocol::random::OsRandom::new();
    Identity {
        key: IdentityKey::generate(&mut random),
        session: X25519Secret::generate(&mut random),
        access: Access::default(),
    }
}

type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

fn application(config: Config, snapshots: &Snapshots) -> Application {
    let (send, from_application) = mpsc::channel(10_000);
    let (to_application, receive) = mpsc::channel(10_000);
    let attached = Arc::new(AtomicBool::new(false));
    let device = Wire {
        from_application,
        to_application,
        attached: attached.clone(),
    };
    let handle = Endpoint::start(config, identity(), snapshots.clone(), device, None).unwrap();
    Application {
        handle,
        send,
        receive,
        attached,
    }
}

async fn online(handle: &Handle) {
    let mut online = handle.online();
    timeout(LONG, online.wait_for(|online| *online))
        .await
        .expect("online in time")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_endpoints_over_real_sockets() {
    let relays = Relays::start(8);
    let state = TempDir::new().unwrap();
    let directory_key = IdentityKey::from_seed([5; 32]);
    let (publish, snapshots) = watch::channel(None);

    // The directory: its descriptor goes into the snapshot.
    let mut config = Config::new(state.path().join("directory"));
    config.engine.accept_sessions = true;
    let key = IdentityKey::from_seed([5; 32]);
    let store = Arc::new(Directory(Mutex::default(), IdentityKey::from_seed([5; 32])));
    let own = Identity {
        key,
        session: identity().session,
        access: Access::default(),
    };
    let directory = Endpoint::start(
        config,
        own,
        snapshots.clone(),
        NoDevice,
        Some(store.clone()),
    )
    .unwrap();
    publish.send_replace(Some(relays.snapshot(&directory_key, None)));
    let mut descriptor = directory.descriptor();
    let own = timeout(LONG, descriptor.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap()
        .clone();
    publish.send_replace(Some(relays.snapshot(&directory_key, own)));

    // A service and a client.
    let mut config = Config::new(state.path().join("service"));
    (config.engine.accept_sessions, config.engine.publish) = (true, true);
    let mut service = application(config, &snapshots);
    let mut client = application(Config::new(state.path().join("client")), &snapshots);
    online(&service.handle).await;
    online(&client.handle).await;
    assert!(service.attached.load(Ordering::Relaxed));
    let service_lease = service.handle.directory().lease().await.unwrap();
    let client_lease = client.handle.directory().lease().await.unwrap();
    let label = Label::new("freespeech").unwrap();
    service.handle.directory().claim_name(label).await.unwrap();
    service.handle.directory().publish().await.unwrap();
    let found = client
        .handle
        .directory()
        .lookup_name(label)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.name.id, service.handle.id());
    assert_eq!(
        found.descriptor.unwrap().lease.unwrap().ipv4,
        service_lease.ipv4
    );

    // Packets, many at once.
    let mut expected: HashMap<Vec<u8>, u32> = HashMap::new();
    for number in 0..2000u32 {
        let data = [&number.to_be_bytes()[..], &[7; 1200]].concat();
        let packet = udp(client_lease.ipv4, service_lease.ipv4, (1, 2), &data);
        expected.insert(packet.clone(), number);
        client.send.send(packet).await.unwrap();
        if number == 0 {
            // The first one opens the session.
            let first = timeout(LONG, service.receive.recv())
                .await
                .unwrap()
                .unwrap();
            assert!(expected.remove(&first).is_some());
        } else if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    while expected.len() > 100 {
        let packet = timeout(LONG, service.receive.recv())
            .await
            .expect("most arrive")
            .unwrap();
        assert!(
            expected.remove(&packet).is_some(),
            "only what was sent, and once"
        );
    }
    let back = udp(service_lease.ipv4, client_lease.ipv4, (2, 1), b"thanks");
    service.send.send(back.clone()).await.unwrap();
    assert_eq!(
        timeout(LONG, client.receive.recv()).await.unwrap().unwrap(),
        back
    );

    let status = client.handle.status().await.unwrap();
    assert_eq!(status.ipv4, Some(client_lease.ipv4.to_string()));
    let peer = service.handle.id().to_string();
    let session = status
        .sessions
        .iter()
        .find(|session| session.peer == peer)
        .unwrap();
    assert!(session.paths.iter().all(|path| path.head.len() == 3));
    assert!(
        serde_json::to_string(&status)
            .unwrap()
            .contains("\"established\"")
    );

    // The guards are on disk, for nobody else to read, and the directory is locked.
    let path = state.path().join("client");
    let guards = path.join("guards.json");
    let stored = std::fs::read_to_string(&guards).unwrap();
    assert_eq!(stored.matches("\"fallback\": false").count(), 3);
    let mode = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode(&path), mode(&guards)), (0o700, 0o600));
    let twice = Endpoint::start(
        Config::new(path.clone()),
        identity(),
        snapshots.clone(),
        NoDevice,
        None,
    );
    let error = twice.err().expect("locked");
    assert!(error.to_string().contains("another endpoint"), "{error}");

    // The service stops, and everybody is told.
    service.handle.shutdown().await;
    assert!(service.handle.status().await.is_none());
    client
        .send
        .send(udp(client_lease.ipv4, service_lease.ipv4, (1, 2), b"?"))
        .await
        .unwrap();
    let answer = timeout(Duration::from_secs(6), client.receive.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kind_of(&answer), (1, Some((3, 1))));

    // Stopped and started again, the client has the same guards.
    client.handle.shutdown().await;
    let client = application(Config::new(path), &snapshots);
    online(&client.handle).await;
    let guards: Vec<String> = client
        .handle
        .status()
        .await
        .unwrap()
        .guards
        .into_iter()
        .map(|g| g.name)
        .collect();
    assert_eq!(
        guards,
        status
            .guards
            .into_iter()
            .map(|g| g.name)
            .collect::<Vec<_>>()
    );

    // A device that fails stops its endpoint.
    drop(client.send);
    let reason = timeout(LONG, client.handle.stopped()).await.unwrap();
    assert!(
        matches!(reason.as_deref(), Some(Error::Device(_))),
        "{reason:?}"
    );
    directory.shutdown().await;
}

#[tokio::test]
async fn an_endpoint_stops_with_its_last_handle() {
    let state = TempDir::new().unwrap();
    let (_publish, snapshots) = watch::channel(None);
    let path = state.path().join("state");
    let handle = Endpoint::start(
        Config::new(path.clone()),
        identity(),
        snapshots.clone(),
        NoDevice,
        None,
    )
    .unwrap();
    let mut events = handle.events();
    let status = handle.status().await.unwrap();
    assert!(!status.online && !status.problems.is_empty());
    drop(handle);
    let ended = timeout(LONG, events.recv()).await.unwrap();
    assert!(
        matches!(ended, Err(tokio::sync::broadcast::error::RecvError::Closed)),
        "{ended:?}"
    );
    // The lock is free again.
    let again = Endpoint::start(Config::new(path), identity(), snapshots, NoDevice, None).unwrap();
    again.shutdown().await;
}

#[test]
fn what_cannot_start_says_why() {
    let state = TempDir::new().unwrap();
    let (_publish, snapshots) = watch::channel(None);
    let start = |config: Config| {
        let error = Endpoint::start(config, identity(), snapshots.clone(), NoDevice, None).err();
        error.expect("refused").to_string()
    };
    let mut config = Config::new(state.path().join("a"));
    config.engine.guards = 9;
    assert_eq!(
        start(config),
        "configuration: guards is 9, but has to be 1 to 5"
    );

    let file = state.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(start(Config::new(file.clone())).contains("file"));

    let path = state.path().join("b");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("guards.json"), "{").unwrap();
    let why = start(Config::new(path));
    assert!(
        why.contains("guards.json") && why.contains("remove the file"),
        "{why}"
    );
}
