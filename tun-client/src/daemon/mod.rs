//! The running client: from the configuration to a stop that leaves nothing behind.
//!
//! A `lifecycle` is one life of the interface and the endpoint behind it. One thing ends it without
//! ending the process: a directory that moved the virtual network, which gives everybody other
//! addresses. All else changes in place: names by commands, and what the configuration says when it
//! is read again (`reloading`).
//!
//! From the ground up: `status` and `names` are what there is to know, `reloading` has the
//! configuration that counts, `shared` is what the tasks of a lifecycle have in common,
//! `lease`, `status_report` and `startup` work on it, `control_requests` answers commands, and
//! `lifecycle` owns them all.

mod backend;
mod clients;
mod control_requests;
pub mod host;
mod known;
mod lease;
mod lifecycle;
pub mod lock;
mod locked_names;
mod names;
mod outside;
mod reloading;
mod resolve;
mod resolver;
mod service;
mod shared;
mod startup;
pub(crate) mod status;
mod status_report;
mod stop_signals;
mod told;

use std::sync::Arc;

use mixline_daemon::hangup;
use mixline_daemon::reload::Origin;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::host_dns::Host;
use crate::progress::Progress;
use crate::state::State;
use reloading::Reloader;
use shared::Ending;
use stop_signals::StopSignals;
use told::Told;

/// Runs a client until it is told to stop, by signal or by command. SIGHUP reads the configuration
/// again.
///
/// # Errors
/// What keeps it from starting, or made it stop. What was changed on the host is put back in
/// any case.
pub async fn run(config: Config, origin: Origin, host: Host, progress: &Progress) -> Result<()> {
    let mut hangups = hangup::listen().map_err(Error::Signals)?;
    let mut signals = StopSignals::listen()?;
    let state = Arc::new(State::open(&config.state_dir)?);
    let told = Arc::new(Told::of(&config));
    let reloader = Arc::new(Reloader::new(config, origin));
    let mut reloads = JoinSet::new();
    reloads.spawn({
        let reloader = Arc::clone(&reloader);
        async move {
            while hangups.recv().await.is_some() {
                // What comes out is in the log.
                let _ = reloader.reload();
            }
        }
    });
    // What was closed before stays closed when this fails.
    let mut closed = host::is_closed();
    loop {
        let life = lifecycle::run(
            &reloader,
            &host,
            &state,
            &mut signals,
            &told,
            progress,
            closed,
        );
        closed = true;
        match life.await? {
            Ending::Stop => return Ok(()),
            Ending::Restart => progress.step("starting again"),
        }
    }
}
