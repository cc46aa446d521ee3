//! What the outside asks of the engine, and what it is answered.
//!
//! A question carries a number that the driver has chosen; the engine names it with the answer,
//! and gives exactly one to each question. Who waits for which number is the driver's business.

use std::net::IpAddr;
use std::time::Duration;

use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::records::{Lease, NameRecord, ServiceDescriptor};

use crate::access::Access;
use crate::config::Config;
use crate::error::QueryError;
use crate::guard_links::GuardTarget;
use crate::status::{PingReport, Status};

/// What a name stands for, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedService {
    /// The name, signed by its ID.
    pub name: NameRecord,
    /// Where the ID is reached, if it has published that.
    pub descriptor: Option<ServiceDescriptor>,
}

/// Names a question, in the command and in the answer. Numbers of questions under way differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestNumber(pub u64);

/// A command to the engine.
#[derive(Debug)]
pub enum Command {
    /// Answer a question.
    Ask(RequestNumber, Question),
    /// Use a descriptor from elsewhere.
    Learn(Box<ServiceDescriptor>),
    /// Use a lease.
    SetLease(Box<Lease>),
    /// Use other settings, which have been checked ([`Config::check`]).
    Reconfigure(Box<Config>),
    /// Let in these clients only from now on, or everybody, and be these services' client.
    SetAccess(Box<Access>),
    /// Addresses, routes or links of this host have changed, or it has slept: guards are reached
    /// anew, and paths tried, at once.
    HostChanged,
    /// Say goodbye to everybody and stop.
    Shutdown,
}

/// The most [`Question::Ping`]s under way at once.
pub const MAX_MEASUREMENTS: usize = 8;
/// The most questions over each path in one [`Question::Ping`].
pub const MAX_PINGS: u32 = 100;
/// The least time between two of them: a peer answers some 40 in a second.
pub const PING_INTERVAL: Duration = Duration::from_millis(200);

/// A question to the engine. Those above [`Question::Status`] go to the directory.
#[derive(Debug, Clone)]
pub enum Question {
    /// Publish the own descriptor: [`Answer::Done`].
    Publish,
    /// Who holds a name: [`Answer::Named`].
    LookupName(Label),
    /// Where an ID is reached: [`Answer::Descriptor`].
    LookupId(AnonymousId),
    /// Whose virtual address it is: [`Answer::Descriptor`].
    LookupAddress(IpAddr),
    /// Lease an address, or renew the lease: [`Answer::Lease`].
    Lease,
    /// Claim a name, or renew the claim: [`Answer::Done`].
    ClaimName(Label),
    /// The name of an ID: [`Answer::NameOf`].
    NameOf(AnonymousId),
    /// The state of everything: [`Answer::Status`].
    Status,
    /// Round trip and loss over each path to a peer: [`Answer::Ping`]. Opens a session, and asks
    /// the directory for the peer, where that is needed.
    Ping {
        /// The peer.
        id: AnonymousId,
        /// Questions over each path, 1 to [`MAX_PINGS`].
        count: u32,
        /// Time between two of them, at least [`PING_INTERVAL`].
        interval: Duration,
    },
    /// How each guard is reached: [`Answer::Guards`].
    Guards,
}

/// The answer to a [`Question`].
#[derive(Debug)]
pub enum Answer {
    /// It is done.
    Done,
    /// What a name stands for; none if nobody holds it.
    Named(Option<Box<NamedService>>),
    /// A descriptor; none if nothing was published.
    Descriptor(Option<Box<ServiceDescriptor>>),
    /// The lease.
    Lease(Box<Lease>),
    /// The name; none if the ID has none.
    NameOf(Option<Box<NameRecord>>),
    /// The state of everything.
    Status(Box<Status>),
    /// What was measured.
    Ping(Box<PingReport>),
    /// The guards in use.
    Guards(Vec<GuardTarget>),
}

/// What becomes of a question.
pub type Outcome = Result<Answer, QueryError>;
