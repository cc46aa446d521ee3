//! The time stamp that the XDP program puts in front of a frame, if it is told to: when the frame
//! came, in nanoseconds of the kernel's monotonic clock.

/// A stamp: the time, and its complement, so that nothing else that was there is taken for one.
pub type Stamp = [u64; 2];

/// Bytes in front of a frame.
pub const STAMP_LENGTH: usize = size_of::<Stamp>();

// What bpf_xdp_adjust_meta takes (net/core/filter.c): whole words of 4 bytes, 32 bytes at most before Linux 6.5.
const _: () = assert!(STAMP_LENGTH.is_multiple_of(4) && STAMP_LENGTH <= 32);

/// The stamp of a time.
#[must_use]
#[inline(always)]
pub const fn stamp(time: u64) -> Stamp {
    [time, !time]
}

/// The time of a stamp; none if it is none.
#[must_use]
#[inline(always)]
pub const fn time_of(stamp: Stamp) -> Option<u64> {
    if stamp[1] == !stamp[0] {
        Some(stamp[0])
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stamp_has_a_time() {
        assert_eq!(time_of(stamp(0)), Some(0));
        assert_eq!(time_of(stamp(1 << 40)), Some(1 << 40));
        assert_eq!(time_of([0, 0]), None);
        assert_eq!(time_of([7, !8]), None);
    }
}
