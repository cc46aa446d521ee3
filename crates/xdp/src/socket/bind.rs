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
        // Kernels before 6.10.3 refuse the offload where they grant the mode.
        let either = |mode, offload| match bind(mode, offload) {
            Err(error) if offload => {
                tracing::debug!(interface, queue, "no offload of checksums: {error}");
                bind(mode, false)
            }
            bound => bound,
        };
        let card = Card::of(interface);
        if config.zero_copy {
            // The driver would send a frame whose checksum it cannot complete as it is.
            let abilities = card.abilities();
            let offload = abilities.is_some_and(|abilities| abilities.checksums);
            match either(Granted::ZeroCopy, offload) {
                Ok(socket) => return Ok(socket),
                Err(e) => tracing::debug!(interface, queue, "no zero-copy: {e}"),
            }
        }
        either(Granted::Copy, completes_in_copy_mode(&card)).map_err(failed)
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

/// Whether the kernel completes checksums of a card's frames in copy mode. It does where it copies frames into packets
/// of one piece. For drivers that take frames as they lie (`IFF_TX_SKB_NO_LINEAR`, of which there is one), kernels before 6.18
/// overlook the request (`xsk_build_skb`), and later ones need the card to do it.
fn completes_in_copy_mode(card: &Card) -> bool {
    card.driver.as_deref() != Some("virtio_net")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_takes_frames_as_they_lie_is_asked_for_no_checksum() {
        let card = |driver: Option<&str>| Card {
            interface: "eth0".into(),
            driver: driver.map(Into::into),
        };
        assert!(!completes_in_copy_mode(&card(Some("virtio_net"))));
        assert!(completes_in_copy_mode(&card(Some("veth"))));
        assert!(completes_in_copy_mode(&card(None)));
    }
}
