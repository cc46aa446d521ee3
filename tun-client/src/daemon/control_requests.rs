//! What the control socket asks of a running client.

use std::net::IpAddr;
use std::sync::Arc;

use mixline_protocol::name::AnonName;
use serde_json::{Value, json};

use super::lifecycle::Shared;
use super::{End, status};
use crate::config::{Accept, parse_label};
use crate::control::Request;
use crate::control::server::Handler;
use crate::dns::{Backend, Entry, LookupError};

/// Answers the control socket.
pub struct Orders(pub Arc<Shared>);

impl Handler for Orders {
    async fn handle(&self, request: Request) -> Result<Value, String> {
        match request {
            Request::Status => {
                serde_json::to_value(status::collect(&self.0).await).map_err(|e| e.to_string())
            }
            Request::Down => {
                self.order(End::Stop);
                Ok(json!({ "pid": std::process::id() }))
            }
            Request::Publish { name } => self.publish(&name).await,
            Request::Unpublish { name } => self.unpublish(&name),
            Request::Resolve { what } => resolve(self.0.backend.as_ref(), &what).await,
        }
    }
}

impl Orders {
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
            self.order(End::Restart);
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
            self.order(End::Restart);
        }
        Ok(json!({
            "name": label.host(),
            "configured": configured,
            "restarting": restarting,
        }))
    }

    fn order(&self, end: End) {
        // The first order counts; a second one while it is carried out changes nothing.
        let _ = self.0.orders.try_send(end);
    }
}

/// Looks up a name, an ID or a virtual address.
///
/// # Errors
/// One line.
pub async fn resolve<B: Backend>(backend: &B, what: &str) -> Result<Value, String> {
    let failed = |error: LookupError| format!("{what}: {error}");
    let (entry, name): (Entry, _) = if let Ok(address) = what.parse::<IpAddr>() {
        let entry = backend.by_address(address).await.map_err(failed)?;
        let name = backend.name_of(&entry.id).await.map_err(failed)?;
        (entry, name)
    } else {
        let name = what
            .parse::<AnonName>()
            .ok()
            .or_else(|| what.parse().ok().map(AnonName::Id))
            .or_else(|| what.parse().ok().map(AnonName::Label))
            .ok_or_else(|| {
                format!("{what:?} is no name (label.anon), no ID and no virtual address")
            })?;
        match name {
            AnonName::Label(label) => {
                (backend.by_label(&label).await.map_err(failed)?, Some(label))
            }
            AnonName::Id(id) => {
                let entry = backend.by_id(&id).await.map_err(failed)?;
                (entry, backend.name_of(&id).await.map_err(failed)?)
            }
        }
    };
    Ok(json!({
        "name": name.map(|label| label.host()),
        "id": entry.id.to_string(),
        "ipv4": entry.ipv4,
        "ipv6": entry.ipv6,
    }))
}
