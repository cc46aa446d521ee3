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
        let bind = |mode, offload| {
            let kernel = Bound::bind(nic, queue, config, mode, offload)?;
            Self::over(kernel).map_err(system("waking the driver"))
        };
        if config.zero_copy {
            // The driver would send a frame whose checksum it cannot complete as it is.
            let abilities = Card::of(interface).abilities();
            let offload = abilities.is_some_and(|abilities| abilities.checksums);
            match bind(Granted::ZeroCopy, offload) {
                Ok(socket) => return Ok(socket),
                Err(e) => tracing::debug!(interface, queue, "no zero-copy: {e}"),
            }
        }
        // In copy mode the kernel completes what the card does not.
        bind(Granted::Copy, true)
            .or_else(|error| {
                tracing::debug!(interface, queue, "no offload of checksums: {error}");
                bind(Granted::Copy, false)
            })
            .map_err(failed)
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
