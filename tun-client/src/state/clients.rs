//! Who may open sessions with this client's ID, and of which services it is a client, as they are kept.

use std::fmt;
use std::str::FromStr;

use mixline_endpoint::Access;
use mixline_protocol::authorisation::{Authorisation, MASTER, MAX_CLIENTS, client_secret};
use mixline_protocol::identity::{AnonymousId, X25519Public, X25519Secret};
use mixline_protocol::random::OsRandom;
use rand_core::Rng;
use zeroize::Zeroizing;

use super::State;
use crate::error::{ContentProblem, Result};

const CLIENTS: &str = "clients";
const SERVICES: &str = "services";
const SECRET: &str = "client.key";
/// The services of which one host is a client, at most.
pub const MAX_SERVICES: usize = 256;
/// Characters of a client's name.
const MAX_NAME: usize = 32;

/// What the person who runs a service calls one of its clients: 1 to 32 of `a-z A-Z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName(String);

/// The text is no name of a client.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no name for a client: 1 to {MAX_NAME} letters, digits, dots, `_` or `-`")]
pub struct NotAClientName(String);

impl FromStr for ClientName {
    type Err = NotAClientName;

    fn from_str(text: &str) -> std::result::Result<Self, NotAClientName> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAClientName(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client that may open sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// What it is called here.
    pub name: ClientName,
    /// Its public key for this service.
    pub key: X25519Public,
}

impl State {
    /// The clients that may open sessions; `None` if everybody may.
    ///
    /// # Errors
    /// [`ContentProblem::NotAClient`] and [`ContentProblem::TooManyClients`]: what is damaged lets nobody
    /// in.
    pub fn clients(&self) -> Result<Option<Vec<Client>>> {
        let Some(bytes) = self.read(CLIENTS)? else {
            return Ok(None);
        };
        let client = |line: &str| {
            let (name, key) = line.split_once(' ')?;
            let (name, key) = (name.parse().ok()?, key.parse().ok()?);
            Some(Client { name, key })
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut clients = Vec::new();
        for line in text.lines() {
            clients.push(client(line).ok_or_else(|| {
                let line = line.to_owned();
                self.content(CLIENTS, ContentProblem::NotAClient { line })
            })?);
        }
        if clients.len() > MAX_CLIENTS {
            return Err(self.content(
                CLIENTS,
                ContentProblem::TooManyClients { most: MAX_CLIENTS },
            ));
        }
        Ok(Some(clients))
    }

    /// Keeps them.
    ///
    /// # Errors
    /// [`Error::File`](crate::error::Error::File).
    pub fn keep_clients(&self, clients: Option<&[Client]>) -> Result<()> {
        match clients {
            Some(clients) => {
                let line = |client: &Client| format!("{} {}\n", client.name, client.key);
                let text: String = clients.iter().map(line).collect();
                self.write(CLIENTS, text.as_bytes())
            }
            None => self.remove(CLIENTS),
        }
    }

    /// The services of which this host is a client.
    ///
    /// # Errors
    /// [`ContentProblem::NotAnId`].
    pub fn services(&self) -> Result<Vec<AnonymousId>> {
        let Some(bytes) = self.read(SERVICES)? else {
            return Ok(Vec::new());
        };
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .take(MAX_SERVICES)
            .map(|line| {
                line.parse().map_err(|_| {
                    let line = line.to_owned();
                    self.content(SERVICES, ContentProblem::NotAnId { line })
                })
            })
            .collect()
    }

    /// Keeps them.
    ///
    /// # Errors
    /// [`Error::File`](crate::error::Error::File).
    pub fn keep_services(&self, services: &[AnonymousId]) -> Result<()> {
        let text: String = services.iter().map(|id| format!("{id}\n")).collect();
        self.write(SERVICES, text.as_bytes())
    }

    /// This host's secret as a client of a service. All of them come from one, which is made at the first
    /// call.
    ///
    /// # Errors
    /// Those of [`State::identity`].
    pub fn client_secret(&self, service: &AnonymousId) -> Result<X25519Secret> {
        let master = match self.read_secret(SECRET)? {
            Some(master) => master,
            None => {
                let mut master = Zeroizing::new([0; MASTER]);
                OsRandom::new().fill_bytes(master.as_mut());
                self.write(SECRET, master.as_slice())?;
                master
            }
        };
        let failed = |error| self.content(SECRET, ContentProblem::Key(error));
        client_secret(&master, service).map_err(failed)
    }

    /// Whether nobody can be a client with this key.
    ///
    /// # Errors
    /// Those of [`State::identity`].
    pub fn is_no_key(&self, key: &X25519Public) -> Result<bool> {
        let own = self.identity()?.key;
        Ok(Authorisation::of_service(&own, key).is_err())
    }

    /// All of it, as the endpoint takes it.
    ///
    /// # Errors
    /// Those of [`State::clients`], [`State::services`] and [`State::client_secret`].
    pub fn access(&self) -> Result<Access> {
        let clients = self.clients()?;
        let secret = |id: AnonymousId| Ok((id, self.client_secret(&id)?));
        Ok(Access {
            clients: clients.map(|all| all.iter().map(|client| client.key).collect()),
            services: self
                .services()?
                .into_iter()
                .map(secret)
                .collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients() {
        for right in ["alice", "A.b_c-9", &"x".repeat(32)] {
            assert!(right.parse::<ClientName>().is_ok(), "{right}");
        }
        for wrong in ["", "a b", "a\nb", "é", &"x".repeat(33)] {
            assert!(wrong.parse::<ClientName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_list_is_none_that_lets_everybody_in() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        assert_eq!(state.access().unwrap(), Access::default());
        state.keep_clients(Some(&[])).unwrap();
        assert_eq!(state.access().unwrap().clients, Some(Vec::new()));
        let client = Client {
            name: "alice".parse().unwrap(),
            key: X25519Public([7; 32]),
        };
        state
            .keep_clients(Some(std::slice::from_ref(&client)))
            .unwrap();
        assert_eq!(state.clients().unwrap(), Some(vec![client]));
        state.write(CLIENTS, b"alice\n").unwrap();
        assert!(state.access().is_err(), "a damaged list lets nobody in");
        state.keep_clients(None).unwrap();
        state.keep_clients(None).unwrap();
        assert_eq!(state.access().unwrap(), Access::default());
    }

    #[test]
    fn each_service_has_a_key_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        let ids = [AnonymousId([1; 32]), AnonymousId([2; 32])];
        state.keep_services(&ids).unwrap();
        let first = state.access().unwrap().services;
        assert_eq!([first[0].0, first[1].0], ids);
        assert!(first[0].1 != first[1].1);
        assert_eq!(state.access().unwrap().services, first, "and keeps it");
        state.write(SERVICES, b"nobody\n").unwrap();
        assert!(state.access().is_err());
    }
}
