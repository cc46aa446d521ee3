//! Where application packets come from and go to: the seam to a TUN interface.

use std::future::Future;
use std::io;

pub use mixline_endpoint_engine::{BATCH_BYTES, BATCH_PACKETS, MAX_PACKET, PacketBatch};

/// A source and sink of IP packets: a TUN interface, or nothing.
///
/// The endpoint owns the device and uses it on its own thread, one call at a time of each kind.
/// A receive that is dropped before it is ready must lose no packet; a send is always awaited.
pub trait PacketDevice: Send + 'static {
    /// Called once, on the endpoint's thread within its tokio runtime, before anything else: the
    /// place to register file descriptors there, so that no packet has to wake another thread.
    ///
    /// # Errors
    /// Whatever makes the device unusable: the endpoint stops with it.
    fn attach(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Waits for at least one packet and appends as many as are there, until the batch is full.
    fn receive(&mut self, packets: &mut PacketBatch)
    -> impl Future<Output = io::Result<()>> + Send;

    /// Hands over all packets of the batch, in order. The batch is cleared by the caller.
    fn send(&mut self, packets: &mut PacketBatch) -> impl Future<Output = io::Result<()>> + Send;
}

/// No device: for endpoints that carry messages only, like the directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDevice;

impl PacketDevice for NoDevice {
    async fn receive(&mut self, _packets: &mut PacketBatch) -> io::Result<()> {
        std::future::pending().await
    }

    async fn send(&mut self, _packets: &mut PacketBatch) -> io::Result<()> {
        Ok(())
    }
}
