//! The relays that are there, and what they share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use mixline_protocol::directory::RefusalCode;
use mixline_protocol::identity::{Digest, RelayId, X25519Public};
use mixline_protocol::rate_limit::site;
use mixline_protocol::records::{RelayDescriptor, RelayRecord};
use mixline_protocol::shares::{Claimant, Shares};
use mixline_protocol::time::UnixTime;

use super::refusal::{Decision, Refusal};

/// Relays at one public address (an IPv6 /64): enough for a large machine, and no network of one person's.
const AT_ONE_SITE: usize = 8;

/// A relay that was heard from of late.
#[derive(Debug, Clone)]
pub struct LiveRelay {
    /// What it has registered last.
    pub record: Arc<RelayRecord>,
    /// What that is called by.
    pub digest: Digest,
    /// When it was heard last.
    pub heard: UnixTime,
    /// Since when it is there without a gap.
    pub since: UnixTime,
    /// Datagrams a second that it relays, as it says.
    pub load: u32,
    /// The version of its last heartbeat; 0 if it was not heard since the directory was started.
    pub beat: u64,
}

impl LiveRelay {
    /// What changes seldom of what it says.
    #[must_use]
    pub fn descriptor(&self) -> &RelayDescriptor {
        &self.record.descriptor
    }
}

/// Where a relay counts: at the address that it registered from if that is checked, else at its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At an address of the Internet, which it shares with others.
    Public(IpAddr),
    /// At one that only a trial or one site has.
    Private(IpAddr),
}

impl Place {
    pub(super) fn ip(self) -> IpAddr {
        let (Self::Public(ip) | Self::Private(ip)) = self;
        ip
    }

    /// Nobody outside is at an address that only one site has.
    pub(super) fn claimant(self) -> Claimant {
        match self {
            Self::Public(ip) => Claimant::Stranger(ip),
            Self::Private(_) => Claimant::Own,
        }
    }

    /// The address's site.
    pub(super) fn site(self) -> IpAddr {
        site(self.ip())
    }
}

/// A relay and where it counts.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub(super) relay: LiveRelay,
    pub(super) place: Place,
    /// When it last registered from there.
    pub(super) proven: UnixTime,
}

/// The relays that are there.
#[derive(Debug)]
pub(super) struct Live {
    relays: HashMap<RelayId, Registered>,
    limit: usize,
    /// Places of the snapshot, those of relays that are being admitted included.
    shares: Shares,
    sites: HashMap<IpAddr, Site>,
    /// Whose each link key is.
    links: HashMap<X25519Public, RelayId>,
    /// Whose each record is.
    records: HashMap<Digest, RelayId>,
    /// Whose it is about to be: relays that are being admitted, and how often at the same time.
    coming: HashMap<X25519Public, (RelayId, usize)>,
}

/// What counts at a site.
#[derive(Debug, Default)]
struct Site {
    /// Places, those of relays that are being admitted included.
    places: usize,
    /// Relays that are there.
    relays: usize,
}

impl Live {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            relays: HashMap::new(),
            limit,
            shares: Shares::new(limit, 0),
            sites: HashMap::new(),
            links: HashMap::new(),
            records: HashMap::new(),
            coming: HashMap::new(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.relays.len()
    }

    pub(super) fn relays(&self) -> impl Iterator<Item = &LiveRelay> {
        self.relays.values().map(|registered| &registered.relay)
    }

    /// Whether a relay is there, since that time.
    pub(super) fn has_been_there(&self, id: &RelayId, since: UnixTime) -> bool {
        let there = self.relays.get(id);
        there.is_some_and(|there| there.relay.since == since)
    }

    /// The relay that is there with this link key, or is about to be.
    fn with_link(&self, link: &X25519Public) -> Option<RelayId> {
        let coming = || self.coming.get(link).map(|(id, _)| *id);
        self.links.get(link).copied().or_else(coming)
    }

    /// Holds a link key for a relay that is being admitted.
    ///
    /// # Errors
    /// [`RefusalCode::Taken`] if it is another's, or about to be.
    pub(super) fn hold_link(&mut self, id: RelayId, link: X25519Public) -> Decision<()> {
        if self.with_link(&link).is_some_and(|holder| holder != id) {
            let text = "another relay has this relay's link key; remove link.key and start it \
                        again, or wait until the other one is silent";
            return Err(Refusal::new(RefusalCode::Taken, text));
        }
        let (_, times) = self.coming.entry(link).or_insert((id, 0));
        *times += 1;
        Ok(())
    }

    /// The relay for which [`Live::hold_link`] has held it is there now, or was not admitted.
    pub(super) fn let_go_of_link(&mut self, link: &X25519Public) {
        if let Some((_, times)) = self.coming.get_mut(link) {
            *times -= 1;
            if *times == 0 {
                self.coming.remove(link);
            }
        }
    }

    /// Whether a relay is there and counts at this place.
    pub(super) fn has(&self, id: &RelayId, place: Place) -> bool {
        self.relays
            .get(id)
            .is_some_and(|there| there.place == place)
    }

    /// Whether some relay counts at the address's site. One that is being admitted does not yet.
    pub(super) fn is_at(&self, ip: IpAddr) -> bool {
        self.sites.get(&site(ip)).is_some_and(|at| at.relays > 0)
    }

    /// Takes a place of the snapshot for a relay that counts there.
    ///
    /// # Errors
    /// [`RefusalCode::Full`] if the snapshot is full, or the relay's neighbourhood has its share.
    pub(super) fn take(&mut self, place: Place) -> Decision<()> {
        let full = |text| Err(Refusal::new(RefusalCode::Full, text));
        let limit = self.limit;
        if self.shares.taken() >= limit {
            return full(format!(
                "the network is full: it has {limit} relays; again later"
            ));
        }
        let at = place.site();
        let here = self.sites.get(&at).map_or(0, |here| here.places);
        if matches!(place, Place::Public(_)) && here >= AT_ONE_SITE {
            return full(format!(
                "{AT_ONE_SITE} relays are at {at} already, the most for one address"
            ));
        }
        if !self.shares.take(place.claimant()) {
            return full(format!(
                "the networks around {at} have their share of relays"
            ));
        }
        self.sites.entry(at).or_default().places += 1;
        Ok(())
    }

    /// Gives back a place that [`Live::take`] gave.
    pub(super) fn give_back(&mut self, place: Place) {
        self.shares.give_back(place.claimant());
        let at = place.site();
        if let Some(here) = self.sites.get_mut(&at) {
            here.places = here.places.saturating_sub(1);
            if here.places == 0 {
                self.sites.remove(&at);
            }
        }
    }

    /// Puts a relay among the others, which has taken its place, or had it before. Of two registrations
    /// that come here in either order the newer one counts.
    pub(super) fn put(&mut self, mut registered: Registered, taken: bool) -> Put {
        let age = |registered: &Registered| (registered.relay.record.age(), registered.relay.beat);
        let place = registered.place;
        let before = self.relays.get(&registered.relay.descriptor().id);
        match before.map(|before| (age(before), before.place)) {
            Some((newer, _)) if newer > age(&registered) => {
                if taken {
                    self.give_back(place);
                }
                return Put::Late;
            }
            Some((_, at)) if taken => self.give_back(at),
            Some((_, at)) => registered.place = at,
            None if taken => {}
            // It has fallen silent since.
            None if self.take(place).is_err() => return Put::Late,
            None => {}
        }
        self.insert(registered).map_or(Put::Came, Put::Renewed)
    }

    /// The record of a relay that is there.
    pub(super) fn record(&self, digest: &Digest) -> Option<Arc<RelayRecord>> {
        let there = self.relays.get(self.records.get(digest)?)?;
        Some(there.relay.record.clone())
    }

    /// The relay that is there with this record.
    pub(super) fn with_record(&self, id: &RelayId, digest: &Digest) -> Option<&LiveRelay> {
        let there = &self.relays.get(id)?.relay;
        (there.digest == *digest).then_some(there)
    }

    /// A relay that is there says so. False if it is not, or has said something newer.
    pub(super) fn beat(&mut self, id: &RelayId, beat: u64, load: u32, now: UnixTime) -> bool {
        let Some(there) = self.relays.get_mut(id) else {
            return false;
        };
        if there.relay.beat >= beat {
            return false;
        }
        there.relay.beat = beat;
        there.relay.load = load;
        there.relay.heard = now;
        true
    }

    /// Puts a relay among the others that was among them before a restart. What its neighbours have does not
    /// matter: it had its place before they came, or as many had theirs. False if the snapshot is full, or its link
    /// key another's.
    pub(super) fn restore(&mut self, registered: Registered) -> bool {
        let place = registered.place;
        if self.links.contains_key(&registered.relay.descriptor().link) {
            return false;
        }
        if !self.shares.restore(place.claimant()) {
            return false;
        }
        self.sites.entry(place.site()).or_default().places += 1;
        self.insert(registered);
        true
    }

    /// Puts a relay at a place that has been taken for it; the one that it was before, whose place has been
    /// given back.
    fn insert(&mut self, registered: Registered) -> Option<LiveRelay> {
        let site = registered.place.site();
        let digest = registered.relay.digest;
        let (id, link) = {
            let descriptor = registered.relay.descriptor();
            (descriptor.id, descriptor.link)
        };
        let before = self.relays.insert(id, registered);
        if let Some(before) = &before {
            self.leave(before);
        }
        self.links.entry(link).or_insert(id);
        self.records.insert(digest, id);
        self.sites.entry(site).or_default().relays += 1;
        before.map(|before| before.relay)
    }

    /// A relay that was there is there no more.
    fn leave(&mut self, there: &Registered) {
        if let Some(here) = self.sites.get_mut(&there.place.site()) {
            here.relays = here.relays.saturating_sub(1);
        }
        self.records.remove(&there.relay.digest);
        let descriptor = there.relay.descriptor();
        if self.links.get(&descriptor.link) == Some(&descriptor.id) {
            self.links.remove(&descriptor.link);
        }
    }

    /// Removes the relays of which `gone` says so, and returns them.
    pub(super) fn remove_if(&mut self, gone: impl Fn(&LiveRelay) -> bool) -> Vec<Registered> {
        let removed: Vec<_> = self
            .relays
            .extract_if(|_, there| gone(&there.relay))
            .map(|(_, removed)| removed)
            .collect();
        for there in &removed {
            self.leave(there);
            self.give_back(there.place);
        }
        removed
    }
}

/// What became of a relay that was put among the others.
pub(super) enum Put {
    /// It was not there before.
    Came,
    /// It was, like this.
    Renewed(LiveRelay),
    /// Nothing: there is a newer one, or no place any more.
    Late,
}
