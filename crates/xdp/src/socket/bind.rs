//! A socket over the real kernel: bound to a queue of a card.

use std::ffi::CString;
use std::io;
use std::time::Duration;

use xdp::nic::NicIndex;

use super::Socket;
use crate::bound::{Bound, Granted};
use crate::card::Card;
use crate::error::{BindError, Error, Result};
use crate::socket_config::SocketConfig;

impl Socket<Bound> {
    /// Binds to a queue: zero-copy if wanted and granted, else copy mode.
    ///
    /// # Errors
    /// [`Error::Socket`] with what the kernel said.
    pub fn bind(interface: &str, queue: u32, config: SocketConfig) -> Result<Self> {
        let absent = || Error::NoInterface(interface.into());
        let name = CString::new(interface).map_err(|_| absent())?;
        let failed = |why| Error::Socket {
            card: Card::of(interface),
            queue,
            why,
        };
        let system = |step| move |source| BindError::System { step, source };
        let nic = NicIndex::lookup_by_name(&name)
            .map_err(system("looking for the interface"))
            .map_err(failed)?
            .ok_or_else(absent)?;
        let bind = |zero_copy| {
            let kernel = Bound::bind(nic, queue, config, zero_copy)?;
            Self::over(kernel).map_err(system("waking the driver"))
        };
        if config.zero_copy {
            match bind(true) {
                Ok(socket) => return Ok(socket),
                Err(e) => tracing::debug!(interface, queue, "no zero-copy: {e}"),
            }
        }
        bind(false).map_err(failed)
    }

    /// What the kernel granted.
    #[must_use]
    pub fn granted(&self) -> Granted {
        self.kernel().granted()
    }

    /// Waits until there is something to receive; false after `milliseconds`.
    ///
    /// # Errors
    /// What poll says.
    pub fn wait(&self, milliseconds: u32) -> io::Result<bool> {
        self.kernel()
            .wait(Duration::from_millis(milliseconds.into()))
    }
}
