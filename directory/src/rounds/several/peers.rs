//! The other directories, over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mixline_directory_engine::Message;
use mixline_http_client::{Bytes, Patience, Request, Server, StatusCode};
use mixline_protocol::records::Roster;
use tokio::sync::mpsc;

use crate::{Error, Result};

/// Messages that wait for a directory that does not take them. Past it the newest are dropped.
const WAITING: usize = 256;
/// A message is tried again for so long: after that its round is over.
const LONGEST: Duration = Duration::from_secs(30);
/// Before it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Messages that are under way to one directory at a time.
const AT_ONCE: usize = 8;

/// How long one waits for another directory: steps of a round are seconds.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(3),
    kept: Duration::from_secs(2),
    begin: Duration::from_secs(5),
    goes_on: Duration::from_secs(5),
    exchange: Duration::from_secs(30),
};

/// The other directories, by their index; none for this one.
pub(super) struct Peers(Vec<Option<Peer>>);

struct Peer {
    server: Arc<Server>,
    messages: mpsc::Sender<(Instant, Bytes)>,
}

impl Peers {
    /// Those of a roster, but for directory number `me`. They are sent to as long as this is there.
    ///
    /// # Errors
    /// [`Error::Roster`] if an address is none.
    pub(super) fn new(roster: &Roster, me: u8) -> Result<Self> {
        let mut peers = Vec::new();
        for (member, index) in roster.members.iter().zip(0u8..) {
            if index == me {
                peers.push(None);
                continue;
            }
            let server = Server::with_patience(&member.url, PATIENCE).map_err(|error| {
                Error::Roster(format!(
                    "directory {}: {}: {error}",
                    member.name, member.url
                ))
            })?;
            let (messages, waiting) = mpsc::channel(WAITING);
            let server = Arc::new(server);
            tokio::spawn(deliver(server.clone(), waiting));
            peers.push(Some(Peer { server, messages }));
        }
        Ok(Self(peers))
    }

    /// Where a directory is asked.
    pub(super) fn server(&self, index: u8) -> Option<Arc<Server>> {
        let peer = self.0.get(usize::from(index))?.as_ref()?;
        Some(peer.server.clone())
    }

    /// Sends to all.
    pub(super) fn send(&self, message: &Message) {
        let bytes = Bytes::from(message.encode());
        for peer in self.0.iter().flatten() {
            let _ = peer.messages.try_send((Instant::now(), bytes.clone()));
        }
    }
}

/// Sends what waits for a directory, until there is nobody any more who has something to say.
async fn deliver(server: Arc<Server>, mut waiting: mpsc::Receiver<(Instant, Bytes)>) {
    let places = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    while let Some((since, bytes)) = waiting.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let server = server.clone();
        tokio::spawn(async move {
            let _place = place;
            while since.elapsed() < LONGEST {
                let request = Request::post("v2/directories/messages", bytes.clone());
                match server.ask(request).await {
                    // It has been heard, or will never be.
                    Ok(answer) if !is_for_later(answer.status()) => return,
                    Ok(_) => {}
                    Err(error) => tracing::debug!("directory {}: {error}", server.url()),
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

/// It has too much to do at the moment.
fn is_for_later(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}
