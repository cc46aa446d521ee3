//! The running client: from the configuration to a stop that leaves nothing behind.
//!
//! A [`lifecycle`] is one life of the interface and the endpoint behind it. Two things end
//! it without ending the process: the first name that is published and the last that is
//! withdrawn, because an endpoint decides at its start whether it can be found; and a
//! directory that moved the virtual network.

pub mod backend;
pub mod control_requests;
pub mod lease;
pub mod lifecycle;
pub mod names;
pub mod status;

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::host_dns::Host;
use crate::progress::Progress;
use crate::state::State;
use crate::{Error, Result};

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As it was asked to.
    Stop,
    /// To begin again.
    Restart,
}

/// Runs a client until it is told to stop, by signal or by command.
///
/// # Errors
/// What keeps it from starting, or made it stop. What the host was changed in is put back
/// in any case.
pub async fn run(config: Config, host: Host, progress: &Progress) -> Result<()> {
    let state = Arc::new(State::open(&config.state_dir)?);
    let mut signals = StopSignals::listen()?;
    loop {
        match lifecycle::run(&config, &host, &state, &mut signals, progress).await? {
            End::Stop => return Ok(()),
            End::Restart => progress.step("starting again"),
        }
    }
}

/// The signals that ask for a clean stop. SIGHUP is among them: it comes when the
/// terminal goes, and must not leave the host's resolver pointing at nothing.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listen() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|error| Error::Stopped {
                reason: format!("no signals: {error}"),
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
