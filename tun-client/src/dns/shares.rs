//! Places that all who ask share: the host itself, and containers behind its bridges.
//!
//! The host has places that nobody else gets. Of the others, whoever has fewer than are free gets one
//! more (Choudhury and Hahne, "Dynamic Queue Length Thresholds in a Shared Memory ATM Switch", 1996): a
//! lone asker gets many, and leaves some for whoever comes next. The rule holds between bridges, and
//! between the sources behind one. Sources can be made up, so who makes up many takes the places of
//! its own bridge, and of no other. Nothing is remembered of who has no place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A program of this host.
    Host,
    /// Somebody behind an interface that leads to containers.
    Behind {
        /// The interface's index.
        link: u32,
        /// The address that it asks from.
        source: IpAddr,
    },
}

/// A number of places.
#[derive(Debug)]
pub struct Shares {
    places: usize,
    /// How many of them are the host's alone.
    reserve: usize,
    taken: Mutex<Taken>,
}

/// Who has places: as many entries as places at most.
#[derive(Debug, Default)]
struct Taken {
    host: usize,
    behind: usize,
    links: HashMap<u32, OfLink>,
}

/// What those behind one interface have.
#[derive(Debug, Default)]
struct OfLink {
    all: usize,
    sources: HashMap<IpAddr, usize>,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    shares: Arc<Shares>,
    asker: Asker,
}

impl Shares {
    /// So many places, of which `reserve` are the host's alone.
    #[must_use]
    pub fn new(places: usize, reserve: usize) -> Arc<Self> {
        Arc::new(Self {
            places,
            reserve,
            taken: Mutex::default(),
        })
    }

    /// A place, if one is free and `asker` has not got its share.
    pub fn take(self: &Arc<Self>, asker: Asker) -> Option<Place> {
        let mut taken = self.taken();
        let free = self.places.saturating_sub(taken.host + taken.behind);
        match asker {
            Asker::Host => {
                if free == 0 {
                    return None;
                }
                taken.host += 1;
            }
            Asker::Behind { link, source } => {
                let others = self.places.saturating_sub(self.reserve);
                let free = free.min(others.saturating_sub(taken.behind));
                let (of_link, of_source) = taken.of(link, source);
                // What is left to the interface is shared by its sources.
                if of_link >= free || of_source >= free - of_link {
                    return None;
                }
                taken.behind += 1;
                let of_link = taken.links.entry(link).or_default();
                of_link.all += 1;
                *of_link.sources.entry(source).or_default() += 1;
            }
        }
        Some(Place {
            shares: Arc::clone(self),
            asker,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// What those behind an interface have, and one of them.
    fn of(&self, link: u32, source: IpAddr) -> (usize, usize) {
        let of_link = self.links.get(&link);
        let of_source = of_link.and_then(|of_link| of_link.sources.get(&source));
        (
            of_link.map_or(0, |of_link| of_link.all),
            of_source.copied().unwrap_or(0),
        )
    }

    fn give_back(&mut self, asker: Asker) {
        let Asker::Behind { link, source } = asker else {
            self.host = self.host.saturating_sub(1);
            return;
        };
        self.behind = self.behind.saturating_sub(1);
        let Some(of_link) = self.links.get_mut(&link) else {
            return;
        };
        of_link.all = of_link.all.saturating_sub(1);
        if let Some(count) = of_link.sources.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                of_link.sources.remove(&source);
            }
        }
        if of_link.all == 0 {
            self.links.remove(&link);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shares.taken().give_back(self.asker);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn behind(link: u32, source: u32) -> Asker {
        Asker::Behind {
            link,
            source: Ipv4Addr::from_bits(source).into(),
        }
    }

    /// All that an asker gets.
    fn all(shares: &Arc<Shares>, asker: Asker) -> Vec<Place> {
        std::iter::from_fn(|| shares.take(asker)).collect()
    }

    #[test]
    fn a_lone_asker_gets_many_and_leaves_some() {
        let shares = Shares::new(96, 32);
        let first = all(&shares, behind(1, 1));
        assert_eq!(first.len(), 22);
        let second = all(&shares, behind(1, 2));
        let other = all(&shares, behind(2, 1));
        assert!(
            second.len() >= 7 && other.len() >= 7,
            "{second:?} {other:?}"
        );
        assert!(all(&shares, Asker::Host).len() >= 32);
    }

    #[test]
    fn made_up_sources_take_the_places_of_their_own_bridge() {
        let shares = Shares::new(96, 32);
        let flood: Vec<Place> = (0..10_000)
            .filter_map(|source| shares.take(behind(1, source)))
            .collect();
        assert_eq!(flood.len(), 32);
        assert!(shares.take(behind(1, 20_000)).is_none());
        let others: Vec<Place> = (2..16)
            .filter_map(|link| shares.take(behind(link, 1)))
            .collect();
        assert_eq!(others.len(), 14);
        assert!(all(&shares, Asker::Host).len() >= 32);
        drop((flood, others));
        let taken = shares.taken();
        assert!(taken.links.is_empty() && taken.behind == 0 && taken.host == 0);
    }

    proptest! {
        #[test]
        fn nobody_s_share_depends_on_who_came_before(
            steps in prop::collection::vec((0u32..4, 0u32..40, any::<bool>()), 0..400),
        ) {
            let shares = Shares::new(64, 16);
            let mut held = Vec::new();
            for (link, source, take) in steps {
                if !take {
                    if !held.is_empty() {
                        held.swap_remove(source as usize % held.len());
                    }
                    continue;
                }
                let asker = if link == 0 { Asker::Host } else { behind(link, source) };
                held.extend(shares.take(asker));
                let taken = shares.taken();
                // None of the host's reserve, and as many entries as places.
                prop_assert!(taken.behind <= 48 && taken.host + taken.behind <= 64);
                let sources: usize = taken.links.values().map(|of| of.sources.len()).sum();
                prop_assert!(sources <= taken.behind && taken.links.len() <= taken.behind);
                prop_assert_eq!(taken.host + taken.behind, held.len());
                drop(taken);
                // Who has none behind a bridge that has none gets one, as long as the host leaves any.
                let newcomer = shares.take(behind(9, 1));
                let taken = shares.taken().host;
                prop_assert!(newcomer.is_some() || taken > 16 || shares.taken().behind == 48);
            }
        }
    }
}
