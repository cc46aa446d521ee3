//! What a `resolv.conf` says (resolv.conf(5)), whoever wrote it.

use std::net::{IpAddr, Ipv4Addr};

use super::Earlier;
use super::upstream::Upstream;
use crate::config::DNS_PORT;

/// Who is asked if no server is named (resolv.conf(5)).
pub const LOCALHOST: Upstream = Upstream {
    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    port: DNS_PORT,
    scope: None,
};

/// Reads what resolv.conf(5) says about servers and search domains.
pub fn settings(bytes: &[u8]) -> Earlier {
    let text = String::from_utf8_lossy(bytes);
    let mut search = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        // The last one counts.
        if let Some("search" | "domain") = words.next() {
            search = words.map(str::to_owned).collect();
        }
    }
    let mut servers = servers(bytes);
    if servers.is_empty() {
        servers.push(LOCALHOST);
    }
    Earlier { servers, search }
}

/// The servers that are named.
pub fn servers(bytes: &[u8]) -> Vec<Upstream> {
    let text = String::from_utf8_lossy(bytes);
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten()
            .and_then(Upstream::parse)
    });
    named.collect()
}
