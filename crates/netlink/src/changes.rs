//! What the kernel announces.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::Socket;

use crate::error::{Error, Result};

/// Bytes of announcements that are read at a time; what they say is not looked at.
const READ: usize = 8192;

/// Hears whether the kernel has announced a change.
pub struct Changes {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Changes {
    /// Listens to multicast groups of a netlink protocol, by their numbers.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn listen(protocol: isize, groups: &[u32]) -> Result<Self> {
        let mut socket = Socket::new(protocol).map_err(Error::Socket)?;
        socket.bind_auto().map_err(Error::Socket)?;
        for group in groups {
            socket.add_membership(*group).map_err(Error::Socket)?;
        }
        socket.set_non_blocking(true).map_err(Error::Socket)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(READ),
        })
    }

    /// Whether anything was announced since the last call. Does not wait.
    pub fn heard(&mut self) -> bool {
        let mut changed = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(0) => break,
                Ok(_) => changed = true,
                // More was announced than the socket holds, so something did change.
                Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => changed = true,
                Err(_) => break,
            }
        }
        changed
    }
}

impl AsFd for Changes {
    /// To wait for: it is readable when something was announced.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
