//! Throw-away IDs: clients that nobody has seen before, each with a session with the directory that it
//! keeps by asking something every now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mixline_endpoint::{Config, Endpoint, Handle, NoDevice};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::{ServiceDescriptor, Snapshot};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

use super::turns::{LOOK, Limits, Turn};
use super::{Network, new_identity};

/// How long a question to the directory may take before the attack begins.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between the beginnings of two clients: the directory answers 50 initiations in a second.
const APART: Duration = Duration::from_millis(20);

/// How many, and how they keep their places.
#[derive(Debug, clap::Args)]
pub struct How {
    /// How many clients there are.
    #[arg(long)]
    count: usize,
    /// How often each asks something, in seconds.
    #[arg(long)]
    every: u64,
}

/// A client, and where it remembers its guards.
struct Client {
    handle: Handle,
    asked: Instant,
    _state: TempDir,
}

pub fn attack(network: &Network, limits: &Limits, how: &How) -> Result<()> {
    let snapshot = Arc::new(network.snapshot()?);
    let runtime = runtime()?;
    let every = Duration::from_secs(how.every);
    let mut clients: Vec<Client> = Vec::new();
    let mut turn = Turn::wait(limits)?;
    let (sender, snapshots) = watch::channel(Some(snapshot));
    let began = Instant::now();
    while turn.goes_on() {
        let due = began.elapsed().as_millis() / APART.as_millis();
        while clients.len() < how.count.min(usize::try_from(due)?) && turn.goes_on() {
            clients.push(runtime.block_on(start(snapshots.clone()))?);
            turn.sent(1);
        }
        for client in &mut clients {
            if client.asked.elapsed() >= every {
                client.ask(&runtime);
                turn.sent(1);
            }
        }
        std::thread::sleep(LOOK);
    }
    drop(sender);
    runtime.block_on(async {
        let all = clients.iter().map(|client| client.handle.shutdown());
        let all = async {
            for one in all {
                one.await;
            }
        };
        // Who says nothing at the end is forgotten a little later.
        let _ = timeout(Duration::from_secs(5), all).await;
    });
    turn.end()
}

impl Client {
    /// Asks for an ID that nobody has; the answer is of no interest.
    fn ask(&mut self, runtime: &Runtime) {
        self.asked = Instant::now();
        let directory = self.handle.directory();
        let nobody = new_identity().key.anonymous_id();
        runtime.spawn(async move {
            let _ = directory.lookup_id(nobody).await;
        });
    }
}

async fn start(snapshots: watch::Receiver<Option<Arc<Snapshot>>>) -> Result<Client> {
    let state = tempfile::tempdir()?;
    let config = Config::new(state.path().into());
    let handle = Endpoint::start(config, new_identity(), snapshots, NoDevice, None)?;
    let directory = handle.directory();
    let nobody = new_identity().key.anonymous_id();
    tokio::spawn(async move {
        let _ = directory.lookup_id(nobody).await;
    });
    Ok(Client {
        handle,
        asked: Instant::now(),
        _state: state,
    })
}

/// Somebody who asks the directory what others have published.
pub struct Asker {
    runtime: Runtime,
    client: Client,
    // The client has no directory without it.
    _snapshots: watch::Sender<Option<Arc<Snapshot>>>,
}

impl Asker {
    pub fn new(snapshot: &Snapshot) -> Result<Self> {
        let (sender, snapshots) = watch::channel(Some(Arc::new(snapshot.clone())));
        let runtime = runtime()?;
        let client = runtime.block_on(start(snapshots))?;
        Ok(Self {
            runtime,
            client,
            _snapshots: sender,
        })
    }

    /// What an ID has published.
    ///
    /// # Errors
    /// If the directory does not answer, or knows of nothing.
    pub fn look_up(&self, id: AnonymousId) -> Result<ServiceDescriptor> {
        let directory = self.client.handle.directory();
        let found = async { timeout(PATIENCE, directory.lookup_id(id)).await };
        let found = self.runtime.block_on(found);
        let found = found.context("the directory does not answer")??;
        found.with_context(|| format!("{id} has published nothing"))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let goodbye = async { timeout(PATIENCE, self.client.handle.shutdown()).await };
        let _ = self.runtime.block_on(goodbye);
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?)
}
