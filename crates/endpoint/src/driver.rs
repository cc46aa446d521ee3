//! The engine's thread: sockets, device, clock, commands.

use std::sync::Arc;

use mixline_protocol::records::Snapshot;
use tokio::sync::watch;

use crate::{Config, Handle, Identity, MessageService, PacketDevice, Result};

pub(crate) fn start<D: PacketDevice>(
    config: Config,
    _identity: Identity,
    _snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    _device: D,
    _service: Option<Arc<dyn MessageService>>,
) -> Result<Handle> {
    config.check()?;
    Err(crate::Error::Thread(std::io::Error::other("not built yet")))
}
