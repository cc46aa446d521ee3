//! How a thread that sleeps learns that something waits in its queues.
//!
//! What wakes it is the driver's: an eventfd, a task's notification. Here is when.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Wakes one thread or task. A call before it sleeps must not be lost: the next sleep ends at once.
pub trait Wake: Send + Sync {
    /// Wakes it. Must not block.
    fn wake(&self);
}

/// For a thread that never sleeps, or that looks at its queues in its own time.
#[derive(Debug, Clone, Copy, Default)]
pub struct NeverSleeps;

impl Wake for NeverSleeps {
    fn wake(&self) {}
}

/// Wakes a worker, only if it sleeps: a system call is spared as long as it works.
#[derive(Default)]
pub struct WorkerWaker {
    wake: OnceLock<Box<dyn Wake>>,
    asleep: AtomicBool,
}

impl WorkerWaker {
    /// Says what wakes the worker, once, before it sleeps for the first time.
    pub fn set(&self, wake: impl Wake + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// Wakes the worker if it sleeps. To be called after something was added to one of its queues.
    pub fn wake(&self) {
        // Either the worker, which says that it sleeps before it looks a last time, sees
        // what was added, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && let Some(wake) = self.wake.get()
        {
            wake.wake();
        }
    }

    /// Says that the worker is about to sleep. It looks at its queues after this.
    pub fn set_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the worker is awake.
    pub fn set_awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_a_worker_that_sleeps_is_woken() {
        let (waker, count) = (WorkerWaker::default(), Count::default());
        waker.set(count.clone());
        let woken = || count.0.load(Ordering::Relaxed);
        waker.wake();
        assert_eq!(woken(), 0);
        waker.set_asleep();
        waker.wake();
        assert_eq!(woken(), 1);
        waker.set_awake();
        waker.wake();
        assert_eq!(woken(), 1);
    }
}
