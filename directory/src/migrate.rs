//! Moving a directory's records from one store to another.
//!
//! Both stores know of it, each in its own file or database: the one is being filled and the other moved
//! away until the records are there and compared, and nobody uses either meanwhile. A move that was
//! interrupted, wherever, is begun anew by the same command, or given up by [`cancel`].

use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::time::UnixTime;

use crate::config::Config;
use crate::store::{Condition, Entry, EtcdStore, Movable, Outcome, RedbStore, Table, Transaction};
use crate::{Error, Result, keys};

/// Entries that are read and written at once.
const PAGE: usize = 100;
/// How often something is tried that fails for the moment, and how long between.
const TRIES: usize = 30;
const PAUSE: Duration = Duration::from_secs(1);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The file in the state directory.
    Redb,
    /// The etcd that `store.etcd` of the configuration names.
    Etcd,
}

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether the records are there, and are being compared.
    pub comparing: bool,
    /// The table under way.
    pub table: Table,
    /// Its entries so far, and about how many it has.
    pub done: (u64, u64),
}

/// Moves a directory's records, or gives up a move that was interrupted; tells people.
///
/// # Errors
/// [`Error`], with what to do.
pub fn run(config: &Config, from: Kind, to: Kind, cancelled: bool) -> Result<()> {
    if from == to {
        return Err(Error::Migration(
            "--from and --to name the same store".into(),
        ));
    }
    let from = open(config, from)?;
    if cancelled {
        cancel(from.as_ref())?;
        println!("{} is in use again", from.place());
        return Ok(());
    }
    let to = open(config, to)?;
    println!("from {} to {}", from.place(), to.place());
    let mut told = Instant::now();
    let moved = migrate(from.as_ref(), to.as_ref(), |progress| {
        if told.elapsed() >= TELL {
            told = Instant::now();
            say(progress);
        }
    })?;
    println!(
        "{moved} entries moved and compared; {} is ready",
        to.place()
    );
    println!(
        "{} keeps its own copy, which no directory uses any more; `store` in the configuration must \
         name the new store",
        from.place()
    );
    Ok(())
}

fn say(progress: Progress) {
    let doing = if progress.comparing {
        "comparing"
    } else {
        "moving"
    };
    let (done, all) = progress.done;
    println!("{doing} {}: {done} of {all}", progress.table.name());
}

fn open(config: &Config, kind: Kind) -> Result<Box<dyn Movable>> {
    Ok(match kind {
        Kind::Redb => Box::new(RedbStore::open_to_move(&keys::database(&config.state_dir))?),
        Kind::Etcd => {
            let missing = || {
                let text = "`store.etcd` is missing in the configuration: where is etcd?";
                Error::Migration(text.into())
            };
            let etcd = config.store.etcd.as_ref().ok_or_else(missing)?;
            Box::new(EtcdStore::open_to_move(etcd)?)
        }
    })
}

/// Moves all records that have not ended, compares them, and says how many entries there are.
///
/// # Errors
/// [`Error::Migration`] if the one store cannot be moved or the other has something else in it, and the
/// stores' own errors. The same call goes on from there.
pub fn migrate(
    from: &dyn Movable,
    to: &dyn Movable,
    mut tell: impl FnMut(Progress),
) -> Result<u64> {
    check(from, to)?;
    // In this order: as long as the one is not frozen, the other is not complete.
    patiently(|| to.set_condition(Condition::Filling))?;
    if from.condition()? != Condition::Moved {
        patiently(|| from.set_condition(Condition::Moving))?;
    }
    clear(to)?;
    for table in Table::ALL {
        copy(from, to, table, &mut tell)?;
    }
    let mut entries = 0;
    for table in Table::ALL {
        entries += compare(from, to, table, &mut tell)?;
    }
    // In this order: they are never both in use.
    patiently(|| from.set_condition(Condition::Moved))?;
    patiently(|| to.set_condition(Condition::Ready))?;
    Ok(entries)
}

/// Gives up a move that was interrupted: the store is in use again as before.
///
/// # Errors
/// [`Error::Migration`] if no move from there was interrupted.
pub fn cancel(from: &dyn Movable) -> Result<()> {
    // As long as it is only being moved, no other has been taken into use.
    match from.condition()? {
        Condition::Moving => patiently(|| from.set_condition(Condition::Ready)),
        other => Err(Error::Migration(format!(
            "{} is not being moved; it is {}",
            from.place(),
            other.word()
        ))),
    }
}

/// Whether the records of the one may go into the other.
fn check(from: &dyn Movable, to: &dyn Movable) -> Result<()> {
    use Condition::{Filling, Moved, Moving, Ready};
    let refuse =
        |store: &dyn Movable, why: &str| Err(Error::Migration(format!("{} {why}", store.place())));
    let conditions = (from.condition()?, to.condition()?);
    match conditions {
        (Filling, _) => refuse(
            from,
            "is being filled itself; finish that first, in the other direction",
        ),
        // Interrupted at the last step.
        (Moved, Filling) => Ok(()),
        (Moved, _) => refuse(from, "has been moved already"),
        (_, Moving) => refuse(to, "is being moved itself; finish that first, or cancel it"),
        // What was in it is elsewhere, or half.
        (Ready | Moving, Moved | Filling) => Ok(()),
        (Ready | Moving, Ready) => {
            for table in Table::ALL {
                if !to.list(table, &[], None, 1)?.is_empty() {
                    return refuse(to, "has records; a store is moved only into an empty one");
                }
            }
            Ok(())
        }
    }
}

/// Removes all that an attempt before, or an earlier life, has left in a store.
fn clear(store: &dyn Movable) -> Result<()> {
    for table in Table::ALL {
        loop {
            let page = patiently(|| store.list(table, &[], None, PAGE))?;
            if page.is_empty() {
                break;
            }
            let delete = |all: Transaction, (key, _): (Vec<u8>, Entry)| all.delete(table, key);
            let all = page.into_iter().fold(Transaction::new(), delete);
            commit(store, &all)?;
        }
    }
    Ok(())
}

fn copy(
    from: &dyn Movable,
    to: &dyn Movable,
    table: Table,
    tell: &mut impl FnMut(Progress),
) -> Result<()> {
    let mut done = (0, from.count(table)?);
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = patiently(|| from.list(table, &[], after.as_deref(), PAGE))?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        done.0 += page.len() as u64;
        let now = now();
        let put = |all: Transaction, (key, entry): (Vec<u8>, Entry)| {
            all.put(table, key, entry.value, entry.expires)
        };
        let lasting = page.into_iter().filter(|(_, entry)| entry.expires > now);
        let all = lasting.fold(Transaction::new(), put);
        if !all.writes.is_empty() {
            commit(to, &all)?;
        }
        tell(Progress {
            comparing: false,
            table,
            done,
        });
    }
}

/// Compares what has not ended; says how many entries there are.
fn compare(
    from: &dyn Movable,
    to: &dyn Movable,
    table: Table,
    tell: &mut impl FnMut(Progress),
) -> Result<u64> {
    let now = now();
    let mut sources = Walk::new(from, table, now);
    let mut targets = Walk::new(to, table, now);
    let mut done = (0, from.count(table)?);
    loop {
        let (source, target) = (sources.next()?, targets.next()?);
        if source != target {
            return Err(Error::Migration(format!(
                "{} of {} and {} differ behind entry {}; run it once more",
                table.name(),
                from.place(),
                to.place(),
                done.0
            )));
        }
        if source.is_none() {
            return Ok(done.0);
        }
        done.0 += 1;
        if done.0 % PAGE as u64 == 0 {
            tell(Progress {
                comparing: true,
                table,
                done,
            });
        }
    }
}

/// An entry's key, value and end: all but its revision, which each store has its own of.
type Content = (Vec<u8>, Vec<u8>, UnixTime);

/// The entries of a table that have not ended, in order.
struct Walk<'a> {
    store: &'a dyn Movable,
    table: Table,
    now: UnixTime,
    page: std::vec::IntoIter<(Vec<u8>, Entry)>,
    after: Option<Vec<u8>>,
    over: bool,
}

impl<'a> Walk<'a> {
    fn new(store: &'a dyn Movable, table: Table, now: UnixTime) -> Self {
        Self {
            store,
            table,
            now,
            page: Vec::new().into_iter(),
            after: None,
            over: false,
        }
    }

    /// The next one.
    fn next(&mut self) -> Result<Option<Content>> {
        loop {
            for (key, entry) in self.page.by_ref() {
                if entry.expires > self.now {
                    return Ok(Some((key, entry.value, entry.expires)));
                }
            }
            if self.over {
                return Ok(None);
            }
            let page = patiently(|| {
                let after = self.after.as_deref();
                self.store.list(self.table, &[], after, PAGE)
            })?;
            match page.last() {
                Some((last, _)) => self.after = Some(last.clone()),
                None => self.over = true,
            }
            self.page = page.into_iter();
        }
    }
}

/// Commits what checks nothing, and may therefore be done twice.
fn commit(store: &dyn Movable, transaction: &Transaction) -> Result<()> {
    match patiently(|| store.commit(transaction.clone()))? {
        Outcome::Committed => Ok(()),
        Outcome::Conflict => Err(Error::Store("a conflict where nothing was checked".into())),
    }
}

/// Tries again while a store is away.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Err(Error::Unavailable(_) | Error::Unknown(_)) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    attempt()
}

fn now() -> UnixTime {
    SystemTime::now().into()
}
