//! What wakes the threads of this daemon: an eventfd for a worker, tokio for the control plane.

use mixline_relay_engine::wake::Wake;
use tokio::sync::Notify;

/// Ends a worker's wait in epoll.
pub struct EventWaker(pub mio::Waker);

impl Wake for EventWaker {
    fn wake(&self) {
        if let Err(error) = self.0.wake() {
            tracing::error!(%error, "a worker cannot be woken");
        }
    }
}

/// Wakes the control plane's task.
#[derive(Debug, Default)]
pub struct ControlWaker(Notify);

impl ControlWaker {
    /// Returns when it was woken since the last time, or is.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}

impl Wake for ControlWaker {
    fn wake(&self) {
        self.0.notify_one();
    }
}
