//! What commands ask of a running client, through the control socket.

use std::sync::Arc;

use serde_json::{Value, json};

use super::names::NameError;
use super::resolve::{ResolveError, resolve};
use super::shared::{Ending, Shared};
use super::status_report;
use crate::config::{Accept, NotALabel, parse_label};
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
    /// The status cannot be written as JSON.
    #[error("the status is no JSON: {0}")]
    Status(serde_json::Error),
}

/// Answers the requests of the control socket.
pub struct ControlRequests(pub Arc<Shared>);

impl Handler for ControlRequests {
    type Error = RequestError;

    async fn handle(&self, request: Request) -> Result<Value, RequestError> {
        match request {
            Request::Status => serde_json::to_value(status_report::collect(&self.0).await)
                .map_err(RequestError::Status),
            Request::Down => {
                self.end(Ending::Stop);
                Ok(json!({ "pid": std::process::id() }))
            }
            Request::Publish { name } => self.publish(&name).await,
            Request::Unpublish { name } => self.unpublish(&name),
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
        if shared.config.accept == Accept::Never {
            return Err(RequestError::AcceptsNobody);
        }
        shared
            .names
            .publish(label, &shared.handle.directory())
            .await
            .map_err(RequestError::Name)?;
        // An endpoint decides at its start whether it can be found.
        let restarting = !shared.accepting;
        if restarting {
            self.end(Ending::Restart);
        }
        Ok(json!({
            "name": label.host(),
            "id": shared.handle.id().to_string(),
            "restarting": restarting,
        }))
    }

    fn unpublish(&self, name: &str) -> Result<Value, RequestError> {
        let label = parse_label(name).map_err(RequestError::NotALabel)?;
        let shared = &self.0;
        let configured = shared.names.unpublish(label).map_err(RequestError::Name)?;
        let last = shared.names.is_empty() && shared.config.accept == Accept::Published;
        // A configured name would come back with a restart.
        let restarting = shared.accepting && last && !configured;
        if restarting {
            self.end(Ending::Restart);
        }
        Ok(json!({
            "name": label.host(),
            "configured": configured,
            "restarting": restarting,
        }))
    }

    fn end(&self, ending: Ending) {
        // The first request counts; a second one changes nothing while the first is carried out.
        let _ = self.0.ending.try_send(ending);
    }
}
