//! The memory of a socket: frames, of which some are free, and some are held by us. Those that are
//! neither are in the rings, or with the driver.

use std::mem::ManuallyDrop;

use mixline_relay_common::stamp::STAMP_LENGTH;
use xdp::Umem;
use xdp::umem::{FrameSize, UmemCfgBuilder};

use crate::error::BindError;
use crate::packet::Packet;
use crate::socket_config::{FrameBytes, SocketConfig};

/// Frames, and how many of them we hold.
pub(crate) struct Memory {
    umem: ManuallyDrop<Umem>,
    held: usize,
}

impl Memory {
    /// Maps frames, all of them free. With `offload`, each may ask for a [checksum](Packet::offload_checksum).
    pub(crate) fn map(config: &SocketConfig, offload: bool) -> Result<Self, BindError> {
        let umem = UmemCfgBuilder {
            frame_size: match config.size {
                FrameBytes::TwoKiB => FrameSize::TwoK,
                FrameBytes::FourKiB => FrameSize::FourK,
            },
            frame_count: config.frames,
            tx_checksum: offload,
            // The kernel keeps more than that free in front of a frame anyway; what is not named here cannot be read.
            head_room: if config.stamps {
                STAMP_LENGTH as u32
            } else {
                0
            },
            ..UmemCfgBuilder::default()
        };
        let umem = umem.build().map_err(BindError::Configuration)?;
        let umem = Umem::map(umem).map_err(|source| BindError::System {
            step: "mapping memory for frames",
            source,
        })?;
        Ok(Self {
            umem: ManuallyDrop::new(umem),
            held: 0,
        })
    }

    /// Frames that are nobody's.
    #[inline]
    pub(crate) fn free(&self) -> usize {
        self.umem.allocatable()
    }

    /// Frames that we hold.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// A free frame, held from now on.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Packet> {
        // SAFETY: the memory stays mapped for as long as a packet is held, see `Drop`.
        let packet = unsafe { self.umem.alloc() }?;
        self.held += 1;
        Some(Packet(packet))
    }

    /// A frame that we held is free again.
    #[inline]
    pub(crate) fn give_back(&mut self, packet: Packet) {
        self.umem.free_packet(packet.0);
        self.held -= 1;
    }

    /// The kernel has given us this many frames.
    #[inline]
    pub(crate) fn received(&mut self, frames: usize) {
        self.held += frames;
    }

    /// The kernel has taken from us this many frames.
    #[inline]
    pub(crate) fn submitted(&mut self, frames: usize) {
        self.held -= frames;
    }

    /// What the rings work on.
    #[inline]
    pub(crate) fn umem(&mut self) -> &mut Umem {
        &mut self.umem
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.held == 0 {
            // SAFETY: dropped once, here; no packet points into it, and the kernel keeps its own
            // reference to the pages until the socket is closed.
            unsafe { ManuallyDrop::drop(&mut self.umem) };
        }
        // Otherwise the memory stays mapped: a packet may still point into it.
    }
}
