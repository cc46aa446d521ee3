//! What a front end does with etcd.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::time::UnixTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::cluster::{Cluster, Trouble, code};
use super::config::EtcdConfig;
use super::groups::{Group, Groups};
use super::health::Health;
use super::keys::{self, Keys};
use super::messages::{
    Alarms, AlarmsAnswer, Compare, KeyValue, LeaseGrant, LeaseRevoke, Leases, LeasesAnswer,
    Operation, Range, RangeAnswer, Txn, TxnAnswer,
};
use super::{MOST_WRITES, SOON};
use crate::store::{Condition, Entry, Outcome, Table, Transaction, Write};
use crate::{Error, Result};

/// How often it is looked whether etcd works, while it does, and while it does not.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_SOON: Duration = Duration::from_secs(1);
/// How often something is done anew after the condition, or a lease, was not as expected.
const ATTEMPTS: usize = 4;
/// With more minutes than this to go through, all leases are listed instead.
const MINUTES: u32 = 24 * 60;

/// etcd, as one front end sees it.
pub(super) struct Shared {
    cluster: Cluster,
    keys: Keys,
    groups: Groups,
    pub(super) health: Health,
    place: String,
    /// The revision of the store's condition with which it is used.
    opened: AtomicU64,
}

impl Shared {
    pub(super) fn new(config: &EtcdConfig) -> Result<Self> {
        config.check().map_err(Error::Store)?;
        Ok(Self {
            cluster: Cluster::new(&config.endpoints).map_err(|e| Error::Store(e.to_string()))?,
            keys: Keys::new(&config.prefix),
            groups: Groups::new(&config.prefix),
            health: Health::default(),
            place: format!("etcd ({}, {})", config.endpoints.join(", "), config.prefix),
            opened: AtomicU64::new(0),
        })
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        self.place.clone()
    }

    /// Looks at the store's condition, or makes it.
    pub(super) async fn open(&self) -> Result<()> {
        let met = self.cluster.meet().await;
        met.map_err(|trouble| self.health.failed(trouble))?;
        if self.stored_condition().await?.is_some() {
            return self.condition().await.map(|_| ());
        }
        let meta = self.keys.meta();
        let first = Txn {
            compare: vec![Compare::revision(&meta, 0)],
            success: vec![Operation::put(
                &meta,
                &keys::meta_value(Condition::Ready),
                0,
            )],
            failure: vec![],
        };
        // Another front end may have been first.
        self.write::<TxnAnswer>("v3/kv/txn", &first).await?;
        self.condition().await.map(|_| ())
    }

    /// The store's condition now, in which it is used from now on, whichever that is.
    pub(super) async fn condition(&self) -> Result<Condition> {
        let (condition, revision) = self.there().await?;
        self.opened.store(revision, Ordering::Release);
        Ok(condition)
    }

    /// After the condition was not as expected: it is used on if it is ready again.
    async fn use_on(&self) -> Result<()> {
        let (condition, revision) = self.there().await?;
        condition.usable(&self.place)?;
        self.opened.store(revision, Ordering::Release);
        Ok(())
    }

    async fn there(&self) -> Result<(Condition, u64)> {
        let stored = self.stored_condition().await?;
        stored.ok_or_else(|| Error::Store("etcd has lost the store's condition".into()))
    }

    /// The store's condition now, and its revision.
    async fn stored_condition(&self) -> Result<Option<(Condition, u64)>> {
        let range = Range::one(&self.keys.meta());
        let found: RangeAnswer = self.read("v3/kv/range", &range).await?;
        let meta = found.kvs.into_iter().next();
        let read = |meta: KeyValue| Ok((keys::condition(&meta.value)?, meta.mod_revision));
        meta.map(read).transpose()
    }

    pub(super) async fn set_condition(&self, condition: Condition) -> Result<()> {
        let meta = self.keys.meta();
        let change = Txn {
            compare: vec![self.as_opened()],
            success: vec![Operation::put(&meta, &keys::meta_value(condition), 0)],
            failure: vec![],
        };
        let done: TxnAnswer = self.write("v3/kv/txn", &change).await?;
        if !done.succeeded {
            let text = "somebody else changed the store's condition meanwhile";
            return Err(Error::Store(text.into()));
        }
        self.condition().await.map(|_| ())
    }

    pub(super) async fn get(&self, table: Table, key: &[u8]) -> Result<Option<(Vec<u8>, Entry)>> {
        let key = self.keys.entry(table, key);
        let found = self.range(|| Range::one(&key)).await?;
        let entry = found.into_iter().next();
        entry.map(|it| self.keys.read(table, it)).transpose()
    }

    pub(super) async fn list(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<(Vec<u8>, Entry)>> {
        let first = match after {
            // The next key there can be.
            Some(after) if after >= prefix => [after, &[0]].concat(),
            _ => prefix.to_vec(),
        };
        let first = self.keys.entry(table, &first);
        let end = self.keys.end(table, prefix);
        if first >= end {
            return Ok(Vec::new());
        }
        let found = self.range(|| Range::between(&first, &end, most)).await?;
        found
            .into_iter()
            .map(|it| self.keys.read(table, it))
            .collect()
    }

    pub(super) async fn count(&self, table: Table) -> Result<u64> {
        let range = Range::count(&self.keys.entry(table, &[]), &self.keys.end(table, &[]));
        let found: RangeAnswer = self.read("v3/kv/range", &range).await?;
        Ok(found.count)
    }

    pub(super) async fn commit(&self, transaction: &Transaction) -> Result<Outcome> {
        self.health.can_write()?;
        let writes = last_writes(&transaction.writes);
        if writes.len() > MOST_WRITES {
            return Err(Error::Store("too many changes in one transaction".into()));
        }
        for _ in 0..ATTEMPTS {
            let txn = self.to_txn(transaction, &writes).await?;
            let answer = match self.cluster.write::<TxnAnswer>("v3/kv/txn", &txn).await {
                Ok(answered) => {
                    self.health.answered(answered.clock_ahead);
                    answered.answer
                }
                // It has ended since it was granted, and nothing has happened.
                Err(Trouble::Refused(code::NOT_FOUND, _)) => {
                    let now = SystemTime::now().into();
                    let ends = writes.values().flatten();
                    for group in ends.filter_map(|(_, expires)| Group::of(*expires, now)) {
                        self.groups.remove(group);
                    }
                    continue;
                }
                Err(trouble) => return Err(self.health.failed(trouble)),
            };
            if answer.succeeded {
                return Ok(Outcome::Committed);
            }
            if self.is_as_opened(answer.found()) {
                return Ok(Outcome::Conflict);
            }
            self.use_on().await?;
        }
        Err(Error::Unavailable(
            "etcd: leases, or the store's condition, keep changing".into(),
        ))
    }

    /// As etcd is asked for it; the leases that it needs are there.
    async fn to_txn(&self, transaction: &Transaction, writes: &Writes<'_>) -> Result<Txn> {
        let mut txn = Txn {
            compare: vec![self.as_opened()],
            success: Vec::with_capacity(writes.len()),
            failure: vec![Operation::Range(Range::one(&self.keys.meta()))],
        };
        for (table, key, revision) in &transaction.checks {
            let key = self.keys.entry(*table, key);
            let revision = revision.unwrap_or(0);
            txn.compare.push(Compare::revision(&key, revision));
        }
        let now = SystemTime::now().into();
        for ((table, key), to) in writes {
            let key = self.keys.entry(*table, key);
            txn.success.push(match to {
                Some((value, expires)) => {
                    let lease = match Group::of(*expires, now) {
                        Some(group) => self.lease(group).await?,
                        None => 0,
                    };
                    Operation::put(&key, &keys::value(value, *expires), lease)
                }
                None => Operation::delete(&key),
            });
        }
        Ok(txn)
    }

    /// The lease of a group, which is granted if it is not there yet.
    async fn lease(&self, group: Group) -> Result<i64> {
        let id = self.groups.lease(group);
        if self.groups.has(group) {
            return Ok(id);
        }
        let grant = LeaseGrant {
            ttl: group.life(SystemTime::now().into()).to_string(),
            id: id.to_string(),
        };
        let granted = self
            .cluster
            .write::<serde_json::Value>("v3/lease/grant", &grant)
            .await;
        match granted {
            // Another front end may have been first.
            Ok(_) | Err(Trouble::Refused(code::FAILED_PRECONDITION, _)) => {
                self.groups.add(group);
                Ok(id)
            }
            // A lease alone is nothing: what was to be written was not.
            Err(Trouble::Unknown(reason)) => {
                let _ = self.health.failed(Trouble::Unknown(reason.clone()));
                Err(Error::Unavailable(format!("etcd: {reason}")))
            }
            Err(trouble) => Err(self.health.failed(trouble)),
        }
    }

    /// Ends the leases of what is over by `now`, up to `most`; says how many there were.
    pub(super) async fn expire(&self, now: UnixTime, most: usize) -> Result<usize> {
        self.health.can_read()?;
        // A clock that is wrong ends nothing.
        match self.health.can_write() {
            Err(_) if !self.health.is_full() => return Ok(0),
            _ => {}
        }
        let began = Instant::now();
        let last = Group::over(now);
        let (over, one_by_one): (Vec<_>, _) = match self.groups.ended() {
            Some(ended) if ended >= last => return Ok(0),
            Some(ended) if last.0 - ended.0 <= MINUTES => {
                ((ended.0 + 1..=last.0).map(Group).collect(), true)
            }
            _ => (self.leases_until(last).await?, false),
        };
        let mut ended = 0;
        for group in over {
            if ended == most || began.elapsed() > SOON {
                return Ok(ended);
            }
            ended += usize::from(self.end(group).await?);
            if one_by_one {
                self.groups.set_ended(group);
            }
        }
        self.groups.set_ended(last);
        Ok(ended)
    }

    /// The groups up to this one that have a lease.
    async fn leases_until(&self, last: Group) -> Result<Vec<Group>> {
        let all: LeasesAnswer = self.read("v3/lease/leases", &Leases {}).await?;
        let ours = all
            .leases
            .iter()
            .filter_map(|it| self.groups.of_lease(it.id));
        let mut over: Vec<_> = ours.filter(|group| *group <= last).collect();
        over.sort_unstable();
        Ok(over)
    }

    /// Ends a group's lease, and removes what is attached to it; whether there was one.
    async fn end(&self, group: Group) -> Result<bool> {
        self.groups.remove(group);
        let revoke = LeaseRevoke {
            id: self.groups.lease(group).to_string(),
        };
        let revoked = self
            .cluster
            .write::<serde_json::Value>("v3/lease/revoke", &revoke)
            .await;
        match revoked {
            Ok(_) => Ok(true),
            Err(Trouble::Refused(code::NOT_FOUND, _)) => Ok(false),
            Err(trouble) => Err(self.health.failed(trouble)),
        }
    }

    /// Looks, for as long as it is polled, whether etcd works.
    pub(super) async fn watch(&self) {
        loop {
            let bad = self.health.is_away() || self.health.is_full();
            let wait = if bad { LOOK_SOON } else { LOOK };
            // In doubt, at once.
            let _ = timeout(wait, self.health.doubted()).await;
            let meta = Range::one(&self.keys.meta());
            let looked = self.cluster.read::<RangeAnswer>("v3/kv/range", &meta).await;
            match looked {
                Ok(answered) => self.health.answered(answered.clock_ahead),
                Err(Trouble::Away(reason)) => self.health.set_away(&reason),
                Err(_) => {}
            }
            if self.health.is_full() && !self.health.is_away() {
                let alarms = &Alarms::ALL;
                let asked = self
                    .cluster
                    .read::<AlarmsAnswer>("v3/maintenance/alarm", alarms);
                if let Ok(answered) = asked.await {
                    self.health.set_full(answered.answer.is_full());
                }
            }
        }
    }

    /// What a range finds, if the store is in the condition in which it was opened.
    async fn range(&self, range: impl Fn() -> Range) -> Result<Vec<KeyValue>> {
        for _ in 0..ATTEMPTS {
            let look = Txn {
                compare: vec![self.as_opened()],
                success: vec![Operation::Range(range())],
                failure: vec![],
            };
            let answer: TxnAnswer = self.read("v3/kv/txn", &look).await?;
            if answer.succeeded {
                return Ok(answer.found().kvs);
            }
            self.use_on().await?;
        }
        Err(Error::Unavailable(
            "etcd: the store's condition keeps changing".into(),
        ))
    }

    fn as_opened(&self) -> Compare {
        let revision = self.opened.load(Ordering::Acquire);
        Compare::revision(&self.keys.meta(), revision)
    }

    fn is_as_opened(&self, meta: RangeAnswer) -> bool {
        let revision = meta.kvs.first().map(|meta| meta.mod_revision);
        revision == Some(self.opened.load(Ordering::Acquire))
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, question: &impl Serialize) -> Result<T> {
        self.health.can_read()?;
        let asked = self.cluster.read(path, question).await;
        let answered = asked.map_err(|trouble| self.health.failed(trouble))?;
        self.health.answered(answered.clock_ahead);
        Ok(answered.answer)
    }

    async fn write<T: DeserializeOwned>(&self, path: &str, question: &impl Serialize) -> Result<T> {
        self.health.can_write()?;
        let asked = self.cluster.write(path, question).await;
        let answered = asked.map_err(|trouble| self.health.failed(trouble))?;
        self.health.answered(answered.clock_ahead);
        Ok(answered.answer)
    }
}

/// What becomes of each entry: a value and its end, or nothing.
type Writes<'a> = BTreeMap<(Table, &'a [u8]), Option<(&'a [u8], UnixTime)>>;

/// etcd takes each key once; the last one counts.
fn last_writes(writes: &[Write]) -> Writes<'_> {
    let mut last = Writes::new();
    for write in writes {
        match write {
            Write::Put {
                table,
                key,
                value,
                expires,
            } => last.insert((*table, key), Some((value, *expires))),
            Write::Delete { table, key } => last.insert((*table, key), None),
        };
    }
    last
}
