//! What commands ask of a running client, through the control socket.

use std::sync::Arc;

use mixline_endpoint::QueryError;
use mixline_protocol::name::Label;
use serde_json::{Value, json};

use super::names::NameError;
use super::resolve::{ResolveError, resolve};
use super::shared::{Ending, Shared};
use super::status_report;
use crate::config::{Accept, NotALabel, ReloadError, parse_label};
use crate::control::Request;
use crate::control::server::Handler;

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

/// Answers the requests of the control socket.
pub struct ControlRequests(pub Arc<Shared>);

impl Handler for ControlRequests {
    type Error = RequestError;

    async fn handle(&self, request: Request) -> Result<Value, RequestError> {
        match request {
            Request::Status => serde_json::to_value(status_report::collect(&self.0).await)
                .map_err(RequestError::Answer),
            Request::Down => {
                self.end(Ending::Stop);
                Ok(json!({ "pid": std::process::id() }))
            }
            Request::Publish { name } => self.publish(&name).await,
            Request::Unpublish { name } => self.unpublish(&name).await,
            Request::Reload => self.reload(),
            Request::Resolve { what } => {
                let reach = self.0.host_state.reach().borrow().clone();
                resolve(self.0.backend.as_ref(), &reach, &what)
                    .await
                    .map_err(RequestError::Resolve)
            }
        }
    }
}

impl ControlRequests {
    async fn publish(&self, name: &str) -> Result<Value, RequestError> {
        let label = parse_label(name).map_err(RequestError::NotALabel)?;
        let shared = &self.0;
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
        let shared = &self.0;
        let withdrawn = shared.names.unpublish(label);
        shared.settle_endpoint().await;
        let configured = withdrawn.map_err(RequestError::Name)?;
        Ok(json!({
            "name": label.host(),
            "configured": configured,
        }))
    }

    fn reload(&self) -> Result<Value, RequestError> {
        let shared = &self.0;
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
        let _ = self.0.ending.try_send(ending);
    }
}
