//! What the service manager hears of a daemon: sd_notify(3).
//!
//! Without `NOTIFY_SOCKET` in the environment nobody listens, and nothing is sent. Nothing here
//! fails: a daemon that works is not stopped because a notice was lost, and a service manager that
//! has heard nothing acts by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// Whether [`ready`] was said: a reload before that must not look like the end of the start.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// The daemon does its work from now on. `status` says so in words.
pub fn ready(status: &str) {
    IS_READY.store(true, Ordering::Relaxed);
    send(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// What the daemon does, in words: `systemctl status` shows it.
pub fn status(status: &str) {
    send(&[NotifyState::Status(&line(status))]);
}

/// The daemon reads its configuration again; [`reloaded`] follows. With the time, as
/// `Type=notify-reload` wants it.
pub fn reloading() {
    if !IS_READY.load(Ordering::Relaxed) {
        return;
    }
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic time"),
    }
}

/// The daemon has read its configuration again, and does its work as before.
pub fn reloaded() {
    if IS_READY.load(Ordering::Relaxed) {
        send(&[NotifyState::Ready]);
    }
}

/// The daemon ends.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(&line(status))]);
}

/// A start, reload or stop takes this much longer from now on, though it goes on.
pub fn wait_for_another(time: Duration) {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// The daemon is alive, for the watchdog.
pub(crate) fn alive() {
    send(&[NotifyState::Watchdog]);
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager does not hear");
    }
}

/// One line: a second one would be another message.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
