//! Receiving with the time at which the kernel received each message.
//!
//! `quinn-udp` does not hand on that control message. nix does, but its headers have the right room
//! for control messages in their first call only; so each call makes its own. That takes memory,
//! which nothing else does on the way of a datagram, and is why this is for diagnosis only.

use std::array;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use nix::sys::time::TimeSpec;
use quinn_udp::RecvMeta;

use crate::{BatchSocket, MAX_MESSAGES};

impl BatchSocket {
    /// Receives messages, at most one into each of `rooms`, and says when each arrived; how many.
    ///
    /// # Errors
    /// Those of `recvmmsg(2)`.
    pub(crate) fn receive_stamped<'a>(
        &self,
        rooms: impl ExactSizeIterator<Item = &'a mut [u8]>,
        meta: &mut [RecvMeta; MAX_MESSAGES],
        arrived: &mut [Option<Instant>; MAX_MESSAGES],
    ) -> io::Result<usize> {
        let count = rooms.len();
        let mut rooms = rooms;
        let mut slices: [[IoSliceMut<'_>; 1]; MAX_MESSAGES] =
            array::from_fn(|_| [IoSliceMut::new(rooms.next().unwrap_or_default())]);
        // The time and the size of the datagrams of a run. quinn-udp has asked for the address that a message was sent to,
        // 20 bytes with IPv6, and for its traffic class as well, and they come first.
        let room = cmsg_space!(TimeSpec, i32, [u8; 20], i32);
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(count, Some(room));
        // No signal interrupts what does not wait.
        let messages = recvmmsg(
            self.socket().as_raw_fd(),
            &mut headers,
            &mut slices[..count],
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        let now = Now::read();
        let mut filled = 0;
        for ((message, meta), arrived) in messages.zip(meta).zip(arrived) {
            *meta = RecvMeta::default();
            (meta.len, meta.stride) = (message.bytes, message.bytes);
            if let Some(source) = message.address.as_ref().and_then(address_of) {
                meta.addr = source;
            }
            *arrived = None;
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::UdpGroSegments(bytes) => {
                        meta.stride = usize::try_from(bytes).unwrap_or(0);
                    }
                    ControlMessageOwned::ScmTimestampns(stamp) => *arrived = now.instant_of(stamp),
                    _ => {}
                }
            }
            filled += 1;
        }
        Ok(filled)
    }
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6((*v6).into()))
}

/// One moment on the clock that the kernel stamps with, and on ours.
#[derive(Clone, Copy)]
struct Now {
    stamped: SystemTime,
    ours: Instant,
}

impl Now {
    fn read() -> Self {
        Self {
            stamped: SystemTime::now(),
            ours: Instant::now(),
        }
    }

    /// The time of a stamp; none if it is later than now, since the clock was set.
    fn instant_of(&self, stamp: TimeSpec) -> Option<Instant> {
        let seconds = u64::try_from(stamp.tv_sec()).ok()?;
        let nanos = u32::try_from(stamp.tv_nsec()).ok()?;
        let stamp = UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))?;
        let age = self.stamped.duration_since(stamp).ok()?;
        self.ours.checked_sub(age)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_as_long_ago_as_the_clocks_say() {
        let now = Now {
            stamped: UNIX_EPOCH + Duration::new(1_000_000, 5),
            ours: Instant::now(),
        };
        let before = now.instant_of(TimeSpec::new(999_998, 999_999_905)).unwrap();
        assert_eq!(now.ours - before, Duration::new(1, 100));
        assert_eq!(now.instant_of(TimeSpec::new(1_000_000, 6)), None);
        assert_eq!(now.instant_of(TimeSpec::new(-1, 0)), None);
    }
}
