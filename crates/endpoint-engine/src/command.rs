//! What the outside asks of the engine.

use std::net::IpAddr;

use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::records::{Lease, NameRecord, ServiceDescriptor};
use tokio::sync::oneshot;

use crate::{QueryError, Status};

/// What a name stands for, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedService {
    /// The name, signed by its ID.
    pub name: NameRecord,
    /// Where the ID is reached, if it has published that.
    pub descriptor: Option<ServiceDescriptor>,
}

/// Where an answer of the directory goes.
pub type Reply<T> = oneshot::Sender<Result<T, QueryError>>;

/// One request to the engine.
pub enum Command {
    /// Publish the own descriptor.
    Publish(Reply<()>),
    /// Ask for a name.
    LookupName(Label, Reply<Option<NamedService>>),
    /// Ask for an ID.
    LookupId(AnonymousId, Reply<Option<ServiceDescriptor>>),
    /// Ask for an address.
    LookupAddress(IpAddr, Reply<Option<ServiceDescriptor>>),
    /// Lease an address, or renew the lease.
    Lease(Reply<Lease>),
    /// Claim a name, or renew the claim.
    ClaimName(Label, Reply<()>),
    /// Ask for an ID's name.
    NameOf(AnonymousId, Reply<Option<NameRecord>>),
    /// A descriptor from elsewhere.
    Learn(Box<ServiceDescriptor>),
    /// The own lease.
    SetLease(Box<Lease>),
    /// The state of everything.
    Status(oneshot::Sender<Box<Status>>),
    /// Say goodbye to everybody and stop.
    Shutdown,
}
