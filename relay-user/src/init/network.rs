//! The one line that names a network: `mixline:NETWORK-ID@URL`.

use std::str::FromStr;

use mixline_protocol::identity::AnonymousId;

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

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(line: &str) -> Result<Self, NoNetwork> {
        let wrong = |reason| NoNetwork {
            line: line.to_owned(),
            reason,
        };
        let rest = line
            .strip_prefix("mixline:")
            .ok_or_else(|| wrong("it does not begin with `mixline:`"))?;
        let (id, url) = rest
            .split_once('@')
            .ok_or_else(|| wrong("there is no `@` between ID and URL"))?;
        let id = id
            .parse()
            .map_err(|_| wrong("the ID is not one that `mixline-directory id` prints"))?;
        // What stands in the configuration must not be more than a URL.
        let is_url = url
            .strip_prefix("http://")
            .is_some_and(|host| !host.is_empty())
            && url
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"\"'\\\\{}".contains(&b));
        if !is_url {
            return Err(wrong("the URL is not one of http"));
        }
        Ok(Self {
            id,
            url: url.to_owned(),
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
            format!("mixline:{id}@http://host\"}}, port: xdp"),
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
