//! The payload keys of the paths that carry the most, ready for use.
//!
//! What is derived from a payload key is sixteen times as large as the key. A path that carries a cell
//! now and then is faster without it: making it takes less than fetching it from memory. A path that carries
//! many in a row is faster with it, and there is room for some hundreds in a core's own cache. So each place here
//! is shared by the paths whose positions lead to it, and belongs to one that came several times without
//! another in between.

use super::peel::KnownPath;
use mixline_wide_crypto::hctr2::Hctr2;

/// Places: 300 KB of them, within the second cache of the processors that this is for.
const PLACES: usize = 512;
/// A path gets a place when it has come so often without another one that leads to it: who makes paths take
/// turns has a key made for every so many cells.
const OFTEN: u8 = 4;

/// No position.
const NONE: u32 = u32::MAX;

/// What is looked at for each cell: of all places, it fits into the first cache. Paths are known by their positions,
/// so whoever puts another one to a position calls [`BusyKeys::forget`].
#[derive(Clone, Copy)]
struct Place {
    /// Whose key is here.
    of: u32,
    /// The path that came last without a key here ...
    missed: u32,
    /// ... and how often in a row.
    times: u8,
}

impl Place {
    const FREE: Self = Self {
        of: NONE,
        missed: NONE,
        times: 0,
    };
}

/// See the module's description. Keys are erased when others take their place.
pub(super) struct BusyKeys {
    places: Box<[Place; PLACES]>,
    keys: Box<[Option<Hctr2>]>,
}

impl BusyKeys {
    /// No keys.
    pub(super) fn new() -> Self {
        Self {
            places: Box::new([Place::FREE; PLACES]),
            keys: std::iter::repeat_with(|| None).take(PLACES).collect(),
        }
    }

    /// The key of the path at this position, if it is busy.
    #[inline]
    pub(super) fn get(&mut self, at: u32, path: &KnownPath) -> Option<&Hctr2> {
        let number = at as usize % PLACES;
        let place = &mut self.places[number];
        if place.of == at {
            place.times = 0;
            return self.keys[number].as_ref();
        }
        if place.missed != at {
            place.missed = at;
            place.times = 0;
        }
        place.times += 1;
        if place.times >= OFTEN {
            self.keep(number, at, path);
        }
        None
    }

    /// Gives a place to another path.
    #[cold]
    fn keep(&mut self, number: usize, at: u32, path: &KnownPath) {
        path.expand_into(&mut self.keys[number]);
        self.places[number] = Place {
            of: at,
            ..Place::FREE
        };
    }

    /// Erases the key of the path at this position, which is another one from now on.
    pub(super) fn forget(&mut self, at: u32) {
        let number = at as usize % PLACES;
        let place = &mut self.places[number];
        if place.missed == at {
            place.missed = NONE;
        }
        if place.of == at {
            place.of = NONE;
            self.keys[number] = None;
        }
    }

    /// Erases all.
    pub(super) fn clear(&mut self) {
        self.places.fill(Place::FREE);
        self.keys.fill_with(|| None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mixline_wide_crypto::Width;

    /// Whether there are keys that are worth it.
    fn is_wide() -> bool {
        Width::current().name() != "scalar"
    }

    #[test]
    fn who_comes_often_without_another_gets_a_place() {
        let other = 7 + u32::try_from(PLACES).unwrap();
        let (mut busy, paths) = (BusyKeys::new(), [1, 2].map(KnownPath::of_byte));
        for _ in 0..OFTEN {
            assert!(busy.get(7, &paths[0]).is_none());
        }
        assert_eq!(busy.get(7, &paths[0]).is_some(), is_wide());
        // One that comes in turns with it does not take the place, nor one that comes once.
        for _ in 0..10 {
            assert!(busy.get(other, &paths[1]).is_none());
            assert_eq!(busy.get(7, &paths[0]).is_some(), is_wide());
        }
        for _ in 0..OFTEN {
            assert!(busy.get(other, &paths[1]).is_none());
        }
        assert_eq!(busy.get(other, &paths[1]).is_some(), is_wide());
        assert!(busy.get(7, &paths[0]).is_none());
        // Nor has another path the key that comes to the same position.
        busy.forget(7);
        assert_eq!(busy.get(other, &paths[1]).is_some(), is_wide());
        busy.forget(other);
        assert!(busy.get(other, &paths[0]).is_none());
        assert!(busy.keys.iter().all(Option::is_none));
        for _ in 0..=OFTEN {
            busy.get(other, &paths[1]);
        }
        busy.clear();
        assert!(busy.get(other, &paths[1]).is_none());
        assert!(busy.keys.iter().all(Option::is_none));
    }
}
