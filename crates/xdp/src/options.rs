//! What the kernel says of a socket when asked, and is told (`getsockopt` and `setsockopt`, level `SOL_XDP`).

use std::io;
use std::os::fd::RawFd;

/// `XDP_MMAP_OFFSETS` of `linux/if_xdp.h`: where in a ring's mapping its parts are.
pub(crate) const MMAP_OFFSETS: i32 = 1;
/// `XDP_OPTIONS` of `linux/if_xdp.h`: the mode of the socket.
pub(crate) const OPTIONS: i32 = 8;

/// `XDP_MAX_TX_SKB_BUDGET` of `linux/if_xdp.h` (6.18): how many frames of the TX ring copy mode takes in one call, from
/// 32 to all that the ring holds.
pub(crate) const MAX_TX_BUDGET: i32 = 9;

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

/// Sets an option that is a number.
pub(crate) fn write(fd: RawFd, option: i32, value: u32) -> io::Result<()> {
    // SAFETY: the kernel reads the bytes of `value`, and finds out itself whether the descriptor is open.
    let result = unsafe {
        nix::libc::setsockopt(
            fd,
            nix::libc::SOL_XDP,
            option,
            (&raw const value).cast(),
            size_of::<u32>() as nix::libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
