//! The one line that names a network, to be handed to people: `mixline:NETWORK-ID@URL`.
//!
//! It says where the directory answers and who signs what it says, so whoever joins by it trusts the
//! channel that it came by, and nothing else.

use std::fmt;
use std::str::FromStr;

use mixline_protocol::identity::AnonymousId;

/// What a line begins with.
const SCHEME: &str = "mixline:";
/// The longest URL that is taken, bytes.
const MAX_URL: usize = 512;

/// A network: its directory, and where that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What `mixline-directory id` prints.
    pub id: AnonymousId,
    /// `http://HOST:PORT`.
    pub url: String,
}

/// Not a network's line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{line}` names no network: {reason}; it looks like mixline:ID@http://HOST:PORT")]
pub struct NoNetwork {
    line: String,
    reason: &'static str,
}

impl Network {
    /// The network of a directory that answers at a URL, given as to [`Network::from_str`].
    ///
    /// # Errors
    /// [`NoNetwork`] if that is no URL of HTTP.
    pub fn new(id: AnonymousId, url: &str) -> Result<Self, NoNetwork> {
        format!("{SCHEME}{id}@{url}").parse()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@{}", self.id, self.url)
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    /// Reads a line, whose scheme and ID may be in either case. White space around it, as it comes
    /// with a copied line, does not count.
    fn from_str(line: &str) -> Result<Self, NoNetwork> {
        let line = line.trim();
        let wrong = |reason| NoNetwork {
            line: line.chars().take(MAX_URL).collect(),
            reason,
        };
        let rest = line
            .get(..SCHEME.len())
            .filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
            .and_then(|_| line.get(SCHEME.len()..))
            .ok_or_else(|| wrong("it does not begin with `mixline:`"))?;
        let (id, url) = rest
            .split_once('@')
            .ok_or_else(|| wrong("there is no `@` between ID and URL"))?;
        let id = id
            .to_ascii_lowercase()
            .parse()
            .map_err(|_| wrong("the ID is not one that `mixline-directory id` prints"))?;
        if url.len() > MAX_URL {
            return Err(wrong("the URL is longer than 512 bytes"));
        }
        // What stands in the configuration must not be more than a URL.
        let is_url = url
            .strip_prefix("http://")
            .is_some_and(|host| !host.is_empty() && !host.starts_with(['/', ':', '?', '#']))
            && url
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"\"'\\{}<>|^`@".contains(&b));
        if !is_url {
            return Err(wrong("the URL is not one of http"));
        }
        Ok(Self {
            id,
            url: url.trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let id = AnonymousId([7; 32]);
        let network: Network = format!("mixline:{id}@http://[2001:db8::1]:8080")
            .parse()
            .unwrap();
        assert_eq!(
            (network.id, network.url.as_str()),
            (id, "http://[2001:db8::1]:8080")
        );
        for wrong in [
            format!("{id}@http://host:1"),
            format!("mixline:{id}"),
            "mixline:abc@http://host:1".into(),
            format!("mixline:{id}@https://host"),
            format!("mixline:{id}@http://"),
            format!("mixline:{id}@http://:80"),
            format!("mixline:{id}@http://user@host"),
            format!("mixline:{id}@http://host\"}}, port: xdp"),
            format!("mixline:{id}@http://host more"),
            format!("mixline:{id}@http://host\nport: xdp"),
            format!("mixline:{id}@http://{}", "h".repeat(MAX_URL)),
            "mixline".into(),
            "ä".repeat(20),
            String::new(),
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let network = Network::new(AnonymousId([9; 32]), "http://host:8080/").unwrap();
        assert_eq!(network.url, "http://host:8080");
        let line = network.to_string();
        assert_eq!(line.parse::<Network>().unwrap(), network);
        assert_eq!(
            format!("\t{}\r\n", line.replace("mixline", "MIXLINE")).parse(),
            Ok(network)
        );
    }
}
