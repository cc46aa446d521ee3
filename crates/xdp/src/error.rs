//! What can go wrong between the relay and the kernel.

/// The result of asking the kernel for something.
pub type Result<T> = std::result::Result<T, Error>;

/// Why XDP is not to be had; every text says what a person can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The relay was built on a machine without a compiler for BPF.
    #[error(
        "this relay was built without the XDP program: run `cargo xtask setup` and build again"
    )]
    NotBuilt,
    /// The kernel refused the program or one of its maps.
    #[error("the kernel refused the XDP program ({0}): needs root or CAP_BPF and CAP_NET_ADMIN")]
    Load(String),
    /// Neither native nor generic XDP on the interface.
    #[error("cannot attach XDP to {interface}: {why}")]
    Attach {
        /// The interface's name.
        interface: String,
        /// What the kernel said, for native and for generic mode.
        why: String,
    },
    /// A map operation failed.
    #[error("map {map}: {why}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What the kernel said.
        why: String,
    },
    /// An AF_XDP socket could not be made.
    #[error("AF_XDP socket on {interface} queue {queue}: {why}")]
    Socket {
        /// The interface's name.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        why: String,
    },
    /// There is no interface of this name.
    #[error("no interface {0}")]
    NoInterface(String),
}
