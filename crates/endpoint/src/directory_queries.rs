//! Asking the directory, through the relays, without it learning who asks.
//!
//! What concerns the own records (publishing, leases, claiming names) is asked under one
//! throw-away ID, what concerns others under another one, both renewed from time to time: the
//! directory can tie neither a lookup to a service, nor the lookups of different days to each
//! other. Requests are idempotent and repeated until they are answered or
//! [`QUERY_DEADLINE`](mixline_endpoint_engine::directory::pending::QUERY_DEADLINE) has passed.

use std::net::IpAddr;

use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::records::{Lease, NameRecord, ServiceDescriptor};
use tokio::sync::{mpsc, oneshot};

use crate::QueryError;
use mixline_endpoint_engine::command::{Command, NamedService};

/// Questions to the directory. Cheap to clone.
#[derive(Clone)]
pub struct DirectoryQueries {
    pub(crate) commands: mpsc::Sender<Command>,
}

impl DirectoryQueries {
    /// Publishes the own descriptor now, under the tails that are alive. With
    /// [`crate::Config::publish`] this also happens by itself whenever it is needed.
    ///
    /// # Errors
    /// As [`QueryError`] says; also if there is no public tail yet when the deadline passes.
    pub async fn publish(&self) -> Result<(), QueryError> {
        self.ask(Command::Publish).await
    }

    /// Who holds a name; `None` if nobody does.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn lookup_name(&self, label: Label) -> Result<Option<NamedService>, QueryError> {
        self.ask(|reply| Command::LookupName(label, reply)).await
    }

    /// Where an ID is reached; `None` if it has published nothing.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn lookup_id(
        &self,
        id: AnonymousId,
    ) -> Result<Option<ServiceDescriptor>, QueryError> {
        self.ask(|reply| Command::LookupId(id, reply)).await
    }

    /// Whose virtual address it is; `None` if nobody's, or of somebody who cannot be reached.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn lookup_address(
        &self,
        address: IpAddr,
    ) -> Result<Option<ServiceDescriptor>, QueryError> {
        self.ask(|reply| Command::LookupAddress(address, reply))
            .await
    }

    /// Leases a virtual IPv4 address for the own ID, or renews the lease. The endpoint uses the
    /// new lease from then on, as after [`crate::Handle::set_lease`]; keeping it is the caller's part.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn lease(&self) -> Result<Lease, QueryError> {
        self.ask(Command::Lease).await
    }

    /// Claims a name for the own ID, or renews the claim.
    ///
    /// # Errors
    /// [`QueryError::Refused`] if somebody else holds it; otherwise as [`QueryError`] says.
    pub async fn claim_name(&self, label: Label) -> Result<(), QueryError> {
        self.ask(|reply| Command::ClaimName(label, reply)).await
    }

    /// The name of an ID, for reverse lookups; `None` if it has none.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub async fn name_of(&self, id: AnonymousId) -> Result<Option<NameRecord>, QueryError> {
        self.ask(|reply| Command::NameOf(id, reply)).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, QueryError>>) -> Command,
    ) -> Result<T, QueryError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| QueryError::Stopped)?;
        answer.await.unwrap_or(Err(QueryError::Stopped))
    }
}
