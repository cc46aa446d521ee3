//! Relays: who is there, and who has gone silent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use mixline_protocol::address::{IPV6_FIRST_BYTE, VirtualNetwork};
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::records::RelayDescriptor;
use mixline_protocol::time::UnixTime;

use super::live::{LiveRelay, decode, encode};
use super::refusal::{Decision, Refusal, check_fresh, contended, damaged, older, unavailable};
use super::{ATTEMPTS, Registry};
use crate::Result;
use crate::store::{Entry, Outcome, Table, Transaction};

/// Entries that are read from the store at once.
const PAGE: usize = 1000;

impl Registry {
    /// Registers a relay, or hears from it again. `source` is where the request came from.
    ///
    /// A relay is heard when it sends a new version: the descriptor that everybody has
    /// proves nothing when it is repeated.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn register_relay(
        &self,
        descriptor: RelayDescriptor,
        source: Option<IpAddr>,
        now: UnixTime,
    ) -> Decision<()> {
        descriptor.verify(now).map_err(|e| Refusal::of(&e, now))?;
        for address in &descriptor.addresses {
            self.check_address(address.ip())?;
        }
        self.check_source(&descriptor, source)?;
        let descriptor = Arc::new(descriptor);
        let (id, short) = (descriptor.id, descriptor.short_id());
        for _ in 0..ATTEMPTS {
            let stored = self
                .store
                .get(Table::Relays, &id.0)
                .map_err(|e| unavailable(&e))?;
            let before = stored
                .as_ref()
                .map(|e| decode(&e.value))
                .transpose()
                .map_err(damaged)?;
            match &before {
                Some(b) if b.descriptor.version > descriptor.version => return Err(older()),
                Some(b) if b.descriptor == descriptor => return Ok(()),
                Some(b) if b.descriptor.version == descriptor.version => return Err(older()),
                _ => check_fresh("relay descriptor", descriptor.issued, now)?,
            }
            let holder = self
                .store
                .get(Table::ShortIds, &short.0)
                .map_err(|e| unavailable(&e))?;
            if holder
                .as_ref()
                .is_some_and(|h| h.value != id.0 && h.expires > now)
            {
                let text = format!(
                    "another relay has the short ID {short}; remove this relay's identity key \
                     and start it again"
                );
                return Err(Refusal::new(RefusalCode::Taken, text));
            }
            if !self.read_live().contains_key(&id) {
                self.check_room(stored.as_ref())?;
            }
            let gap = u64::from(self.rules().relay_timeout_s);
            let since = before
                .filter(|b| now.since(b.heard) <= gap)
                .map_or(now, |b| b.since);
            let relay = LiveRelay {
                descriptor: descriptor.clone(),
                heard: now,
                since,
            };
            let change = Transaction::new()
                .check(Table::Relays, id.0, stored.as_ref())
                .check(Table::ShortIds, short.0, holder.as_ref())
                .put(Table::Relays, id.0, encode(&relay), descriptor.expires)
                .put(Table::ShortIds, short.0, id.0, descriptor.expires);
            match self.store.commit(change).map_err(|e| unavailable(&e))? {
                Outcome::Committed => {
                    self.heard(relay);
                    return Ok(());
                }
                Outcome::Conflict => {}
            }
        }
        Err(contended())
    }

    /// The live relays, in no order.
    pub fn live_relays(&self) -> Vec<LiveRelay> {
        self.read_live().values().cloned().collect()
    }

    /// How many relays are live.
    pub fn live_count(&self) -> usize {
        self.read_live().len()
    }

    /// Relays that have been silent for too long, or whose descriptor has ended, are live no more.
    pub fn forget_silent(&self, now: UnixTime) {
        let gone = |relay: &LiveRelay| self.is_gone(relay, now);
        if !self.read_live().values().any(gone) {
            return;
        }
        self.write_live().retain(|_, relay| {
            let stays = !gone(relay);
            if !stays {
                let (name, short) = (&relay.descriptor.name, relay.descriptor.short_id());
                tracing::info!("relay {name} ({short}) has gone silent");
            }
            stays
        });
        self.changed();
    }

    pub(super) fn load_relays(&self, now: UnixTime) -> Result<()> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self
                .store
                .list(Table::Relays, &[], after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (_, entry) in &page {
                let relay = decode(&entry.value)?;
                if !self.is_gone(&relay, now) {
                    self.write_live().insert(relay.descriptor.id, relay);
                }
            }
        }
        self.changed();
        Ok(())
    }

    fn is_gone(&self, relay: &LiveRelay, now: UnixTime) -> bool {
        let timeout = u64::from(self.rules().relay_timeout_s);
        now.since(relay.heard) > timeout || !relay.descriptor.alive(now)
    }

    fn heard(&self, relay: LiveRelay) {
        let mut live = self.write_live();
        let before = live.get(&relay.descriptor.id);
        // Two registrations may come here in either order; the newer one counts.
        if before.is_some_and(|b| b.descriptor.version > relay.descriptor.version) {
            return;
        }
        let matters = before.is_none_or(|b| !same_to_builders(&b.descriptor, &relay.descriptor));
        if before.is_none() {
            let (name, short) = (&relay.descriptor.name, relay.descriptor.short_id());
            tracing::info!("relay {name} ({short}) has come");
        }
        live.insert(relay.descriptor.id, relay);
        drop(live);
        if matters {
            self.changed();
        }
    }

    fn check_room(&self, stored: Option<&Entry>) -> Decision<()> {
        let limit = self.limits.relays;
        if self.read_live().len() >= limit {
            let text = format!("the network is full: it has {limit} relays; again later");
            return Err(Refusal::new(RefusalCode::Full, text));
        }
        if stored.is_none() {
            let limit = self.limits.remembered_relays;
            self.room(Table::Relays, limit, "relays, many of them silent")?;
        }
        Ok(())
    }

    fn check_address(&self, ip: IpAddr) -> Decision<()> {
        let refuse = |why: String| Err(Refusal::new(RefusalCode::NotAllowed, why));
        match scope(ip, &self.parameters.network) {
            Scope::Public => Ok(()),
            Scope::Private if self.rules().admission.private_addresses => Ok(()),
            Scope::Private => refuse(format!(
                "{ip} is not a public address; the relay must advertise one, or the directory \
                 allow others (allow_private_addresses: true)"
            )),
            Scope::Virtual => refuse(format!(
                "{ip} is where virtual addresses are; no relay can be there"
            )),
            Scope::Link => refuse(format!("{ip} is not an address that others can send to")),
        }
    }

    fn check_source(&self, descriptor: &RelayDescriptor, source: Option<IpAddr>) -> Decision<()> {
        let Some(source) = source.filter(|_| self.rules().admission.check_source) else {
            return Ok(());
        };
        let source = source.to_canonical();
        if descriptor
            .addresses
            .iter()
            .any(|address| address.ip() == source)
        {
            return Ok(());
        }
        let text = format!(
            "the registration came from {source}, which the relay does not advertise; add it to \
             advertise, or let the directory not check (check_source: false)"
        );
        Err(Refusal::new(RefusalCode::NotAllowed, text))
    }
}

/// Whether those who build paths would do the same with both.
fn same_to_builders(a: &RelayDescriptor, b: &RelayDescriptor) -> bool {
    (
        &a.link,
        &a.onion,
        &a.addresses,
        a.capacity,
        &a.family,
        &a.name,
        &a.software,
    ) == (
        &b.link,
        &b.onion,
        &b.addresses,
        b.capacity,
        &b.family,
        &b.name,
        &b.software,
    )
}

/// From where an address can be reached.
#[derive(Debug, PartialEq, Eq)]
enum Scope {
    Public,
    Private,
    Virtual,
    Link,
}

/// By the IANA registries of special-purpose addresses.
fn scope(ip: IpAddr, network: &VirtualNetwork) -> Scope {
    match ip {
        IpAddr::V4(ip) => scope_v4(ip, network),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

fn scope_v4(ip: Ipv4Addr, network: &VirtualNetwork) -> Scope {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && b & 0xc0 == 64;
    let benchmark = a == 198 && b & 0xfe == 18;
    let protocols = [a, b, c] == [192, 0, 0];
    if network.contains(ip) {
        Scope::Virtual
    } else if ip.is_link_local() || a == 0 || a >= 224 {
        Scope::Link
    } else if ip.is_private()
        || ip.is_loopback()
        || ip.is_documentation()
        || shared
        || benchmark
        || protocols
    {
        Scope::Private
    } else {
        Scope::Public
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    let [a, b, ..] = ip.segments();
    let documentation = (a == 0x2001 && b == 0xdb8) || (a == 0x3fff && b & 0xf000 == 0);
    if ip.octets()[0] == IPV6_FIRST_BYTE {
        Scope::Virtual
    } else if ip.is_loopback() || documentation || ip.is_unique_local() {
        Scope::Private
    } else if a & 0xe000 == 0x2000 {
        Scope::Public
    } else {
        // Link-local addresses need a zone, and nothing else is assigned to hosts.
        Scope::Link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let network = VirtualNetwork::default();
        for (text, expected) in [
            ("203.0.114.7", Scope::Public),
            ("172.21.0.2", Scope::Private),
            ("127.0.0.1", Scope::Private),
            ("100.64.0.1", Scope::Private),
            ("100.128.0.1", Scope::Public),
            ("198.19.0.1", Scope::Private),
            ("10.1.2.3", Scope::Virtual),
            ("169.254.0.1", Scope::Link),
            ("2a00::1", Scope::Public),
            ("3fff:1::2", Scope::Private),
            ("2001:db8::1", Scope::Private),
            ("::1", Scope::Private),
            ("fc00::1", Scope::Private),
            ("fd00::1", Scope::Virtual),
            ("fe80::1", Scope::Link),
        ] {
            assert_eq!(scope(text.parse().unwrap(), &network), expected, "{text}");
        }
    }
}
