//! The DNS responder: `.anon` and the reverse names of the virtual addresses, over UDP
//! and TCP, on an address that only this host can reach.
//!
//! What it answers:
//! - `label.anon` and `<52 base32 characters>.anon`: A and AAAA, from the directory; a
//!   name that nobody holds is NXDOMAIN, another type is NODATA (RFC 2308), a directory
//!   that cannot be reached is SERVFAIL.
//! - reverse names inside the virtual networks: PTR; those of a neighbourhood that has its network
//!   there are passed on.
//! - anything else: forwarded to the servers that the host used before, or REFUSED.
//!
//! What it promises: a name under `.anon` and a reverse name of a virtual address that is nobody
//! else's are never sent to another server, neither by themselves nor with one of the host's search
//! domains appended; all that an asker can make it hold is bounded.
//!
//! [`zone`] decides what a question is about, [`cache`] remembers the directory's
//! answers, [`responder`] decides what is answered, [`response`] makes bytes of it, [`forward`]
//! passes on what is not ours ([`neighbours`] where that is not as for all other names), [`server`]
//! owns the sockets, and [`shares`] sees to it that nobody takes all of it.

mod cache;
pub(crate) mod forward;
pub(crate) mod neighbours;
pub(crate) mod responder;
mod response;
pub(crate) mod server;
pub(crate) mod shares;
pub(crate) mod zone;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::time::UnixTime;

use crate::host::prefix::Prefix;
use shares::Asker;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram; a long answer is cut and marked so.
    Udp,
    /// A stream, with a length before each message.
    Tcp,
}

/// Which virtual addresses this host can use. An address whose packets would not enter the tunnel
/// is not told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// The virtual IPv4 network is routed into the tunnel.
    pub ipv4: bool,
    /// `fd00::/8` is routed into the tunnel.
    pub ipv6: bool,
    /// But not these networks in them.
    pub others: Vec<Prefix>,
    /// Those of them that are somebody's neighbourhood, with reverse names of its own.
    pub neighbours: Vec<Prefix>,
    /// Addresses there that names had first, and that are nobody's.
    pub kept: BTreeSet<IpAddr>,
}

impl Reach {
    /// Whether a virtual address is somebody else's.
    #[must_use]
    pub fn leaves(&self, address: IpAddr) -> bool {
        self.others.iter().any(|other| other.contains(address))
    }

    /// Whether the reverse names of a network, or of one address, are a neighbourhood's.
    #[must_use]
    pub fn is_neighbours(&self, network: Prefix) -> bool {
        let is = |address: &IpAddr| Prefix::host(*address) == network;
        self.neighbours.iter().any(|other| other.covers(&network)) && !self.kept.iter().any(is)
    }

    /// Whether packets to a virtual address enter the tunnel.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        let family = if address.is_ipv4() {
            self.ipv4
        } else {
            self.ipv6
        };
        family && !self.leaves(address)
    }
}

/// Where somebody can be reached, as far as DNS cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose addresses these are.
    pub id: AnonymousId,
    /// The leased address, if there is a lease that holds.
    pub ipv4: Option<Ipv4Addr>,
    /// The address derived from the ID.
    pub ipv6: Ipv6Addr,
    /// Whether the ID has published where it is reached.
    pub published: bool,
    /// When the lease ends, or has ended.
    pub lease_expires: Option<UnixTime>,
    /// When the claim of the name that was asked for ends.
    pub name_expires: Option<UnixTime>,
}

impl Entry {
    /// The leased address, and how long it may be told: not longer than the lease holds.
    #[must_use]
    pub fn leased(&self, now: UnixTime) -> Option<(Ipv4Addr, Duration)> {
        let left = left(self.lease_expires, now)?;
        Some((self.ipv4?, left))
    }

    /// How long all of it may be told: not longer than the name is held. None if that is over.
    #[must_use]
    pub fn left(&self, now: UnixTime) -> Option<Duration> {
        left(self.name_expires, now)
    }
}

/// What is left until then, without an end if there is none.
fn left(expires: Option<UnixTime>, now: UnixTime) -> Option<Duration> {
    match expires {
        None => Some(Duration::MAX),
        Some(expires) => {
            let left = expires.since(now);
            (left > 0).then(|| Duration::from_secs(left))
        }
    }
}

/// Why a lookup gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The directory knows no such name, ID or address.
    #[error("not found")]
    NotFound,
    /// The directory did not answer, so nobody knows.
    #[error("the directory cannot be reached")]
    Unreachable,
    /// No guard is reached, so nobody can be asked.
    #[error("no guard is reached")]
    Offline,
}

/// Who answers the responder's questions: the endpoint, or a table in tests.
///
/// A backend remembers what it finds, so that the first packet to an address that was
/// just looked up needs no second lookup.
pub trait Backend: Send + Sync + 'static {
    /// Who holds `label.anon`.
    fn by_label(&self, label: &Label) -> impl Future<Output = Result<Entry, LookupError>> + Send;
    /// Where `id` is reached.
    fn by_id(&self, id: &AnonymousId) -> impl Future<Output = Result<Entry, LookupError>> + Send;
    /// Who holds a virtual address.
    fn by_address(
        &self,
        address: IpAddr,
    ) -> impl Future<Output = Result<Entry, LookupError>> + Send;
    /// Whether somebody who has a session with this host has this address.
    fn is_peers(&self, address: IpAddr) -> impl Future<Output = bool> + Send;
    /// Somebody is told this address for a name.
    fn told(&self, address: IpAddr, asker: Asker);
    /// The name of `id`, `None` if it has none.
    fn name_of(
        &self,
        id: &AnonymousId,
    ) -> impl Future<Output = Result<Option<Label>, LookupError>> + Send;
}
