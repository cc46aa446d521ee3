//! The directory, as the DNS responder and `resolve` see it.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mixline_endpoint::{Handle, QueryError};
use mixline_protocol::address;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use mixline_protocol::records::{Lease, ServiceDescriptor};
use tokio::sync::watch;

use super::told::Told;
use crate::dns::shares::Asker;
use crate::dns::{Backend, Entry, LookupError};

/// How long a lookup may take: shorter than a stub resolver's two attempts of 5 s, so that
/// the second one gets its answer (resolv.conf(5)).
const DEADLINE: Duration = Duration::from_secs(8);

/// Lookups through the endpoint. What concerns the own ID is answered from here.
pub struct EndpointBackend {
    handle: Handle,
    lease: watch::Receiver<Option<Lease>>,
    names: watch::Receiver<Vec<Label>>,
    told: Arc<Told>,
}

impl EndpointBackend {
    /// A backend on an endpoint whose own lease and names are in the channels; it remembers in
    /// `told` what programs are told.
    #[must_use]
    pub fn new(
        handle: Handle,
        lease: watch::Receiver<Option<Lease>>,
        names: watch::Receiver<Vec<Label>>,
        told: Arc<Told>,
    ) -> Self {
        Self {
            handle,
            lease,
            names,
            told,
        }
    }

    fn own(&self) -> Entry {
        let id = self.handle.id();
        let lease = *self.lease.borrow();
        Entry {
            id,
            ipv4: lease.map(|lease| lease.ipv4),
            ipv6: address::ipv6(&id),
            published: true,
            lease_expires: lease.map(|lease| lease.expires),
            name_expires: None,
        }
    }

    /// Asks, unless nobody can be reached anyway.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, LookupError> {
        if !*self.handle.online().borrow() {
            return Err(LookupError::Offline);
        }
        match tokio::time::timeout(DEADLINE, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                // The question itself stays out of the log.
                tracing::debug!(%error, "lookup");
                Err(LookupError::Unreachable)
            }
            Err(_) => Err(LookupError::Unreachable),
        }
    }

    /// Remembers a descriptor for the first packet, and reads the addresses in it.
    async fn found(&self, descriptor: ServiceDescriptor) -> Entry {
        let entry = entry(&descriptor);
        self.handle.learn(descriptor).await;
        entry
    }
}

/// The addresses in a descriptor. One without tails says that its holder has gone.
fn entry(descriptor: &ServiceDescriptor) -> Entry {
    let (id, lease) = (descriptor.id, descriptor.lease);
    Entry {
        id,
        ipv4: lease.map(|lease| lease.ipv4),
        ipv6: address::ipv6(&id),
        published: !descriptor.tails.is_empty(),
        lease_expires: lease.map(|lease| lease.expires),
        name_expires: None,
    }
}

impl Backend for EndpointBackend {
    async fn by_label(&self, label: &Label) -> Result<Entry, LookupError> {
        if self.names.borrow().contains(label) {
            return Ok(self.own());
        }
        let directory = self.handle.directory();
        let named = self
            .ask(directory.lookup_name(*label))
            .await?
            .ok_or(LookupError::NotFound)?;
        match named.descriptor {
            _ if named.name.id == self.handle.id() => Ok(self.own()),
            Some(descriptor) => Ok(Entry {
                name_expires: Some(named.name.expires),
                ..self.found(descriptor).await
            }),
            // It is somebody's, who is not there now: packets will be told so.
            None => {
                let id = named.name.id;
                Ok(Entry {
                    id,
                    ipv4: None,
                    ipv6: address::ipv6(&id),
                    published: false,
                    lease_expires: None,
                    name_expires: Some(named.name.expires),
                })
            }
        }
    }

    async fn by_id(&self, id: &AnonymousId) -> Result<Entry, LookupError> {
        if *id == self.handle.id() {
            return Ok(self.own());
        }
        let directory = self.handle.directory();
        let found = self
            .ask(directory.lookup_id(*id))
            .await?
            .ok_or(LookupError::NotFound)?;
        Ok(self.found(found).await)
    }

    async fn by_address(&self, address: IpAddr) -> Result<Entry, LookupError> {
        let own = self.own();
        if own.ipv4.map(IpAddr::V4) == Some(address) || IpAddr::V6(own.ipv6) == address {
            return Ok(own);
        }
        let directory = self.handle.directory();
        let found = self
            .ask(directory.lookup_address(address))
            .await?
            .ok_or(LookupError::NotFound)?;
        Ok(self.found(found).await)
    }

    async fn is_peers(&self, address: IpAddr) -> bool {
        let text = address.to_string();
        let status = self.handle.status().await;
        status.is_some_and(|status| {
            let mut sessions = status.sessions.iter();
            sessions.any(|session| session.ipv6 == text || session.ipv4.as_ref() == Some(&text))
        })
    }

    fn told(&self, address: IpAddr, asker: Asker) {
        self.told.add(address, asker);
    }

    async fn name_of(&self, id: &AnonymousId) -> Result<Option<Label>, LookupError> {
        if *id == self.handle.id() {
            return Ok(self.names.borrow().first().copied());
        }
        let directory = self.handle.directory();
        Ok(self
            .ask(directory.name_of(*id))
            .await?
            .map(|record| record.label))
    }
}

#[cfg(test)]
mod tests {
    use mixline_protocol::identity::{IdentityKey, ShortId, X25519Public};
    use mixline_protocol::path::PublishedTail;
    use mixline_protocol::records::TailOffer;
    use mixline_protocol::time::UnixTime;

    use super::*;

    #[test]
    fn who_says_goodbye_is_published_no_more() {
        let (id, until) = (
            IdentityKey::from_seed([1; 32]).anonymous_id(),
            UnixTime(2000),
        );
        let tail = PublishedTail {
            first: ShortId([2; 8]),
            alpha: [1; 32],
            gamma: [2; 16],
            beta: [3; 100],
            seed: [4; 16],
        };
        let mut descriptor = ServiceDescriptor {
            id,
            version: 1,
            issued: UnixTime(1000),
            expires: until,
            session: X25519Public([3; 32]),
            effort: mixline_protocol::effort::EffortTerms::default(),
            lease: None,
            tails: vec![TailOffer {
                tail,
                expires: until,
            }],
            clients: None,
            signature: [0; 64],
        };
        assert!(entry(&descriptor).published);
        descriptor.tails.clear();
        let gone = entry(&descriptor);
        assert!(!gone.published);
        assert_eq!(gone.ipv6, address::ipv6(&id));
    }
}
