//! What the directory answered, for as long as the answer may be told again.
//!
//! A stub resolver asks for A and AAAA at once, and again for every connection; each
//! would be a round trip through six relays. One lookup is under way for one subject at
//! a time, and everyone who asks meanwhile waits for it.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::LookupError;

/// A positive answer is kept for at most this long, the time to live of the records.
pub const POSITIVE_LIFE: Duration = Duration::from_secs(60);
/// How long "there is no such name" is kept: short, since it may be claimed any moment.
pub const NEGATIVE_LIFE: Duration = Duration::from_secs(5);
/// At most this many subjects are remembered; beyond it the one that ends first makes room.
pub const MAX_ENTRIES: usize = 1024;

/// A remembered answer.
#[derive(Debug, Clone)]
struct Answer<V> {
    value: Result<V, LookupError>,
    ends: Instant,
}

type Slot<V> = Arc<OnceCell<Answer<V>>>;

/// Answers by subject.
#[derive(Debug)]
pub struct Cache<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self {
            slots: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// The answer for `key` and how long it still holds; `lookup` is asked when there is
    /// none, or one that `holds` no longer. That nobody could be asked is not remembered.
    ///
    /// # Errors
    /// What `lookup` said, now or when it was asked.
    pub async fn get<F>(
        &self,
        key: &K,
        now: Instant,
        holds: impl Fn(&V) -> bool,
        lookup: impl FnOnce() -> F,
    ) -> (Result<V, LookupError>, Duration)
    where
        F: Future<Output = Result<V, LookupError>>,
    {
        let slot = self.slot(key, now, holds);
        let answer = slot
            .get_or_init(|| async {
                let value = lookup().await;
                let life = if value.is_ok() {
                    POSITIVE_LIFE
                } else {
                    NEGATIVE_LIFE
                };
                Answer {
                    value,
                    ends: now + life,
                }
            })
            .await;
        if matches!(
            answer.value,
            Err(LookupError::Unreachable | LookupError::Offline)
        ) {
            self.forget(key, &slot);
        }
        (
            answer.value.clone(),
            answer.ends.saturating_duration_since(now),
        )
    }

    /// How many subjects are remembered or being looked up.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    fn slot(&self, key: &K, now: Instant, holds: impl Fn(&V) -> bool) -> Slot<V> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key)
            && slot.get().is_none_or(|answer| {
                answer.ends > now && answer.value.as_ref().map_or(true, &holds)
            })
        {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_ENTRIES && !slots.contains_key(key) {
            slots.retain(|_, slot| slot.get().is_none_or(|answer| answer.ends > now));
        }
        if slots.len() >= MAX_ENTRIES && !slots.contains_key(key) {
            let first = slots
                .iter()
                .min_by_key(|(_, slot)| {
                    (slot.get().is_none(), slot.get().map(|answer| answer.ends))
                })
                .map(|(key, _)| key.clone());
            if let Some(first) = first {
                slots.remove(&first);
            }
        }
        let slot = Slot::default();
        slots.insert(key.clone(), Arc::clone(&slot));
        slot
    }

    fn forget(&self, key: &K, slot: &Slot<V>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.get(key).is_some_and(|held| Arc::ptr_eq(held, slot)) {
            slots.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn always<V>(_: &V) -> bool {
        true
    }

    #[tokio::test]
    async fn answers_are_told_again_until_they_end() {
        let cache = Cache::<u32, u32>::default();
        let start = Instant::now();
        let asked = AtomicUsize::new(0);
        let get = |at: Instant| {
            cache.get(&1, at, always, || async {
                asked.fetch_add(1, Ordering::Relaxed);
                Ok(7)
            })
        };
        assert_eq!(get(start).await, (Ok(7), POSITIVE_LIFE));
        let later = start + Duration::from_secs(20);
        assert_eq!(get(later).await, (Ok(7), Duration::from_secs(40)));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        get(start + POSITIVE_LIFE).await.0.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_holds_no_longer_is_looked_up_again() {
        let cache = Cache::<u32, u32>::default();
        let now = Instant::now();
        let get = |holds: bool, found: u32| {
            let cache = &cache;
            async move {
                cache
                    .get(&1, now, |_| holds, || async move { Ok(found) })
                    .await
                    .0
            }
        };
        assert_eq!(get(true, 1).await, Ok(1));
        assert_eq!(get(true, 2).await, Ok(1));
        assert_eq!(get(false, 3).await, Ok(3));
        assert_eq!(get(true, 4).await, Ok(3));
    }

    #[tokio::test]
    async fn an_unreachable_directory_is_asked_again_at_once() {
        let cache = Cache::<u32, u32>::default();
        let now = Instant::now();
        let (answer, _) = cache
            .get(&1, now, always, || async { Err(LookupError::Unreachable) })
            .await;
        assert_eq!(answer, Err(LookupError::Unreachable));
        assert_eq!(cache.len(), 0);
        assert_eq!(
            cache.get(&1, now, always, || async { Ok(1) }).await.0,
            Ok(1)
        );
    }

    #[tokio::test]
    async fn not_found_is_kept_for_a_short_time() {
        let cache = Cache::<u32, u32>::default();
        let now = Instant::now();
        let missing = || async { Err(LookupError::NotFound) };
        assert_eq!(
            cache.get(&1, now, always, missing).await.0,
            Err(LookupError::NotFound)
        );
        let (answer, left) = cache.get(&1, now, always, || async { Ok(1) }).await;
        assert_eq!((answer, left), (Err(LookupError::NotFound), NEGATIVE_LIFE));
        assert_eq!(
            cache
                .get(&1, now + NEGATIVE_LIFE, always, || async { Ok(1) })
                .await
                .0,
            Ok(1)
        );
    }

    #[tokio::test]
    async fn one_lookup_serves_all_who_wait() {
        let cache = Cache::<u32, u32>::default();
        let asked = AtomicUsize::new(0);
        let get = || {
            cache.get(&1, Instant::now(), always, || async {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(7)
            })
        };
        let (a, b, c) = tokio::join!(get(), get(), get());
        assert_eq!((a.0, b.0, c.0), (Ok(7), Ok(7), Ok(7)));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let cache = Cache::<usize, usize>::default();
        let now = Instant::now();
        for key in 0..MAX_ENTRIES + 50 {
            cache
                .get(&key, now, always, || async { Ok(key) })
                .await
                .0
                .unwrap();
        }
        assert_eq!(cache.len(), MAX_ENTRIES);
    }
}
