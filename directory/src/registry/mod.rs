//! What the directory accepts: every check, apart from how requests arrive and where
//! records are kept.
//!
//! Verify before storing: signature, life, version not older, name free, address free,
//! short ID unique; and the bounds of [`Limits`], past which the directory refuses. It
//! answers only from what it has stored durably.

mod leases;
mod live;
mod names;
mod refusal;
mod relays;
mod remembered;
mod services;
mod stored;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::{AnonymousId, IdentityKey};
use mixline_protocol::records::{MAX_RELAYS, Parameters};
use mixline_protocol::time::UnixTime;

use crate::Result;
use crate::store::{Store, Table};
use live::Live;
use refusal::unavailable;
use remembered::Remembered;

pub use live::LiveRelay;
pub(crate) use refusal::span;
pub use refusal::{Decision, Refusal};
pub use relays::Heard;

/// How often a decision is made anew when others changed what it rests on.
const ATTEMPTS: usize = 16;
/// Entries that one sweep of the store removes at once.
const SWEEP: usize = 10_000;

/// How much the directory holds. Anybody can make IDs, so each kind has a bound; past it
/// new ones are refused, and what is there stays and is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Relays in the snapshot.
    pub relays: usize,
    /// Relays whose descriptors have not ended, silent ones included.
    pub remembered_relays: u64,
    /// Services.
    pub services: u64,
    /// Names.
    pub names: u64,
    /// Leases.
    pub leases: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            relays: MAX_RELAYS,
            remembered_relays: 4 * MAX_RELAYS as u64,
            services: 200_000,
            names: 400_000,
            leases: 1_000_000,
        }
    }
}

/// Which relays are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionPolicy {
    /// Also at addresses that only exist within one machine or one site: for trials, and for
    /// networks that live in one.
    pub private_addresses: bool,
    /// Only if the registration comes from one of the relay's own addresses, so that
    /// nobody registers a relay at somebody else's.
    pub check_source: bool,
}

/// What may change while the directory runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rules {
    admission: AdmissionPolicy,
    relay_timeout_s: u32,
}

/// The records, and what may become of them.
pub struct Registry {
    store: Box<dyn Store>,
    id: AnonymousId,
    key: Arc<IdentityKey>,
    parameters: Parameters,
    limits: Limits,
    rules: RwLock<Rules>,
    live: RwLock<Live>,
    remembered: Mutex<Remembered>,
    /// Relays are not silent for the time before that.
    opened: UnixTime,
    /// Grows when the network changes: a relay comes, goes, or has new keys or addresses.
    changes: AtomicU64,
}

impl Registry {
    /// The registry of a store; relays that were live when it was last in use are live again.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn open(
        store: Box<dyn Store>,
        key: Arc<IdentityKey>,
        parameters: Parameters,
        admission: AdmissionPolicy,
        limits: Limits,
        now: UnixTime,
    ) -> Result<Self> {
        let registry = Self {
            store,
            id: key.anonymous_id(),
            key,
            parameters,
            limits,
            rules: RwLock::new(Rules {
                admission,
                relay_timeout_s: parameters.relay_timeout_s,
            }),
            live: RwLock::new(Live::new(limits.relays)),
            remembered: Mutex::new(Remembered::new(limits.remembered_relays)),
            opened: now,
            changes: AtomicU64::new(0),
        };
        registry.load_relays(now)?;
        Ok(registry)
    }

    /// Where the records are.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The directory's ID.
    pub fn id(&self) -> &AnonymousId {
        &self.id
    }

    /// The network's parameters.
    pub fn parameters(&self) -> Parameters {
        Parameters {
            relay_timeout_s: self.rules().relay_timeout_s,
            ..self.parameters
        }
    }

    /// From now on these relays are admitted, and leave the snapshot after so many seconds of silence.
    pub fn set_rules(&self, admission: AdmissionPolicy, relay_timeout_s: u32) {
        let rules = Rules {
            admission,
            relay_timeout_s,
        };
        let before = {
            let mut counting = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *counting, rules)
        };
        if before != rules {
            self.changed();
        }
    }

    fn rules(&self) -> Rules {
        *self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows whenever a snapshot made before is out of date in what paths are built by.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Services, names and leases that the store holds.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn counts(&self) -> Result<Counts> {
        Ok(Counts {
            services: self.store.count(Table::Services)?,
            names: self.store.count(Table::Names)?,
            leases: self.store.count(Table::Leases)?,
        })
    }

    /// Why the store takes no more writes; `None` as long as it does.
    pub fn failure(&self) -> Option<String> {
        self.store.failure()
    }

    /// Removes what has ended, from the store and from among the live relays.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn sweep(&self, now: UnixTime) -> Result<usize> {
        self.forget_silent(now);
        let mut swept = 0;
        loop {
            let more = self.store.expire(now, SWEEP)?;
            swept += more;
            if more < SWEEP {
                break;
            }
        }
        self.remembered().forget_ended(now);
        Ok(swept)
    }

    /// Past a bound nothing new gets in.
    fn room(&self, table: Table, limit: u64, what: &str) -> Decision<()> {
        if self.store.count(table).map_err(|e| unavailable(&e))? >= limit {
            let text = format!("the directory is full: it holds {limit} {what}; again later");
            return Err(Refusal::new(RefusalCode::Full, text));
        }
        Ok(())
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn read_live(&self) -> std::sync::RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_live(&self) -> std::sync::RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many records of each kind there are; those that ended and were not swept yet count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Published services.
    pub services: u64,
    /// Names that are held.
    pub names: u64,
    /// Virtual addresses that are held.
    pub leases: u64,
}
