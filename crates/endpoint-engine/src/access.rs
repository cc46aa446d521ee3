//! Who may open sessions with the own ID, and what this endpoint shows services that let in their clients
//! only (client authorisation: [`mixline_protocol::authorisation`]).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use mixline_protocol::address;
use mixline_protocol::authorisation::{Authorisation, Entry, MAX_CLIENTS};
use mixline_protocol::directory::RequestBody;
use mixline_protocol::identity::{AnonymousId, IdentityKey, X25519Public, X25519Secret};
use mixline_protocol::session::Initiation;
use mixline_protocol::time::UnixTime;

/// Clients' clocks may be behind by so much, seconds.
const SLOW: u64 = 15 * 60;

/// What the outside says about clients. Lives outside, as the identity does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The public keys of the clients of the own ID, [`MAX_CLIENTS`] at most; `None`: it is open to
    /// everybody.
    pub clients: Option<Vec<X25519Public>>,
    /// Services that have such a list, and the secret that was made for each.
    pub services: Vec<(AnonymousId, X25519Secret)>,
}

/// The same, ready for use: no public-key work is done after this.
#[derive(Default)]
pub(crate) struct Authorisations {
    /// With whom sessions are opened; `None`: with everybody.
    clients: Option<Vec<Authorisation>>,
    /// Clients that nobody is: as many as make the list full, so that the descriptor says nothing of how
    /// many there are. They are the same at each start, since all others are. By their numbers.
    nobodies: Vec<(usize, Authorisation)>,
    services: HashMap<AnonymousId, (X25519Secret, Authorisation)>,
    by_ipv6: HashMap<IpAddr, AnonymousId>,
}

impl Authorisations {
    /// For an own ID. Keys that are none let nobody in.
    pub(crate) fn new(access: &Access, key: &IdentityKey) -> Self {
        Self::default().changed_to(access, key)
    }

    /// What there is afterwards; what was there before takes no public-key work again.
    pub(crate) fn changed_to(&self, access: &Access, key: &IdentityKey) -> Self {
        let clients = access.clients.as_ref().map(|keys| {
            let keys: BTreeSet<X25519Public> = keys.iter().copied().collect();
            let listed: Vec<Authorisation> = keys
                .iter()
                .filter_map(|client| self.client(client, key))
                .take(MAX_CLIENTS)
                .collect();
            listed
        });
        let nobodies = match &clients {
            Some(list) => (list.len()..MAX_CLIENTS)
                .filter_map(|number| Some((number, self.nobody(number, key)?)))
                .collect(),
            None => Vec::new(),
        };
        let services: HashMap<_, _> = access
            .services
            .iter()
            .filter_map(|(id, secret)| Some((*id, (secret.clone(), self.service(id, secret)?))))
            .collect();
        let by_ipv6 = services
            .keys()
            .map(|id| (address::ipv6(id).into(), *id))
            .collect();
        Self {
            clients,
            nobodies,
            services,
            by_ipv6,
        }
    }

    fn client(&self, client: &X25519Public, key: &IdentityKey) -> Option<Authorisation> {
        let mut before = self.clients.iter().flatten();
        match before.find(|it| it.client == *client) {
            Some(it) => Some(it.clone()),
            None => Authorisation::of_service(key, client).ok(),
        }
    }

    fn nobody(&self, number: usize, key: &IdentityKey) -> Option<Authorisation> {
        match self.nobodies.iter().find(|(it, _)| *it == number) {
            Some((_, it)) => Some(it.clone()),
            None => Authorisation::of_nobody(key, u8::try_from(number).ok()?).ok(),
        }
    }

    fn service(&self, id: &AnonymousId, secret: &X25519Secret) -> Option<Authorisation> {
        match self.services.get(id) {
            Some((with, it)) if with == secret => Some(it.clone()),
            _ => Authorisation::of_client(secret, id).ok(),
        }
    }

    /// What is shown a peer with which a session is to be opened.
    pub(crate) fn with(&self, peer: &AnonymousId) -> Option<&Authorisation> {
        self.services.get(peer).map(|(_, it)| it)
    }

    /// The question for an ID. The directory tells apart who shows it a token, so none is shown to find
    /// others.
    pub(crate) fn lookup(&self, id: AnonymousId, now: UnixTime) -> RequestBody {
        match self.with(&id) {
            Some(authorisation) => RequestBody::LookupListed(id, authorisation.token(now)),
            None => RequestBody::LookupId(id),
        }
    }

    /// The question for a virtual address.
    pub(crate) fn lookup_address(&self, address: IpAddr, now: UnixTime) -> RequestBody {
        match self.by_ipv6.get(&address) {
            Some(id) => self.lookup(*id, now),
            None => RequestBody::LookupAddress(address),
        }
    }

    /// Which client has made an initiation, if any of the list has.
    pub(crate) fn client_of(&self, initiation: &Initiation) -> Option<X25519Public> {
        initiation.client_of(self.clients.as_deref()?)
    }

    /// Whether a client may have a session.
    pub(crate) fn lets_in(&self, client: Option<&X25519Public>) -> bool {
        self.clients
            .as_ref()
            .is_none_or(|list| client.is_some_and(|key| list.iter().any(|it| it.client == *key)))
    }

    /// What the own descriptor says of the clients.
    pub(crate) fn entries(&self, own: &AnonymousId, now: UnixTime) -> Option<Vec<Entry>> {
        let list = self.clients.as_ref()?;
        let mut entries: Vec<Entry> = list
            .iter()
            .chain(self.nobodies.iter().map(|(_, it)| it))
            .flat_map(|client| client.entries(own, now, SLOW))
            .collect();
        entries.sort_unstable();
        Some(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mixline_protocol::random::OsRandom;

    /// What was there before is the same afterwards, and what was not is as if it had been from the first.
    #[test]
    fn a_change_leaves_the_rest_as_it_was() {
        let rng = &mut OsRandom::new();
        let key = IdentityKey::generate(rng);
        let clients: Vec<_> = (0..3)
            .map(|_| X25519Secret::generate(rng).public())
            .collect();
        let service = IdentityKey::generate(rng).anonymous_id();
        let secrets = [X25519Secret::generate(rng), X25519Secret::generate(rng)];
        let access = |count: usize, secret: usize| Access {
            clients: Some(clients[..count].to_vec()),
            services: vec![(service, secrets[secret].clone())],
        };
        let (own, now) = (key.anonymous_id(), UnixTime(1_800_000_000));
        let mut changed = Authorisations::default();
        for (count, secret) in [(1, 0), (3, 0), (2, 1), (2, 1), (0, 0)] {
            let access = access(count, secret);
            changed = changed.changed_to(&access, &key);
            let new = Authorisations::new(&access, &key);
            assert_eq!(changed.entries(&own, now), new.entries(&own, now));
            let token = |it: &Authorisations| it.with(&service).map(|it| it.token(now));
            assert_eq!(token(&changed), token(&new));
            let lets_in = |client| changed.lets_in(Some(client));
            assert_eq!(clients.iter().filter(|it| lets_in(*it)).count(), count);
        }
        let open = changed.changed_to(&Access::default(), &key);
        assert!(open.lets_in(None) && open.entries(&own, now).is_none());
    }
}
