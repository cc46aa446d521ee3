//! All directories of a network: one is asked, and another one where that is of no use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mixline_protocol::identity::NetworkId;
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::Snapshot;
use mixline_protocol::time::UnixTime;
use rand_core::Rng as _;
use tokio::time::Instant;

use crate::client::Seen;
use crate::standing::Standing;
use crate::{DirectoryClient, DirectoryStatus, Error, Fetched, Known, Result};

/// A client of a network, which any of its directories serves.
///
/// Which one is asked is left to chance each time, so that none can keep a client to itself. One that does
/// not answer, or says what is not so, is asked again only after a while, or if all others fail as well. What
/// any says is believed if a quorum has signed it; the most that a directory can do is to withhold the
/// newest, and then another one is asked.
#[derive(Debug)]
pub struct NetworkClient {
    known: Known,
    configured: Vec<String>,
    directories: Vec<Directory>,
    seen: Option<Seen>,
    max_age: Option<Duration>,
    clock_ahead: Option<i64>,
    now: fn() -> SystemTime,
}

/// One address of a directory.
#[derive(Debug)]
struct Directory {
    client: DirectoryClient,
    standing: Standing,
}

impl Directory {
    fn url(&self) -> &str {
        &self.standing.status.url
    }
}

impl NetworkClient {
    /// A client of a network whose directories answer at these addresses, and where its roster says, once
    /// that is known. `known`: from an earlier run, or [`Known::nothing`]. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Url`] if an address is none, or not `http`; [`Error::NoUrl`] if there is none.
    pub fn new(urls: &[String], known: Known) -> Result<Self> {
        Self::with_clock(urls, known, SystemTime::now)
    }

    /// A client that reads another clock than the system's.
    ///
    /// # Errors
    /// As [`NetworkClient::new`].
    pub fn with_clock(urls: &[String], known: Known, now: fn() -> SystemTime) -> Result<Self> {
        let mut client = Self {
            known,
            configured: Vec::new(),
            directories: Vec::new(),
            seen: None,
            max_age: None,
            clock_ahead: None,
            now,
        };
        for url in urls {
            client.put(client.client(url)?);
        }
        if client.directories.is_empty() {
            return Err(Error::NoUrl);
        }
        client.configured = client.directories().map(|of| of.url.clone()).collect();
        client.follow_roster();
        Ok(client)
    }

    /// A client of a network that is asked at one address, by this client, and where its roster says.
    pub(crate) fn of(client: DirectoryClient) -> Self {
        let mut network = Self {
            known: client.known().clone(),
            configured: vec![client.url()],
            directories: Vec::new(),
            seen: None,
            max_age: None,
            clock_ahead: None,
            now: client.clock(),
        };
        network.put(client);
        network.follow_roster();
        network
    }

    /// The network's ID.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.known.network()
    }

    /// The newest roster, and the last round.
    #[must_use]
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Takes none that was made before this one.
    pub(crate) fn start_after(&mut self, snapshot: &Snapshot) {
        if self.known.round() < Some(snapshot.issued) {
            self.known.saw(snapshot);
        }
    }

    /// How it went with each address, the configured ones first.
    pub fn directories(&self) -> impl Iterator<Item = &DirectoryStatus> {
        self.directories.iter().map(|of| &of.standing.status)
    }

    /// Seconds that this machine's clock is ahead of the directory's that was asked last (negative: behind): a
    /// hint.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        self.clock_ahead
    }

    /// How long the directory that answered says that its snapshot stays fresh.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// The newest snapshot, or the news that there is none newer than the last. While that is older than it
    /// should be, so many directories are asked that one of them is honest.
    ///
    /// # Errors
    /// [`Error::NoDirectory`] if none of several is of use; of one, what went wrong with it, as
    /// [`DirectoryClient::fetch`] says.
    pub async fn fetch(&mut self) -> Result<Fetched> {
        let mut fetched = None;
        let mut answers = 0;
        let mut last = None;
        for url in self.turn() {
            match self.ask(&url).await {
                Ok(Fetched::Snapshot(snapshot)) => {
                    answers += 1;
                    fetched = Some(Fetched::Snapshot(snapshot));
                }
                Ok(Fetched::NotModified) => {
                    answers += 1;
                    fetched.get_or_insert(Fetched::NotModified);
                }
                Err(error) => last = Some(error),
            }
            if answers > 0 && (!self.is_overdue() || answers > self.faults()) {
                break;
            }
        }
        fetched.ok_or_else(|| match last {
            Some(error) if self.directories.len() == 1 => error,
            Some(error) => Error::NoDirectory {
                asked: self.directories.len(),
                last: error.to_string(),
            },
            None => Error::NoUrl,
        })
    }

    /// In which order they are asked: by chance, and then those that rest.
    fn turn(&self) -> Vec<String> {
        let (now, mut rng) = (Instant::now(), OsRandom::new());
        let mut turn: Vec<_> = self.directories.iter().collect();
        turn.sort_by_cached_key(|of| (of.standing.rests_until(now), rng.next_u64()));
        turn.into_iter().map(|of| of.url().to_owned()).collect()
    }

    async fn ask(&mut self, url: &str) -> Result<Fetched> {
        // It may be none any more by now, since the roster has changed.
        let Some(directory) = self.directories.iter_mut().find(|of| of.url() == url) else {
            return Err(Error::NoUrl);
        };
        let Directory { client, standing } = directory;
        client.set_known(self.known.clone());
        client.set_seen(self.seen.clone());
        let answer = client.fetch().await;
        self.clock_ahead = client.clock_ahead();
        match &answer {
            Ok(_) => {
                standing.answered((self.now)().into());
                self.max_age = client.max_age();
                self.seen = client.seen().cloned();
            }
            Err(error) => standing.failed(error, Instant::now()),
        }
        // A roster that verifies counts, whatever else that directory says.
        let roster = client.known().roster() != self.known.roster();
        self.known = client.known().clone();
        if roster {
            self.follow_roster();
        }
        answer
    }

    /// Whether there should have been another round by now.
    fn is_overdue(&self) -> bool {
        let (Some(roster), Some(round)) = (self.known.roster(), self.known.round()) else {
            return false;
        };
        // The next is there a round later, and a directory has it from the others a while after that.
        let length = u64::from(roster.round_seconds);
        UnixTime::from((self.now)()).since(round) > length + length / 4
    }

    /// How many of the directories may be dishonest.
    fn faults(&self) -> usize {
        self.known.roster().map_or(0, |roster| roster.faults())
    }

    /// The addresses that are configured, and those that the roster has.
    fn follow_roster(&mut self) {
        let Some(roster) = self.known.roster().map(Arc::clone) else {
            return;
        };
        let mut names = HashMap::new();
        for member in &roster.members {
            // One that is no address cannot be asked.
            if let Ok(client) = self.client(&member.url) {
                names.insert(client.url(), member.name.clone());
                self.put(client);
            }
        }
        let configured = &self.configured;
        self.directories.retain_mut(|directory| {
            let status = &mut directory.standing.status;
            status.name = names.remove(&status.url);
            status.name.is_some() || configured.contains(&status.url)
        });
    }

    fn client(&self, url: &str) -> Result<DirectoryClient> {
        DirectoryClient::with_clock(url, self.network(), self.now)
    }

    fn put(&mut self, client: DirectoryClient) {
        let url = client.url();
        if self.directories().any(|of| of.url == url) {
            return;
        }
        let mut standing = Standing::default();
        standing.status.url = url;
        self.directories.push(Directory { client, standing });
    }
}
