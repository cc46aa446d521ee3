//! The device itself: made through `tun-rs`, read and written in batches.

use std::io::{self, IoSlice};
use std::path::PathBuf;

use mixline_endpoint::device::MAX_PACKET;
use mixline_endpoint::{PacketBatch, PacketDevice};
use nix::errno::Errno;
use tun_rs::{AsyncDevice, DeviceBuilder, Layer, SyncDevice};

use super::coalesce::{Coalescer, MAX_SEGMENTS};
use super::segment::Split;
use super::{VIRTIO_HEADER, VirtioHeader};
use crate::error::{Error, Result};

/// At most this many packets, or superpackets, wait in the interface for the client: enough
/// for a burst of a few milliseconds. The kernel drops what is beyond, and it is sent again.
pub const QUEUE_LENGTH: u32 = 1000;

/// A TUN interface, not yet attached to a runtime.
pub struct Tun {
    device: SyncDevice,
}

impl Tun {
    /// Makes the interface, with offloads, down and without addresses. It goes when the
    /// process does, however that ends.
    ///
    /// # Errors
    /// [`Error::TunPermission`], [`Error::TunMissing`], [`Error::InterfaceTaken`],
    /// [`Error::Interface`].
    pub fn create(name: &str, mtu: u16) -> Result<Self> {
        let device = DeviceBuilder::new()
            .name(name)
            .layer(Layer::L3)
            .mtu(mtu)
            .tx_queue_len(QUEUE_LENGTH)
            .offload(true)
            .enable(false)
            .build_sync()
            .map_err(|error| creation_error(name, error))?;
        keep_quiet(name);
        Ok(Self { device })
    }

    /// The device that the endpoint takes.
    #[must_use]
    pub fn into_device(self) -> TunDevice {
        TunDevice {
            coalescer: Coalescer::new(self.device.udp_gso()),
            state: Attachment::Waiting(Some(self.device)),
            read: vec![0; VIRTIO_HEADER + MAX_PACKET].into_boxed_slice(),
            pending: None,
        }
    }
}

/// Keeps the kernel from giving an interface addresses of its own making: there is no router and no
/// neighbour to talk to. Where /proc/sys is read-only the kernel's own chatter reaches the endpoint,
/// which drops it.
fn keep_quiet(name: &str) {
    for (key, value) in [
        ("addr_gen_mode", "1"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
    ] {
        let setting: PathBuf = ["/proc/sys/net/ipv6/conf", name, key].iter().collect();
        if let Err(error) = std::fs::write(setting, value) {
            tracing::debug!(%error, key, "interface setting");
        }
    }
}

fn creation_error(name: &str, error: io::Error) -> Error {
    let interface = name.to_owned();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => Error::TunPermission { interface },
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Error::TunMissing,
        Some(Errno::EBUSY | Errno::EINVAL | Errno::EEXIST) => Error::InterfaceTaken { interface },
        _ => Error::Interface {
            interface,
            action: "create it",
            error,
        },
    }
}

enum Attachment {
    Waiting(Option<SyncDevice>),
    Attached(AsyncDevice),
}

/// A TUN interface as the endpoint uses it.
pub struct TunDevice {
    state: Attachment,
    /// One read: virtio header and packet.
    read: Box<[u8]>,
    /// What of the last read is still to be handed over, and its length.
    pending: Option<(Split, usize)>,
    coalescer: Coalescer,
}

impl TunDevice {
    /// Hands over what is left of the last read, as far as the batch has room; whether
    /// all of it is.
    fn drain(&mut self, packets: &mut PacketBatch) -> bool {
        let Some((split, length)) = &mut self.pending else {
            return true;
        };
        let packet = self.read.get(VIRTIO_HEADER..*length).unwrap_or_default();
        while !packets.is_full() {
            match split.next(packet, packets.spare_mut()) {
                Some(length) => packets.commit(0..length),
                None => {
                    self.pending = None;
                    return true;
                }
            }
        }
        false
    }

    /// Takes note of a read of `length` bytes.
    fn load(&mut self, length: usize) {
        let Some((header, packet)) = self
            .read
            .get_mut(..length)
            .and_then(|read| read.split_first_chunk_mut::<VIRTIO_HEADER>())
        else {
            return;
        };
        match Split::new(&VirtioHeader::decode(header), packet) {
            Ok(split) => self.pending = Some((split, length)),
            Err(error) => tracing::debug!(%error, length, "packet from the kernel dropped"),
        }
    }
}

fn not_attached() -> io::Error {
    io::Error::other("the interface is not attached")
}

impl PacketDevice for TunDevice {
    fn attach(&mut self) -> io::Result<()> {
        if let Attachment::Waiting(device) = &mut self.state {
            let device = device.take().ok_or_else(not_attached)?;
            self.state = Attachment::Attached(AsyncDevice::new(device)?);
        }
        Ok(())
    }

    async fn receive(&mut self, packets: &mut PacketBatch) -> io::Result<()> {
        loop {
            if !self.drain(packets) {
                return Ok(());
            }
            let Attachment::Attached(device) = &self.state else {
                return Err(not_attached());
            };
            match device.try_recv(&mut self.read) {
                Ok(length) => self.load(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !packets.is_empty() {
                        return Ok(());
                    }
                    device.readable().await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn send(&mut self, packets: &mut PacketBatch) -> io::Result<()> {
        let Attachment::Attached(device) = &self.state else {
            return Err(not_attached());
        };
        self.coalescer.plan(packets);
        let mut index = 0;
        while index < self.coalescer.writes() {
            let mut refused = false;
            let mut pieces = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
            let count = self.coalescer.pieces(index, packets, &mut pieces);
            let pieces = pieces.get(..count).unwrap_or_default();
            loop {
                match device.try_send_vectored(pieces) {
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        device.writable().await?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // The interface is gone.
                    Err(error) if error.raw_os_error() == Some(Errno::EBADFD as i32) => {
                        return Err(error);
                    }
                    // A packet that the kernel does not take, or the interface is down.
                    Err(error) => {
                        refused = error.raw_os_error() == Some(Errno::EINVAL as i32);
                        tracing::debug!(%error, "packet not taken by the kernel");
                        break;
                    }
                }
            }
            if refused && self.coalescer.refused(index) {
                tracing::info!("this kernel takes no superpackets: packets go to it one by one");
                continue;
            }
            index += 1;
        }
        Ok(())
    }
}
