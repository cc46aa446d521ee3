//! Services: how anonymous IDs are reached.

use std::net::IpAddr;

use mixline_protocol::address::ipv6;
use mixline_protocol::authorisation::LookupToken;
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::{Lease, ServiceDescriptor};
use mixline_protocol::time::UnixTime;

use super::refusal::{Decision, Refusal, contended, damaged, older, unavailable};
use super::{ATTEMPTS, Registry};
use crate::store::{Outcome, Table, Transaction};

impl Registry {
    /// Publishes a service, or renews it.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn publish(&self, descriptor: &ServiceDescriptor, now: UnixTime) -> Decision<()> {
        descriptor.verify(now).map_err(|e| Refusal::of(&e, now))?;
        if let Some(lease) = &descriptor.lease {
            lease
                .verify(&self.id, now)
                .map_err(|e| Refusal::of(&e, now))?;
        }
        let id = descriptor.id;
        let address = ipv6(&id).octets();
        // Anyone who gets a descriptor checks the lease in it: both end together.
        let lease_ends = descriptor
            .lease
            .map_or(UnixTime(u64::MAX), |lease| lease.expires);
        let expires = descriptor.expires.min(lease_ends);
        for _ in 0..ATTEMPTS {
            let stored = self
                .store
                .get(Table::Services, &id.0)
                .map_err(|e| unavailable(&e))?;
            if let Some(entry) = &stored {
                // One that cannot be read, of another format or from a bad disk, is of no use to anybody: its ID, and
                // nobody else, replaces it.
                let before = ServiceDescriptor::decode(&entry.value).ok();
                if before.as_ref().is_some_and(|before| before == descriptor) {
                    return Ok(());
                }
                if before.is_some_and(|before| before.version >= descriptor.version) {
                    return Err(older());
                }
            } else {
                self.room(Table::Services, self.limits.services, "services")?;
            }
            let holder = self
                .store
                .get(Table::Addresses, &address)
                .map_err(|e| unavailable(&e))?;
            if holder
                .as_ref()
                .is_some_and(|h| h.value != id.0 && h.expires > now)
            {
                // 120 bits: somebody searched for it.
                let text = "another ID has the same virtual IPv6 address; use a new ID";
                return Err(Refusal::new(RefusalCode::Taken, text));
            }
            let change = Transaction::new()
                .check(Table::Services, id.0, stored.as_ref())
                .check(Table::Addresses, address, holder.as_ref())
                .put(Table::Services, id.0, descriptor.encode(), expires)
                .put(Table::Addresses, address, id.0, expires);
            match self.store.commit(change).map_err(|e| unavailable(&e))? {
                Outcome::Committed => return Ok(()),
                Outcome::Conflict => {}
            }
        }
        Err(contended())
    }

    /// How an ID is reached, if it is published, for whoever shows this token. One that is not on the ID's
    /// list of clients hears the same as if it were not published.
    ///
    /// # Errors
    /// A [`Refusal`] if the store does not work.
    pub fn lookup_id(
        &self,
        id: &AnonymousId,
        token: Option<&LookupToken>,
        now: UnixTime,
    ) -> Decision<Option<ServiceDescriptor>> {
        let entry = self
            .store
            .get(Table::Services, &id.0)
            .map_err(|e| unavailable(&e))?;
        let found = entry
            .filter(|entry| entry.expires > now)
            .map(|entry| ServiceDescriptor::decode(&entry.value).map_err(damaged))
            .transpose()?;
        Ok(found.filter(|descriptor| descriptor.is_for(token)))
    }

    /// Who has a virtual address and how that ID is reached, if it is published. An IPv4
    /// address counts only with the lease in the descriptor: the asker checks it. An ID that has a list of
    /// clients is not found by its address.
    ///
    /// # Errors
    /// A [`Refusal`] if the store does not work.
    pub fn lookup_address(
        &self,
        address: IpAddr,
        now: UnixTime,
    ) -> Decision<Option<ServiceDescriptor>> {
        match address {
            IpAddr::V4(address) => {
                let key = address.octets();
                let entry = self
                    .store
                    .get(Table::Leases, &key)
                    .map_err(|e| unavailable(&e))?;
                let Some(entry) = entry else { return Ok(None) };
                let lease = Lease::decode(&entry.value).map_err(damaged)?;
                if lease.expires <= now {
                    return Ok(None);
                }
                let found = self.lookup_id(&lease.id, None, now)?;
                Ok(found.filter(|f| f.lease.is_some_and(|lease| lease.ipv4 == address)))
            }
            IpAddr::V6(address) => {
                let key = address.octets();
                let entry = self
                    .store
                    .get(Table::Addresses, &key)
                    .map_err(|e| unavailable(&e))?;
                let Some(entry) = entry else { return Ok(None) };
                let id = entry.value.try_into().map_err(|_| damaged("not an ID"))?;
                self.lookup_id(&AnonymousId(id), None, now)
            }
        }
    }
}
