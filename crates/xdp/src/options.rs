//! What the kernel says of a socket when asked (`getsockopt`, level `SOL_XDP`).

use std::io;
use std::os::fd::RawFd;

/// `XDP_MMAP_OFFSETS` of `linux/if_xdp.h`: where in a ring's mapping its parts are.
pub(crate) const MMAP_OFFSETS: i32 = 1;
/// `XDP_OPTIONS` of `linux/if_xdp.h`: the mode of the socket.
pub(crate) const OPTIONS: i32 = 8;

/// The `N` bytes of an option.
pub(crate) fn read<const N: usize>(fd: RawFd, option: i32) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut length = u32::try_from(N).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes to `bytes`, and finds out itself whether
    // the descriptor is open.
    let result = unsafe {
        nix::libc::getsockopt(
            fd,
            nix::libc::SOL_XDP,
            option,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 if length as usize == N => Ok(bytes),
        0 => Err(io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
