//! The closed host without a client: from boot on, and between two runs.

use std::net::SocketAddr;
use std::path::Path;

use mixline_daemon::{hangup, service_manager};
use mixline_protocol::address::VirtualNetwork;

use super::host;
use super::stop_signals::StopSignals;
use crate::config::{Config, ConfigError, Lock};
use crate::error::{Error, Result};
use crate::host::announcements::Announcements;
use crate::host::desired::Wanted;
use crate::host::outside::Outside;
use crate::host::reconcile::Reconciler;
use crate::host_dns::{self, Host};
use crate::state::State;

/// The configuration that last said `lock: always`, in the state directory.
const REMEMBERED: &str = "locked.yaml";

/// Closes the host, once or for as long as the process lives. What is closed stays so afterwards.
///
/// With `if_always` nothing is done unless the configuration wants it, and it is watched only as long
/// as that says so.
///
/// # Errors
/// [`Error::Locked`] if a client is up, [`Error::Host`] if the host cannot be closed.
pub fn lock(config: Config, file: &Path, watch: bool, if_always: bool) -> Result<()> {
    remember(&config, file);
    if if_always && config.lock != Lock::Always {
        service_manager::ready("nothing to do: no `lock: always`");
        return Ok(());
    }
    if State::is_held(&config.state_dir) {
        if !watch {
            return Err(Error::Locked {
                how: "while the client is up",
            });
        }
    } else {
        let reconciler = host::take(&config.interface)?;
        host::is_well(&reconciler.settle(&wanted(&config)))?;
    }
    service_manager::ready("closed");
    tracing::info!("the host is closed to virtual addresses");
    if !watch {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Signals)?;
    runtime.block_on(async {
        // The configuration is read again at each change of the host: there is nothing else to do.
        let _hangups = hangup::listen().map_err(Error::Signals)?;
        let mut signals = StopSignals::listen()?;
        tokio::select! {
            () = signals.wait() => Ok(()),
            result = follow(config, file, if_always) => result,
        }
    })
}

/// The configuration that last said `lock: always`: what counts when there is one that cannot be read,
/// since a mistake in it is no reason to be open.
///
/// # Errors
/// Why there is none.
pub fn remembered(state_dir: &Path) -> std::result::Result<Config, ConfigError> {
    Config::load(&state_dir.join(REMEMBERED))
}

/// Keeps the configuration beside the state as long as it says `lock: always`.
fn remember(config: &Config, file: &Path) {
    let kept = config.state_dir.join(REMEMBERED);
    let done = match config.lock {
        Lock::Always => std::fs::copy(file, &kept).map(drop),
        Lock::UntilDown => std::fs::remove_file(&kept),
    };
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "{} cannot be kept up to date", kept.display());
        }
        _ => {}
    }
}

/// Opens the host; `anyway` also if it is to be closed always.
///
/// # Errors
/// [`Error::Locked`] if a client is up or the configuration wants the host closed, [`Error::Host`].
pub fn unlock(config: &Config, anyway: bool) -> Result<()> {
    if State::is_held(&config.state_dir) {
        return Err(Error::Locked {
            how: "while the client is up: `mixline-client down` first",
        });
    }
    if config.lock == Lock::Always && !anyway {
        return Err(Error::Locked {
            how: "as the configuration says `lock: always`: take that away first, or say --anyway",
        });
    }
    host::take(&config.interface)?;
    // What a client that was killed left: nobody answers names there any more.
    let resolver = host_dns::recover(&Host::default(), &config.state_dir);
    host::open(&wanted(config))?;
    resolver.map(drop)
}

/// Sees to the closed host while no client does.
async fn follow(mut config: Config, file: &Path, if_always: bool) -> Result<()> {
    let mut announcements = Announcements::listen()?;
    let reconciler = Reconciler::open()?;
    loop {
        announcements.changed().await;
        if State::is_held(&config.state_dir) {
            continue;
        }
        // A file that is wrong just now changes nothing.
        if let Ok(new) = Config::load(file) {
            config = new;
        }
        if if_always && config.lock != Lock::Always {
            tracing::info!("the configuration says `lock: always` no longer");
            return Ok(());
        }
        for problem in reconciler.settle(&wanted(&config)).problems {
            tracing::debug!("{problem}");
        }
    }
}

/// The closed host, in which the client will still reach its directory.
fn wanted(config: &Config) -> Wanted {
    let network: VirtualNetwork = State::network_of(&config.state_dir).unwrap_or_default();
    let directory = config.directory.url.strip_prefix("http://");
    let directory = directory.and_then(|rest| rest.split('/').next());
    let directory = directory.and_then(|authority| authority.parse::<SocketAddr>().ok());
    Wanted {
        outside: directory.map(Outside::tcp).into_iter().collect(),
        ..Wanted::closed(&config.interface, network)
    }
}
