//! What commands ask of a running client, through the control socket.

use std::sync::Arc;
use std::time::Duration;

use mixline_endpoint::{PING_INTERVAL, ProbeOptions, QueryError};
use mixline_protocol::identity::AnonymousId;
use mixline_protocol::name::Label;
use serde_json::{Value, json};

use super::clients::{Clients, ClientsError};
use super::names::NameError;
use super::resolve::{ResolveError, resolve};
use super::shared::{Ending, Shared};
use super::status_report;
use crate::config::{Accept, NotALabel, ReloadError, parse_label};
use crate::control::server::Handler;
use crate::control::{LONGEST_MAPPING, MAX_MAPPINGS, Request};
use crate::state::clients::{Client, NotAClientName};

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The text is no name.
    #[error("{0}")]
    NotALabel(NotALabel),
    /// Nobody may open a session, so nobody could reach a name.
    #[error("the configuration says `accept: never`: nobody could reach the name")]
    AcceptsNobody,
    /// The name is not published, or not withdrawn.
    #[error("{0}")]
    Name(NameError),
    /// The lookup found nothing.
    #[error("{0}")]
    Resolve(ResolveError),
    /// The text is no ID.
    #[error("{text:?} is no ID")]
    NotAnId {
        /// The text.
        text: String,
    },
    /// The text is no name for a client.
    #[error("{0}")]
    NotAClientName(NotAClientName),
    /// The text is no client's key.
    #[error(
        "{text:?} is no key: 64 hexadecimal digits, which the client's `mixline-client key` prints"
    )]
    NotAKey {
        /// The text.
        text: String,
    },
    /// The lists of clients and services stay as they are.
    #[error("{0}")]
    Clients(ClientsError),
    /// The service is not known.
    #[error("{}: {error}", label.host())]
    NotFound {
        /// Its name.
        label: Label,
        /// What the directory said, or why it was not asked.
        error: QueryError,
    },
    /// A peer was not asked.
    #[error("{0}")]
    Ping(PingError),
    /// Longer silences, or more of them, than one measurement looks at.
    #[error("at most {MAX_MAPPINGS} mappings are looked at, for at most {LONGEST_MAPPING} s each")]
    Mappings,
    /// The guards were not measured.
    #[error("{0}")]
    Probe(QueryError),
    /// The name is this client's, but nobody could be told yet where it is reached.
    #[error("{} is claimed, but not reached yet, which goes on: {error}", label.host())]
    NotFoundYet {
        /// The name.
        label: Label,
        /// What the directory said, or why it was not asked.
        error: QueryError,
    },
    /// The configuration was not read again.
    #[error("the configuration stays as it was: {0}")]
    Reload(ReloadError),
    /// The answer cannot be written as JSON.
    #[error("the answer is no JSON: {0}")]
    Answer(serde_json::Error),
}

/// Why a peer was not asked.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// It cannot be: it is nobody's ID, or the own one.
    #[error("{0}")]
    Refused(String),
    /// It, or the directory, does not answer.
    #[error("no answer: {0}")]
    Silent(String),
    /// Too many ask at once.
    #[error("too many measurements are under way: try again when one has ended")]
    Busy,
    /// Something else.
    #[error("{0}")]
    Other(QueryError),
}

impl From<QueryError> for PingError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Refused(why) => Self::Refused(why),
            QueryError::Timeout(why) => Self::Silent(why),
            QueryError::Busy => Self::Busy,
            other => Self::Other(other),
        }
    }
}

/// Answers the requests of the control socket.
pub struct ControlRequests {
    shared: Arc<Shared>,
}

impl Handler for ControlRequests {
    type Error = RequestError;

    async fn handle(&self, request: Request) -> Result<Value, RequestError> {
        match request {
            Request::Status => serde_json::to_value(status_report::collect(&self.shared).await)
                .map_err(RequestError::Answer),
            Request::Down => {
                self.end(Ending::Stop);
                Ok(json!({ "pid": std::process::id() }))
            }
            Request::Publish { name } => self.publish(&name).await,
            Request::Unpublish { name } => self.unpublish(&name).await,
            Request::Clients => self.clients(),
            Request::Allow { key, name } => self.allow(&key, &name).await,
            Request::Deny { name } => self.deny(&name).await,
            Request::AllowEverybody => {
                self.change_clients(Clients::allow_everybody).await?;
                self.clients()
            }
            Request::Key { service } => self.key(&service).await,
            Request::Forget { service } => {
                let id = self.service(&service).await?;
                self.change_clients(|clients| clients.forget(&id)).await?;
                Ok(json!({ "id": id.to_string() }))
            }
            Request::Reload => self.reload(),
            Request::Resolve { what } => {
                let reach = self.shared.host_state.reach().borrow().clone();
                resolve(self.shared.backend.as_ref(), &reach, &what)
                    .await
                    .map_err(RequestError::Resolve)
            }
            Request::Ping { id } => self.ping(&id).await,
            Request::Probe {
                mappings,
                all_without_nat,
            } => self.probe(&mappings, all_without_nat).await,
        }
    }
}

impl ControlRequests {
    /// Answers for this lifecycle.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn ping(&self, text: &str) -> Result<Value, RequestError> {
        let id = text.parse().map_err(|_| RequestError::NotAnId {
            text: text.to_owned(),
        })?;
        let report = self.shared.handle.ping(id, 1, PING_INTERVAL).await;
        let report = report.map_err(|error| RequestError::Ping(error.into()))?;
        serde_json::to_value(report).map_err(RequestError::Answer)
    }

    async fn probe(&self, mappings: &[u64], all_without_nat: bool) -> Result<Value, RequestError> {
        if mappings.len() > MAX_MAPPINGS || mappings.iter().any(|s| *s > LONGEST_MAPPING) {
            return Err(RequestError::Mappings);
        }
        let options = ProbeOptions {
            mappings: mappings.iter().copied().map(Duration::from_secs).collect(),
            all_without_nat,
            ..ProbeOptions::default()
        };
        let probed = self.shared.handle.probe_guards(&options).await;
        serde_json::to_value(probed.map_err(RequestError::Probe)?).map_err(RequestError::Answer)
    }

    async fn publish(&self, name: &str) -> Result<Value, RequestError> {
        let label = parse_label(name).map_err(RequestError::NotALabel)?;
        let shared = &self.shared;
        if shared.config().accept == Accept::Never {
            return Err(RequestError::AcceptsNobody);
        }
        let was_accepting = shared.accepting();
        let claimed = shared
            .names
            .publish(label, &shared.handle.directory())
            .await;
        // Also of a name that will not be remembered.
        shared.settle_endpoint().await;
        claimed.map_err(RequestError::Name)?;
        if !was_accepting {
            let published = shared.handle.directory().publish().await;
            published.map_err(|error| RequestError::NotFoundYet { label, error })?;
        }
        Ok(json!({
            "name": label.host(),
            "id": shared.handle.id().to_string(),
        }))
    }

    async fn unpublish(&self, name: &str) -> Result<Value, RequestError> {
        let label = parse_label(name).map_err(RequestError::NotALabel)?;
        let shared = &self.shared;
        let withdrawn = shared.names.unpublish(label);
        shared.settle_endpoint().await;
        let configured = withdrawn.map_err(RequestError::Name)?;
        Ok(json!({
            "name": label.host(),
            "configured": configured,
        }))
    }

    /// Who may open sessions, and of which services this host is a client.
    fn clients(&self) -> Result<Value, RequestError> {
        let all = &self.shared.clients;
        let clients = all.list().map_err(RequestError::Clients)?;
        let services = all.services().map_err(RequestError::Clients)?;
        let shown = |client: &Client| json!({ "name": client.name.to_string(), "key": client.key.to_string() });
        Ok(json!({
            "clients": clients.map(|all| all.iter().map(shown).collect::<Vec<_>>()),
            "services": services.iter().map(AnonymousId::host).collect::<Vec<_>>(),
        }))
    }

    async fn allow(&self, key: &str, name: &str) -> Result<Value, RequestError> {
        let key = key.parse().map_err(|_| RequestError::NotAKey {
            text: key.chars().take(80).collect(),
        })?;
        let name = name.parse().map_err(RequestError::NotAClientName)?;
        self.change_clients(|clients| clients.allow(name, key))
            .await?;
        self.clients()
    }

    async fn deny(&self, name: &str) -> Result<Value, RequestError> {
        let name = name.parse().map_err(RequestError::NotAClientName)?;
        self.change_clients(|clients| clients.deny(&name)).await?;
        self.clients()
    }

    async fn key(&self, service: &str) -> Result<Value, RequestError> {
        let id = self.service(service).await?;
        let key = self.change_clients(|clients| clients.key_for(id)).await?;
        Ok(json!({ "id": id.to_string(), "key": key.to_string() }))
    }

    async fn change_clients<T>(
        &self,
        change: impl FnOnce(&Clients) -> Result<T, ClientsError>,
    ) -> Result<T, RequestError> {
        let changed = self.shared.change_clients(change).await;
        changed.map_err(RequestError::Clients)
    }

    /// The ID of a service. Whose a name is the directory says to everybody.
    async fn service(&self, text: &str) -> Result<AnonymousId, RequestError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if let Ok(id) = text.strip_suffix(".anon").unwrap_or(text).parse() {
            return Ok(id);
        }
        let label = parse_label(text).map_err(RequestError::NotALabel)?;
        let found = self.shared.handle.directory().lookup_name(label).await;
        match found {
            Ok(Some(found)) => Ok(found.name.id),
            Ok(None) => {
                let error = QueryError::Refused("nobody has this name".into());
                Err(RequestError::NotFound { label, error })
            }
            Err(error) => Err(RequestError::NotFound { label, error }),
        }
    }

    fn reload(&self) -> Result<Value, RequestError> {
        let shared = &self.shared;
        let mut done = shared.reloader.reload().map_err(RequestError::Reload)?;
        // A name that a command withdrew comes back, though the file is as it was.
        let publish = "publish".to_owned();
        if !done.changed.contains(&publish) && !shared.names.has_all(&shared.config().publish) {
            done.changed.push(publish);
        }
        serde_json::to_value(done).map_err(RequestError::Answer)
    }

    fn end(&self, ending: Ending) {
        // The first request counts; a second one changes nothing while the first is carried out.
        let _ = self.shared.ending.try_send(ending);
    }
}
