//! What a worker asks of a port, whichever kind it is.

use std::io;

use mixline_relay_engine::batch::Batch;

/// The most batches that a port gives in one poll.
pub const MOST_BATCHES: usize = 20;

/// A worker's way to the network.
pub trait Port: Send {
    /// Receives one batch or several, lets `work` take each through the pipeline, and sends what that
    /// decided to send, from where it is. Returns how many datagrams came, those that
    /// the port itself dropped included; none means that there is nothing more until the port
    /// is [ready](Port::ready) again.
    ///
    /// # Errors
    /// Of the system, if they concern more than single datagrams.
    fn poll(&mut self, work: &mut dyn FnMut(&mut Batch<'_>)) -> io::Result<usize>;

    /// Sends a batch whose bytes are not the port's own.
    fn send(&mut self, batch: &Batch<'_>);

    /// Has events of the port delivered to a worker's poll.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    fn register(&mut self, registry: &mio::Registry) -> io::Result<()>;

    /// There is something to receive.
    fn ready(&mut self, event: &mio::event::Event);

    /// What the port has dropped so far.
    fn dropped(&self) -> Dropped;
}

/// Datagrams that a port dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Received with a wrong length.
    pub wrong_length: u64,
    /// Not taken by the kernel.
    pub unsent: u64,
}

/// Events with this token and above are the port's; those below are the worker's own.
pub const FIRST_PORT_TOKEN: usize = 8;
