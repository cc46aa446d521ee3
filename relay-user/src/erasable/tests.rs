//! What is left of earlier contents, and what a power cut leaves.

use std::collections::HashMap;
use std::io::{Seek as _, SeekFrom};

use super::*;

const NAME: &str = "some.keys";
const LARGEST: u64 = 1 << 30;

fn settle(file: &Erasable) {
    assert!(matches!(file.settle(LARGEST).unwrap(), Settled::InOrder));
}

/// A file in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
    file: Erasable,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = Erasable::new(directory.path().into(), NAME);
        settle(&file);
        Self { directory, file }
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("{NAME}{suffix}"))
    }

    fn contents(&self) -> Option<Vec<u8>> {
        let read = self.file.read(LARGEST).unwrap();
        read.map(|contents| contents.to_vec())
    }

    /// What is there after a power cut at this moment.
    fn after_a_power_cut(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.directory.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        let file = Erasable::new(directory.path().into(), NAME);
        settle(&file);
        Self { directory, file }
    }

    /// The numbers of the keys that there are.
    fn keys(&self) -> Vec<u64> {
        let slots = self.file.slots().unwrap();
        slots
            .iter()
            .map(|slot| slot.number)
            .filter(|n| *n != 0)
            .collect()
    }
}

/// What somebody makes of a sealed file and everything in the file of keys: each place in it is
/// tried as a key.
fn try_all(sealed: &mut File, keys: &[u8]) -> Option<Vec<u8>> {
    sealed.seek(SeekFrom::Start(0)).unwrap();
    let mut bytes = Vec::new();
    sealed.read_to_end(&mut bytes).unwrap();
    let (header, pieces) = bytes.split_first_chunk::<HEADER>().unwrap();
    keys.windows(32).find_map(|key| {
        let mut slot = Slot::default();
        slot.key.copy_from_slice(key);
        let opened = open(&slot, *header, pieces, pieces.len() as u64).unwrap();
        opened.map(|contents| contents.to_vec())
    })
}

#[test]
fn who_kept_the_old_file_open_reads_nothing_once_it_is_replaced_or_removed() {
    let place = Place::new();
    let keys = || fs::read(place.path(".seal")).unwrap();
    for (what, replace) in [("replaced", true), ("removed", false), ("again", true)] {
        place.file.write(b"the old keys").unwrap();
        let mut old = File::open(place.path("")).unwrap();
        let found = try_all(&mut old, &keys());
        assert_eq!(found.unwrap(), b"the old keys", "the test can look");
        if replace {
            place.file.write(b"the new keys").unwrap();
            assert_eq!(place.contents().unwrap(), b"the new keys");
        } else {
            place.file.remove().unwrap();
            assert_eq!(place.contents(), None);
            assert!(!place.path("").exists());
        }
        assert_eq!(try_all(&mut old, &keys()), None, "{what}");
    }
    // The file of keys is the same one for ever: what was in it was written over.
    let mut first = File::open(place.path(".seal")).unwrap();
    place.file.write(b"later").unwrap();
    let mut bytes = Vec::new();
    first.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, keys());
    for suffix in ["", ".seal"] {
        let mode = fs::metadata(place.path(suffix))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
}

#[test]
fn a_power_cut_between_two_steps_loses_neither_state_and_leaves_no_key() {
    let place = Place::new();
    place.file.write(b"old").unwrap();
    for round in 0..4 {
        let (old, new) = (format!("old {round}"), format!("new {round}"));
        place.file.write(old.as_bytes()).unwrap();
        let is = |text: &str| {
            let after = place.after_a_power_cut();
            assert_eq!(after.contents().unwrap(), text.as_bytes());
            assert_eq!(after.keys().len(), 1);
            // It goes on from there.
            after.file.write(b"next").unwrap();
            assert_eq!(after.contents().unwrap(), b"next");
            assert_eq!(after.keys().len(), 1);
        };
        let slot = place.file.add_key().unwrap();
        is(&old);
        // The new file was begun.
        fs::write(place.path(".new"), header(slot.number)).unwrap();
        is(&old);
        assert!(!place.after_a_power_cut().path(".new").exists());
        place.file.put(&slot, new.as_bytes()).unwrap();
        is(&new);
        place.file.keep_only(slot.number).unwrap();
        is(&new);
    }
    // When it is removed: the key is gone, the file not yet.
    place.file.keep_only(0).unwrap();
    let after = place.after_a_power_cut();
    assert_eq!((after.contents(), after.keys()), (None, vec![]));
    after.file.write(b"next").unwrap();
    assert_eq!(after.contents().unwrap(), b"next");
}

#[test]
fn a_slot_that_was_cut_short_harms_only_what_was_to_come() {
    let place = Place::new();
    place.file.write(b"old").unwrap();
    let slot = place.file.add_key().unwrap();
    let at = place.file.slots().unwrap();
    let at = at.iter().position(|s| s.number == slot.number).unwrap() as u64;
    let keys = OpenOptions::new()
        .write(true)
        .open(place.path(".seal"))
        .unwrap();
    keys.write_all_at(&[7; SLOT_USED / 2], at * SLOT).unwrap();
    let after = place.after_a_power_cut();
    assert_eq!(after.contents().unwrap(), b"old");
    // Made, and not filled yet.
    keys.set_len(20).unwrap();
    assert_eq!(place.contents(), None);
    place.file.write(b"new").unwrap();
    assert_eq!(place.contents().unwrap(), b"new");
}

#[test]
fn what_is_in_the_clear_is_sealed_and_written_over() {
    for length in [0, 5, 16, 5000] {
        let place = Place::new();
        let plain = vec![b'k'; length];
        fs::write(place.path(""), &plain).unwrap();
        let mut old = File::open(place.path("")).unwrap();
        // A power cut after the second name was made, and once more after the file was replaced.
        fs::hard_link(place.path(""), place.path(".plain")).unwrap();
        let after = place.after_a_power_cut();
        assert_eq!(after.contents().unwrap(), plain);
        assert!(!after.path(".plain").exists());
        place.file.write(&plain).unwrap();
        assert_eq!(fs::read(place.path(".plain")).unwrap(), plain);
        settle(&place.file);
        assert_eq!(place.contents().unwrap(), plain);
        let mut bytes = Vec::new();
        old.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, vec![0; length]);
        assert!(!place.path(".plain").exists());
    }
    let place = Place::new();
    fs::write(place.path(""), b"in the clear").unwrap();
    let mut old = File::open(place.path("")).unwrap();
    place.file.remove().unwrap();
    let mut bytes = Vec::new();
    old.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [0; 12]);
}

#[test]
fn what_is_in_the_clear_and_cannot_be_sealed_is_written_over_and_removed() {
    // As on a file system that has no second names; or more than is read; or neither.
    for (has_no_names, largest) in [(true, LARGEST), (false, 11), (true, 11)] {
        let place = Place::new();
        place.file.write(b"its slots").unwrap();
        fs::write(place.path(""), b"in the clear").unwrap();
        let mut old = File::open(place.path("")).unwrap();
        if has_no_names {
            fs::create_dir(place.path(".plain")).unwrap();
        }
        let settled = place.file.settle(largest).unwrap();
        assert!(matches!(settled, Settled::InTheClear(_)));
        assert_eq!(place.contents(), None);
        place.file.discard();
        let mut bytes = Vec::new();
        old.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [0; 12]);
        assert!(!place.path("").exists());
        assert!(place.keys().is_empty());
        // It goes on from there.
        settle(&place.file);
        place.file.remove().unwrap();
        place.file.write(b"next").unwrap();
        assert_eq!(place.contents().unwrap(), b"next");
    }
}

#[test]
fn pieces_are_put_together_and_changed_ones_are_refused() {
    let place = Place::new();
    let mut sizes = HashMap::new();
    for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
        let contents: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
        place.file.write(&contents).unwrap();
        assert!(place.contents().unwrap() == contents, "{length}");
        sizes.insert(length, fs::metadata(place.path("")).unwrap().len());
    }
    assert_eq!(sizes[&0], (HEADER + TAG) as u64);
    assert_eq!(sizes[&PIECE], (HEADER + PIECE + TAG) as u64);
    let good = fs::read(place.path("")).unwrap();
    let whole = PIECE + TAG;
    let swapped = [
        &good[..HEADER],
        &good[HEADER + whole..HEADER + 2 * whole],
        &good[HEADER..HEADER + whole],
        &good[HEADER + 2 * whole..],
    ]
    .concat();
    let mut changed = good.clone();
    changed[HEADER + whole + 5] ^= 1;
    let cut = good[..HEADER + 2 * whole].to_vec();
    for (what, bad) in [("swapped", swapped), ("changed", changed), ("cut", cut)] {
        fs::write(place.path(""), bad).unwrap();
        assert_eq!(place.contents(), None, "{what}");
    }
    for short in [good[..HEADER].to_vec(), good[..HEADER + 5].to_vec()] {
        fs::write(place.path(""), short).unwrap();
        assert_eq!(place.contents(), None);
    }
    fs::write(place.path(""), &good).unwrap();
    let too_large = place.file.read(1000).unwrap_err();
    assert_eq!(too_large.kind(), io::ErrorKind::FileTooLarge);
}
