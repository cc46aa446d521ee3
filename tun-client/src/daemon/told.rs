//! The virtual addresses that programs were told for names.
//!
//! A program keeps an address for a while. A network of somebody else's that appears later does not take
//! it: the program would send to a neighbour what it means for a name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many are remembered: those that were told last.
const MAX_TOLD: usize = 4096;
/// How long one is remembered after it was told last: hardly a program keeps it longer.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Addresses that programs were told, at most 4096, and when that was.
#[derive(Debug, Default)]
pub struct Told(Mutex<BTreeMap<IpAddr, Instant>>);

impl Told {
    /// Remembers an address from now on; another one is forgotten for it if there are too many.
    pub fn add(&self, address: IpAddr) {
        self.add_at(address, Instant::now());
    }

    fn add_at(&self, address: IpAddr, now: Instant) {
        let mut told = self.lock();
        told.insert(address, now);
        if told.len() > MAX_TOLD {
            let oldest = told.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                told.remove(&oldest);
            }
        }
    }

    /// All that are remembered.
    #[must_use]
    pub fn all(&self) -> BTreeSet<IpAddr> {
        self.all_at(Instant::now())
    }

    fn all_at(&self, now: Instant) -> BTreeSet<IpAddr> {
        let mut told = self.lock();
        told.retain(|_, at| now.saturating_duration_since(*at) < REMEMBERED);
        told.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: usize) -> IpAddr {
        let bits = 0x0a01_0000 + u32::try_from(number).unwrap();
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    }

    #[test]
    fn what_was_told_last_is_remembered() {
        let told = Told::default();
        let begin = Instant::now();
        let at = |seconds: usize| begin + Duration::from_secs(seconds as u64);
        for number in 0..MAX_TOLD {
            told.add_at(address(number), at(number));
        }
        // The first is told again, and so the second one is the oldest.
        told.add_at(address(0), at(MAX_TOLD));
        told.add_at(address(MAX_TOLD), at(MAX_TOLD));
        let all = told.all_at(at(MAX_TOLD));
        assert_eq!(all.len(), MAX_TOLD);
        assert!(all.contains(&address(0)) && !all.contains(&address(1)));
        assert!(told.all_at(at(MAX_TOLD) + REMEMBERED).is_empty());
    }
}
