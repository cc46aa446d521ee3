//! Relays: who is there, and who has gone silent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mixline_protocol::address_scope::{Scope, scope};
use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::{Digest, RelayId, X25519Secret};
use mixline_protocol::records::{Heartbeat, Registration, RelayDescriptor, RelayRecord};
use mixline_protocol::time::UnixTime;

use super::live::{Live, LiveRelay, Place, Put, Registered};
use super::refusal::{Decision, Refusal, check_clock, contended, damaged, older, unavailable};
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
/// Under which key of [`Table::Own`] it stands when the directory was last there.
const THERE: &[u8] = b"there";

/// What became of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The relay is there, or has left as it says.
    Yes,
    /// The relay is not there with this record: it is to register.
    Unknown,
}

impl Registry {
    /// Registers a relay, or hears from it again. `source` is where the request came from; `session` the
    /// secret of the directory's sessions, by which relays prove their link keys.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn register_relay(
        &self,
        registration: Registration,
        source: Option<IpAddr>,
        session: &X25519Secret,
        now: UnixTime,
    ) -> Decision<()> {
        let Registration { heartbeat, record } = registration;
        check_beat(&heartbeat, &record, session, now)?;
        record.verify(now).map_err(|e| Refusal::of(&e, now))?;
        for address in &record.descriptor.addresses {
            self.check_address(address.ip())?;
        }
        let from = self.place(&record.descriptor, source)?;
        let record = Arc::new(record);
        let (id, short) = (record.descriptor.id, record.descriptor.short_id());
        for _ in 0..ATTEMPTS {
            let stored = self
                .store
                .get(Table::Relays, &id.0)
                .map_err(|e| unavailable(&e))?;
            let before = stored
                .as_ref()
                .map(|e| decode(&e.value, now, |ip| self.place_at(ip)))
                .transpose()
                .map_err(damaged)?
                .map(|(before, _)| before);
            let same = before
                .as_ref()
                .is_some_and(|b| b.relay.digest == heartbeat.record);
            let newer = before
                .as_ref()
                .is_none_or(|b| b.relay.record.age() < record.age());
            if !same && !newer {
                return Err(older());
            }
            // What it has said before proves nothing when it is repeated.
            if same && self.remembered().beat(&id) >= heartbeat.version {
                let there = self
                    .read_live()
                    .with_record(&id, &heartbeat.record)
                    .is_some();
                return if there { Ok(()) } else { Err(older()) };
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
            let descriptor = &record.descriptor;
            let (place, proven, taken) = self.take_place(descriptor, from, before.as_ref(), now)?;
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
                .filter(|b| self.read_live().has_been_there(&id, b.since))
                .map_or(now, |b| b.since);
            let registered = Registered {
                relay: LiveRelay {
                    record: record.clone(),
                    digest: heartbeat.record,
                    heard: now,
                    since,
                    load: heartbeat.load,
                    beat: heartbeat.version,
                },
                place,
                proven,
            };
            let expires = descriptor.expires;
            let change = Transaction::new()
                .check(Table::Relays, id.0, stored.as_ref())
                .check(Table::ShortIds, short.0, holder.as_ref())
                .put(
                    Table::Relays,
                    id.0,
                    encode(&registered, heartbeat.leaving),
                    expires,
                )
                .put(Table::ShortIds, short.0, id.0, expires);
            match self.store.commit(change) {
                Ok(Outcome::Committed) => {
                    self.remembered().put(id, place, expires, new);
                    self.remembered().heard(&id, heartbeat.version);
                    self.heard(registered, taken);
                    if heartbeat.leaving {
                        self.forget(&id);
                    }
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

    /// Hears from a relay that is there. Nothing is stored, unless it leaves.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn hear(
        &self,
        heartbeat: &Heartbeat,
        source: Option<IpAddr>,
        session: &X25519Secret,
        now: UnixTime,
    ) -> Decision<Heard> {
        let there = self
            .read_live()
            .with_record(&heartbeat.relay, &heartbeat.record)
            .cloned();
        let Some(there) = there else {
            return Ok(Heard::Unknown);
        };
        check_beat(heartbeat, &there.record, session, now)?;
        // What it has said before proves nothing when it is repeated.
        if there.beat >= heartbeat.version {
            return Err(older());
        }
        // It may have come to another of its addresses, and then counts there.
        let from = self.place(there.descriptor(), source)?;
        if !self.read_live().has(&heartbeat.relay, from) {
            return Ok(Heard::Unknown);
        }
        let (version, load) = (heartbeat.version, heartbeat.load);
        self.write_live().beat(&heartbeat.relay, version, load, now);
        self.remembered().heard(&heartbeat.relay, version);
        if heartbeat.leaving {
            self.forget(&heartbeat.relay);
        }
        Ok(Heard::Yes)
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

    /// The record of a live relay.
    pub fn record(&self, digest: &Digest) -> Option<Arc<RelayRecord>> {
        self.read_live().record(digest)
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
        self.forget_if(|relay| self.is_gone(relay, now), "has gone silent");
    }

    fn forget(&self, id: &RelayId) {
        self.forget_if(|relay| relay.descriptor().id == *id, "has left");
    }

    fn forget_if(&self, gone: impl Fn(&LiveRelay) -> bool, how: &str) {
        if !self.read_live().relays().any(&gone) {
            return;
        }
        let removed = self.write_live().remove_if(gone);
        for there in &removed {
            let descriptor = there.relay.descriptor();
            let (name, short) = (&descriptor.name, descriptor.short_id());
            tracing::info!("relay {name} ({short}) {how}");
            self.store_gone(there);
        }
        self.changed();
    }

    /// A relay that is gone is not live again when the directory is started again. If that is not stored, it is
    /// there again for as long as relays may be silent.
    fn store_gone(&self, there: &Registered) {
        let id = there.relay.descriptor().id;
        let stored = match self.store.get(Table::Relays, &id.0) {
            Ok(Some(stored)) => stored,
            Ok(None) | Err(_) => return,
        };
        let now = there.relay.heard;
        let same = decode(&stored.value, now, |ip| self.place_at(ip))
            .is_ok_and(|(stored, _)| stored.relay.digest == there.relay.digest);
        if !same {
            return;
        }
        let change = Transaction::new()
            .check(Table::Relays, id.0, Some(&stored))
            .put(Table::Relays, id.0, encode(there, true), stored.expires);
        if let Err(error) = self.store.commit(change) {
            tracing::debug!("a relay that is gone: {error}");
        }
    }

    /// Remembers that the directory is there. A directory that was away for long has no relays when it comes back.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn remember_time(&self, now: UnixTime) -> Result<()> {
        let value = now.0.to_be_bytes();
        let change = Transaction::new().put(Table::Own, THERE, value, UnixTime(u64::MAX));
        self.store.commit(change).map(drop)
    }

    fn was_there(&self, now: UnixTime) -> Result<bool> {
        let stored = self.store.get(Table::Own, THERE)?;
        let time = stored.and_then(|entry| entry.value.try_into().ok());
        // No clock that was ahead once says so.
        let last = time.map(|time| UnixTime(u64::from_be_bytes(time)).min(now));
        let timeout = u64::from(self.rules().relay_timeout_s);
        Ok(last.is_some_and(|last| now.since(last) <= AWAY.max(timeout)))
    }

    pub(super) fn load_relays(&self, now: UnixTime) -> Result<()> {
        let was_there = self.was_there(now)?;
        let mut there = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self
                .store
                .list(Table::Relays, &[], after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (_, entry) in &page {
                // One of an earlier version registers again.
                let Ok((registered, gone)) = decode(&entry.value, now, |ip| self.place_at(ip))
                else {
                    continue;
                };
                let (id, place) = (registered.relay.descriptor().id, registered.place);
                self.remembered().put(id, place, entry.expires, false);
                if was_there && !gone && registered.relay.descriptor().alive(now) {
                    there.push(registered);
                }
            }
        }
        // If there are more than fit, those who were there first stay.
        there.sort_by_key(|registered| registered.relay.since);
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
        now.since(relay.heard.max(self.opened)) > timeout || !relay.descriptor().alive(now)
    }

    fn heard(&self, registered: Registered, taken: bool) {
        let record = Arc::clone(&registered.relay.record);
        let put = {
            let mut live = self.write_live();
            live.let_go_of_link(&record.descriptor.link);
            live.put(registered, taken)
        };
        let matters = match &put {
            Put::Came => {
                let descriptor = &record.descriptor;
                let (name, short) = (&descriptor.name, descriptor.short_id());
                tracing::info!("relay {name} ({short}) has come");
                true
            }
            Put::Renewed(before) => !same_to_builders(&before.record, &record),
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

/// Who sends it has the relay's link key, and a clock that is about right.
fn check_beat(
    heartbeat: &Heartbeat,
    record: &RelayRecord,
    session: &X25519Secret,
    now: UnixTime,
) -> Decision<()> {
    let link = &record.descriptor.link;
    heartbeat.verify(link, session).map_err(|_| {
        let text = "the link key is not proven to be this relay's, for this directory; again with \
                    the newest snapshot";
        Refusal::new(RefusalCode::BadSignature, text)
    })?;
    check_clock("heartbeat", UnixTime(heartbeat.version / 1000), now)
}

/// Whether those who build paths would do the same with both.
fn same_to_builders(a: &RelayRecord, b: &RelayRecord) -> bool {
    fn seen(of: &RelayRecord) -> impl PartialEq + '_ {
        let descriptor = &of.descriptor;
        (
            &descriptor.link,
            &of.onion,
            &descriptor.addresses,
            descriptor.capacity,
            &descriptor.family,
            &descriptor.name,
            &descriptor.software,
        )
    }
    seen(a) == seen(b)
}
