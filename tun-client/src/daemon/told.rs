//! The virtual addresses that programs were told for names.
//!
//! A program keeps an address for as long as it likes. A network of somebody else's that appears
//! later does not take it: the program would send to a neighbour what it means for a name.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many are remembered: those that were told last.
const MAX_TOLD: usize = 4096;

/// Addresses that programs were told, at most 4096.
#[derive(Debug, Default)]
pub struct Told(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    addresses: BTreeSet<IpAddr>,
    /// In the order in which they were told first.
    order: VecDeque<IpAddr>,
}

impl Told {
    /// Remembers an address; the oldest is forgotten for it if there are too many.
    pub fn add(&self, address: IpAddr) {
        let mut memory = self.lock();
        if !memory.addresses.insert(address) {
            return;
        }
        memory.order.push_back(address);
        if memory.order.len() > MAX_TOLD
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.addresses.remove(&oldest);
        }
    }

    /// All that are remembered.
    #[must_use]
    pub fn all(&self) -> BTreeSet<IpAddr> {
        self.lock().addresses.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_oldest_are_forgotten_for_new_ones() {
        let told = Told::default();
        let address = |number: usize| {
            let bits = 0x0a01_0000 + u32::try_from(number).unwrap();
            IpAddr::V4(Ipv4Addr::from_bits(bits))
        };
        for number in 0..=MAX_TOLD {
            told.add(address(number));
            told.add(address(number));
        }
        let all = told.all();
        assert_eq!(all.len(), MAX_TOLD);
        assert!(!all.contains(&address(0)) && all.contains(&address(1)));
    }
}
