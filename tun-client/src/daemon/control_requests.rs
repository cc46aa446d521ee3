//! What commands ask of a running client, through the control socket.

use std::sync::Arc;

use serde_json::{Value, json};

use super::shared::{Ending, Shared};
use super::{resolve, status_report};
use crate::config::{Accept, parse_label};
use crate::control::Request;
use crate::control::server::Handler;

/// Answers the control socket.
pub struct ControlRequests(pub Arc<Shared>);

impl Handler for ControlRequests {
    async fn handle(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::Status => serde_json::to_value(status_report::collect(&self.0).await)
                .map_err(|e| e.to_string()),
            Request::Down => {
                self.end(Ending::Stop);
                Ok(json!({ "pid": std::process::id() }))
            }
            Request::Publish { name } => self.publish(&name).await,
            Request::Unpublish { name } => self.unpublish(&name),
            Request::Resolve { what } => resolve::resolve(self.0.backend.as_ref(), &what).await,
        }
    }
}

impl ControlRequests {
    async fn publish(&self, name: &str) -> Result<Value, String> {
        let label = parse_label(name)?;
        let shared = &self.0;
        if shared.config.accept == Accept::Never {
            return Err(
                "the configuration says `accept: never`: nobody could reach the name".to_owned(),
            );
        }
        shared
            .names
            .publish(label, &shared.handle.directory())
            .await?;
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

    fn unpublish(&self, name: &str) -> Result<Value, String> {
        let label = parse_label(name)?;
        let shared = &self.0;
        let configured = shared.names.unpublish(label)?;
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
