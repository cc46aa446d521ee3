//! How the values of a configuration are written.

use std::net::{IpAddr, SocketAddr};

use mixline_protocol::name::{AnonName, Label};
use serde::{Deserialize, Deserializer};

use super::DNS_PORT;

/// A text that is no name to publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no name: 1 to 40 letters, digits and hyphens, such as freespeech.anon")]
pub struct NotALabel {
    /// The text.
    pub text: String,
}

/// A text that is no address of a name server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no IP address, with or without a port")]
struct NotAnUpstream {
    text: String,
}

/// A name with or without its `.anon`.
///
/// # Errors
/// [`NotALabel`], which says what a name may be.
pub fn parse_label(text: &str) -> Result<Label, NotALabel> {
    let parsed = match text.parse::<AnonName>() {
        Ok(AnonName::Label(label)) => Some(label),
        Ok(AnonName::Id(_)) => None,
        Err(_) => text.parse().ok(),
    };
    parsed.ok_or_else(|| NotALabel {
        text: text.to_owned(),
    })
}

/// An IP address, or one with a port; port 53 if there is none.
fn parse_upstream(text: &str) -> Result<SocketAddr, NotAnUpstream> {
    text.parse::<SocketAddr>()
        .or_else(|_| {
            text.parse::<IpAddr>()
                .map(|ip| SocketAddr::new(ip, DNS_PORT))
        })
        .map_err(|_| NotAnUpstream {
            text: text.to_owned(),
        })
}

/// One element of a list, so that an error points at it.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct NameText(Label);

impl TryFrom<String> for NameText {
    type Error = NotALabel;

    fn try_from(text: String) -> Result<Self, NotALabel> {
        parse_label(&text).map(Self)
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct UpstreamText(SocketAddr);

impl TryFrom<String> for UpstreamText {
    type Error = NotAnUpstream;

    fn try_from(text: String) -> Result<Self, NotAnUpstream> {
        parse_upstream(&text).map(Self)
    }
}

pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Label>, D::Error> {
    let names = Vec::<NameText>::deserialize(deserializer)?;
    Ok(names.into_iter().map(|NameText(name)| name).collect())
}

pub(super) fn upstreams<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    let upstreams = Vec::<UpstreamText>::deserialize(deserializer)?;
    Ok(upstreams
        .into_iter()
        .map(|UpstreamText(address)| address)
        .collect())
}
