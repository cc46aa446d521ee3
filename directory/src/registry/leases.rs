//! Leases of virtual IPv4 addresses.

use std::net::Ipv4Addr;

use mixline_protocol::address::ipv4_candidate;
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::records::{Lease, LeaseRequest};
use mixline_protocol::time::UnixTime;

use super::refusal::{Decision, Refusal, contended, unavailable};
use super::{ATTEMPTS, Registry};
use crate::store::{Entry, Outcome, Table, Transaction};

/// How long a lease is granted for, in seconds.
pub const LEASE_LIFETIME: u64 = 7 * 24 * 3600;
/// For how many seconds after its end nobody but its holder gets the address: flows to it
/// may still live.
pub const LEASE_QUARANTINE: u64 = 3600;
/// How many of an ID's candidates are tried.
pub const CANDIDATES: u32 = 64;

impl Registry {
    /// Grants an address to an ID: the one that it has, or the one it wishes for if that is one
    /// of its candidates and free, or the first free candidate.
    ///
    /// A lease with more than half of its life left is returned as it is.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn lease(&self, request: &LeaseRequest, now: UnixTime) -> Decision<Lease> {
        request.verify(now).map_err(|e| Refusal::of(&e, now))?;
        let id = request.id;
        for _ in 0..ATTEMPTS {
            let own = self
                .store
                .get(Table::LeaseOf, &id.0)
                .map_err(|e| unavailable(&e))?;
            let (ipv4, held) = match self.own_lease(&id, own.as_ref())? {
                Some((lease, entry)) => {
                    let fresh = lease.expires > now.plus(LEASE_LIFETIME / 2);
                    // One that an earlier key of the directory signed is granted anew.
                    if fresh && lease.verify(&self.id, now).is_ok() {
                        return Ok(lease);
                    }
                    (lease.ipv4, Some(entry))
                }
                None => {
                    self.room(Table::Leases, self.limits.leases, "leases")?;
                    self.free_address(request, now)?
                }
            };
            let lease = Lease::grant(ipv4, id, now.plus(LEASE_LIFETIME), &self.key);
            let end = lease.expires.plus(LEASE_QUARANTINE);
            let change = Transaction::new()
                .check(Table::Leases, ipv4.octets(), held.as_ref())
                .check(Table::LeaseOf, id.0, own.as_ref())
                .put(Table::Leases, ipv4.octets(), lease.encode(), end)
                .put(Table::LeaseOf, id.0, ipv4.octets(), end);
            match self.store.commit(change).map_err(|e| unavailable(&e))? {
                Outcome::Committed => return Ok(lease),
                Outcome::Conflict => {}
            }
        }
        Err(contended())
    }

    /// What the ID has, ended or not, as long as nobody else has it and it is in the network.
    fn own_lease(&self, id: &AnonymousId, own: Option<&Entry>) -> Decision<Option<(Lease, Entry)>> {
        let Some(own) = own else { return Ok(None) };
        let entry = self
            .store
            .get(Table::Leases, &own.value)
            .map_err(|e| unavailable(&e))?;
        let Some(entry) = entry else { return Ok(None) };
        // One that cannot be read is nobody's until it ends; the ID gets another address.
        let Ok(lease) = Lease::decode(&entry.value) else {
            return Ok(None);
        };
        let usable = lease.id == *id && self.parameters.network.leasable(lease.ipv4);
        Ok(usable.then_some((lease, entry)))
    }

    /// A free address, and the ended lease that stands in its place if there is one.
    fn free_address(
        &self,
        request: &LeaseRequest,
        now: UnixTime,
    ) -> Decision<(Ipv4Addr, Option<Entry>)> {
        let candidates: Vec<_> = (0..CANDIDATES)
            .map(|attempt| ipv4_candidate(&request.id, attempt, &self.parameters.network))
            .collect();
        let wish = request.wanted.filter(|wanted| candidates.contains(wanted));
        for ipv4 in wish.into_iter().chain(candidates) {
            let entry = self
                .store
                .get(Table::Leases, &ipv4.octets())
                .map_err(|e| unavailable(&e))?;
            if entry.as_ref().is_none_or(|entry| entry.expires <= now) {
                return Ok((ipv4, entry));
            }
        }
        Err(Refusal::new(
            RefusalCode::NoAddress,
            format!("none of this ID's {CANDIDATES} candidate addresses is free; use a new ID"),
        ))
    }
}
