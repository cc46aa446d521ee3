//! Addresses and when they were told last, within bounds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long one is remembered after it was told last: hardly a program keeps it longer.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// One that is told again is written again after this.
const WRITTEN_AGAIN: Duration = Duration::from_secs(3600);

/// What one asker was told. Times are of a clock that also runs while the machine sleeps, since its
/// start.
#[derive(Debug, Default)]
pub struct Recent {
    at: BTreeMap<IpAddr, Duration>,
    /// The same, the oldest first.
    oldest: BTreeSet<(Duration, IpAddr)>,
    /// When an address was written last.
    written: BTreeMap<IpAddr, Duration>,
}

impl Recent {
    /// Remembers an address; whether it was not there.
    pub fn insert(&mut self, address: IpAddr, at: Duration) -> bool {
        let before = self.at.insert(address, at);
        if let Some(before) = before {
            self.oldest.remove(&(before, address));
        }
        self.oldest.insert((at, address));
        before.is_none()
    }

    /// Forgets the one that was told longest ago.
    pub fn forget_oldest(&mut self) -> Option<IpAddr> {
        let (_, address) = self.oldest.pop_first()?;
        self.at.remove(&address);
        self.written.remove(&address);
        Some(address)
    }

    /// Forgets what is over, and gives it.
    pub fn forget_old(&mut self, now: Duration) -> Vec<IpAddr> {
        let is_over = |at: Duration| now.saturating_sub(at) >= REMEMBERED;
        let mut forgotten = Vec::new();
        while self.oldest.first().is_some_and(|(at, _)| is_over(*at)) {
            forgotten.extend(self.forget_oldest());
        }
        forgotten
    }

    /// Whether it is to be written down that an address is told now.
    pub fn is_to_write(&mut self, address: IpAddr, now: Duration) -> bool {
        let written = self.written.get(&address);
        if written.is_some_and(|at| now.saturating_sub(*at) < WRITTEN_AGAIN) {
            return false;
        }
        self.written.insert(address, now);
        true
    }

    /// All of it has been written.
    pub fn set_written(&mut self) {
        self.written.clone_from(&self.at);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Duration, IpAddr)> {
        self.oldest.iter().copied()
    }

    /// All of them.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.at.keys().copied()
    }
}

/// Who is behind an interface of the host's: its index, and the address that is asked from.
pub type Container = (u32, IpAddr);

/// What containers were told, who share the places.
///
/// Where there is none left, the interface with the most gives one up, and behind it the source with the
/// most: the oldest. So who looks up many names pushes out its own, and who makes up sources those of
/// its own bridge. An address is forgotten when nobody who was told it has it any more.
#[derive(Debug)]
pub struct Shared {
    addresses: usize,
    entries: usize,
    of: BTreeMap<Container, Recent>,
    /// How many have each address.
    askers: BTreeMap<IpAddr, usize>,
}

impl Shared {
    /// Room for so many addresses, and for so many pairs of a container and an address.
    pub fn new(addresses: usize, entries: usize) -> Self {
        Self {
            addresses,
            entries,
            of: BTreeMap::new(),
            askers: BTreeMap::new(),
        }
    }

    /// Remembers that a container was told an address.
    pub fn insert(&mut self, container: Container, address: IpAddr, at: Duration) {
        let recent = self.of.entry(container).or_default();
        if recent.insert(address, at) {
            *self.askers.entry(address).or_default() += 1;
        }
        while self.askers.len() > self.addresses || self.len() > self.entries {
            let Some(most) = self.who_has_most() else {
                return;
            };
            let forgotten = self.of.get_mut(&most).and_then(Recent::forget_oldest);
            self.forgotten(most, forgotten);
        }
    }

    /// Whether it is to be written down that a container is told an address now.
    pub fn is_to_write(&mut self, container: Container, address: IpAddr, now: Duration) -> bool {
        let recent = self.of.get_mut(&container);
        recent.is_some_and(|recent| recent.is_to_write(address, now))
    }

    /// All of it has been written.
    pub fn set_written(&mut self) {
        self.of.values_mut().for_each(Recent::set_written);
    }

    /// Forgets what is over.
    pub fn forget_old(&mut self, now: Duration) {
        let containers: Vec<Container> = self.of.keys().copied().collect();
        for container in containers {
            let recent = self.of.get_mut(&container);
            let forgotten = recent.map(|recent| recent.forget_old(now));
            self.forgotten(container, forgotten.into_iter().flatten());
        }
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = (Container, Duration, IpAddr)> {
        self.of.iter().flat_map(|(container, recent)| {
            let entries = recent.iter();
            entries.map(|(at, address)| (*container, at, address))
        })
    }

    /// All addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.askers.keys().copied()
    }

    fn len(&self) -> usize {
        self.askers.values().sum()
    }

    /// A container has these no more.
    fn forgotten(&mut self, container: Container, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if let Some(askers) = self.askers.get_mut(&address) {
                *askers -= 1;
                if *askers == 0 {
                    self.askers.remove(&address);
                }
            }
        }
        if self.of.get(&container).is_some_and(|of| of.len() == 0) {
            self.of.remove(&container);
        }
    }

    /// The container with the most, of those behind the interface with the most; of several the one
    /// whose oldest is the oldest.
    fn who_has_most(&self) -> Option<Container> {
        let mut links: BTreeMap<u32, usize> = BTreeMap::new();
        for ((link, _), recent) in &self.of {
            *links.entry(*link).or_default() += recent.len();
        }
        let most = self.of.iter().max_by_key(|((link, _), recent)| {
            let oldest = recent.iter().next();
            (links.get(link), recent.len(), Reverse(oldest))
        });
        most.map(|(container, _)| *container)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a01_0000 + number).into()
    }

    fn container(link: u32, source: u32) -> Container {
        (link, Ipv4Addr::from_bits(0xac11_0000 + source).into())
    }

    fn at(seconds: u32) -> Duration {
        Duration::from_secs(seconds.into())
    }

    /// What a container was told that is still remembered.
    fn left(shared: &Shared, of: Container) -> usize {
        shared.of.get(&of).map_or(0, Recent::len)
    }

    #[test]
    fn who_looks_up_many_names_pushes_out_its_own() {
        let mut shared = Shared::new(256, 1024);
        let (quiet, loud) = (container(1, 1), container(1, 2));
        for number in 0..20 {
            shared.insert(quiet, address(number), at(number));
        }
        // The same ones first: they are not forgotten with the other's.
        for number in 0..10_000 {
            shared.insert(loud, address(number), at(100 + number));
        }
        assert_eq!(shared.addresses().count(), 256);
        assert_eq!((left(&shared, quiet), left(&shared, loud)), (20, 236));
        assert!((0..20).all(|number| shared.addresses().any(|a| a == address(number))));
        assert!(shared.addresses().any(|a| a == address(9_999)));
    }

    #[test]
    fn made_up_sources_push_out_those_of_their_own_bridge() {
        let mut shared = Shared::new(256, 1024);
        for number in 0..100 {
            shared.insert(container(1, 1), address(number), at(number));
        }
        for number in 1_000..11_000 {
            shared.insert(container(2, number), address(number), at(number));
        }
        assert_eq!(left(&shared, container(1, 1)), 100);
        // A third one gets its part.
        for number in 20_000..30_000 {
            shared.insert(container(3, 1), address(number), at(number));
        }
        assert!(left(&shared, container(3, 1)) >= 256 / 3);
        assert!(left(&shared, container(1, 1)) >= 256 / 3);
    }

    #[test]
    fn an_address_is_forgotten_with_the_last_who_was_told() {
        let mut shared = Shared::new(256, 1024);
        shared.insert(container(1, 1), address(1), at(0));
        shared.insert(container(1, 2), address(1), at(60));
        shared.forget_old(REMEMBERED);
        assert_eq!(shared.addresses().count(), 1);
        shared.forget_old(REMEMBERED + at(60));
        assert_eq!(shared.addresses().count(), 0);
        assert!(shared.of.is_empty());
    }

    proptest! {
        #[test]
        fn no_more_is_remembered_than_there_is_room_for(
            told in prop::collection::vec((0u32..4, 0u32..6, 0u32..40), 0..300),
        ) {
            let mut shared = Shared::new(12, 24);
            for (number, (link, source, name)) in (0..).zip(told) {
                let who = container(link, source);
                shared.insert(who, address(name), at(number));
                let entries: Vec<_> = shared.iter().collect();
                let addresses: BTreeSet<IpAddr> = entries.iter().map(|(_, _, a)| *a).collect();
                prop_assert!(entries.len() <= 24 && addresses.len() <= 12);
                prop_assert!(addresses.into_iter().eq(shared.addresses()));
                prop_assert!(shared.of.values().all(|recent| recent.len() > 0));
                prop_assert!(left(&shared, who) > 0, "whoever was told last is remembered");
            }
        }
    }
}
