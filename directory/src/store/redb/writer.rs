//! The thread that writes.
//!
//! It puts all that waits into one commit of the database and answers when that is on disk. So an
//! acknowledged write survives a crash, and a crowd of writers shares the cost of waiting for
//! the disk. After a write that fails (a full disk) the database takes no other until it is opened
//! anew.

use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use mixline_protocol::time::UnixTime;
use redb::{Database, ReadableTable, WriteTransaction};

use super::format::{ENDS, META, REVISION, broken, definition, end_key, entry};
use crate::store::{Outcome, Table, Transaction, Write};
use crate::{Error, Result};

/// Writers that may wait for the next commit.
const QUEUE: usize = 1024;
/// One commit of the database has at most this many transactions.
const GROUP: usize = 256;

enum Job {
    Commit(Transaction, mpsc::SyncSender<Result<Outcome>>),
    Expire(UnixTime, usize, mpsc::SyncSender<Result<usize>>),
}

/// The writing thread, and the way to it. Dropping it waits for the writes under way.
pub(super) struct Writer {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<OnceLock<String>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(database: Arc<Database>) -> Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel(QUEUE);
        let failure = Arc::new(OnceLock::new());
        let failed = Arc::clone(&failure);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(&database, &waiting, &failed))
            .map_err(broken)?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            failure,
        })
    }

    /// Does a transaction; returns when it is on disk, or has met a conflict.
    pub(super) fn commit(&self, transaction: Transaction) -> Result<Outcome> {
        self.ask(|reply| Job::Commit(transaction, reply))
    }

    /// Removes up to `most` entries that have ended by `now`; says how many.
    pub(super) fn expire(&self, now: UnixTime, most: usize) -> Result<usize> {
        self.ask(|reply| Job::Expire(now, most, reply))
    }

    /// The first write's failure, after which there are no more writes.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    fn ask<T>(&self, job: impl FnOnce(mpsc::SyncSender<Result<T>>) -> Job) -> Result<T> {
        let stopped = || Error::Store("the writing thread has stopped".into());
        let (reply, answer) = mpsc::sync_channel(1);
        self.jobs
            .as_ref()
            .ok_or_else(stopped)?
            .send(job(reply))
            .map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has answered nobody: nothing is lost that was promised.
            let _ = thread.join();
        }
    }
}

/// The writing thread: until the store is dropped, one commit after another.
fn write_all(database: &Database, waiting: &mpsc::Receiver<Job>, failure: &OnceLock<String>) {
    while let Ok(first) = waiting.recv() {
        let group: Vec<Job> = std::iter::once(first)
            .chain(waiting.try_iter().take(GROUP - 1))
            .collect();
        match write_group(database, &group) {
            Ok(answers) => {
                for (job, answer) in group.iter().zip(answers) {
                    // Who asked may be gone; what was asked has happened all the same.
                    match (job, answer) {
                        (Job::Commit(_, reply), Answer::Commit(outcome)) => {
                            let _ = reply.send(Ok(outcome));
                        }
                        (Job::Expire(_, _, reply), Answer::Expire(count)) => {
                            let _ = reply.send(Ok(count));
                        }
                        _ => {}
                    }
                }
            }
            Err(error) => {
                let text = error.to_string();
                let _ = failure.set(text.clone());
                for job in group {
                    let error = Error::Store(text.clone());
                    match job {
                        Job::Commit(_, reply) => drop(reply.send(Err(error))),
                        Job::Expire(_, _, reply) => drop(reply.send(Err(error))),
                    }
                }
            }
        }
    }
}

enum Answer {
    Commit(Outcome),
    Expire(usize),
}

pub(super) fn begin(database: &Database) -> Result<WriteTransaction> {
    let mut write = database.begin_write().map_err(broken)?;
    write
        .set_durability(redb::Durability::Immediate)
        .map_err(broken)?;
    // Two-phase commits: outsiders choose some of the bytes, and might aim at a checksum.
    // And opening after a crash does not have to read everything.
    write.set_quick_repair(true);
    Ok(write)
}

/// One commit for all. On an error none of it has happened.
fn write_group(database: &Database, group: &[Job]) -> Result<Vec<Answer>> {
    let write = begin(database)?;
    let mut answers = Vec::with_capacity(group.len());
    for job in group {
        answers.push(match job {
            Job::Commit(transaction, _) => Answer::Commit(apply(&write, transaction)?),
            Job::Expire(now, most, _) => Answer::Expire(expire(&write, *now, *most)?),
        });
    }
    write.commit().map_err(broken)?;
    Ok(answers)
}

fn apply(write: &WriteTransaction, transaction: &Transaction) -> Result<Outcome> {
    for (table, key, expected) in &transaction.checks {
        let entries = write.open_table(definition(*table)).map_err(broken)?;
        let found = entries.get(key.as_slice()).map_err(broken)?;
        let revision = found
            .map(|found| entry(found.value()))
            .transpose()?
            .map(|e| e.revision);
        if revision != *expected {
            return Ok(Outcome::Conflict);
        }
    }
    let revision = {
        let mut meta = write.open_table(META).map_err(broken)?;
        let last = meta
            .get(REVISION)
            .map_err(broken)?
            .map_or(0, |value| value.value());
        meta.insert(REVISION, last + 1).map_err(broken)?;
        last + 1
    };
    let mut ends = write.open_table(ENDS).map_err(broken)?;
    for change in &transaction.writes {
        let (table, key, new) = match change {
            Write::Put {
                table,
                key,
                value,
                expires,
            } => (*table, key, Some((value, *expires))),
            Write::Delete { table, key } => (*table, key, None),
        };
        let mut entries = write.open_table(definition(table)).map_err(broken)?;
        let old = match new {
            Some((value, expires)) => {
                let bytes = [
                    &revision.to_be_bytes(),
                    &expires.0.to_be_bytes(),
                    value.as_slice(),
                ]
                .concat();
                ends.insert(end_key(expires, table, key).as_slice(), [].as_slice())
                    .map_err(broken)?;
                let old = entries
                    .insert(key.as_slice(), bytes.as_slice())
                    .map_err(broken)?;
                old.map(|old| entry(old.value())).transpose()?
            }
            None => {
                let old = entries.remove(key.as_slice()).map_err(broken)?;
                old.map(|old| entry(old.value())).transpose()?
            }
        };
        if let Some(old) = old
            && new.is_none_or(|(_, expires)| expires != old.expires)
        {
            ends.remove(end_key(old.expires, table, key).as_slice())
                .map_err(broken)?;
        }
    }
    Ok(Outcome::Committed)
}

fn expire(write: &WriteTransaction, now: UnixTime, most: usize) -> Result<usize> {
    let mut ends = write.open_table(ENDS).map_err(broken)?;
    let mut over = Vec::new();
    for item in ends.iter().map_err(broken)?.take(most) {
        let (key, _) = item.map_err(broken)?;
        let bytes = key.value();
        let Some((end, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(Error::Store("damaged table of ends".into()));
        };
        if u64::from_be_bytes(*end) > now.0 {
            break;
        }
        let (table, key) = match rest {
            [number, key @ ..] => (Table::ALL.into_iter().find(|t| *t as u8 == *number), key),
            [] => (None, rest),
        };
        over.push((bytes.to_vec(), table, key.to_vec()));
    }
    for (end, table, key) in &over {
        if let Some(table) = table {
            let mut entries = write.open_table(definition(*table)).map_err(broken)?;
            entries.remove(key.as_slice()).map_err(broken)?;
        }
        ends.remove(end.as_slice()).map_err(broken)?;
    }
    Ok(over.len())
}
