//! Honest newcomers: clients that start and open a session with the service, questions for a name,
//! a relay that registers. Each is tried at a fixed pace, whether or not the earlier ones have
//! succeeded, and counts from when it was due.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use mixline_directory_client::{DirectoryClient, FollowStatus};
use mixline_endpoint::{Config, Endpoint, Handle, NoDevice, PING_INTERVAL};
use mixline_protocol::epoch;
use mixline_protocol::identity::{AnonymousId, IdentityKey, SIGNATURE, X25519Secret};
use mixline_protocol::name::Label;
use mixline_protocol::path::OnionSecret;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{
    Heartbeat, OnionKeys, Registration, RelayDescriptor, RelayRecord, Snapshot,
};
use mixline_testnet::guests::NEWCOMERS;
use mixline_testnet::topology::RELAY_PORT;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{new_identity, now};

/// What succeeds later has failed.
const WITHIN: Duration = Duration::from_secs(5);
/// How long whoever has failed may take to say why.
const SAYING: Duration = Duration::from_millis(500);
/// How long the network has to answer when nothing is attacked yet.
const PATIENCE: Duration = Duration::from_secs(60);
/// From one client that starts to the next, and from one question to the next.
const EVERY: Duration = Duration::from_millis(250);
/// Among so many of these is one registration: a source has one a second.
const PER_REGISTRATION: u32 = 4;

/// The network, and what is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct How {
    /// Where the directory is.
    #[arg(long)]
    url: String,
    /// Its ID.
    #[arg(long)]
    directory: AnonymousId,
    /// The service that sessions are opened with.
    #[arg(long)]
    service: AnonymousId,
    /// The name that is looked up.
    #[arg(long)]
    name: Label,
    /// A file with the guards of a client, which all clients have here.
    #[arg(long)]
    guards: PathBuf,
}

/// What was tried, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// How often.
    pub tried: u64,
    /// How often it succeeded in time.
    pub succeeded: u64,
    /// How long the slowest took that succeeded, in milliseconds.
    pub slowest_ms: f64,
    /// Why it failed, and how often.
    pub failures: BTreeMap<String, u64>,
}

/// What newcomers got in some seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Clients that started and had an answer of the service over a session of their own.
    pub sessions: Tried,
    /// Questions for a name, by a client that had a session with the directory before.
    pub lookups: Tried,
    /// Registrations of a relay.
    pub registrations: Tried,
}

impl Tried {
    /// The share that succeeded; none if nothing was tried.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.tried > 0).then(|| self.succeeded as f64 / self.tried as f64)
    }

    fn count(&mut self, took: Result<Duration>) {
        self.tried += 1;
        match took {
            Ok(took) => {
                self.succeeded += 1;
                self.slowest_ms = self.slowest_ms.max(took.as_secs_f64() * 1e3);
            }
            Err(error) => *self.failures.entry(error.to_string()).or_default() += 1,
        }
    }
}

pub fn serve(how: &How) -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let newcomers = Arc::new(Newcomers::meet(how).await?);
        say("ready")?;
        while let Some(seconds) = next_line().await? {
            let seconds = Duration::from_secs_f64(seconds.trim().parse()?);
            let counted = newcomers.measure(seconds).await;
            say(&serde_json::to_string(&counted)?)?;
        }
        Ok(())
    })
}

fn say(line: &str) -> Result<()> {
    println!("{line}");
    Ok(std::io::stdout().flush()?)
}

/// A line of the input; none at its end.
async fn next_line() -> Result<Option<String>> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = read.await??;
    Ok((!line.is_empty()).then_some(line))
}

/// What all newcomers have in common.
struct Newcomers {
    how: How,
    guards: String,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// A client that was there before, with its state.
    standing: (Handle, TempDir),
    relay: Relay,
}

impl Newcomers {
    /// Gets a snapshot, and starts the client that asks for names.
    async fn meet(how: &How) -> Result<Self> {
        let guards = std::fs::read_to_string(&how.guards)
            .with_context(|| format!("reading {}", how.guards.display()))?;
        let (sender, mut snapshots) = watch::channel(None);
        let (status, _) = watch::channel(FollowStatus::default());
        let client = DirectoryClient::new(&how.url, how.directory)?;
        tokio::spawn(client.follow(sender, status));
        let first = timeout(PATIENCE, snapshots.wait_for(Option::is_some)).await;
        first.context("no snapshot")??;
        let standing = start(&guards, &snapshots)?;
        let directory = standing.0.directory();
        let found = timeout(PATIENCE, directory.lookup_name(how.name)).await;
        ensure!(
            found.context("the directory does not answer")??.is_some(),
            "nobody has the name"
        );
        Ok(Self {
            how: how.clone(),
            guards,
            snapshots,
            standing,
            relay: Relay::new(),
        })
    }

    /// Tries everything for so long, and waits for what is under way then.
    async fn measure(self: &Arc<Self>, time: Duration) -> Counted {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0.. {
            let due = began + EVERY * number;
            if due >= began + time {
                break;
            }
            sleep_until(due).await;
            let me = Arc::clone(self);
            tasks.spawn(async move { (What::Session, timed(due, me.session()).await) });
            let me = Arc::clone(self);
            tasks.spawn(async move { (What::Lookup, timed(due, me.lookup()).await) });
            if number % PER_REGISTRATION == 0 {
                let me = Arc::clone(self);
                tasks.spawn(async move { (What::Registration, timed(due, me.register()).await) });
            }
        }
        let mut counted = Counted::default();
        while let Some(done) = tasks.join_next().await {
            let Ok((what, took)) = done else { continue };
            match what {
                What::Session => counted.sessions.count(took),
                What::Lookup => counted.lookups.count(took),
                What::Registration => counted.registrations.count(took),
            }
        }
        counted
    }

    /// A client that starts, looks the service up, and has an answer of it.
    async fn session(&self) -> Result<()> {
        let (handle, state) = start(&self.guards, &self.snapshots)?;
        let asked = handle.ping(self.how.service, 1, PING_INTERVAL);
        let report = timeout(WITHIN, asked).await;
        let reached = match report {
            Ok(_) => String::new(),
            Err(_) => guards_up(&handle).await,
        };
        // Its goodbye takes none of the time.
        tokio::spawn(async move {
            let _ = timeout(WITHIN, handle.shutdown()).await;
            drop(state);
        });
        let report = report.with_context(|| format!("no answer in time{reached}"))??;
        let answered = report.paths.iter().any(|path| path.answered > 0);
        ensure!(answered, "no answer over the session");
        Ok(())
    }

    async fn lookup(&self) -> Result<()> {
        let directory = self.standing.0.directory();
        let found = directory.lookup_name(self.how.name).await?;
        ensure!(found.is_some(), "nobody has the name");
        Ok(())
    }

    async fn register(&self) -> Result<()> {
        let snapshot = self.snapshots.borrow().clone().context("no snapshot")?;
        // A connection of its own, as a relay's that has been silent.
        let mut client = DirectoryClient::new(&self.how.url, self.how.directory)?;
        let registration = self.relay.registration(&snapshot)?;
        Ok(client.register(&registration).await?)
    }
}

#[derive(Clone, Copy)]
enum What {
    Session,
    Lookup,
    Registration,
}

/// How long it took, from when it was due.
async fn timed(due: Instant, what: impl Future<Output = Result<()>>) -> Result<Duration> {
    let late = || anyhow!("no answer in time");
    // Whoever knows why gets a moment to say so.
    let said = timeout_at(due + WITHIN + SAYING, what).await;
    said.map_err(|_| late())??;
    let took = due.elapsed();
    if took <= WITHIN {
        Ok(took)
    } else {
        Err(late())
    }
}

/// How many guards a client has reached, for the reason of a failure.
async fn guards_up(handle: &Handle) -> String {
    let Some(status) = handle.status().await else {
        return String::new();
    };
    let up = status.guards.iter().filter(|guard| guard.state == "up");
    format!(", {} of {} guards reached", up.count(), status.guards.len())
}

/// A client with guards, and where it remembers them.
fn start(
    guards: &str,
    snapshots: &watch::Receiver<Option<Arc<Snapshot>>>,
) -> Result<(Handle, TempDir)> {
    let state = tempfile::tempdir()?;
    std::fs::write(state.path().join("guards.json"), guards)?;
    let config = Config::new(state.path().into());
    let handle = Endpoint::start(config, new_identity(), snapshots.clone(), NoDevice, None)?;
    Ok((handle, state))
}

/// A relay that registers. It forwards nothing, so it has no onion key of this epoch or the next one: nobody
/// can build a path over it.
struct Relay {
    identity: IdentityKey,
    link: X25519Secret,
    onion: OnionSecret,
}

impl Relay {
    fn new() -> Self {
        let rng = &mut OsRandom::new();
        Self {
            identity: IdentityKey::generate(rng),
            link: X25519Secret::generate(rng),
            onion: OnionSecret::generate(rng),
        }
    }

    fn registration(&self, snapshot: &Snapshot) -> Result<Registration> {
        let seconds = snapshot.parameters.epoch_seconds;
        let later = epoch::current(now(), seconds) + 2;
        let mut onion = OnionKeys::new();
        onion.push((later, self.onion.public()));
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let version = u64::try_from(since.as_micros())?;
        let descriptor = RelayDescriptor {
            id: self.identity.relay_id(),
            version,
            issued: now(),
            expires: now().plus(3600),
            link: self.link.public(),
            addresses: vec![SocketAddr::from((NEWCOMERS.ipv4, RELAY_PORT))],
            capacity: 1,
            family: None,
            name: "newcomer".into(),
            software: String::new(),
            signature: [0; SIGNATURE],
        };
        let descriptor = descriptor.sign(&self.identity)?;
        let record = RelayRecord::sign(descriptor, version, onion, &self.identity)?;
        let directory = snapshot.service().context("no directory")?.session;
        let heartbeat = Heartbeat::new(
            self.identity.relay_id(),
            version,
            (0, false),
            record.digest(),
            (&self.link, &directory),
        )?;
        Ok(Registration { heartbeat, record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_counted() {
        let mut tried = Tried::default();
        assert_eq!(tried.share(), None);
        tried.count(Ok(Duration::from_millis(20)));
        tried.count(Ok(Duration::from_millis(7)));
        tried.count(Err(anyhow!("no answer in time")));
        tried.count(Err(anyhow!("no answer in time")));
        assert_eq!((tried.share(), tried.slowest_ms), (Some(0.5), 20.0));
        assert_eq!(tried.failures["no answer in time"], 2);
    }
}
