//! Questions of DNS about names of ours: none leaves the host, whoever asks and whomever.
//!
//! The filter looks into packets to the port of DNS for the end of a name: `anon` as the last label, or
//! with one of the host's search domains behind. What a program asks of a server of its own,
//! what a container asks, and what is asked while the client is dead ends there. What is enciphered,
//! as DNS over HTTPS, cannot be looked into.

use std::collections::BTreeSet;

use mixline_protocol::identity::DOMAIN;

use super::filter::Sentence;
use super::nftables::{self, Direction, drop, not_interface, searched, to_port};
use super::outside::Transport;
use crate::config::DNS_PORT;

/// How many search domains are looked for, as many as glibc reads (resolv.conf(5)).
const MAX_SEARCH: usize = 6;
/// The longest text that the kernel looks for (Linux, `linux/netfilter/xt_string.h`), bytes.
pub const MAX_TEXT: usize = 128;
/// The longest label of a name (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// The host's search domains.
    search: BTreeSet<String>,
}

impl Questions {
    /// Names under `.anon`, also with one of these domains behind.
    #[must_use]
    pub fn with(search: &BTreeSet<String>) -> Self {
        Self {
            search: search.iter().take(MAX_SEARCH).cloned().collect(),
        }
    }

    /// The sentences that say so, behind those that let the client's own interface and loopback pass.
    /// Behind the `inner` interfaces is nobody but the host: a name server there asks by a wire
    /// in turn.
    pub fn sentences(&self, inner: &BTreeSet<String>) -> Vec<Sentence> {
        let ends = std::iter::once("").chain(self.search.iter().map(String::as_str));
        let texts: BTreeSet<Vec<u8>> = ends.filter_map(text).collect();
        let mut sentences = Vec::new();
        for text in &texts {
            for transport in [Transport::Udp, Transport::Tcp] {
                let inner = inner.iter();
                let mut parts: Vec<_> = inner
                    .map(|name| not_interface(Direction::Out, name))
                    .collect();
                parts.push(to_port(transport, DNS_PORT));
                parts.push(searched(text));
                parts.push(drop());
                sentences.push(nftables::sentence(parts));
            }
        }
        sentences
    }
}

/// How a name under `.anon`, with a domain behind, ends in a question (RFC 1035, section 3.1); the first
/// [`MAX_TEXT`] bytes of that. None for what is no domain.
fn text(domain: &str) -> Option<Vec<u8>> {
    let domain = domain.trim_matches('.');
    let behind = domain.split('.').filter(|_| !domain.is_empty());
    let mut text = Vec::new();
    for label in std::iter::once(DOMAIN).chain(behind) {
        if label.is_empty() || label.len() > MAX_LABEL {
            return None;
        }
        text.push(label.len() as u8);
        text.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    text.push(0);
    text.truncate(MAX_TEXT);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_names_end_in_questions() {
        assert_eq!(text("").unwrap(), b"\x04anon\0");
        assert_eq!(
            text("Corp.Example.").unwrap(),
            b"\x04anon\x04corp\x07example\0"
        );
        assert_eq!(text("."), text(""));
        assert_eq!(text("a..b"), None);
        assert_eq!(text(&"x".repeat(64)), None);
        let long = vec!["x".repeat(63); 3].join(".");
        assert_eq!(text(&long).unwrap().len(), MAX_TEXT);
    }
}
