//! What the command `resolve` asks for: who has a name, an ID or a virtual address.

use std::net::IpAddr;

use mixline_protocol::name::AnonName;
use serde_json::{Value, json};

use crate::dns::{Backend, Entry, LookupError};

/// Why something was not found.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It can be nobody's.
    #[error("{what:?} is no name (label.anon), no ID and no virtual address")]
    NotASubject {
        /// What was asked for.
        what: String,
    },
    /// The directory does not know it, or cannot be asked.
    #[error("{what}: {error}")]
    Lookup {
        /// What was asked for.
        what: String,
        /// What came of the lookup.
        error: LookupError,
    },
}

/// Looks up a name, an ID or a virtual address.
///
/// # Errors
/// [`ResolveError`].
pub async fn resolve<B: Backend>(backend: &B, what: &str) -> Result<Value, ResolveError> {
    let failed = |error| ResolveError::Lookup {
        what: what.to_owned(),
        error,
    };
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
            .ok_or_else(|| ResolveError::NotASubject {
                what: what.to_owned(),
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
