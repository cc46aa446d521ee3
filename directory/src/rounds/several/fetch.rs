//! What is fetched from other directories, and checked before the engine gets it.

use std::sync::Arc;

use mixline_directory_engine::{Certified, Wanted};
use mixline_http_client::{Request, Server, StatusCode};
use mixline_protocol::identity::Digest;
use mixline_protocol::records::{
    LogHead, MAX_SNAPSHOT, MAX_VOTE, RelayRecord, Roster, Snapshot, Vote,
};
use mixline_protocol::round_log::{LEAF, Leaf, RoundLog};
use mixline_protocol::time::UnixTime;
use mixline_protocol::wire::Reader;

use super::{Input, Several};
use crate::http::directories::{MAX_LEAVES, MAX_RECORDS};

/// Rounds of the log that are asked for again, in case that the end here is not what the others have.
const OVERLAP: usize = 8;

/// Why there is nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Network(#[from] mixline_http_client::Failure),
    #[error("status {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Protocol(#[from] mixline_protocol::Error),
    #[error("it is something else")]
    Other,
}

/// Fetches in the background; what comes goes to the task that takes part in rounds.
pub(super) fn spawn(several: &Arc<Several>, from: u8, what: Wanted) {
    let Some(server) = several.peers.server(from) else {
        return;
    };
    let several = several.clone();
    tokio::spawn(async move {
        let url = server.url();
        if let Err(error) = fetch(&several, &server, what).await {
            tracing::debug!("directory {url}: {error}");
        }
    });
}

async fn fetch(several: &Several, server: &Server, what: Wanted) -> Result<(), Failure> {
    let input = match what {
        Wanted::Vote(digest) => {
            let bytes = get(server, format!("v2/directories/votes/{digest}"), MAX_VOTE).await?;
            if Vote::digest_of(&bytes) != digest {
                return Err(Failure::Other);
            }
            let decoded = blocking(move || Vote::decode(&bytes)).await?;
            Input::Vote(digest, Box::new(decoded))
        }
        Wanted::Records(wanted) => {
            for part in wanted.chunks(MAX_RECORDS) {
                let records = records(server, part.to_vec()).await?;
                let _ = several.inputs.send(Input::Records(records)).await;
            }
            return Ok(());
        }
        Wanted::Body(digest) => {
            let path = format!("v2/directories/bodies/{digest}");
            let bytes = get(server, path, MAX_SNAPSHOT).await?;
            if Snapshot::digest_of(&bytes) != digest {
                return Err(Failure::Other);
            }
            let decoded = blocking(move || {
                let snapshot = Snapshot::decode_body(&bytes)?;
                Ok((bytes, snapshot))
            });
            let (bytes, snapshot) = decoded.await?;
            Input::Body(bytes, Box::new(snapshot))
        }
        Wanted::Newest(after) => snapshot(several, server, after).await?,
    };
    let _ = several.inputs.send(input).await;
    Ok(())
}

async fn get(server: &Server, path: String, most: usize) -> Result<Vec<u8>, Failure> {
    let answer = server.ask(Request::get(path)).await?;
    match answer.status() {
        StatusCode::OK => Ok(answer.body(most).await?),
        status => Err(Failure::Status(status)),
    }
}

async fn records(server: &Server, wanted: Vec<Digest>) -> Result<Vec<RelayRecord>, Failure> {
    let body: Vec<u8> = wanted.iter().flat_map(|digest| digest.0).collect();
    let request = Request::post("v2/directories/records", body);
    let answer = server.ask(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(Failure::Status(answer.status()));
    }
    let bytes = answer
        .body(MAX_RECORDS * (2 + RelayRecord::MAX_ENCODED))
        .await?;
    blocking(move || {
        let mut reader = Reader::new(&bytes, "records");
        let mut records = Vec::new();
        while reader.left() > 0 {
            let length = usize::from(reader.u16()?);
            let bytes = reader.take(length)?;
            if !wanted.contains(&RelayRecord::digest_of(bytes)) {
                continue;
            }
            let record = RelayRecord::decode(bytes)?;
            // Its life is looked at when votes are merged, by the time of the round.
            record.verify(record.descriptor.issued)?;
            records.push(record);
        }
        Ok(records)
    })
    .await
}

/// The newest snapshot of another directory, if it is later than `after`, and the rounds that lead to it.
async fn snapshot(several: &Several, server: &Server, after: UnixTime) -> Result<Input, Failure> {
    let bytes = get(server, "v2/snapshot".to_owned(), MAX_SNAPSHOT).await?;
    let (_, version, issued) = Snapshot::peek(&bytes)?;
    if issued <= after {
        return Err(Failure::Other);
    }
    let mut rosters = several.rosters().iter();
    let roster: Roster = rosters
        .find(|roster| roster.version == version)
        .cloned()
        .ok_or(Failure::Other)?;
    // However old it is: it is the newest that there is.
    let snapshot = blocking(move || Snapshot::decode_and_verify(&bytes, &roster, issued)).await?;
    let wanted = snapshot.log;
    let size = usize::try_from(wanted.size).map_err(|_| Failure::Other)?;
    let here = several.with_log(|log| log.leaves().len());
    let mut leaves = leaves(server, here.saturating_sub(OVERLAP).min(size), size).await?;
    let (log, some) = (several.with_log(RoundLog::clone), leaves.clone());
    let fits = blocking(move || Ok(leads_to(log, &some, wanted, size))).await?;
    if !fits {
        leaves = self::leaves(server, 0, size).await?;
    }
    let certified = Certified {
        digest: snapshot.digest(),
        snapshot: Arc::new(snapshot),
    };
    Ok(Input::Snapshot(certified, leaves))
}

/// Whether these rounds, behind those that a log has before them, lead to a head.
fn leads_to(mut log: RoundLog, leaves: &[Leaf], wanted: LogHead, size: usize) -> bool {
    let common = size.saturating_sub(leaves.len());
    log.truncate(common);
    log.leaves().len() == common
        && leaves.iter().all(|leaf| log.push(*leaf))
        && log.head() == wanted
}

/// The rounds from a place in the log on, up to another.
async fn leaves(server: &Server, mut from: usize, to: usize) -> Result<Vec<Leaf>, Failure> {
    let mut leaves = Vec::new();
    while from < to {
        let bytes = get(server, format!("v2/log/{from}"), MAX_LEAVES * LEAF).await?;
        let read = bytes.as_chunks::<LEAF>().0;
        if read.is_empty() {
            return Err(Failure::Other);
        }
        let more = read.iter().take(to - from).map(Leaf::decode);
        let before = leaves.len();
        leaves.extend(more);
        from += leaves.len() - before;
    }
    Ok(leaves)
}

/// Checking signatures is not for a thread that serves.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> mixline_protocol::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Other),
    }
}
