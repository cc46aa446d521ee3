//! What tests look into, and only the program uses otherwise.

pub use crate::control::MAX_REQUEST;
pub use crate::control::server::{Handler, Server as ControlServer};
pub use crate::dns::forward::Forwarder;
pub use crate::dns::neighbours::Neighbours;
pub use crate::dns::responder::Responder;
pub use crate::dns::server::Server as DnsServer;
pub use crate::dns::shares::Asker;
pub use crate::dns::zone::Zone;
pub use crate::dns::{Backend, Entry, LookupError, Reach, Transport};
pub use crate::host_dns::upstream::Upstream;
pub use crate::tun::coalesce::{Coalescer, MAX_SEGMENTS};
pub use crate::tun::device::Tun;
pub use crate::tun::segment::Split;
pub use crate::tun::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CHECKSUM, VIRTIO_HEADER,
    VirtioHeader,
};
