//! What can go wrong between the relay and the kernel.

use std::error::Error as StdError;
use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use nix::errno::Errno;
use xdp::socket::SocketError;

use crate::card::Card;

/// The result of asking the kernel for something.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no XDP; every text says what a person can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The relay was built on a machine without a compiler for BPF.
    #[error(
        "this relay was built without the XDP program: run `cargo xtask setup` and build again"
    )]
    NotBuilt,
    /// The kernel did not take the program.
    #[error("{card}: {why}")]
    Load {
        /// Where it was to be attached.
        card: Card,
        /// Why not.
        why: LoadError,
    },
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
    /// No native XDP on the interface, for sockets that need it.
    #[error(
        "{card} refuses native XDP ({}): {}",
        chain(&**why),
        advice_to_attach(&card.interface, &**why)
    )]
    NotNative {
        /// Where it was to be attached.
        card: Card,
        /// What was said.
        why: Box<ProgramError>,
    },
    /// The kernel refused to read or write one of the program's maps.
    #[error(
        "{card}: map {map} of the XDP program cannot be used ({}): {}",
        chain(why),
        advice_on_map(why)
    )]
    Map {
        /// Whose frames the program sees.
        card: Card,
        /// The map's name.
        map: &'static str,
        /// Why not.
        why: MapFault,
    },
    /// An AF_XDP socket could not be made.
    #[error(
        "{card} refuses an AF_XDP socket on queue {queue} ({why}): {}",
        advice_to_bind(&card.interface, why)
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

/// Why the kernel did not take the program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It refused a map, or what describes the program.
    #[error("the kernel refused the XDP program ({}): {}", chain(&**.0), advice_to_load(&**.0))]
    Object(Box<EbpfError>),
    /// Its verifier refused the instructions.
    #[error("the kernel refused the XDP program ({}): {}", chain(&**.0), advice_to_load(&**.0))]
    Program(Box<ProgramError>),
    /// The build left something else.
    #[error("this relay was built with another XDP program: build it again")]
    Absent,
}

/// Why one of the program's maps cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapFault {
    /// The kernel refused the operation, or the map is of another type.
    #[error(transparent)]
    Refused(Box<MapError>),
    /// Its memory cannot be mapped.
    #[error("mapping its memory")]
    Mapping(#[source] io::Error),
    /// The program has no such map.
    #[error("not in the program")]
    Absent,
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
fn advice_to_bind(interface: &str, why: &BindError) -> String {
    match why.errno() {
        Some(Errno::EPERM | Errno::EACCES) => "run as root, or with CAP_NET_RAW and CAP_NET_ADMIN",
        Some(Errno::EBUSY) => "end the other program with an AF_XDP socket on this queue",
        Some(Errno::ENOMEM | Errno::ENOBUFS) => MORE_MEMORY,
        Some(Errno::EAFNOSUPPORT) => "a kernel with CONFIG_XDP_SOCKETS=y has them",
        Some(Errno::ENETDOWN) => {
            return format!("bring the interface up (`ip link set dev {interface} up`)");
        }
        _ => "the driver may not take AF_XDP sockets; `port: xdp-filter` needs none",
    }
    .into()
}

/// What a person can do about a lack of memory.
const MORE_MEMORY: &str = "allow more locked memory (`ulimit -l unlimited`, or CAP_IPC_LOCK)";

/// What a person can do about a program that was not loaded.
fn advice_to_load(why: &(dyn StdError + 'static)) -> &'static str {
    match errno_of(why) {
        Some(Errno::EPERM) => "run as root, or with CAP_BPF and CAP_NET_ADMIN",
        Some(Errno::ENOMEM) => MORE_MEMORY,
        _ => "it needs Linux 5.9 or later with CONFIG_BPF_SYSCALL=y, and CAP_BPF and CAP_NET_ADMIN",
    }
}

/// What a person can do about a map that cannot be used.
fn advice_on_map(why: &MapFault) -> &'static str {
    match errno_of(why) {
        Some(Errno::EPERM | Errno::EACCES) => "run as root, or with CAP_BPF and CAP_NET_ADMIN",
        Some(Errno::ENOMEM) => MORE_MEMORY,
        Some(Errno::E2BIG) => "it is full; there is room when others have ended",
        _ if matches!(why, MapFault::Absent) => "build the relay again",
        _ => "it needs Linux 5.9 or later",
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
            format!(
                "an MTU over 1500 (`ip link set dev {interface} mtu 1500`) or LRO (`ethtool -K \
                 {interface} lro off`) may be in the way"
            )
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
fn chain(error: &dyn StdError) -> String {
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
        let syscall = |errno| Box::new(ProgramError::SyscallError(syscall(errno)));
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
        let native = Error::NotNative {
            card: card(),
            why: syscall(Errno::EINVAL),
        }
        .to_string();
        assert!(
            native.starts_with("eth0 (driver igb) refuses native XDP (")
                && native.contains("`ip link set dev eth0 mtu 1500`"),
            "{native}"
        );
    }

    fn syscall(errno: Errno) -> SyscallError {
        SyscallError {
            call: "bpf",
            io_error: errno.into(),
        }
    }

    #[test]
    fn a_program_that_is_not_loaded_names_the_card_the_reason_and_what_to_do() {
        let text = |errno| {
            let error = ProgramError::SyscallError(syscall(errno));
            let why = LoadError::Program(Box::new(error));
            Error::Load { card: card(), why }.to_string()
        };
        let refused = text(Errno::EPERM);
        let says = "eth0 (driver igb): the kernel refused the XDP program";
        assert!(refused.starts_with(says), "{refused}");
        assert!(refused.contains("Operation not permitted"), "{refused}");
        assert!(refused.contains("CAP_BPF"), "{refused}");
        assert!(text(Errno::ENOMEM).contains("locked memory"));
        // What the verifier says of instructions that it does not know.
        assert!(text(Errno::EACCES).contains("Linux 5.9"));
    }

    #[test]
    fn a_map_that_cannot_be_used_names_the_card_the_map_and_what_to_do() {
        let text = |why| {
            let error = Error::Map {
                card: card(),
                map: "SESSIONS",
                why,
            };
            error.to_string()
        };
        let refused = |errno| text(MapFault::Refused(Box::new(syscall(errno).into())));
        let full = refused(Errno::E2BIG);
        assert!(
            full.starts_with("eth0 (driver igb): map SESSIONS"),
            "{full}"
        );
        assert!(full.contains("Argument list too long"), "{full}");
        assert!(full.contains("it is full"), "{full}");
        assert!(refused(Errno::EPERM).contains("CAP_BPF"));
        let mapping = text(MapFault::Mapping(Errno::ENOMEM.into()));
        assert!(mapping.contains("Cannot allocate memory"), "{mapping}");
        assert!(mapping.contains("locked memory"), "{mapping}");
        assert!(text(MapFault::Absent).contains("build the relay again"));
    }
}
