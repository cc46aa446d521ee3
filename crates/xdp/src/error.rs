//! What can go wrong between the relay and the kernel.

use std::error::Error as StdError;
use std::io;

use aya::programs::ProgramError;
use nix::errno::Errno;
use xdp::socket::SocketError;

use crate::Card;

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
    #[error(
        "{card} refuses native XDP ({}) and generic XDP ({}): {}",
        chain(&**native),
        chain(&**generic),
        advice_to_attach(&card.interface, &**native)
    )]
    Attach {
        /// Where it was to be attached.
        card: Card,
        /// What was said to native mode.
        native: Box<ProgramError>,
        /// What was said to generic mode.
        generic: Box<ProgramError>,
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
    #[error(
        "{card} refuses an AF_XDP socket on queue {queue} ({why}): {}",
        advice_to_bind(why)
    )]
    Socket {
        /// Whose queue it is.
        card: Card,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        why: BindError,
    },
    /// There is no interface of this name.
    #[error("no interface {0}: `ip -br link` lists them")]
    NoInterface(String),
}

/// Which step of making an AF_XDP socket failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Sizes that no socket can have.
    #[error("{0}")]
    Configuration(xdp::error::Error),
    /// A socket without rings in both directions.
    #[error("no rings to receive and send with")]
    NoRings,
    /// The kernel refused a step.
    #[error("{step}: {source}")]
    System {
        /// What it was asked for.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl BindError {
    /// What the kernel said to a step of the `xdp` crate.
    pub(crate) fn of(error: SocketError) -> Self {
        let (step, source) = match error {
            SocketError::SocketCreation(source) => ("making the socket", source),
            SocketError::SetSockOpt { inner, .. } => ("setting up memory and rings", inner),
            SocketError::GetSockOpt { inner, .. } => ("asking for the rings", inner),
            SocketError::RingMap { inner, .. } => ("mapping a ring", inner),
            SocketError::Bind(source) => ("binding", source),
        };
        Self::System { step, source }
    }

    /// The error's number, if the kernel said one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Configuration(_) | Self::NoRings => None,
        }
    }
}

/// What a person can do about a socket that was refused.
fn advice_to_bind(why: &BindError) -> &'static str {
    match why.errno() {
        Some(Errno::EPERM | Errno::EACCES) => "run as root, or with CAP_NET_RAW and CAP_NET_ADMIN",
        Some(Errno::EBUSY) => "end the other program with an AF_XDP socket on this queue",
        Some(Errno::ENOMEM | Errno::ENOBUFS) => {
            "allow more locked memory (`ulimit -l unlimited`, or CAP_IPC_LOCK)"
        }
        Some(Errno::EAFNOSUPPORT) => "a kernel with CONFIG_XDP_SOCKETS=y has them",
        Some(Errno::ENETDOWN) => "bring the interface up (`ip link set dev NAME up`)",
        _ => "the driver may not take AF_XDP sockets; `port: xdp-filter` needs none",
    }
}

/// What a person can do about a program that was not attached.
fn advice_to_attach(interface: &str, native: &(dyn StdError + 'static)) -> String {
    match errno_of(native) {
        Some(Errno::EPERM | Errno::EACCES) => {
            "run as root, or with CAP_BPF and CAP_NET_ADMIN".into()
        }
        Some(Errno::EBUSY | Errno::EEXIST) => format!(
            "another XDP program is on it, which `ip link set dev {interface} xdp off` or its \
             owner takes off"
        ),
        Some(Errno::ENODEV) => "the interface is gone".into(),
        _ => {
            format!("an MTU over 1500 or LRO may be in the way (`ethtool -K {interface} lro off`)")
        }
    }
}

/// The error's number, wherever in the causes it is.
fn errno_of(error: &(dyn StdError + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(number) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(Errno::from_raw(number));
        }
        next = error.source();
    }
    None
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    fn card() -> Card {
        Card {
            interface: "eth0".into(),
            driver: Some("igb".into()),
        }
    }

    fn refused(errno: Errno) -> String {
        let why = BindError::of(SocketError::Bind(errno.into()));
        Error::Socket {
            card: card(),
            queue: 3,
            why,
        }
        .to_string()
    }

    #[test]
    fn a_refused_socket_names_the_card_the_driver_the_queue_and_what_to_do() {
        let text = refused(Errno::EBUSY);
        for part in [
            "eth0 (driver igb)",
            "queue 3",
            "binding",
            "Device or resource busy",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.contains("end the other program"), "{text}");
        assert!(refused(Errno::EPERM).contains("CAP_NET_RAW"));
        assert!(refused(Errno::ENOBUFS).contains("locked memory"));
        assert!(refused(Errno::EAFNOSUPPORT).contains("CONFIG_XDP_SOCKETS"));
        assert!(refused(Errno::EOPNOTSUPP).contains("port: xdp-filter"));
    }

    #[test]
    fn a_program_that_is_not_attached_names_both_reasons_and_what_to_do() {
        let syscall = |errno: Errno| {
            Box::new(ProgramError::SyscallError(SyscallError {
                call: "bpf_link_create",
                io_error: errno.into(),
            }))
        };
        let text = |native, generic| {
            Error::Attach {
                card: card(),
                native: syscall(native),
                generic: syscall(generic),
            }
            .to_string()
        };
        let busy = text(Errno::EBUSY, Errno::EEXIST);
        assert!(
            busy.contains("eth0 (driver igb) refuses native XDP"),
            "{busy}"
        );
        assert!(busy.contains("Device or resource busy"), "{busy}");
        assert!(busy.contains("File exists"), "{busy}");
        assert!(busy.contains("ip link set dev eth0 xdp off"), "{busy}");
        let other = text(Errno::EINVAL, Errno::EINVAL);
        assert!(other.contains("MTU") && other.contains("LRO"), "{other}");
        assert!(text(Errno::EPERM, Errno::EPERM).contains("CAP_NET_ADMIN"));
    }
}
