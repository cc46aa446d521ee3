//! The turns of the replay filter's generations, with atomics that do all that C11 lets them do (Norris and
//! Demsky, "CDSchecker", 2013, by `loom`), and not only what this processor does.
#![allow(clippy::unwrap_used, reason = "tests")]

/// Loom's, in place of the standard library's.
mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}
#[path = "../src/replay/turn.rs"]
mod turn;

use loom::sync::Arc;
use loom::thread;

use atomic::{AtomicU64, Ordering};
use turn::Turn;

/// Two generations in which there is room for one tag.
#[derive(Default)]
struct Filter {
    turn: Turn,
    generations: [AtomicU64; 2],
}

impl Filter {
    fn take(&self) -> bool {
        self.turn.take(
            |generation| self.generations[generation].load(Ordering::Relaxed) != 0,
            // One word, so that an exchange does what a block's lock does.
            |generation| self.generations[generation].swap(1, Ordering::AcqRel) == 0,
        )
    }
}

/// Tries all that two threads with the same tag can do while a third passes the turn on so often.
fn two_threads(turns: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(move || {
        let filter = Arc::new(Filter::default());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let filter = Arc::clone(&filter);
                thread::spawn(move || filter.take())
            })
            .collect();
        for _ in 0..turns {
            filter.turn.pass();
        }
        let new = threads.into_iter().map(|thread| thread.join().unwrap());
        assert!(new.filter(|new| *new).count() <= 1, "let through twice");
    });
}

#[test]
fn a_tag_is_new_to_one_thread() {
    two_threads(0);
}

#[test]
fn a_tag_is_new_to_one_thread_while_the_turn_passes() {
    two_threads(1);
}

#[test]
fn a_tag_is_new_to_one_thread_while_two_turns_pass() {
    two_threads(2);
}

#[test]
fn who_wrote_in_an_earlier_turn_writes_in_the_next() {
    loom::model(|| {
        let turn = Turn::default();
        let mut written = Vec::new();
        let new = turn.take(
            |_| false,
            |generation| {
                if written.is_empty() {
                    turn.pass();
                }
                written.push(generation);
                true
            },
        );
        assert!(new);
        assert_eq!((written, turn.generation()), (vec![0, 1], 1));
        // Somebody else has written it there meanwhile.
        let mut first = true;
        let write = |_| {
            if first {
                turn.pass();
            }
            std::mem::take(&mut first)
        };
        assert!(!turn.take(|_| false, write));
    });
}

#[test]
fn who_slept_through_two_turns_says_that_it_is_old() {
    loom::model(|| {
        let turn = Turn::default();
        let slept = |_| {
            turn.pass();
            turn.pass();
            true
        };
        assert!(!turn.take(|_| false, slept));
        assert!(!turn.take(|other| other == 1, |_| panic!("written")));
        assert!(turn.take(|_| false, |generation| generation == 0));
    });
}
