//! Which network: in a configuration, and in the one line that is handed to people,
//! `mixline:NETWORK-ID@URL`, or `mixline:NETWORK-ID@URL,URL,URL`.
//!
//! Both say where directories answer and who signs what they say, so whoever joins by a line trusts the
//! channel that it came by, and nothing else.

use std::fmt;
use std::str::FromStr;

use mixline_protocol::identity::{AnonymousId, NetworkId};
use serde::{Deserialize, Deserializer};

/// What a line begins with.
const SCHEME: &str = "mixline:";
/// The longest URL that is taken from a line, bytes.
const MAX_URL: usize = 512;
/// The most URLs that are taken from a line.
const MAX_URLS: usize = 32;
/// Between URLs, with the beginning of the next: a URL may have a comma.
const NEXT_URL: &str = ",http://";

/// A network, and where its directories are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What `mixline-directory id` prints: of several directories, the hash of their first roster; of one
    /// that is alone, its ID.
    pub id: NetworkId,
    /// `http://HOST:PORT` of each directory that is known, one or more.
    pub urls: Vec<String>,
}

/// A directory that is alone, as the key `directory` of a configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneDirectory {
    /// `http://host:port`.
    pub url: String,
    /// Its ID: 52 characters.
    #[serde(deserialize_with = "directory_id")]
    pub id: AnonymousId,
}

/// What the keys of a configuration do not say: which network it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is said twice.
    #[error(
        "`directory` and `network` are both given, and only one of them counts: either `directory: {{url, id}}`, \
         or `network: ID` with `directories: [URL, ...]`"
    )]
    Both,
    /// It is not said.
    #[error(
        "which network? Neither `network: ID` with `directories: [URL, ...]` is given, nor `directory: {{url, id}}`"
    )]
    Neither,
    /// Where is not said.
    #[error("`network` is given without `directories: [URL, ...]`, where it is asked")]
    NoDirectories,
    /// Which is not said.
    #[error("`directories` are given without `network: ID`, which says who signs what they say")]
    NoId,
}

/// Not a network's line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{line}` names no network: {reason}; it looks like mixline:ID@http://HOST:PORT")]
pub struct NoNetwork {
    line: String,
    reason: &'static str,
}

impl Network {
    /// The network whose directory answers at a URL, given as to [`Network::from_str`].
    ///
    /// # Errors
    /// [`NoNetwork`] if that is no URL of HTTP.
    pub fn new(id: impl Into<NetworkId>, url: &str) -> Result<Self, NoNetwork> {
        format!("{SCHEME}{}@{url}", id.into()).parse()
    }

    /// The network that a configuration names by its keys `network` and `directories`, or by `directory`.
    /// The URLs are as they stand there.
    ///
    /// # Errors
    /// [`KeysError`] if it names none, or two.
    pub fn of_keys(
        directory: Option<&OneDirectory>,
        network: Option<NetworkId>,
        directories: &[String],
    ) -> Result<Self, KeysError> {
        match (directory, network, directories) {
            (Some(OneDirectory { url, id }), None, []) => Ok(Self {
                id: (*id).into(),
                urls: vec![url.clone()],
            }),
            (Some(_), ..) => Err(KeysError::Both),
            (None, Some(_), []) => Err(KeysError::NoDirectories),
            (None, Some(id), urls) => Ok(Self {
                id,
                urls: urls.to_vec(),
            }),
            (None, None, []) => Err(KeysError::Neither),
            (None, None, _) => Err(KeysError::NoId),
        }
    }

    /// The lines of a configuration that name it. URLs of a line have no character that means something
    /// inside quotes.
    #[must_use]
    pub fn keys(&self) -> String {
        let urls: Vec<_> = self.urls.iter().map(|url| format!("\"{url}\"")).collect();
        format!("network: {}\ndirectories: [{}]\n", self.id, urls.join(", "))
    }
}

/// Reads the key `network` of a configuration; goes with `#[serde(default)]`.
///
/// # Errors
/// If it is not 52 characters of base32.
pub fn network_id<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NetworkId>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let id = text.parse();
    id.map(Some)
        .map_err(|_| not_an_id("network", &text, "a network's ID"))
}

fn directory_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AnonymousId, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| not_an_id("directory.id", &text, "a directory's ID"))
}

fn not_an_id<E: serde::de::Error>(key: &str, text: &str, what: &str) -> E {
    E::custom(format!(
        "{key}: `{text}` is not {what} (52 characters, as `mixline-directory id` prints it)"
    ))
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@{}", self.id, self.urls.join(","))
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
        let (id, urls) = rest
            .split_once('@')
            .ok_or_else(|| wrong("there is no `@` between ID and URL"))?;
        let id = id
            .to_ascii_lowercase()
            .parse()
            .map_err(|_| wrong("the ID is not one that `mixline-directory id` prints"))?;
        let urls = split(urls)
            .take(MAX_URLS + 1)
            .map(|url| read_url(&url).map_err(wrong))
            .collect::<Result<Vec<_>, _>>()?;
        if urls.len() > MAX_URLS {
            return Err(wrong("it has more than 32 URLs"));
        }
        Ok(Self { id, urls })
    }
}

/// The URLs of a list.
fn split(urls: &str) -> impl Iterator<Item = String> {
    let mut first = true;
    urls.split(NEXT_URL).map(move |rest| {
        let begin = if std::mem::take(&mut first) {
            ""
        } else {
            &NEXT_URL[1..]
        };
        format!("{begin}{rest}")
    })
}

/// What stands in the configuration must not be more than a URL.
fn read_url(url: &str) -> Result<String, &'static str> {
    if url.len() > MAX_URL {
        return Err("the URL is longer than 512 bytes");
    }
    let is_url = url
        .strip_prefix("http://")
        .is_some_and(|host| !host.is_empty() && !host.starts_with(['/', ':', '?', '#', ',']))
        && url
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"\"'\\{}<>|^`@".contains(&b));
    if is_url {
        Ok(url.trim_end_matches('/').to_owned())
    } else {
        Err("the URL is not one of http")
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
            (network.id, network.urls),
            (id.into(), vec!["http://[2001:db8::1]:8080".to_owned()])
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
            format!("mixline:{id}@http://host,http://"),
            format!("mixline:{id}@,http://host"),
            format!("mixline:{id}@http://host,http://host}}"),
            format!("mixline:{id}@http://host{}", ",http://h".repeat(MAX_URLS)),
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
        assert_eq!(network.urls, ["http://host:8080"]);
        let line = network.to_string();
        assert_eq!(line.parse::<Network>().unwrap(), network);
        assert_eq!(
            format!("\t{}\r\n", line.replace("mixline", "MIXLINE")).parse(),
            Ok(network)
        );
    }

    #[test]
    fn a_line_has_as_many_urls_as_there_are_directories() {
        let id = NetworkId([9; 32]);
        let line = format!("mixline:{id}@http://a:1,http://[2001:db8::1]/x/,http://c");
        let network: Network = line.parse().unwrap();
        assert_eq!(
            network.urls,
            ["http://a:1", "http://[2001:db8::1]/x", "http://c"]
        );
        assert_eq!(network.to_string().parse(), Ok(network));
        let most = format!("mixline:{id}@http://host{}", ",http://h".repeat(31));
        assert_eq!(most.parse::<Network>().unwrap().urls.len(), MAX_URLS);
        // As a line could be before there were several.
        let comma: Network = format!("mixline:{id}@http://a/b,c").parse().unwrap();
        assert_eq!(comma.urls, ["http://a/b,c"]);
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Configuration {
        #[serde(default)]
        directory: Option<OneDirectory>,
        #[serde(default, deserialize_with = "network_id")]
        network: Option<NetworkId>,
        #[serde(default)]
        directories: Vec<String>,
    }

    fn configured(text: &str) -> Result<Network, String> {
        let read: Configuration = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        Network::of_keys(read.directory.as_ref(), read.network, &read.directories)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn keys_of_a_configuration() {
        let id = NetworkId([9; 32]);
        let of = |urls: &[&str]| {
            Ok(Network {
                id,
                urls: urls.iter().map(ToString::to_string).collect(),
            })
        };
        let one = format!("directory: {{url: http://a, id: {id}}}\n");
        let several = format!("network: {id}\ndirectories: [http://a, http://b]\n");
        assert_eq!(configured(&one), of(&["http://a"]));
        assert_eq!(configured(&several), of(&["http://a", "http://b"]));
        let written = of(&["http://a", "http://b"]).unwrap();
        assert_eq!(configured(&written.keys()), Ok(written));
        for (text, words) in [
            (one.clone() + &several, "both given"),
            (one + "directories: [http://a]\n", "both given"),
            (format!("network: {id}\n"), "without `directories"),
            ("directories: [http://a]\n".into(), "without `network"),
            ("{}".into(), "which network?"),
            ("network: abc\n".into(), "network: `abc` is not"),
            (
                "directory: {url: http://a, id: abc}".into(),
                "`abc` is not a directory's ID",
            ),
        ] {
            let error = configured(&text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
