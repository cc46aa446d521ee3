//! Asking the directory, through the relays, without it learning who asks.
//!
//! What concerns the own records (publishing, leases, claiming names) is asked under one
//! throw-away ID, what concerns others under another one, both renewed from time to time: the
//! directory can tie neither a lookup to a service, nor the lookups of different days to each
//! other. Requests are idempotent and repeated until they are answered or
//! [`QUERY_DEADLINE`](mixline_endpoint_engine::QUERY_DEADLINE) has passed.

use std::net::IpAddr;

use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::records::{Lease, NameRecord, ServiceDescriptor};

use crate::requests::Requests;
use mixline_endpoint_engine::QueryError;
use mixline_endpoint_engine::command::{Answer, NamedService, Question};

/// Questions to the directory. Cheap to clone.
#[derive(Clone)]
pub struct DirectoryQueries {
    pub(crate) requests: Requests,
}

impl DirectoryQueries {
    /// Publishes the own descriptor now, under the tails that are alive. With
    /// [`Config::publish`](mixline_endpoint_engine::Config::publish) this also happens by itself whenever it is needed.
    ///
    /// # Errors
    /// As [`QueryError`] says; also if there is no public tail yet when the deadline passes.
    pub async fn publish(&self) -> Result<(), QueryError> {
        done(self.requests.ask(Question::Publish).await?)
    }

    /// Who holds a name; `None` if nobody does.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn lookup_name(&self, label: Label) -> Result<Option<NamedService>, QueryError> {
        match self.requests.ask(Question::LookupName(label)).await? {
            Answer::Named(named) => Ok(named.map(|named| *named)),
            _ => Err(misfit()),
        }
    }

    /// Where an ID is reached; `None` if it has published nothing.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn lookup_id(
        &self,
        id: AnonymousId,
    ) -> Result<Option<ServiceDescriptor>, QueryError> {
        descriptor(self.requests.ask(Question::LookupId(id)).await?)
    }

    /// Whose virtual address it is; `None` if nobody's, or of somebody who cannot be reached.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn lookup_address(
        &self,
        address: IpAddr,
    ) -> Result<Option<ServiceDescriptor>, QueryError> {
        descriptor(self.requests.ask(Question::LookupAddress(address)).await?)
    }

    /// Leases a virtual IPv4 address for the own ID, or renews the lease. The endpoint uses the
    /// new lease from then on, as after [`crate::Handle::set_lease`]; keeping it is the caller's part.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn lease(&self) -> Result<Lease, QueryError> {
        match self.requests.ask(Question::Lease).await? {
            Answer::Lease(lease) => Ok(*lease),
            _ => Err(misfit()),
        }
    }

    /// Claims a name for the own ID, or renews the claim.
    ///
    /// # Errors
    /// [`QueryError::Refused`] if somebody else holds it; otherwise as [`QueryError`] says.
    pub async fn claim_name(&self, label: Label) -> Result<(), QueryError> {
        done(self.requests.ask(Question::ClaimName(label)).await?)
    }

    /// The name of an ID, for reverse lookups; `None` if it has none.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn name_of(&self, id: AnonymousId) -> Result<Option<NameRecord>, QueryError> {
        match self.requests.ask(Question::NameOf(id)).await? {
            Answer::NameOf(name) => Ok(name.map(|name| *name)),
            _ => Err(misfit()),
        }
    }
}

fn done(answer: Answer) -> Result<(), QueryError> {
    match answer {
        Answer::Done => Ok(()),
        _ => Err(misfit()),
    }
}

fn descriptor(answer: Answer) -> Result<Option<ServiceDescriptor>, QueryError> {
    match answer {
        Answer::Descriptor(found) => Ok(found.map(|found| *found)),
        _ => Err(misfit()),
    }
}

/// The engine answers each question by its own kind of answer.
fn misfit() -> QueryError {
    QueryError::Invalid("it answers another question".into())
}
