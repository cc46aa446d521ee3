//! Where a directory's etcd is.

use std::net::IpAddr;

use mixline_http_client::Server;
use serde::Deserialize;

/// At most this many members are named.
const MEMBERS: usize = 9;
/// The longest prefix, bytes.
const LONGEST_PREFIX: usize = 64;

/// Where a directory's etcd is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdConfig {
    /// Its members' client URLs, such as `http://10.1.0.1:2379`, the nearest first.
    pub endpoints: Vec<String>,
    /// What all keys of this directory begin with. Front ends of one directory have the same.
    #[serde(default = "prefix")]
    pub prefix: String,
}

fn prefix() -> String {
    "mixline/".into()
}

impl EtcdConfig {
    /// Checks it; what is wrong comes with its key.
    ///
    /// # Errors
    /// One line.
    pub fn check(&self) -> std::result::Result<(), String> {
        if self.endpoints.is_empty() || self.endpoints.len() > MEMBERS {
            return Err(format!(
                "endpoints names {} members; it must be 1 to {MEMBERS}",
                self.endpoints.len()
            ));
        }
        for url in &self.endpoints {
            check_endpoint(url).map_err(|reason| format!("endpoints: `{url}`: {reason}"))?;
        }
        let is_plain = |c: char| c.is_ascii_graphic();
        if self.prefix.is_empty()
            || self.prefix.len() > LONGEST_PREFIX
            || !self.prefix.chars().all(is_plain)
        {
            return Err(format!(
                "prefix `{}` must have 1 to {LONGEST_PREFIX} visible characters",
                self.prefix
            ));
        }
        Ok(())
    }
}

/// Whoever is on the way to etcd reads and writes as the directory does: there is no TLS here.
fn check_endpoint(url: &str) -> std::result::Result<(), String> {
    let looks = "it looks like http://10.1.0.1:2379";
    let server = Server::new(url).map_err(|error| format!("{error}; {looks}"))?;
    match server.host().parse::<IpAddr>() {
        Ok(ip) if !is_near(ip) => Err(
            "etcd is spoken to without encryption, on loopback or in a private network (a VPN's is \
             one); this address is neither"
                .into(),
        ),
        _ => Ok(()),
    }
}

/// Whether an address is within one machine or one private network.
fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && b & 0xc0 == 64;
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoint: &str) -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![endpoint.into()],
            prefix: prefix(),
        }
    }

    #[test]
    fn endpoints_are_near() {
        for near in [
            "http://127.0.0.1:2379",
            "http://[::1]:2379",
            "http://10.1.0.1:2379",
            "http://100.64.3.4:2379",
            "http://[fd00::1]:2379",
            "http://etcd-1:2379",
        ] {
            config(near).check().unwrap();
        }
        for (far, word) in [
            ("http://203.0.114.1:2379", "without encryption"),
            ("http://[2a00::1]:2379", "without encryption"),
            ("https://10.1.0.1:2379", "https"),
            ("10.1.0.1:2379", "http"),
        ] {
            let text = config(far).check().unwrap_err();
            assert!(text.contains(word) && text.contains(far), "{text}");
            assert_eq!(text.lines().count(), 1);
        }
    }

    #[test]
    fn members_and_prefix_are_bounded() {
        let mut none = config("http://127.0.0.1:2379");
        none.endpoints.clear();
        assert!(none.check().unwrap_err().contains("endpoints"));
        let mut many = config("http://127.0.0.1:2379");
        many.endpoints = vec![many.endpoints[0].clone(); MEMBERS + 1];
        assert!(many.check().unwrap_err().contains("endpoints"));
        for odd in ["", "a b/", &"x".repeat(65)] {
            let mut config = config("http://127.0.0.1:2379");
            odd.clone_into(&mut config.prefix);
            assert!(config.check().unwrap_err().contains("prefix"));
        }
    }
}
