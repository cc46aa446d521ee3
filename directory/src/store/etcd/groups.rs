//! Ends of entries, as leases of etcd.
//!
//! Entries that end within the same minute share a lease, so that etcd keeps as many leases as there are
//! minutes in the longest life of a record, and not as many as there are entries. A lease's ID is made
//! from the prefix and the minute, so that all front ends use the same one without asking one another.
//!
//! etcd removes what is attached to a lease when its time is over, also when no front end runs. It
//! begins that time anew when its leader changes, so front ends end leases themselves, too. Nothing
//! relies on either: an entry says when it ends, and whoever reads it looks.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mixline_protocol::records::CLOCK_SKEW;
use mixline_protocol::time::UnixTime;
use ring::digest::{SHA256, digest};

use crate::store::LINGER;

/// Entries that end within so many seconds go together.
const GROUP: u64 = 60;
/// So many seconds later than they must: clocks differ, and whose clock differs by more is not believed by
/// anybody else either.
const SLACK: u64 = 2 * CLOCK_SKEW;
/// What ends later than so many seconds from now ends never: etcd takes no lease of more than 285 years.
const NEVER: u64 = 10 * 366 * 24 * 3600;
/// At most so many groups are known to have a lease at one time; a record lives for 37 days.
const KNOWN: usize = 64 * 1024;

const _: () = assert!(GROUP + SLACK <= LINGER);

/// The entries that end in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group(pub u32);

impl Group {
    /// The one of entries that end then; none if they are to stay.
    pub(super) fn of(expires: UnixTime, now: UnixTime) -> Option<Self> {
        if expires.since(now) > NEVER {
            return None;
        }
        u32::try_from(expires.0.div_ceil(GROUP)).ok().map(Self)
    }

    /// The last one that is over.
    pub(super) fn over(now: UnixTime) -> Self {
        let end = now.minus(SLACK).0 / GROUP;
        Self(u32::try_from(end).unwrap_or(u32::MAX))
    }

    /// For how many seconds from now on its lease lives.
    pub(super) fn life(self, now: UnixTime) -> u64 {
        let end = UnixTime(u64::from(self.0) * GROUP);
        end.since(now) + SLACK
    }
}

/// The groups of one prefix.
#[derive(Debug)]
pub(super) struct Groups {
    /// What the IDs of all its leases begin with.
    first: u32,
    /// Those that have a lease, as far as this front end knows.
    granted: Mutex<BTreeSet<Group>>,
    /// Up to which one all are ended.
    ended: Mutex<Option<Group>>,
}

impl Groups {
    pub(super) fn new(prefix: &str) -> Self {
        let text = format!("mixline/v1/store lease{prefix}");
        let hash = digest(&SHA256, text.as_bytes());
        let first = hash.as_ref().first_chunk::<4>().copied().unwrap_or([1; 4]);
        Self {
            // IDs are positive, and 0 is no ID.
            first: u32::from_be_bytes(first) & 0x7fff_ffff | 1,
            granted: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    /// The ID of a group's lease.
    pub(super) fn lease(&self, group: Group) -> i64 {
        (i64::from(self.first) << 32) | i64::from(group.0)
    }

    /// The group whose lease has an ID, if it is one of these.
    pub(super) fn of_lease(&self, id: i64) -> Option<Group> {
        let [first, group] = [id >> 32, id & 0xffff_ffff].map(u32::try_from);
        (first.ok()? == self.first).then_some(Group(group.ok()?))
    }

    /// Whether a group is known to have a lease.
    pub(super) fn has(&self, group: Group) -> bool {
        self.granted().contains(&group)
    }

    /// A group has a lease.
    pub(super) fn add(&self, group: Group) {
        let mut granted = self.granted();
        if granted.len() >= KNOWN {
            // Those that end first, which nothing new ends with.
            granted.pop_first();
        }
        granted.insert(group);
    }

    /// A group has none any more.
    pub(super) fn remove(&self, group: Group) {
        self.granted().remove(&group);
    }

    /// Up to which group all are ended; none is known at the start.
    pub(super) fn ended(&self) -> Option<Group> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All are ended up to this one.
    pub(super) fn set_ended(&self, group: Group) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended = Some(group);
    }

    fn granted(&self) -> MutexGuard<'_, BTreeSet<Group>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_ends_before_its_entries() {
        for now in [59, 60, 1_800_000_001] {
            for more in [0, 1, 59, 60, 61, 604_800] {
                let (now, expires) = (UnixTime(now), UnixTime(now + more));
                let group = Group::of(expires, now).unwrap();
                assert!(now.plus(group.life(now)) >= expires.plus(SLACK));
                assert!(now.plus(group.life(now)) <= expires.plus(SLACK + GROUP));
                assert!(Group::over(expires.plus(SLACK - 1)) < group);
                assert!(Group::over(expires.plus(LINGER)) >= group);
            }
        }
    }

    #[test]
    fn what_is_to_stay_has_no_lease() {
        let now = UnixTime(1_800_000_000);
        assert_eq!(Group::of(UnixTime(u64::MAX), now), None);
        assert_eq!(Group::of(now.plus(NEVER + 1), now), None);
        assert!(Group::of(now.plus(NEVER), now).is_some());
    }

    #[test]
    fn leases_are_their_groups_and_nobody_elses() {
        let groups = Groups::new("mixline/");
        let others = Groups::new("other/");
        for group in [0, 1, u32::MAX].map(Group) {
            let id = groups.lease(group);
            assert!(id > 0);
            assert_eq!(groups.of_lease(id), Some(group));
            assert_eq!(others.of_lease(id), None);
        }
        assert_eq!(groups.of_lease(-1), None);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let groups = Groups::new("mixline/");
        let most = u32::try_from(KNOWN).unwrap();
        for group in 0..most + 10 {
            groups.add(Group(group));
        }
        assert!(!groups.has(Group(9)) && groups.has(Group(10)));
        groups.remove(Group(10));
        assert!(!groups.has(Group(10)));
    }
}
