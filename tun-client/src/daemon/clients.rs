//! Client authorisation by command: who may open sessions with the own ID, and of which services this host
//! is a client.

use std::sync::Arc;

use mixline_endpoint::Access;
use mixline_protocol::authorisation::MAX_CLIENTS;
use mixline_protocol::identity::{AnonymousId, X25519Public};

use crate::error::Error;
use crate::state::State;
use crate::state::clients::{Client, ClientName, MAX_SERVICES};

/// Why the list stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// Another one has the name, or the key.
    #[error("{0} is on the list, with another name or key: `mixline-client deny {0}` first")]
    Taken(ClientName),
    /// Nobody has such a key.
    #[error("that is nobody's key: it is a point of low order")]
    NoKey,
    /// It is not there.
    #[error("{0} is not on the list; `mixline-client clients` shows it")]
    NotListed(ClientName),
    /// Everybody may open sessions.
    #[error("there is no list: everybody may open sessions; `mixline-client allow` begins one")]
    NoList,
    /// The list is full.
    #[error("at most {MAX_CLIENTS} clients; one that is to go is denied first")]
    TooMany,
    /// This host is the client of as many as it can be.
    #[error("at most {MAX_SERVICES} services; `mixline-client key --forget` for one makes room")]
    TooManyServices,
    /// What is kept cannot be read or written.
    #[error(transparent)]
    State(#[from] Error),
}

/// The lists, as they are kept. One change at a time: the caller sees to it.
pub struct Clients {
    state: Arc<State>,
}

impl Clients {
    /// Those of a state directory.
    #[must_use]
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// All of it, as the endpoint takes it.
    ///
    /// # Errors
    /// What is kept cannot be read.
    pub fn access(&self) -> Result<Access, ClientsError> {
        Ok(self.state.access()?)
    }

    /// The clients that may open sessions; `None` if everybody may.
    ///
    /// # Errors
    /// What is kept cannot be read.
    pub fn list(&self) -> Result<Option<Vec<Client>>, ClientsError> {
        Ok(self.state.clients()?)
    }

    /// The services of which this host is a client.
    ///
    /// # Errors
    /// What is kept cannot be read.
    pub fn services(&self) -> Result<Vec<AnonymousId>, ClientsError> {
        Ok(self.state.services()?)
    }

    /// Lets a client in, and from the first one on nobody who is not listed.
    ///
    /// # Errors
    /// [`ClientsError::NoKey`], [`ClientsError::Taken`], [`ClientsError::TooMany`], [`ClientsError::State`].
    pub fn allow(&self, name: ClientName, key: X25519Public) -> Result<(), ClientsError> {
        if self.state.is_no_key(&key)? {
            return Err(ClientsError::NoKey);
        }
        let mut list = self.list()?.unwrap_or_default();
        if let Some(other) = list.iter().find(|it| it.name == name || it.key == key) {
            if other.name == name && other.key == key {
                return Ok(());
            }
            return Err(ClientsError::Taken(other.name.clone()));
        }
        if list.len() >= MAX_CLIENTS {
            return Err(ClientsError::TooMany);
        }
        list.push(Client { name, key });
        Ok(self.state.keep_clients(Some(&list))?)
    }

    /// Takes a client off the list. An empty list lets nobody in.
    ///
    /// # Errors
    /// [`ClientsError::NoList`], [`ClientsError::NotListed`], [`ClientsError::State`].
    pub fn deny(&self, name: &ClientName) -> Result<(), ClientsError> {
        let mut list = self.list()?.ok_or(ClientsError::NoList)?;
        let before = list.len();
        list.retain(|client| client.name != *name);
        if list.len() == before {
            return Err(ClientsError::NotListed(name.clone()));
        }
        Ok(self.state.keep_clients(Some(&list))?)
    }

    /// Has no list any more: everybody may open sessions.
    ///
    /// # Errors
    /// [`ClientsError::State`].
    pub fn allow_everybody(&self) -> Result<(), ClientsError> {
        Ok(self.state.keep_clients(None)?)
    }

    /// This host's public key as a client of a service, of which it is a client from now on.
    ///
    /// # Errors
    /// [`ClientsError::TooManyServices`], [`ClientsError::State`].
    pub fn key_for(&self, service: AnonymousId) -> Result<X25519Public, ClientsError> {
        let mut services = self.services()?;
        let key = self.state.client_secret(&service)?.public();
        if !services.contains(&service) {
            if services.len() >= MAX_SERVICES {
                return Err(ClientsError::TooManyServices);
            }
            services.push(service);
            self.state.keep_services(&services)?;
        }
        Ok(key)
    }

    /// Is no client of a service any more.
    ///
    /// # Errors
    /// [`ClientsError::State`].
    pub fn forget(&self, service: &AnonymousId) -> Result<(), ClientsError> {
        let mut services = self.services()?;
        services.retain(|id| id != service);
        Ok(self.state.keep_services(&services)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients() -> (tempfile::TempDir, Clients) {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(State::open(directory.path()).unwrap());
        (directory, Clients::new(state))
    }

    fn name(text: &str) -> ClientName {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_client_begins_the_list_and_the_last_does_not_end_it() {
        let (_directory, clients) = clients();
        assert!(matches!(
            clients.deny(&name("a")),
            Err(ClientsError::NoList)
        ));
        clients.allow(name("a"), X25519Public([1; 32])).unwrap();
        clients.allow(name("a"), X25519Public([1; 32])).unwrap();
        assert_eq!(clients.access().unwrap().clients.unwrap().len(), 1);
        clients.deny(&name("a")).unwrap();
        assert_eq!(clients.access().unwrap().clients, Some(Vec::new()));
        clients.allow_everybody().unwrap();
        assert_eq!(clients.access().unwrap().clients, None);
    }

    #[test]
    fn names_and_keys_are_one_clients_each() {
        let (_directory, clients) = clients();
        clients.allow(name("a"), X25519Public([1; 32])).unwrap();
        for (other, key) in [("a", 2), ("b", 1)] {
            let taken = clients.allow(name(other), X25519Public([key; 32]));
            assert!(matches!(taken, Err(ClientsError::Taken(it)) if it == name("a")));
        }
        for n in 2..=MAX_CLIENTS as u8 {
            let key = X25519Public([n; 32]);
            clients.allow(name(&format!("c{n}")), key).unwrap();
        }
        let more = clients.allow(name("more"), X25519Public([99; 32]));
        assert!(matches!(more, Err(ClientsError::TooMany)));
    }

    #[test]
    fn services_are_remembered_until_forgotten() {
        let (_directory, clients) = clients();
        let service = AnonymousId([3; 32]);
        let key = clients.key_for(service).unwrap();
        assert_eq!(clients.key_for(service).unwrap(), key);
        assert_eq!(clients.services().unwrap(), [service]);
        clients.forget(&service).unwrap();
        assert_eq!(clients.services().unwrap(), []);
        assert_eq!(clients.key_for(service).unwrap(), key, "and is the same");
    }
}
