//! The closed host without a client: from boot on, and between two runs.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use atomic_write_file::AtomicWriteFile;

use mixline_daemon::{hangup, service_manager};
use mixline_protocol::address::VirtualNetwork;

use super::host;
use super::locked_names::{self, LockedNames};
use super::outside;
use super::stop_signals::StopSignals;
use super::told::Told;
use crate::config::{Config, ConfigError, Lock, default_state_dir};
use crate::error::{Error, Result};
use crate::host::announcements::Announcements;
use crate::host::desired::Wanted;
use crate::host::outside::Outside;
use crate::host::reconcile::Reconciler;
use crate::host_dns::{self, Host};
use crate::state::State;

/// The configuration that last said `lock: always`, in the state directory of the host's client.
const REMEMBERED: &str = "locked.yaml";

/// Closes the host, once or for as long as the process lives. What is closed stays so afterwards.
///
/// With `if_always` nothing is done unless the configuration wants it, and it is watched only as long
/// as that says so.
///
/// # Errors
/// [`Error::Locked`] if a client is up, [`Error::Host`] if the host cannot be closed.
pub fn lock(config: Config, file: &Path, watch: bool, if_always: bool) -> Result<()> {
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
        let wanted = wanted(&config);
        let report = reconciler.settle(&wanted);
        host::is_well(&report)?;
        if !watch {
            runtime()?.block_on(async {
                LockedNames::new(&config, wanted.network)
                    .tell(&report)
                    .await;
            });
        }
    }
    service_manager::ready("closed");
    tracing::info!("the host is closed to virtual addresses");
    if !watch {
        return Ok(());
    }
    runtime()?.block_on(async {
        // The configuration is read again at each change of the host: there is nothing else to do.
        let _hangups = hangup::listen().map_err(Error::Signals)?;
        let mut signals = StopSignals::listen()?;
        tokio::select! {
            () = signals.wait() => Ok(()),
            result = follow(config, file, if_always) => result,
        }
    })
}

/// Tells a systemd-resolved that starts later that names of ours are asked of nobody else, if the
/// configuration wants the host closed before there is a client.
pub fn tell_resolved(config: &Config) {
    if config.lock == Lock::Always {
        locked_names::write_down(config, &network(config));
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Signals)
}

/// The configuration that last said `lock: always`: what counts when there is one that cannot be read,
/// since a mistake in it is no reason to be open.
///
/// # Errors
/// Why there is none.
pub fn remembered() -> std::result::Result<Config, ConfigError> {
    Config::load(&default_state_dir().join(REMEMBERED))
}

/// Keeps the configuration, which has just been read from `file`, as long as it says `lock: always`. That
/// is in one place, wherever its state is: a file that cannot be read does not say where.
pub fn remember(config: &Config, file: &Path) {
    let kept = default_state_dir().join(REMEMBERED);
    let done = match config.lock {
        Lock::Always => std::fs::read(file).and_then(|text| {
            let mut new = AtomicWriteFile::options().mode(0o600).open(&kept)?;
            new.write_all(&text)?;
            new.commit()
        }),
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
    Told::of(config).forget();
    host::open(&wanted(config))?;
    resolver.map(drop)
}

/// Sees to the closed host while no client does.
async fn follow(mut config: Config, file: &Path, if_always: bool) -> Result<()> {
    let mut announcements = Announcements::listen()?;
    let reconciler = Reconciler::open()?;
    let mut names = LockedNames::new(&config, network(&config));
    let mut is_first = true;
    loop {
        if !std::mem::take(&mut is_first) {
            tokio::select! {
                () = announcements.changed() => {}
                () = names.changed() => {}
            }
        }
        if State::is_held(&config.state_dir) {
            // The client tells it now. Nothing is listened to that nobody reads.
            if names.is_used() {
                names = LockedNames::new(&config, network(&config));
            }
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
        let wanted = wanted(&config);
        let report = reconciler.settle(&wanted);
        for problem in &report.problems {
            tracing::debug!("{problem}");
        }
        if !names.is_of(&config, wanted.network) {
            names = LockedNames::new(&config, wanted.network);
        }
        names.tell(&report).await;
    }
}

/// The closed host, in which the client will still reach the directories: those of the configuration, and those
/// of the roster that it knew last.
fn wanted(config: &Config) -> Wanted {
    let known = State::known_in(&config.state_dir, config.network.id);
    let members = known.roster().into_iter().flat_map(|it| &it.members);
    let members = members.map(|member| &member.url);
    let directories = config.network.urls.iter().chain(members);
    let directories = directories.filter_map(|url| outside::address_in(url));
    Wanted {
        outside: directories.map(Outside::tcp).collect(),
        resolver: locked_names::place(config),
        ..host::left_closed(config)
    }
}

/// The virtual network that the host was closed for last.
fn network(config: &Config) -> VirtualNetwork {
    State::network_of(&config.state_dir).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mixline_protocol::identity::AnonymousId;

    use super::*;

    #[test]
    fn all_directories_are_reached_while_the_host_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let id = AnonymousId([7; 32]);
        let text = format!(
            "state_dir: {}\nnetwork: {id}\ndirectories: [http://10.1.2.3:8080, http://a.name, \"http://[fd00::1]/x\"]\n",
            directory.path().display()
        );
        let wanted = wanted(&Config::parse(&text).unwrap());
        let expected =
            ["10.1.2.3:8080", "[fd00::1]:80"].map(|at| Outside::tcp(at.parse().unwrap()));
        assert_eq!(wanted.outside, expected.into_iter().collect());
    }
}
