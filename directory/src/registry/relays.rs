//! Relays: who is there, and who has gone silent.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mixline_protocol::address::{IPV6_FIRST_BYTE, VirtualNetwork};
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::records::RelayDescriptor;
use mixline_protocol::time::UnixTime;

use super::live::{Live, LiveRelay, Place, Put, Registered};
use super::refusal::{Decision, Refusal, check_fresh, contended, damaged, older, unavailable};
use super::stored::{decode, encode};
use super::{ATTEMPTS, Registry};
use crate::Result;
use crate::store::{Outcome, Table, Transaction};

/// Entries that are read from the store at once.
const PAGE: usize = 1000;
/// How many seconds a directory may be away, or as long as relays may be silent, and have its relays again when
/// it is back: none of them could be heard meanwhile. Clients go on with the last snapshot for as long
/// (`snapshot_validity_s`), if nobody has said otherwise.
const AWAY: u64 = 600;
/// For how many seconds a relay that registers from another of its addresses, around which no place is left,
/// still counts at the one that it came from before. After that others may be there.
const PROOF: u64 = 24 * 3600;

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
        let from = self.place(&descriptor, source)?;
        let descriptor = Arc::new(descriptor);
        let (id, short) = (descriptor.id, descriptor.short_id());
        for _ in 0..ATTEMPTS {
            let stored = self
                .store
                .get(Table::Relays, &id.0)
                .map_err(|e| unavailable(&e))?;
            let before = stored
                .as_ref()
                .map(|e| decode(&e.value, |ip| self.place_at(ip)))
                .transpose()
                .map_err(damaged)?;
            match before.as_ref().map(|b| &b.relay.descriptor) {
                Some(b) if b.version > descriptor.version => return Err(older()),
                Some(b) if *b == descriptor => return Ok(()),
                Some(b) if b.version == descriptor.version => return Err(older()),
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
            let new = stored.is_none();
            if new {
                let limit = self.limits.remembered_relays;
                self.room(Table::Relays, limit, "relays, many of them silent")?;
            }
            // Before the commit, which takes a while: others come meanwhile.
            let (place, proven, taken) =
                self.take_place(&descriptor, from, before.as_ref(), now)?;
            let give_back = |remembered: bool| {
                let mut live = self.write_live();
                live.let_go_of_link(&descriptor.link);
                if taken {
                    live.give_back(place);
                }
                drop(live);
                if remembered {
                    self.remembered().give_back(place);
                }
            };
            if new && let Err(refusal) = self.remembered().take(place) {
                give_back(false);
                return Err(refusal);
            }
            let since = before
                .map(|b| b.relay)
                .filter(|b| !self.is_gone(b, now) && self.read_live().contains(&id))
                .map_or(now, |b| b.since);
            let registered = Registered {
                relay: LiveRelay {
                    descriptor: descriptor.clone(),
                    heard: now,
                    since,
                },
                place,
                proven,
            };
            let change = Transaction::new()
                .check(Table::Relays, id.0, stored.as_ref())
                .check(Table::ShortIds, short.0, holder.as_ref())
                .put(Table::Relays, id.0, encode(&registered), descriptor.expires)
                .put(Table::ShortIds, short.0, id.0, descriptor.expires);
            match self.store.commit(change) {
                Ok(Outcome::Committed) => {
                    self.remembered().put(id, place, descriptor.expires, new);
                    self.heard(registered, taken);
                    return Ok(());
                }
                outcome => {
                    give_back(new);
                    if let Err(error) = outcome {
                        return Err(unavailable(&error));
                    }
                }
            }
        }
        Err(contended())
    }

    /// Where a relay that comes from there counts from now on, when it last came from that place, and whether
    /// it has taken it now. One that is there, and comes from another of its addresses, moves if it gets a
    /// place there, and else stays where it is. Its link key is held for it, so that of two that come at once
    /// with one key the other is refused.
    fn take_place(
        &self,
        descriptor: &RelayDescriptor,
        from: Place,
        before: Option<&Registered>,
        now: UnixTime,
    ) -> Decision<(Place, UnixTime, bool)> {
        let mut live = self.write_live();
        live.hold_link(descriptor.id, descriptor.link)?;
        let place = place_among(&mut live, descriptor, from, before, now);
        if place.is_err() {
            live.let_go_of_link(&descriptor.link);
        }
        place
    }

    /// The live relays, in no order.
    pub fn live_relays(&self) -> Vec<LiveRelay> {
        self.read_live().relays().cloned().collect()
    }

    /// How many relays are live.
    pub fn live_count(&self) -> usize {
        self.read_live().count()
    }

    /// Whether a live relay counts at an address, or at its site.
    pub fn has_relay_at(&self, ip: IpAddr) -> bool {
        self.read_live().is_at(ip)
    }

    /// Relays that have been silent for too long, or whose descriptor has ended, are live no more.
    pub fn forget_silent(&self, now: UnixTime) {
        let gone = |relay: &LiveRelay| self.is_gone(relay, now);
        if !self.read_live().relays().any(gone) {
            return;
        }
        let removed = self.write_live().remove_if(gone);
        for relay in &removed {
            let (name, short) = (&relay.descriptor.name, relay.descriptor.short_id());
            tracing::info!("relay {name} ({short}) has gone silent");
        }
        self.changed();
    }

    pub(super) fn load_relays(&self, now: UnixTime) -> Result<()> {
        let mut there = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self
                .store
                .list(Table::Relays, &[], after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (_, entry) in &page {
                let registered = decode(&entry.value, |ip| self.place_at(ip))?;
                let (id, place) = (registered.relay.descriptor.id, registered.place);
                self.remembered().put(id, place, entry.expires, false);
                there.push(registered);
            }
        }
        let timeout = u64::from(self.rules().relay_timeout_s);
        // When the directory was last there, as far as it knows; no clock that was ahead once says so.
        let heard = there.iter().map(|registered| registered.relay.heard);
        let last = heard.map(|heard| heard.min(now)).max();
        let last = last.filter(|last| now.since(*last) <= AWAY.max(timeout));
        there.retain(|Registered { relay, .. }| {
            let was_there = last.is_some_and(|last| last.since(relay.heard) <= timeout);
            was_there && relay.descriptor.alive(now)
        });
        // With a longer timeout than before there may be more than fit: those who were there stay.
        there.sort_by_key(|registered| Reverse(registered.relay.heard));
        let mut live = self.write_live();
        let left = there
            .into_iter()
            .filter_map(|registered| (!live.restore(registered)).then_some(()))
            .count();
        drop(live);
        if left > 0 {
            tracing::warn!("{left} relays that were heard of late find no place");
        }
        self.changed();
        Ok(())
    }

    fn is_gone(&self, relay: &LiveRelay, now: UnixTime) -> bool {
        let timeout = u64::from(self.rules().relay_timeout_s);
        now.since(relay.heard.max(self.opened)) > timeout || !relay.descriptor.alive(now)
    }

    fn heard(&self, registered: Registered, taken: bool) {
        let descriptor = Arc::clone(&registered.relay.descriptor);
        let put = {
            let mut live = self.write_live();
            live.let_go_of_link(&descriptor.link);
            live.put(registered, taken)
        };
        let matters = match &put {
            Put::Came => {
                let (name, short) = (&descriptor.name, descriptor.short_id());
                tracing::info!("relay {name} ({short}) has come");
                true
            }
            Put::Renewed(before) => !same_to_builders(&before.descriptor, &descriptor),
            Put::Late => false,
        };
        if matters {
            self.changed();
        }
    }

    fn place_at(&self, ip: IpAddr) -> Place {
        match scope(ip, &self.parameters.network) {
            Scope::Public => Place::Public(ip),
            _ => Place::Private(ip),
        }
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

    /// Where the relay counts; refuses it if it should have registered from its first address and has not.
    /// So the first address of a relay is its own, and those who read the snapshot know which one that is.
    fn place(&self, descriptor: &RelayDescriptor, source: Option<IpAddr>) -> Decision<Place> {
        let mut addresses = descriptor.addresses.iter().map(SocketAddr::ip);
        let first = addresses
            .next()
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let Some(source) = source.filter(|_| self.rules().admission.check_source) else {
            return Ok(self.place_at(first));
        };
        let source = source.to_canonical();
        if source == first {
            return Ok(self.place_at(source));
        }
        let text = if addresses.any(|address| address == source) {
            format!(
                "the registration came from {source}, and the relay says first that it is at {first}; \
                 again with {source} first"
            )
        } else {
            format!(
                "the registration came from {source}, which the relay does not advertise; add it to \
                 advertise, or let the directory not check (check_source: false)"
            )
        };
        Err(Refusal::new(RefusalCode::NotAllowed, text))
    }
}

/// What [`Registry::take_place`] says of places.
fn place_among(
    live: &mut Live,
    descriptor: &RelayDescriptor,
    from: Place,
    before: Option<&Registered>,
    now: UnixTime,
) -> Decision<(Place, UnixTime, bool)> {
    if live.has(&descriptor.id, from) {
        return Ok((from, now, false));
    }
    let refusal = match live.take(from) {
        Ok(()) => return Ok((from, now, true)),
        Err(refusal) => refusal,
    };
    let advertised = |ip| descriptor.addresses.iter().any(|a| a.ip() == ip);
    before
        .filter(|b| now.since(b.proven) <= PROOF && advertised(b.place.ip()))
        .filter(|b| live.has(&descriptor.id, b.place))
        .map(|b| (b.place, b.proven, false))
        .ok_or(refusal)
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
