//! A configuration that is read again while the client runs.

use mixline_daemon::logging::LoggingError;
use mixline_daemon::reload::{LogChange, Origin, Reloaded};
use mixline_daemon::{keep, replace};

use super::{Config, ConfigError};
use crate::error::Error;

/// Why a configuration was not read again: one line. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be changed.
    #[error(transparent)]
    Log(#[from] LoggingError),
    /// The interface cannot have the new MTU.
    #[error("mtu: {0}")]
    Mtu(Error),
}

/// Another configuration, ready to be taken over.
#[derive(Debug)]
pub struct Change {
    new: Config,
    log: LogChange,
}

impl Change {
    /// Reads the file again for a client that runs with `running`. Nothing changes yet.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(running: &Config, origin: &Origin) -> Result<Self, ReloadError> {
        let new = Config::load(&origin.file)?;
        let log = origin.prepare_log(running.log.as_ref(), new.log.as_ref())?;
        Ok(Self { new, log })
    }

    /// The MTU that the interface is to have, bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.new.mtu
    }

    /// Takes over what can change in place; the rest is named and stays.
    #[must_use]
    pub fn commit(self, running: &mut Config) -> Reloaded {
        // Whoever adds a key decides here what a reload does with it.
        let Config {
            state_dir,
            interface,
            mtu,
            network,
            network_id,
            directories,
            directory,
            control_socket,
            publish,
            accept,
            dns,
            lock,
            log,
            policies,
            guards,
            head_length,
            tail_length,
            public_tails,
            private_tails,
        } = self.new;
        let mut done = Reloaded::default();
        done.replace_log(self.log, &mut running.log, log);
        replace!(done, running, mtu, publish, accept);
        done.replace("dns.mode", &mut running.dns.mode, dns.mode);
        done.replace("dns.upstream", &mut running.dns.upstream, dns.upstream);
        done.replace("dns.forward", &mut running.dns.forward, dns.forward);
        replace!(
            done,
            running,
            policies,
            guards,
            head_length,
            tail_length,
            public_tails,
            private_tails,
            lock,
        );
        keep!(done, running, state_dir, interface, control_socket);
        if network.id == running.network.id {
            // Where its directories are is said by whichever keys there are.
            let key = match directory {
                Some(_) => "directory.url",
                None => "directories",
            };
            done.replace(key, &mut running.network, network);
            (running.network_id, running.directories) = (network_id, directories);
            running.directory = directory;
        } else {
            // Another network: not the old one at the addresses of the new.
            let key = match directory {
                Some(_) => "directory",
                None => "network",
            };
            done.keep(key, &running.network, &network);
        }
        done
    }
}
