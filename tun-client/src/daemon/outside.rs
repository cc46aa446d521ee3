//! Whom this client reaches by the host's other interfaces: relays, the directory, name servers.
//!
//! Some may have addresses inside the virtual networks, and are let through the closed host.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::startup::Snapshots;
use crate::config::DNS_PORT;
use crate::host::outside::Outside;

/// Where systemd-resolved writes down the servers that the network has given (systemd-resolved(8)).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// How often the host's name servers are looked at.
const SERVERS_EVERY: Duration = Duration::from_secs(5);
/// How long the directory's name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(5);

/// All of them, as far as they are known.
pub async fn of(shared: &Shared, snapshots: &Snapshots) -> BTreeSet<Outside> {
    let directory = addresses_of(&shared.config().directory.url).await;
    with(shared, snapshots, &directory)
}

/// All of them but the directory, which may have to be looked up.
pub fn known(shared: &Shared, snapshots: &Snapshots) -> BTreeSet<Outside> {
    with(shared, snapshots, &[])
}

/// All of them, given where the directory is.
fn with(shared: &Shared, snapshots: &Snapshots, directory: &[SocketAddr]) -> BTreeSet<Outside> {
    let config = shared.config();
    let mut outside: BTreeSet<Outside> = directory.iter().copied().map(Outside::tcp).collect();
    let servers = shared.facts().dns.upstream;
    let told = servers
        .iter()
        .filter_map(|text| text.parse::<IpAddr>().ok());
    let files = [shared.host.resolv_conf.as_path(), Path::new(RESOLVED)];
    let read = files.into_iter().flat_map(servers_in);
    let servers = told
        .chain(read)
        .map(|server| SocketAddr::new(server, DNS_PORT));
    for server in servers.chain(config.dns.upstream.iter().copied()) {
        outside.extend([Outside::udp(server), Outside::tcp(server)]);
    }
    if let Some(snapshot) = snapshots.borrow().as_ref() {
        let relays = snapshot.relays.iter();
        outside.extend(relays.flat_map(|relay| relay.addresses.iter().copied().map(Outside::udp)));
    }
    outside
}

/// The name servers that a file of the resolver's names (resolv.conf(5)); none if it is not there.
fn servers_in(file: &Path) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .collect()
}

/// Follows the directory's snapshots, the configuration, and the host's name servers, for ever.
pub async fn keep(shared: Arc<Shared>, mut snapshots: Snapshots) {
    let mut configs = shared.reloader.follow();
    let mut directory = addresses_of(&shared.config().directory.url).await;
    loop {
        let looked_up = async {
            let changed = tokio::select! {
                changed = snapshots.changed() => changed,
                changed = configs.changed() => changed,
            };
            changed.is_ok()
        };
        match tokio::time::timeout(SERVERS_EVERY, looked_up).await {
            Ok(false) => return,
            Ok(true) => {
                // Where it was is kept while its name cannot be looked up.
                let found = addresses_of(&shared.config().directory.url).await;
                if !found.is_empty() {
                    directory = found;
                }
            }
            // It may have been looked up before there was a network to ask.
            Err(_) if directory.is_empty() => {
                directory = addresses_of(&shared.config().directory.url).await;
            }
            Err(_) => {}
        }
        let outside = with(&shared, &snapshots, &directory);
        let same = |wanted: &crate::host::desired::Wanted| wanted.outside == outside;
        if shared.host_state.wanted().as_ref().is_some_and(same) {
            continue;
        }
        shared.host_state.want(|wanted| wanted.outside = outside);
    }
}

/// Where a URL leads to; nowhere if its name cannot be looked up, which who asks there will say.
async fn addresses_of(url: &str) -> Vec<SocketAddr> {
    let Some(authority) = url.strip_prefix("http://") else {
        return Vec::new();
    };
    let authority = authority.split('/').next().unwrap_or_default();
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let target = if has_port {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host(target));
    match found.await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_a_url_leads() {
        for (url, expected) in [
            ("http://10.1.2.3:8080", "10.1.2.3:8080"),
            ("http://10.1.2.3/directory", "10.1.2.3:80"),
            ("http://[fd00::1]:8080/", "[fd00::1]:8080"),
            ("http://[fd00::1]", "[fd00::1]:80"),
        ] {
            let expected: SocketAddr = expected.parse().unwrap();
            assert_eq!(addresses_of(url).await, [expected], "{url}");
        }
        assert!(addresses_of("nothing").await.is_empty());
    }
}
